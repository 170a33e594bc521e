//! The root file system: what is written stays inside, the image stays as it is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{container, shell, text};

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let find = Command::new("find")
        .arg(directory)
        .args(["-printf", "%p %m %U %s %T@ %C@\n"])
        .output()
        .unwrap();
    String::from_utf8(find.stdout)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .collect()
}

#[test]
fn the_image_is_never_changed() {
    let image = image_or_skip!();
    let before = files_below(image);
    let script = "echo changed > /etc/motd && rm /bin/not-a-program && mkdir /made && cat /etc/motd && test ! -e /bin/not-a-program";
    assert_eq!(text(&shell(image, &[], script)), "changed");
    assert_eq!(files_below(image), before);
    assert_eq!(
        text(&shell(image, &[], "cat /etc/motd; ls /made 2>&1 | wc -l")),
        "from the image\n1"
    );
}

#[test]
fn files_of_the_hosts_root_are_the_containers_roots() {
    let image = image_or_skip!();
    root_or_skip!();
    assert_eq!(
        text(&shell(image, &[], "stat -c %u:%g /secret; cat /secret/key")),
        "0:0\nonly for root"
    );
    let other = shell(image, &["--user", "1000:1000"], "cat /secret/key");
    assert_eq!(other.status.code(), Some(1));
}

#[test]
fn no_path_of_the_host_is_left_in_view() {
    let image = image_or_skip!();
    let mounts = text(&shell(image, &[], "cat /proc/self/mountinfo"));
    assert!(!mounts.contains(image.to_str().unwrap()), "{mounts}");
    let points: Vec<_> = mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1, "{mounts}");
    let here = fs::canonicalize(".").unwrap();
    let look = format!(
        "ls -d {}/. /proc/1/root/. /proc/1/cwd/.; cd /; cd ../../..; ls -d tmp home usr 2>/dev/null",
        here.display()
    );
    let output = shell(image, &[], &look);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "tmp", "{output:?}");
}

#[test]
fn an_image_below_tmp_and_with_odd_characters_works() {
    let image = image_or_skip!();
    let directory = common::open_directory();
    let odd = directory.path().join("a,b:c \\d=ü");
    fs::create_dir_all(odd.join("bin")).unwrap();
    fs::copy(image.join("bin/busybox"), odd.join("bin/busybox")).unwrap();
    let output = container(["--rootfs"])
        .arg(&odd)
        .args(["--", "busybox", "ls", "/"])
        .output()
        .unwrap();
    assert_eq!(text(&output), "bin\ndev\nproc\nsys");
}

#[test]
fn links_in_the_image_lead_nowhere_outside() {
    let image = image_or_skip!();
    let directory = common::open_directory();
    let (outside, root) = (directory.path().join("outside"), directory.path().join("root"));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::copy(image.join("bin/busybox"), root.join("bin/busybox")).unwrap();
    for name in ["dev", "proc", "sys"] {
        std::os::unix::fs::symlink(&outside, root.join(name)).unwrap();
    }
    // The links dangle inside, so there is nowhere to mount.
    let output = container(["--rootfs"])
        .arg(&root)
        .args(["--", "busybox", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn devices_are_the_usual_ones_and_work() {
    let image = image_or_skip!();
    let names = text(&shell(image, &[], "ls /dev"));
    let usual = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(names.lines().collect::<Vec<_>>().join(" "), usual);
    let use_them = "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c; echo y 2>&1 > /dev/full || echo full; echo shm > /dev/shm/f && cat /dev/shm/f; echo z > /dev/stdout; test -c /dev/pts/ptmx && echo pts";
    let output = shell(image, &[], use_them);
    let lines: Vec<_> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .filter(|line| !line.contains("write error"))
        .collect();
    assert_eq!(lines, ["4", "8", "full", "shm", "z", "pts"], "{output:?}");
}

#[test]
fn new_terminals_belong_to_the_group_tty_where_there_is_one() {
    let image = image_or_skip!();
    let mounts = text(&shell(
        image,
        &[],
        "grep -E ' (/dev/pts|/dev/mqueue) ' /proc/self/mountinfo",
    ));
    assert!(mounts.contains("mode=620,ptmxmode=666"), "{mounts}");
    assert_eq!(mounts.contains("gid="), common::is_root(), "{mounts}");
    assert!(mounts.contains(" - mqueue "), "{mounts}");
}

#[test]
fn on_a_v2_host_the_container_sees_its_own_cgroup() {
    let image = image_or_skip!();
    root_or_skip!();
    let mut command = container(["--rootfs"]);
    command.arg(image).args(["--", "sh", "-c"]);
    command.arg("stat -f -c %T /sys/fs/cgroup; test -e /sys/fs/cgroup/cgroup.procs && ! mkdir /sys/fs/cgroup/x 2>&1");
    // SAFETY: plain system calls with literals, allowed between fork and exec. They change the mounts of this one
    // process: version 2 where the host may have version 1.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            let none = std::ptr::null();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            if libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    c"/sys/fs/cgroup".as_ptr(),
                    c"cgroup2".as_ptr(),
                    0,
                    none.cast(),
                ) == 0
            {
                return Ok(());
            }
            Err(std::io::Error::last_os_error())
        })
    };
    let said = text(&command.output().unwrap());
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn without_an_image_there_is_the_workload_alone() {
    let _ = image_or_skip!();
    let output = container(["workload", "whoami"]).output().unwrap();
    let identity: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(identity["pid"], 2);
    assert_eq!(identity["visible_processes"], 2);
    assert_eq!(identity["network_interfaces"], serde_json::json!(["lo"]));
    assert_eq!(
        identity["mounts"][0],
        serde_json::json!({"point": "/", "kind": "tmpfs"})
    );
}
