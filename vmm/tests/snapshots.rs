//! Snapshots: clones go on where the machine stopped, differ where they must, and no broken file is believed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use protocol::status;
use support::{Files, kvm, rootfs_with, vmm};

fn launch(arguments: &[&str]) -> support::Ran {
    let mut command = vmm();
    command.args(arguments);
    support::finish(command, b"")
}

/// What the memory lesson computed, without the time it took.
fn checksum(line: &str) -> String {
    let lesson: serde_json::Value = serde_json::from_str(line).unwrap();
    lesson["checksum"].as_str().unwrap().to_owned()
}

fn snapshot(file: &str, mark: &str, program: &[&str]) {
    let ran = launch(&[&["snapshot", "--at", mark, "--out", file], program].concat());
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert!(
        ran.stdout.is_empty(),
        "a machine stopped before its output prints nothing: {ran:?}"
    );
}

fn restore(file: &str) -> support::Ran {
    launch(&["restore", file])
}

#[test]
fn a_clone_goes_on_from_every_mark_as_often_as_one_likes() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let file = files.path().join("snapshot");
    let file = file.to_str().unwrap();
    for mark in ["guest kernel entry", "user mode entry", "first output"] {
        snapshot(file, mark, &["workload", "memory", "2"]);
        let first = restore(file);
        assert_eq!(first.status, 0, "{mark}: {first:?}");
        let plain = support::run(["workload", "memory", "2"]);
        for clone in [&first, &restore(file)] {
            assert_eq!(checksum(&clone.text()), checksum(&plain.text()), "{mark}");
        }
        snapshot(file, mark, &["workload", "hello"]);
        assert_eq!(restore(file).text(), "hello from the workload\n");
    }
    snapshot(file, "user mode entry", &["workload", "exit", "9"]);
    assert_eq!(restore(file).status, 9);
    snapshot(file, "user mode entry", &["workload", "crash"]);
    assert_eq!(restore(file).status, 128 + libc::SIGSEGV);
}

#[test]
fn clones_and_the_file_do_not_see_each_others_writes() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let file = files.path().join("snapshot");
    let file = file.to_str().unwrap();
    snapshot(file, "user mode entry", &["workload", "memory", "8"]);
    let before = fs::read(file).unwrap();
    let clones: Vec<_> = (0..4)
        .map(|_| {
            vmm()
                .args(["restore", file])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let sums: Vec<_> = clones
        .into_iter()
        .map(|clone| checksum(&String::from_utf8(clone.wait_with_output().unwrap().stdout).unwrap()))
        .collect();
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    assert_eq!(
        fs::read(file).unwrap(),
        before,
        "a private mapping never reaches the file"
    );
}

/// The program prints the 16 bytes it finds at AT_RANDOM, and 16 more from getrandom(2).
#[test]
fn clones_do_not_share_random_numbers() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("random") else { return };
    let files = Files::new();
    let file = files.path().join("snapshot");
    let file = file.to_str().unwrap();
    snapshot(
        file,
        "user mode entry",
        &["--rootfs", rootfs.path().to_str().unwrap(), "/bin/random"],
    );
    let numbers: Vec<_> = (0..3).map(|_| restore(file).text()).collect();
    for (i, one) in numbers.iter().enumerate() {
        let (start, later) = one.split_once(' ').unwrap();
        assert_eq!((start.len(), later.len()), (32, 32), "{one}");
        for other in &numbers[..i] {
            let (other_start, other_later) = other.split_once(' ').unwrap();
            assert_ne!(start, other_start, "AT_RANDOM is drawn anew in each clone");
            assert_ne!(later, other_later, "getrandom asks the host");
        }
    }
}

#[test]
fn a_torn_damaged_foreign_or_newer_file_is_refused() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let path = files.path().join("snapshot");
    snapshot(path.to_str().unwrap(), "user mode entry", &["workload", "hello"]);
    let good = fs::read(&path).unwrap();
    let refuse = |bytes: &[u8], parts: &[&str]| {
        let broken = files.write("broken", bytes);
        restore(&broken).refused(status::BAD_SNAPSHOT, &[&[broken.as_str()], parts].concat());
    };
    refuse(b"", &["not a snapshot"]);
    refuse(b"LABSNAP", &["not a snapshot"]);
    refuse(
        b"#!/bin/sh\necho I am a script, and longer than the header is\n",
        &["not a snapshot"],
    );
    for length in [40, 41, 100, 4096, good.len() / 2, good.len() - 1] {
        refuse(&good[..length], &["not whole", &format!("{length} of {}", good.len())]);
    }
    refuse(&[&good[..], b"x"].concat(), &["not whole"]);
    let mut newer = good.clone();
    newer[8] = 200;
    refuse(&newer, &["format 200", "reads format"]);
    // One bit anywhere: in the state, in the memory, in the checksum itself.
    for at in [33, 41, 300, 5000, good.len() / 2, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        refuse(&damaged, &["damaged"]);
    }
    let missing = restore("/no/such/snapshot");
    missing.refused(status::BAD_SNAPSHOT, &["/no/such/snapshot", "No such file"]);
}

#[test]
fn a_snapshot_that_cannot_be_taken_says_why_and_leaves_nothing() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let file = files.path().join("snapshot");
    let take = |arguments: &[&str]| launch(&[&["snapshot"], arguments].concat());
    let out = file.to_str().unwrap();
    take(&["--out", out, "no-such-program"]).refused(status::LAUNCHER_FAILED, &["ended before", "user mode entry"]);
    take(&["--at", "nowhere", "--out", out, "workload"])
        .refused(status::LAUNCHER_FAILED, &["no mark is called", "first output"]);
    take(&["--at", "KVM opened", "--out", out, "workload"])
        .refused(status::LAUNCHER_FAILED, &["cannot be stopped", "user mode entry"]);
    take(&["--out", "/no/such/folder/file", "workload", "hello"])
        .refused(status::LAUNCHER_FAILED, &["/no/such/folder"]);
    let left: Vec<_> = fs::read_dir(files.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
