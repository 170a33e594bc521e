//! Attacks on what everybody shares: processes, memory, descriptors, watches. Each is made to the end inside, and the host
//! goes on all the same.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{probe, shell, text};
use nix::errno::Errno;

/// What any program of the host's needs goes on working.
fn assert_the_host_works() {
    assert!(Command::new("true").status().unwrap().success());
    fs::read("/proc/self/status").unwrap();
    // SAFETY: takes numbers only; the descriptor is closed at once.
    unsafe {
        let watch = libc::inotify_init1(libc::IN_CLOEXEC);
        assert!(watch >= 0, "inotify outside: {}", Errno::last());
        libc::close(watch);
    }
}

#[test]
fn a_fork_bomb_ends_at_the_limit() {
    let image = image_or_skip!();
    root_or_skip!();
    // Each process starts two more and stays. The shell's word for EAGAIN is "can't fork".
    let bomb = "bomb() { bomb & bomb & sleep 1000; }; bomb & sleep 2; set -- /proc/[0-9]*; echo $#";
    let output = shell(
        image,
        &["--pids", "24"],
        &format!("({bomb}) 2>/tmp/errors; grep -c fork /tmp/errors"),
    );
    assert_the_host_works();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = said.split_whitespace().map(|number| number.parse::<u32>().unwrap());
    // The shell itself may have been refused the process for its last words; then it has none.
    assert!(numbers.next().is_none_or(|processes| processes <= 24), "{said}");
    assert!(numbers.next().is_none_or(|refusals| refusals > 0), "{said}");
    let left = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with("bomb")));
    assert_eq!(left.count(), 0);
}

#[test]
fn memory_ends_at_the_limit_whatever_holds_it() {
    let image = image_or_skip!();
    root_or_skip!();
    let limited = |script: &str| shell(image, &["--memory", "24M"], script);
    // In a process, in a file of the root, in shared memory, in a pipe nobody reads: killed, not slowed down.
    for script in [
        "x=$(head -c 200000000 /dev/zero | tr '\\0' x)",
        "head -c 200000000 /dev/zero > /tmp/file",
        "head -c 60000000 /dev/zero > /dev/shm/file",
    ] {
        let output = limited(script);
        assert!(!output.status.success(), "{script}: {output:?}");
    }
    assert_eq!(text(&limited("head -c 4000000 /dev/zero | wc -c")), "4000000");
    assert_the_host_works();
}

#[test]
#[ignore = "is run inside a container by the test below"]
fn exhaust() {
    // SAFETY: numbers, and valid strings; the descriptors go with the process.
    unsafe {
        let mut count = 0u32;
        while libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) >= 0 {
            count += 1;
        }
        println!("\nprobe: files {:?} {count}", Errno::last());
        for fd in 3..=2 + count as i32 {
            libc::close(fd);
        }
        let mut count = 0u32;
        while libc::inotify_init1(0) >= 0 {
            count += 1;
        }
        println!("\nprobe: inotify {:?} {count}", Errno::last());
    }
}

#[test]
fn descriptors_and_watches_run_out_for_the_container_alone() {
    let image = image_or_skip!();
    let unlimited = probe(image, &[], "exhaust");
    assert!(unlimited[0].starts_with("files EMFILE "), "{unlimited:?}");
    root_or_skip!();
    // inotify is counted for the container's creator too: with limits, a container has a bound of its own below that.
    let limits = ["--pids", "64"];
    let limited = probe(image, &limits, "exhaust");
    assert_eq!(limited[1], "inotify EMFILE 32");
    assert_ne!(unlimited[1], limited[1], "the control: it is the bound that stops it");
    // While the container holds all it can get.
    let mut command = common::container(limits);
    command
        .arg("--rootfs")
        .arg(image)
        .args(["--", "/lib/loader", "--library-path", "/lib", "/bin/probe"]);
    command.args([
        "--exact",
        "exhaust_and_wait",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("probe: exhausted")));
    assert_the_host_works();
    drop(child.stdin.take());
    for line in lines {
        line.unwrap();
    }
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "is run inside a container by the test above"]
fn exhaust_and_wait() {
    // SAFETY: numbers, and valid strings.
    unsafe {
        while libc::inotify_init1(0) >= 0 {}
        while libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) >= 0 {}
    }
    println!("\nprobe: exhausted");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}
