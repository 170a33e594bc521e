//! The same container for somebody without rights on the host. Run as root, these tests become such a user first.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{message, text};
use tempfile::TempDir;

/// `nobody`, on every distribution.
const NOBODY: u32 = 65534;

/// A copy of the launcher where everybody may execute it: the build's directory can be closed to others.
fn launcher() -> TempDir {
    let directory = common::open_directory();
    common::install(directory.path());
    directory
}

fn container<S: AsRef<OsStr>>(launcher: &TempDir, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(launcher.path().join("container"));
    command.arg("run").args(arguments).stdin(Stdio::null()).current_dir("/");
    if common::is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    common::end_with_the_test(&mut command);
    command
}

fn own_id() -> u32 {
    if common::is_root() {
        return NOBODY;
    }
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The image, where everybody may read it.
fn open_image() -> Option<TempDir> {
    let image = common::image().map_err(|reason| eprintln!("skipped: {reason}")).ok()?;
    let directory = common::open_directory();
    fs::create_dir(directory.path().join("bin")).unwrap();
    for name in ["sh", "busybox", "cat", "id", "mknod", "touch", "ls"] {
        if name == "busybox" {
            fs::copy(image.join("bin/busybox"), directory.path().join("bin/busybox")).unwrap();
        } else {
            std::os::unix::fs::symlink("busybox", directory.path().join("bin").join(name)).unwrap();
        }
    }
    fs::write(directory.path().join("secret"), "closed").unwrap();
    fs::set_permissions(directory.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    Some(directory)
}

#[test]
fn the_workload_runs() {
    let _ = image_or_skip!();
    let launcher = launcher();
    assert_eq!(
        text(&container(&launcher, ["workload", "hello"]).output().unwrap()),
        "hello from the workload"
    );
    assert_eq!(
        container(&launcher, ["workload", "exit", "7"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(7)
    );
    assert_eq!(
        container(&launcher, ["workload", "crash"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(139)
    );
}

#[test]
fn one_id_is_mapped_and_it_is_the_users_own() {
    let Some(image) = open_image() else { return };
    let launcher = launcher();
    let sh = |options: &[&str], script: &str| {
        let mut command = container(&launcher, options);
        command
            .arg("--rootfs")
            .arg(image.path())
            .args(["--", "sh", "-c", script]);
        text(&command.output().unwrap())
    };
    let map = |inside: u32| format!("{inside} {} 1", own_id());
    let spaces = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(spaces(sh(&[], "cat /proc/self/uid_map")), map(0));
    assert_eq!(
        spaces(sh(&["--user", "1000:1000"], "cat /proc/self/uid_map")),
        map(1000)
    );
    assert_eq!(sh(&["--user", "1000:1000"], "id -u; id -g"), "1000\n1000");
    assert_eq!(sh(&[], "touch /new && ls /new"), "/new");
    assert!(!image.path().join("new").exists());
}

#[test]
fn what_the_user_may_not_read_outside_is_closed_inside() {
    root_or_skip!();
    let Some(image) = open_image() else { return };
    let launcher = launcher();
    let mut command = container(&launcher, ["--rootfs"]);
    let output = command
        .arg(image.path())
        .args(["--", "sh", "-c", "cat /secret; mknod /disk b 8 0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("Permission denied") && said.contains("Operation not permitted"),
        "{said}"
    );
}

#[test]
fn limits_that_are_not_theirs_to_set_are_refused_with_the_cure() {
    root_or_skip!();
    let _ = image_or_skip!();
    let launcher = launcher();
    for limit in [["--memory", "64M"], ["--pids", "20"], ["--cpus", "1"]] {
        let output = container(&launcher, limit.into_iter().chain(["workload", "hello"]))
            .output()
            .unwrap();
        let said = message(&output, 125);
        assert!(said.contains("delegated"), "{said}");
        assert!(
            said.contains("run as root") || said.contains("root can enable"),
            "{said}"
        );
    }
}

#[test]
fn the_user_namespace_cannot_be_left_out() {
    let _ = image_or_skip!();
    let launcher = launcher();
    let output = container(&launcher, ["--without", "user", "workload", "hello"])
        .output()
        .unwrap();
    assert!(message(&output, 125).contains("leaving out the user namespace needs root"));
}

#[test]
fn every_other_namespace_can() {
    let _ = image_or_skip!();
    let launcher = launcher();
    for namespace in ["mount", "pid", "net", "uts", "ipc", "cgroup"] {
        let output = container(&launcher, ["--without", namespace, "workload", "exit", "4"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(4), "without {namespace}: {output:?}");
    }
}

#[test]
fn the_story_of_the_set_up_is_readable_for_an_ordinary_user() {
    let _ = image_or_skip!();
    let launcher = launcher();
    let output = container(&launcher, ["--explain", "workload", "hello"])
        .output()
        .unwrap();
    assert_eq!(text(&output), "hello from the workload");
    let story = String::from_utf8(output.stderr).unwrap();
    // The first process hides its memory from other ordinary users half way; what comes after must be told all the same.
    for told in [
        &format!("\"0 {} 1\"", own_id())[..],
        "write(4 </proc/",
        "\"deny\"",
        "pivot_root(\".\", \".\")",
        "mount(\"proc\", \"/proc\", \"proc\"",
        "execve(\"/bin/workload\", [\"workload\", \"hello\"])",
    ] {
        assert!(story.contains(told), "{told}: {story}");
    }
}
