//! Snapshots: clones go on where the machine stopped, differ where they must, and no broken file is believed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use protocol::doorbell::{Request, op};
use protocol::phase::Phase;
use protocol::{ports, status};
use support::machine_code::Code;
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

/// A page of guest memory that is none of the kernel's own.
const PAGE: u64 = 0x40_0000;

/// Starts a guest that says when it is there, cuts `file` short, and goes on: its end.
fn cut_short(mut launcher: Command, file: &Path) -> support::Ran {
    let mut child = launcher
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
    // It may have ended already.
    let _ = child.stdin.take().unwrap().write_all(b"go on");
    support::collect(child)
}

/// A snapshot of a bare machine, right after it reported its first mark.
fn snapshot_of(files: &Files, code: Code) -> std::path::PathBuf {
    let kernel = files.write("kernel", &code.kernel());
    let file = files.path().join("snapshot");
    let path = file.to_str().unwrap();
    snapshot(
        path,
        "guest kernel entry",
        &["--machine", "bare", "--kernel", &kernel, "x"],
    );
    file
}

/// `out MARK, code`, 8 bits wide.
fn mark(code: Code) -> Code {
    code.raw(&[0xb0, Phase::GuestKernelEntry.code(), 0x66, 0xba])
        .raw(&ports::MARK.to_le_bytes())
        .raw(&[0xee])
}

#[test]
fn a_snapshot_cut_short_under_the_vmm_ends_it_with_a_message() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    // The host reads the guest's request, waits for input, and then writes the result beside it: into a page that is gone.
    let request = Code::new()
        .store(PAGE, u64::from(op::READ_STDIN) | 1 << 32)
        .store(PAGE + Request::SEGMENTS_OFFSET, PAGE + 0x1000)
        .store(PAGE + Request::SEGMENTS_OFFSET + 8, 16);
    let file = snapshot_of(
        &files,
        mark(request).say(b'!').out(ports::DOORBELL, PAGE as u32).exit(4),
    );
    // Left alone, it works.
    let mut whole = vmm();
    whole.arg("restore").arg(&file);
    assert_eq!(support::finish(whole, b"go on").status, 4);
    for more in [&[][..], &["--no-seccomp"]] {
        let kept = fs::read(&file).unwrap();
        let mut launcher = vmm();
        launcher.arg("restore").args(more).arg(&file);
        cut_short(launcher, &file).refused(status::BAD_SNAPSHOT, &["vmm: a page of the snapshot", "cut short"]);
        fs::write(&file, kept).unwrap();
    }
}

#[test]
fn a_snapshot_cut_short_under_the_guest_ends_it_with_a_message() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    // For ever: mov rax, [PAGE]; jmp back.
    let reads = Code::new().store(PAGE, 1);
    let reads = mark(reads)
        .say(b'!')
        .raw(&[0x48, 0xa1])
        .raw(&PAGE.to_le_bytes())
        .raw(&[0xeb, 0xf4]);
    let file = snapshot_of(&files, reads);
    let mut launcher = vmm();
    launcher.arg("restore").arg(&file);
    cut_short(launcher, &file).refused(status::BAD_SNAPSHOT, &["vmm: a page of the snapshot", "cut short"]);
}

#[test]
fn an_initrd_cut_short_is_named() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let kernel = files.write("kernel", &Code::new().say(b'!').out(ports::EXIT, 9).kernel());
    let archive = vmm::cpio::pack_directory(rootfs_with("random").unwrap().path()).unwrap();
    let initrd = files.write("initrd", &archive);
    // The initrd's first page, at the top of 64 MiB: mov rax, [address]; jmp back.
    let address = (64 << 20) - (archive.len() as u64).next_multiple_of(4096);
    let reads = Code::new()
        .say(b'!')
        .raw(&[0x48, 0xa1])
        .raw(&address.to_le_bytes())
        .raw(&[0xeb, 0xf4]);
    let endless = files.write("endless", &reads.kernel());
    let launch = |kernel: &str| {
        let mut launcher = vmm();
        launcher.args(["run", "--machine", "bare", "--kernel", kernel, "--initrd", &initrd, "x"]);
        launcher
    };
    assert_eq!(support::finish(launch(&kernel), b"").status, 9);
    cut_short(launch(&endless), Path::new(&initrd))
        .refused(status::BAD_INITRD, &["vmm: a page of the initrd", "cut short"]);
}

#[test]
fn a_kernel_cut_short_is_named() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    // The second huge page of memory is a whole one of the file's. For ever: mov rax, [address]; jmp back.
    const ADDRESS: u64 = 0x30_0000;
    let endless = Code::new()
        .say(b'!')
        .raw(&[0x48, 0xa1])
        .raw(&ADDRESS.to_le_bytes())
        .raw(&[0xeb, 0xf4])
        .raw(&vec![0x90; 4 << 20]);
    let kernel = files.write("kernel", &endless.kernel());
    let mut launcher = vmm();
    launcher.args(["run", "--machine", "bare", "--kernel", &kernel, "x"]);
    cut_short(launcher, Path::new(&kernel)).refused(status::NOT_A_KERNEL, &["vmm: a page of the kernel", "cut short"]);
}
