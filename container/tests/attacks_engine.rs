//! The ways out of a container with a name: `container run IMAGE` and `exec`, whose root is the host's root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::attacks::{facts, lead_to_the_launcher};
use common::engine::Lab;
use common::{end_with_the_test, message, text};

/// `container ARGUMENTS` from a file of the test's own, which may be lost.
fn run(lab: &Lab, launcher: &Path, arguments: &[&str]) -> Output {
    let like = lab.command(arguments.iter().copied());
    let mut command = Command::new(launcher);
    command.args(like.get_args()).stdin(Stdio::null()).current_dir("/");
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    end_with_the_test(&mut command);
    command.output().unwrap()
}

/// CVE-2019-5736.
#[test]
fn the_launchers_own_file_cannot_be_changed_from_inside() {
    let lab = lab_or_skip!();
    let loader = lab.path().join("loader");
    fs::create_dir(&loader).unwrap();
    let attacker = loader.join("ld-linux-x86-64.so.2");
    common::compile_overwriter(&attacker);
    lead_to_the_launcher(&loader);
    let launcher = common::install(lab.path());
    // The file of the process that enters the container is the engine's.
    let both = || [facts(&launcher), facts(&lab.path().join("container-engine"))];
    let before = both();
    let assert_unchanged = |what: &str, output: &Output| assert_eq!(before, both(), "{what}: {output:?}");
    let volume = format!("{}:/lib64", loader.display());
    let programs = ["/lib64/script", "/lib64/link", "/proc/self/exe"];
    for program in programs {
        let output = run(&lab, &launcher, &["run", "--rm", "-v", &volume, "busybox", program]);
        assert_unchanged(program, &output);
    }
    let up = run(
        &lab,
        &launcher,
        &["run", "-d", "--name", "up", "-v", &volume, "busybox", "sleep", "1000"],
    );
    text(&up);
    for program in programs {
        let output = run(&lab, &launcher, &["exec", "up", program]);
        assert_unchanged(&format!("exec {program}"), &output);
    }
    lab.text(["rm", "-f", "up"]);
}

/// CVE-2024-21626.
#[test]
fn no_descriptor_is_a_working_directory_or_leads_to_a_program() {
    let lab = lab_or_skip!();
    lab.start("up", &[], "sleep 1000");
    for fd in 3..20 {
        let path = format!("/proc/self/fd/{fd}");
        let output = lab.run(["run", "--rm", "-w", &path, "busybox", "pwd"]);
        assert!(!output.status.success(), "{path}: {output:?}");
        let output = lab.run(["exec", "-w", &path, "up", "pwd"]);
        assert!(!output.status.success(), "{path}: {output:?}");
        let program = format!("{path}/../../../../../../../../../../bin/true");
        let output = lab.run(["run", "--rm", "busybox", &program]);
        assert!(!output.status.success(), "{program}: {output:?}");
        let output = lab.run(["exec", "up", &program]);
        assert!(!output.status.success(), "{program}: {output:?}");
    }
    lab.text(["rm", "-f", "up"]);
}

/// A container's root may do more here than in `container run --rootfs`; not this.
#[test]
fn the_machine_stays_out_of_reach() {
    let lab = lab_or_skip!();
    for script in [
        "mount -t tmpfs none /mnt",
        "mount -o remount,rw /proc/sys",
        "umount /proc/sys",
        "mknod /tmp/disk b 254 0",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sysrq-trigger",
        "hostname other",
        "unshare -U true",
        "nsenter -t 1 -m true",
        "insmod /bin/busybox",
        "dmesg",
        "date -s 2000-01-01 && test $(date +%Y) = 2000",
        "ip link add dummy0 type dummy",
        "cat /proc/kcore | head -c 1 | grep .",
        "find /sys/fs/cgroup -name release_agent | grep .",
        "for file in $(find /sys/fs/cgroup -name cgroup.procs); do echo 1 > $file && exit 0; done; false",
    ] {
        // With a user namespace of its own and without: there its root is the host's, less what it lacks.
        for users in ["private", "host"] {
            let output = lab.shell(&["--userns", users], script);
            assert!(!output.status.success(), "{users}: {script}: {output:?}");
        }
    }
    lab.assert_empty();
}

#[test]
fn cp_follows_the_containers_links_inside_the_container() {
    let lab = lab_or_skip!();
    let bait = lab.path().join("bait");
    fs::create_dir(&bait).unwrap();
    fs::write(bait.join("secret"), "hush").unwrap();
    let links = format!(
        "ln -s {0} /out; ln -s ../../../../../../../..{0} /up; ln -s /proc/1/root{0} /magic; sleep 1000",
        bait.display()
    );
    lab.start("hostile", &[], &links);
    fs::write(lab.path().join("file"), "from outside").unwrap();
    let file = lab.path().join("file");
    for link in ["out", "up", "magic"] {
        common::until("the links", || {
            lab.run(["exec", "hostile", "test", "-L", "/magic"])
                .status
                .success()
                .then_some(())
        });
        let output = lab.run(["cp", file.to_str().unwrap(), &format!("hostile:/{link}/planted")]);
        assert!(!output.status.success(), "{link}: {output:?}");
        let output = lab.run([
            "cp",
            &format!("hostile:/{link}/secret"),
            lab.path().join("stolen").to_str().unwrap(),
        ]);
        assert!(!output.status.success(), "{link}: {output:?}");
        let names: Vec<_> = fs::read_dir(&bait)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"], "{link}");
    }
    assert!(!lab.path().join("stolen").exists());
    message(&lab.run(["cp", "hostile:/no-such-file", "/tmp"]), 125);
    lab.text(["rm", "-f", "hostile"]);
}
