//! Attacks by way of files: descriptors left open, the launcher's own file, images made to lead astray, devices, the
//! files of /proc and /sys, and filling what there is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::attacks::{LEAKED, lead_to_the_launcher, leak};
use common::{container, end_with_the_test, message, shell, text};
use tempfile::TempDir;

/// A directory of the host's with something to hide.
fn secret() -> TempDir {
    let directory = common::open_directory();
    fs::write(directory.path().join("secret"), "hush").unwrap();
    directory
}

#[test]
fn a_directory_left_open_leads_nobody_out() {
    let image = image_or_skip!();
    let secret = secret();
    let path = format!("/proc/self/fd/{LEAKED}");
    // The control: a plain child finds it there.
    let mut plain = Command::new("cat");
    leak(plain.arg(format!("{path}/secret")), secret.path());
    assert_eq!(text(&plain.output().unwrap()), "hush");

    let attack = |options: &[&str], program: &[&str]| {
        let mut command = container(options);
        command.arg("--rootfs").arg(image).arg("--").args(program);
        leak(&mut command, secret.path());
        command.output().unwrap()
    };
    // As a descriptor of the program's ...
    let listed = text(&attack(&[], &["sh", "-c", "ls /proc/self/fd"]));
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "3 is the listing itself"
    );
    // ... of the first process's ...
    assert!(
        !attack(&[], &["cat", &format!("/proc/1/fd/{LEAKED}/secret")])
            .status
            .success()
    );
    // ... as the working directory (CVE-2024-21626), whose `..` would be the host's, or as the program's own directory.
    message(&attack(&["--workdir", &path], &["ls", ".."]), 125);
    message(&attack(&["--workdir", &format!("{path}/..")], &["ls"]), 125);
    message(&attack(&[], &[&format!("{path}/secret")]), 127);
}

#[test]
fn the_set_ups_own_descriptors_are_no_working_directory() {
    let image = image_or_skip!();
    for fd in 3..12 {
        let path = format!("/proc/self/fd/{fd}");
        let output = container(["--workdir", &path, "--rootfs"])
            .arg(image)
            .args(["--", "ls", ".."])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125), "{path}: {output:?}");
    }
    // The other links of that kind lead to the container's own root, or nowhere.
    for path in ["/proc/self/cwd", "/proc/self/root", "/proc/1/root", "/proc/1/cwd"] {
        let output = container(["--workdir", path, "--rootfs"])
            .arg(image)
            .args(["--", "cat", "etc/motd"])
            .output()
            .unwrap();
        assert_eq!(text(&output), "from the image", "{path}");
    }
}

/// A directory with a launcher of its own, and an image whose every program is the launcher in disguise.
struct Overwriting {
    directory: TempDir,
    loader: PathBuf,
}

impl Overwriting {
    fn prepare() -> Overwriting {
        let directory = common::open_directory();
        let attacker = directory.path().join("attacker");
        common::compile_overwriter(&attacker);
        common::copy(common::LAUNCHER, &directory.path().join("container"));
        let image = directory.path().join("image");
        fs::create_dir_all(image.join("bin")).unwrap();
        lead_to_the_launcher(&image.join("bin"));
        // The launcher's dynamic loader comes from the image, if it has one.
        let loader = image.join("lib64/ld-linux-x86-64.so.2");
        fs::create_dir_all(loader.parent().unwrap()).unwrap();
        common::copy(attacker.to_str().unwrap(), &loader);
        Overwriting { directory, loader }
    }

    fn launcher(&self) -> PathBuf {
        self.directory.path().join("container")
    }

    fn run(&self, user: Option<u32>, options: &[&str], program: &str) -> Output {
        let mut command = Command::new(self.launcher());
        command
            .arg("run")
            .args(options)
            .arg("--rootfs")
            .arg(self.directory.path().join("image"));
        command.args(["--", program]).stdin(Stdio::null()).current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        end_with_the_test(&mut command);
        command.output().unwrap()
    }
}

/// CVE-2019-5736.
#[test]
fn the_launchers_own_file_cannot_be_changed_from_inside() {
    let _ = image_or_skip!();
    let attack = Overwriting::prepare();
    assert!(attack.loader.exists());
    let dynamic = fs::read(attack.launcher())
        .unwrap()
        .windows(11)
        .any(|bytes| bytes == b"ld-linux-x8");
    assert!(
        dynamic,
        "the launcher under test must be dynamically linked for this attack to run its code"
    );
    let nobody = 65534;
    let mut attempts: Vec<(Option<u32>, &[&str])> = vec![(None, &[])];
    if common::is_root() {
        attempts.push((None, &["--without", "user"]));
        // An ordinary user's launcher is his own, and so is his container's root.
        attempts.push((Some(nobody), &[]));
    }
    for (user, options) in attempts {
        if let Some(user) = user {
            std::os::unix::fs::chown(attack.launcher(), Some(user), Some(user)).unwrap();
        }
        let before = fs::metadata(attack.launcher()).unwrap();
        for program in ["script", "link", "/proc/self/exe"] {
            let output = attack.run(user, options, program);
            let after = fs::metadata(attack.launcher()).unwrap();
            assert_eq!(
                before.mode(),
                after.mode(),
                "{options:?} {user:?} {program}: {output:?}"
            );
            assert_eq!(
                (before.uid(), before.len(), before.mtime()),
                (after.uid(), after.len(), after.mtime()),
                "{output:?}"
            );
            assert_eq!(
                before.ctime_nsec(),
                after.ctime_nsec(),
                "not even touched: {options:?} {user:?} {program}: {output:?}"
            );
        }
    }
    // The control: the attacker can do what he says, to a file that is his.
    let own = attack.directory.path().join("attacker");
    let output = Command::new(&own).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("chmod 0") && said.contains("write -26"), "{said}");
    assert_eq!(fs::metadata(&own).unwrap().mode() & 0o7777, 0o6777);
}

/// Mount points that are links: within the image, up and out of it, and through the kernel's own links.
#[test]
fn an_image_of_links_leads_no_mount_to_the_host() {
    let image = image_or_skip!();
    let bait = secret();
    let bait_path = bait.path().to_str().unwrap();
    let up = format!("../../../../../../../../{bait_path}");
    let targets = [
        bait_path.to_owned(),
        up,
        format!("/proc/self/cwd{bait_path}"),
        format!("/proc/self/root{bait_path}"),
        "/etc".to_owned(),
    ];
    for point in ["proc", "sys", "dev", "dev/shm", "tmp"] {
        for target in &targets {
            let hostile = common::open_directory();
            for directory in ["bin", "etc"] {
                fs::create_dir(hostile.path().join(directory)).unwrap();
            }
            fs::copy(image.join("bin/busybox"), hostile.path().join("bin/busybox")).unwrap();
            symlink("busybox", hostile.path().join("bin/sh")).unwrap();
            if let Some((parent, _)) = point.split_once('/') {
                fs::create_dir(hostile.path().join(parent)).unwrap();
            }
            symlink(target, hostile.path().join(point)).unwrap();
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            // It may refuse the image or run it; it must not leave the image.
            let output = shell(
                hostile.path(),
                &[],
                &format!("busybox cat {bait_path}/secret; busybox touch {bait_path}/was-here"),
            );
            assert!(
                !String::from_utf8_lossy(&output.stdout).contains("hush"),
                "{point} -> {target}: {output:?}"
            );
            let left: Vec<_> = fs::read_dir(bait.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["secret"], "{point} -> {target}: {output:?}");
            assert_eq!(
                fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
                mounts.lines().count()
            );
            assert!(
                !hostile.path().join("etc").read_dir().unwrap().any(|_| true),
                "the image stays as it is"
            );
        }
    }
}

#[test]
fn device_nodes_an_image_brings_along_open_nothing() {
    let image = image_or_skip!();
    root_or_skip!();
    let hostile = common::open_directory();
    fs::create_dir(hostile.path().join("bin")).unwrap();
    fs::copy(image.join("bin/busybox"), hostile.path().join("bin/busybox")).unwrap();
    symlink("busybox", hostile.path().join("bin/sh")).unwrap();
    // /dev/null's number: harmless, there on every machine, and open to everybody but for the mount's nodev.
    let node = std::ffi::CString::new(hostile.path().join("node").to_str().unwrap()).unwrap();
    // SAFETY: the path is NUL-terminated.
    let made = unsafe { libc::mknod(node.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)) };
    assert_eq!(made, 0);
    fs::set_permissions(hostile.path().join("node"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::File::open(hostile.path().join("node")).unwrap();
    for options in [&[][..], &["--without", "user"]] {
        let output = shell(hostile.path(), options, "busybox cat /node && echo opened");
        assert!(!output.status.success(), "{options:?}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("Permission denied"),
            "{output:?}"
        );
    }
}

/// Files of the kernel's that change the machine for everybody, or make it start a program of the attacker's.
const LEVERS: [&str; 14] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
    "/proc/self/uid_map",
];

#[test]
fn the_levers_of_proc_and_sys_are_read_only() {
    let image = image_or_skip!();
    root_or_skip!();
    for options in [
        &[][..],
        &["--without", "user"],
        &["--without", "net"],
        &["--without", "pid"],
    ] {
        for lever in LEVERS {
            if !fs::exists(lever).unwrap() {
                continue;
            }
            // The control: outside root may open it to write.
            fs::File::options().write(true).open(lever).unwrap();
            let output = shell(
                image,
                options,
                &format!("test -e {lever} || exit 3; : >> {lever} || exit 4; echo x > {lever}"),
            );
            let status = output.status.code().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
            assert!(status != 0, "{options:?} {lever}: {output:?}");
            let refused = ["read-only", "denied", "not permitted", "nonexistent", "can't create"]
                .iter()
                .any(|word| said.contains(word));
            assert!(status == 3 || refused, "{options:?} {lever}: {output:?}");
        }
    }
}

/// release_agent: the kernel starts it, as root on the host, when a v1 cgroup empties.
#[test]
fn no_cgroup_is_there_to_be_written() {
    let image = image_or_skip!();
    root_or_skip!();
    let script = "mkdir /tmp/cg; for kind in cgroup cgroup2; do mount -t $kind -o memory none /tmp/cg; mount -t $kind none /tmp/cg; done; \
                  find / -name release_agent -o -name cgroup.procs -o -name notify_on_release | while read file; do \
                  echo 1 > $file && echo written $file; done; mkdir /sys/fs/cgroup/x && echo made; echo done";
    for options in [
        &[][..],
        &["--without", "user"],
        &["--without", "cgroup"],
        &["--memory", "64M"],
    ] {
        let output = shell(image, options, script);
        assert_eq!(text(&output), "done", "{options:?}");
        let said = String::from_utf8_lossy(&output.stderr)
            .matches("mount: permission denied")
            .count();
        assert_eq!(said, 4, "{options:?}: {output:?}");
    }
}

/// CVE-2014-8989: a group that a file's permissions are set against can be left behind.
#[test]
fn an_ordinary_user_keeps_the_groups_that_bind_him() {
    let image = image_or_skip!();
    let launcher = common::open_directory();
    common::copy(common::LAUNCHER, &launcher.path().join("container"));
    let mut command = Command::new(launcher.path().join("container"));
    let script = "cat /proc/self/setgroups; id -G";
    command
        .args(["run", "--rootfs"])
        .arg(image)
        .args(["--", "sh", "-c", script]);
    command.stdin(Stdio::null()).current_dir("/");
    if common::is_root() {
        command.uid(65534).gid(65534);
    }
    end_with_the_test(&mut command);
    let said = text(&command.output().unwrap());
    assert!(said.starts_with("deny"), "{said}");
}

#[test]
fn what_a_container_fills_has_a_bottom() {
    let image = image_or_skip!();
    let out_of_space = |script: &str| {
        let output = shell(image, &[], script);
        assert!(!output.status.success(), "{script}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("No space left on device"), "{script}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    out_of_space("dd if=/dev/zero of=/dev/shm/full bs=1M count=65");
    out_of_space("dd if=/dev/zero of=/dev/full-of-it bs=1k count=65");
    // Empty files take the kernel's memory, not the container's: each file system has a bound on those too.
    let count = |directory: &str| {
        let bomb = format!(
            "cd {directory}; i=0; while test $i -lt 70000; do true > f$i || {{ echo $i; exit 1; }}; i=$((i+1)); done"
        );
        out_of_space(&bomb).trim().parse::<u64>().unwrap()
    };
    assert!(count("/dev") < 1024);
    assert!(count("/dev/shm") < 65536);
    // The root's bound is large; it is looked up, not reached.
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    let blocks = text(&shell(image, &[], "df -k / | awk 'NR == 2 { print $2 }'"));
    assert!(
        blocks.parse::<u64>().unwrap() <= total / 4 + 4,
        "{blocks} of {total} KiB"
    );
    let inodes = text(&shell(image, &[], "df -i / | awk 'NR == 2 { print $2 }'"));
    assert_eq!(inodes, "262144");
}
