//! Every limit is really enforced. On cgroup v1 and v2 alike: the kernel's own counters are the witnesses.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::{children, container, message, shell, text, until};

/// The container's cgroup for `controller`, from outside.
fn cgroup_of(launcher: &Child, controller: &str) -> PathBuf {
    let name = format!("container-{}-", launcher.id());
    let own = until("the container is in its cgroup", || {
        children(launcher.id()).into_iter().find_map(|child| {
            let memberships = fs::read_to_string(format!("/proc/{child}/cgroup")).ok()?;
            let line = memberships.lines().find(|line| {
                line.contains(&name) && (line.contains(&format!(":{controller}")) || line.starts_with("0::"))
            })?;
            Some(line.splitn(3, ':').nth(2)?.trim_start_matches('/').to_owned())
        })
    });
    let roots = [
        format!("/sys/fs/cgroup/{controller}"),
        format!("/sys/fs/cgroup/{controller},cpuacct"),
        "/sys/fs/cgroup".into(),
    ];
    let found = roots
        .iter()
        .map(|root| PathBuf::from(root).join(&own))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no directory for {own}"))
}

/// Ends the program, as a user would, and waits for the launcher.
fn end(launcher: &mut Child) {
    kill(Pid::from_raw(launcher.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(launcher.wait().unwrap().code(), Some(143));
}

#[test]
fn memory_beyond_the_limit_ends_the_program() {
    let _ = image_or_skip!();
    root_or_skip!();
    let run = |limit, use_mebibytes| {
        container(["--memory", limit, "workload", "memory", use_mebibytes])
            .output()
            .unwrap()
    };
    assert_eq!(run("64M", "256").status.code(), Some(137));
    assert_eq!(run("64M", "16").status.code(), Some(0));
}

#[test]
fn files_of_the_container_count_as_its_memory() {
    let image = image_or_skip!();
    root_or_skip!();
    for file in ["/file", "/dev/shm/file"] {
        let fill = format!("exec dd if=/dev/zero of={file} bs=1M count=60");
        assert_eq!(
            shell(image, &["--memory", "32M"], &fill).status.code(),
            Some(137),
            "{file}"
        );
        assert_eq!(
            shell(image, &["--memory", "128M"], &fill).status.code(),
            Some(0),
            "{file}"
        );
    }
}

#[test]
fn processes_beyond_the_limit_are_refused() {
    let image = image_or_skip!();
    root_or_skip!();
    let many = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all";
    let output = shell(image, &["--pids", "6"], many);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("can't fork"),
        "{output:?}"
    );
    assert_eq!(text(&shell(image, &["--pids", "20"], many)), "all");
    // Two are needed: the container's first process and the program.
    assert_eq!(
        container(["--pids", "2", "workload", "hello"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(0)
    );
    assert!(message(&container(["--pids", "1", "workload", "hello"]).output().unwrap(), 125).contains("room for two"));
}

#[test]
fn a_fork_bomb_stays_inside() {
    let image = image_or_skip!();
    root_or_skip!();
    let mut launcher = container(["--pids", "40", "--rootfs"])
        .arg(image)
        .args([
            "--",
            "sh",
            "-c",
            "bomb() { bomb | bomb & }; (bomb) 2>/dev/null & exec sleep 1000",
        ])
        .spawn()
        .unwrap();
    let cgroup = cgroup_of(&launcher, "pids");
    until("the bomb meets the limit", || {
        let text = fs::read_to_string(cgroup.join("pids.events")).ok()?;
        (text.trim() != "max 0").then_some(())
    });
    let current = fs::read_to_string(cgroup.join("pids.current")).unwrap();
    assert!(current.trim().parse::<u64>().unwrap() <= 40, "{current}");
    end(&mut launcher);
    assert!(!cgroup.exists());
}

#[test]
fn processor_time_beyond_the_limit_is_withheld() {
    let image = image_or_skip!();
    root_or_skip!();
    let mut launcher = container(["--cpus", "0.05", "--rootfs"])
        .arg(image)
        .args(["--", "sh", "-c", "while :; do :; done"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let statistics = cgroup_of(&launcher, "cpu").join("cpu.stat");
    let throttled = until("the container is throttled", || {
        let text = fs::read_to_string(&statistics).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        count.parse::<u64>().ok().filter(|&count| count > 0)
    });
    assert!(throttled > 0);
    end(&mut launcher);
}

#[test]
fn the_values_asked_for_are_the_ones_set() {
    let image = image_or_skip!();
    root_or_skip!();
    let mut launcher = container(["--memory", "48M", "--cpus", "1.5", "--pids", "33", "--rootfs"])
        .arg(image)
        .args(["--", "sleep", "1000"])
        .spawn()
        .unwrap();
    let read = |controller: &str, files: [&str; 2]| {
        let directory = cgroup_of(&launcher, controller);
        files
            .iter()
            .find_map(|file| fs::read_to_string(directory.join(file)).ok())
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(
        read("memory", ["memory.limit_in_bytes", "memory.max"]),
        (48 << 20).to_string()
    );
    assert_eq!(read("pids", ["pids.max", "pids.max"]), "33");
    assert!(read("cpu", ["cpu.cfs_quota_us", "cpu.max"]).starts_with("150000"));
    end(&mut launcher);
}

#[test]
fn what_is_written_has_a_bound_without_limits_too() {
    let image = image_or_skip!();
    let full = shell(image, &[], "dd if=/dev/zero of=/dev/shm/file bs=1M count=65");
    assert!(
        String::from_utf8_lossy(&full.stderr).contains("No space left on device"),
        "{full:?}"
    );
    let root = text(&shell(
        image,
        &[],
        "stat -f -c '%b %S %c' /; grep MemTotal /proc/meminfo",
    ));
    let numbers: Vec<u64> = root.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [blocks, block_size, files, memory_kib] = numbers[..] else {
        panic!("{root}")
    };
    // The kernel rounds a quarter up to a whole page.
    assert!(
        blocks > 0 && (blocks - 1) * block_size < memory_kib * 1024 / 4,
        "{root}"
    );
    assert_eq!(files, 1 << 18);
}
