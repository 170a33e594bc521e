//! What the tests of named containers share: directories of their own, an image, a network namespace to play in.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::{LAUNCHER, end_with_the_test};

/// A place for containers, which is empty again when the test ends.
pub struct Lab {
    directory: TempDir,
    store: PathBuf,
    network: Option<OwnedFd>,
    user: Option<u32>,
}

/// A place for containers, or return from the test.
#[macro_export]
macro_rules! lab_or_skip {
    () => {
        match $crate::common::engine::Lab::new() {
            Ok(lab) => lab,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}

impl Lab {
    /// For root, with the image `busybox`.
    pub fn new() -> Result<Lab, String> {
        if !super::is_root() {
            return Err("needs root".into());
        }
        static STORE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let store = STORE.get_or_init(|| {
            let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("engine-store-{}", std::process::id()));
            super::remove_at_exit(&store);
            Lab::bare(store.clone(), None).import().map(|()| store)
        });
        Ok(Lab::bare(store.clone()?, None))
    }

    /// For an ordinary user with this id, with a store of his own.
    pub fn of_user(uid: u32) -> Result<Lab, String> {
        if !super::is_root() {
            return Err("needs root, to become an ordinary user that nobody is".into());
        }
        let mut lab = Lab::bare(PathBuf::new(), Some(uid));
        lab.store = lab.directory.path().join("store");
        fs::set_permissions(
            lab.directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        super::install(lab.directory.path());
        lab.import().map(|()| lab)
    }

    fn bare(store: PathBuf, user: Option<u32>) -> Lab {
        Lab {
            directory: super::open_directory(),
            store,
            network: None,
            user,
        }
    }

    fn import(&self) -> Result<(), String> {
        let archive = self.directory.path().join("busybox.tar");
        write_image(&archive)?;
        fs::set_permissions(&archive, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let output = self.run(["image", "import", archive.to_str().unwrap(), "busybox"]);
        assert!(output.status.success(), "{output:?}");
        Ok(())
    }

    /// The same, in a network namespace of the test's own: its bridges and ports are nobody else's.
    pub fn with_network(mut self) -> Lab {
        let namespace = std::thread::spawn(|| {
            // SAFETY: takes numbers only, and changes this thread alone.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            container::network::loopback::raise().unwrap();
            File::open("/proc/thread-self/ns/net").unwrap().into()
        });
        self.network = Some(namespace.join().unwrap());
        self
    }

    /// Calls `act` in that namespace, on a thread of its own.
    pub fn in_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let fd = self.network.as_ref().unwrap().as_raw_fd();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: takes numbers only, and changes this thread alone.
                assert_eq!(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }, 0);
                act()
            });
            thread.join().unwrap()
        })
    }

    /// Where its containers are.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Its directory, for files of the test's.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `container ARGUMENTS`, to be started.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let own = self.directory.path().join("container");
        let mut command = match self.user {
            Some(_) => Command::new(own),
            None => Command::new(LAUNCHER),
        };
        command.args(arguments).stdin(Stdio::null()).current_dir("/");
        command
            .env("CONTAINER_STATE", self.state())
            .env("CONTAINER_STORE", &self.store);
        let network = self.network.as_ref().map(AsRawFd::as_raw_fd);
        let user = self.user;
        // SAFETY: these are plain system calls, and allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let enter = |fd| libc::setns(fd, libc::CLONE_NEWNET);
                let become_user = |uid| libc::setgroups(0, std::ptr::null()) | libc::setgid(uid) | libc::setuid(uid);
                // In this order: an ordinary user may enter no network namespace.
                match network.map_or(0, enter) | user.map_or(0, become_user) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
        // Last: a change of ids would undo it.
        end_with_the_test(&mut command);
        command
    }

    /// Runs it to its end.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, and gives what it printed; it must succeed.
    pub fn text<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        super::text(&self.run(arguments))
    }

    /// Runs it with a shell script in a container that is removed afterwards.
    pub fn shell(&self, options: &[&str], script: &str) -> Output {
        let front = ["run", "--rm"].into_iter().chain(options.iter().copied());
        self.run(front.chain(["busybox", "sh", "-c", script]))
    }

    /// Starts a container in the background with a shell script.
    pub fn start(&self, name: &str, options: &[&str], script: &str) {
        let front = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
        self.text(front.chain(["busybox", "sh", "-c", script]));
    }

    /// What `container inspect` says.
    pub fn inspect(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(&self.text(["inspect", name])).unwrap();
        all[0].clone()
    }

    /// The container's status, exit code and so on.
    pub fn state_of(&self, name: &str, key: &str) -> Value {
        self.inspect(name)["State"][key].clone()
    }

    /// Waits until the log of a container contains `text`.
    pub fn wait_for_log(&self, name: &str, text: &str) {
        super::until(&format!("{text:?} in the log of {name}"), || {
            let output = self.run(["logs", name]);
            String::from_utf8_lossy(&output.stdout).contains(text).then_some(())
        });
    }

    /// Fails if anything of a container is left: directories, names, leases, cgroups, processes, mounts.
    pub fn assert_empty(&self) {
        let names = |directory: &str| -> Vec<PathBuf> {
            let entries = fs::read_dir(self.state().join(directory))
                .into_iter()
                .flatten()
                .flatten();
            entries.map(|entry| entry.path()).collect()
        };
        // A command that has ended left its container to a supervisor, who may be about to leave.
        super::until("an empty state directory", || {
            (names("containers").is_empty() && names("names").is_empty()).then_some(())
        });
        let leases = fs::read_dir(self.store.join("leases")).into_iter().flatten().flatten();
        let state = self.state();
        let ours: Vec<_> = leases
            .filter(|_| self.user.is_some())
            .map(|entry| entry.path())
            .collect();
        assert!(ours.is_empty(), "{ours:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(state.to_str().unwrap()), "{mounts}");
        // One may still be on its way out of a directory that is gone.
        super::until("no supervisor", || supervisors_of(&state).is_empty().then_some(()));
    }
}

/// Processes that hold a file below `state` open.
fn supervisors_of(state: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target.starts_with(state))
    };
    pids.filter(holds).collect()
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = self.run(["ps", "-aq"]);
        for id in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            let _ = self.run(["rm", "-f", "-v", id]);
        }
    }
}

/// A root file system of busybox alone, with two accounts.
fn write_image(archive: &Path) -> Result<(), String> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let busybox = busybox.ok_or("needs busybox (Debian: apt install busybox-static)")?;
    let mut tar = tar::Builder::new(File::create(archive).unwrap());
    let mut entry = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_path(path).unwrap();
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    for (path, mode) in [
        ("bin/", 0o755),
        ("etc/", 0o755),
        ("tmp/", 0o1777),
        ("data/", 0o750),
        ("root/", 0o700),
    ] {
        entry(path, Directory, mode, b"", "");
    }
    entry("bin/busybox", Regular, 0o755, &fs::read(busybox).unwrap(), "");
    entry(
        "etc/passwd",
        Regular,
        0o644,
        b"root:x:0:0::/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n",
        "",
    );
    entry(
        "etc/group",
        Regular,
        0o644,
        b"root:x:0:\nusers:x:100:\nwheel:x:10:ann\n",
        "",
    );
    entry("etc/motd", Regular, 0o644, b"from the image\n", "");
    entry("data/given", Regular, 0o640, b"by the image\n", "");
    let applets = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        entry(&format!("bin/{applet}"), Symlink, 0o777, b"", "busybox");
    }
    tar.finish().map_err(|error| error.to_string())
}
