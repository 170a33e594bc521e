//! What the tests of the OCI runtime share: a bundle, and the runtime to run it with.

#![allow(dead_code, reason = "every test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The runtime as cargo built it.
pub const RUNTIME: &str = env!("CARGO_BIN_EXE_container-oci");

/// Ends a wait that would never end. No assertion is about time: a loaded machine only takes longer.
pub const LONG: Duration = Duration::from_secs(60);

/// Says aloud that a test did not run.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        eprintln!("skipped: {}", format_args!($($reason)*));
        return;
    }};
}

/// A bundle, or return from the test.
#[macro_export]
macro_rules! bundle_or_skip {
    ($program:expr) => {
        match $crate::oci_common::Bundle::new($program) {
            Ok(bundle) => bundle,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}

/// A container to be, with a root file system and a state directory of its own. What is left of it goes with it.
pub struct Bundle {
    directory: TempDir,
    /// config.json, to be changed before the container is created.
    pub config: Value,
    /// The container's name.
    pub id: String,
}

impl Bundle {
    /// A bundle with busybox in it, whose program is `sh -c PROGRAM`.
    pub fn new(program: &str) -> Result<Bundle, String> {
        // SAFETY: takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Err("needs root".into());
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        make_root(&root)?;
        let mut config = container::oci::template::config(None);
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", program]);
        // Who runs the tests may not be allowed to raise it to another value.
        config["process"]["rlimits"] = json!([]);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/oci-{id}"));
        Ok(Bundle { directory, config, id })
    }

    /// A path in the bundle.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path in the root file system.
    pub fn root(&self, name: &str) -> PathBuf {
        self.path("rootfs").join(name)
    }

    /// Adds a mount.
    pub fn mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// The runtime, with its state in this bundle.
    pub fn runtime(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RUNTIME);
        command
            .arg("--root")
            .arg(self.path("state"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Writes config.json as it is now.
    pub fn write(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    /// `VERB OPTIONS --bundle DIR ID`, to be run.
    pub fn on_bundle(&self, arguments: &[&str]) -> Command {
        self.write();
        let mut command = self.runtime(arguments);
        command.arg("--bundle").arg(self.directory.path()).arg(&self.id);
        command
    }

    /// Runs the program to its end, and returns what it wrote.
    pub fn run(&self) -> String {
        text(&self.on_bundle(&["run"]).output().unwrap())
    }

    /// The message of a `run` that fails.
    pub fn refusal(&self) -> String {
        let output = self.on_bundle(&["run"]).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Creates and starts it in the background, its output thrown away.
    pub fn start(&self) {
        let mut command = self.on_bundle(&["run", "--detach"]);
        succeed(command.stdout(Stdio::null()));
    }

    /// `VERB OPTIONS ID`, which must succeed; its output.
    pub fn command(&self, arguments: &[&str]) -> String {
        text(&self.runtime(arguments).arg(&self.id).output().unwrap())
    }

    /// `exec ID sh -c SCRIPT`, which must succeed; its output.
    pub fn exec(&self, script: &str) -> String {
        text(&self.runtime(&["exec", &self.id, "sh", "-c", script]).output().unwrap())
    }

    /// The container's state.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.command(&["state"])).unwrap()
    }

    /// Its status.
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits until it has this status.
    pub fn wait_for(&self, status: &str) {
        wait_until(|| self.status() == status);
    }

    /// The directories of its cgroups that are there.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|entry| entry.path());
        let candidates = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
        candidates
            .map(|hierarchy| hierarchy.join(format!("oci-{}", self.id)))
            .filter(|directory| directory.is_dir())
            .collect()
    }

    /// A control file of its cgroups, of whichever version is there.
    pub fn control(&self, v1: &str, v2: &str) -> String {
        let read = |name: &str| {
            let mut files = self.cgroups().into_iter().map(|directory| directory.join(name));
            files.find_map(|file| fs::read_to_string(file).ok())
        };
        read(v1).or_else(|| read(v2)).expect("one of both").trim().to_owned()
    }

    /// Whether nothing is left of it.
    pub fn is_gone(&self) -> bool {
        self.cgroups().is_empty() && !self.path("state").join(&self.id).exists()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "--force", &self.id]).output();
    }
}

/// Busybox, its applets, and a few directories.
fn make_root(root: &Path) -> Result<(), String> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists());
    let busybox = busybox.ok_or("needs busybox (Debian: apt install busybox-static)")?;
    for directory in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    // By a process of its own: written by this one, the copy could be open for writing in a child that another test is
    // just starting, and then nobody may execute it (ETXTBSY).
    succeed(Command::new("cp").arg(busybox).arg(root.join("bin/busybox")));
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
    )
    .unwrap();
    Ok(())
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// Standard output as text, when the status is 0.
pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// Waits until `condition` holds.
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
