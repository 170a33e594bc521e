//! What the tests share: the launcher under test, an image to run in it, and reasons to skip.

#![allow(dead_code, reason = "every test program uses a part of this")]

pub mod attacks;
pub mod engine;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The launcher as cargo built it.
pub const LAUNCHER: &str = env!("CARGO_BIN_EXE_container");

/// What that becomes for all but a plain run; it lies beside it.
pub const ENGINE: &str = env!("CARGO_BIN_EXE_container-engine");

/// Ends a wait that would never end. No assertion is about time: a loaded machine only takes longer.
pub const LONG: Duration = Duration::from_secs(120);

/// Says aloud that a test did not run.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        eprintln!("skipped: {}", format_args!($($reason)*));
        return;
    }};
}

/// An image with busybox in it, or return from the test.
#[macro_export]
macro_rules! image_or_skip {
    () => {
        match $crate::common::image() {
            Ok(image) => image,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}

/// Returns from the test unless it runs as root.
#[macro_export]
macro_rules! root_or_skip {
    () => {
        if !$crate::common::is_root() {
            $crate::skip!("needs root");
        }
    };
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// `container run ARGUMENTS`, to be started.
pub fn container<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(LAUNCHER);
    command.arg("run").args(arguments).stdin(Stdio::null());
    end_with_the_test(&mut command);
    command
}

/// Has the kernel kill the launcher when the test that starts it ends, in whatever way: a test that fails or is
/// interrupted must not leave containers to those that count them.
pub fn end_with_the_test(command: &mut Command) {
    // SAFETY: prctl(2) is a plain system call, and allowed between fork and exec.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
        )
    };
}

/// An argument for `sleep` that no other process of this machine has, by which a test knows its own: seconds, many.
pub fn marker(number: u32) -> String {
    format!("{number}{:07}", std::process::id())
}

/// `container run OPTIONS --rootfs IMAGE -- sh -c SCRIPT`, run to its end.
pub fn shell(image: &Path, options: &[&str], script: &str) -> Output {
    container(options)
        .arg("--rootfs")
        .arg(image)
        .args(["--", "sh", "-c", script])
        .output()
        .unwrap()
}

/// Standard output as text, when the status is 0.
pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// The launcher's own message, when it exits with `status`.
pub fn message(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory everybody may enter, below the usual place for temporary files.
pub fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Copies a program by a process of its own: written by this one, the copy could be open for writing in a child that
/// another test is just starting, and then nobody may execute it (ETXTBSY).
pub fn copy(from: &str, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Copies the launcher and the engine to where everybody may execute them; the launcher's path.
pub fn install(directory: &Path) -> PathBuf {
    copy(ENGINE, &directory.join("container-engine"));
    let launcher = directory.join("container");
    copy(LAUNCHER, &launcher);
    launcher
}

/// An image with busybox, its applets, a few directories, and this very test program as `/bin/probe`.
pub fn image() -> Result<&'static Path, String> {
    static IMAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    IMAGE.get_or_init(make_image).as_deref().map_err(Clone::clone)
}

fn make_image() -> Result<PathBuf, String> {
    if let Ok(output) = container(["workload", "hello"]).output()
        && !output.status.success()
    {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if why.contains("cannot create the container's namespaces") {
            return Err(why);
        }
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists());
    let busybox = busybox.ok_or("needs busybox (Debian: apt install busybox-static)")?;
    // One directory for all test programs of a build; what is in it never changes.
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    for directory in ["bin", "lib", "etc", "tmp", "secret"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("etc/motd"), "from the image\n").unwrap();
    fs::write(root.join("secret/key"), "only for root\n").unwrap();
    fs::write(root.join("bin/not-a-program"), "neither ELF nor script\n").unwrap();
    fs::set_permissions(root.join("bin/not-a-program"), fs::Permissions::from_mode(0o644)).unwrap();
    // The host's own: while the copy was written another test may have forked, and its child still has it open.
    let applets = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    if Command::new(root.join("bin/busybox"))
        .arg("true")
        .env_clear()
        .status()
        .is_err()
    {
        return Err("needs a busybox that runs".into());
    }
    if shell(&root, &[], "true").status.code() == Some(126) {
        return Err("needs a static busybox (Debian: apt install busybox-static)".into());
    }
    add_probe(&root);
    remove_at_exit(&root);
    Ok(root)
}

/// Copies this test program and the libraries it is mapped with, so that the tests can make system calls no shell has.
fn add_probe(root: &Path) {
    fs::copy("/proc/self/exe", root.join("bin/probe")).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for path in maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
    {
        let name = Path::new(path).file_name().unwrap();
        let copy = if name.to_str().unwrap().starts_with("ld-") {
            "loader".as_ref()
        } else {
            name
        };
        fs::copy(path, root.join("lib").join(copy)).unwrap();
    }
}

/// Runs the ignored test `name` of this test program inside a container; its output lines that start with `probe:`.
pub fn probe(image: &Path, options: &[&str], name: &str) -> Vec<String> {
    let output = container(options)
        .args(["--env", "RUST_BACKTRACE=0", "--rootfs"])
        .arg(image)
        .args(["--", "/lib/loader", "--library-path", "/lib", "/bin/probe"])
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = text(&output);
    // The test runner prints its own words on the line in front.
    text.lines()
        .filter_map(|line| Some(line.split_once("probe: ")?.1.to_owned()))
        .collect()
}

/// Removes a directory when this test program ends.
pub fn remove_at_exit(directory: &Path) {
    static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    extern "C" fn remove() {
        for directory in DIRECTORIES
            .lock()
            .into_iter()
            .flat_map(|mut all| std::mem::take(&mut *all))
        {
            let _ = fs::remove_dir_all(directory);
        }
    }
    let mut directories = DIRECTORIES.lock().unwrap();
    if directories.is_empty() {
        // SAFETY: the function is one of ours and takes nothing.
        unsafe { libc::atexit(remove) };
    }
    directories.push(directory.to_owned());
}

/// Compiles the attack on the launcher's own file (CVE-2019-5736) to `attacker`: code that runs as the launcher's dynamic
/// loader, in the one process that is still the launcher by its file.
pub fn compile_overwriter(attacker: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/attacks/overwrite.c");
    let flags = [
        "-O1",
        "-nostdlib",
        "-ffreestanding",
        "-static-pie",
        "-fPIE",
        "-fno-stack-protector",
        "-w",
        "-o",
    ];
    // gcc is there: Rust links with it.
    let compiled = Command::new("gcc").args(flags).arg(attacker).arg(source).status();
    assert!(compiled.unwrap().success());
}

/// Lets this process, and the programs it starts from now on, hear the keyboard's interrupt. A command that a script starts
/// in the background has it ignored, and its children inherit that.
pub fn hear_the_keyboard() {
    // SAFETY: takes two integers; the default action has no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// Waits until `condition` gives something.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Children of a process, in the order of their creation.
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
