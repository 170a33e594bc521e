//! A run from outside: many at once, many in a row, without standard streams, with marks, from other archives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use protocol::phase::Phase;
use protocol::status;
use support::{Rootfs, finish, installed, kvm, run, vmm};

const HELLO: &str = "hello from the workload\n";

#[test]
fn several_machines_at_once() {
    if !kvm() {
        return;
    }
    let guest = |i: u64| {
        move || {
            let rounds = (1000 + i).to_string();
            run(["workload", "cpu", &rounds])
        }
    };
    let threads: Vec<_> = (0..8).map(|i| thread::spawn(guest(i))).collect();
    for (i, thread) in threads.into_iter().enumerate() {
        let ran = thread.join().unwrap();
        assert_eq!(ran.status, 0, "{ran:?}");
        assert!(ran.text().contains(&format!("\"rounds\":{}", 1000 + i)), "{ran:?}");
    }
}

#[test]
fn two_hundred_runs_leave_nothing_behind() {
    if !kvm() {
        return;
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let temporary = tempfile::tempdir().unwrap();
    let before = descriptors();
    for i in 0..200 {
        let mut command = vmm();
        command
            .args(["run", "workload", "hello"])
            .env("TMPDIR", temporary.path());
        let ran = finish(command, b"");
        assert_eq!((ran.status, ran.text().as_str()), (0, HELLO), "run {i}");
    }
    // Other tests of this file run beside this one and have some open; leaks would be hundreds.
    assert!(descriptors() < before + 100);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    // Every child was waited for, and none left a child of its own to us.
    let orphans = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let own = format!("TMPDIR={}", temporary.path().display());
            environment
                .split(|&byte| byte == 0)
                .any(|variable| variable == own.as_bytes())
        })
        .count();
    assert_eq!(orphans, 0);
}

#[test]
fn a_killed_run_is_gone() {
    if !kvm() {
        return;
    }
    let mut child = vmm()
        .args(["run", "workload", "idle"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"idle\n");
    let mut rest = Vec::new();
    child.kill().unwrap();
    child.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(support::wait(&mut child), 128 + libc::SIGKILL);
    assert!(rest.is_empty());
}

/// Runs `vmm` with a standard descriptor closed.
fn without(fd: i32, words: &[&str]) -> support::Ran {
    let mut command = vmm();
    command.arg("run").args(words);
    // SAFETY: close is async-signal-safe and the descriptor is the child's own.
    unsafe {
        command.pre_exec(move || {
            libc::close(fd);
            Ok(())
        });
    }
    finish(command, b"")
}

#[test]
fn closed_standard_streams_are_no_disaster() {
    if !kvm() {
        return;
    }
    let ran = without(0, &["workload", "hello"]);
    assert_eq!((ran.status, ran.text().as_str()), (0, HELLO), "{ran:?}");
    // Rust opens /dev/null for a closed standard descriptor, so that the output goes nowhere.
    let ran = without(1, &["workload", "hello"]);
    assert_eq!((ran.status, ran.stdout.as_slice()), (0, &b""[..]), "{ran:?}");
    let ran = without(2, &["workload", "crash"]);
    assert_eq!(ran.status, 139, "{ran:?}");
    let ran = without(2, &["--memory", "0", "workload"]);
    assert_eq!(ran.status, 113, "{ran:?}");
}

/// What a program does to its kernel, it does to its own: the host's `vmm` ends in good order and says so.
#[test]
fn a_program_can_bring_its_own_kernel_down() {
    if !kvm() {
        return;
    }
    let ran = run(["workload", "panic"]);
    assert_eq!(ran.status, i32::from(status::KERNEL_PANIC), "{ran:?}");
    let said = format!("{}{}", ran.text(), ran.stderr);
    assert!(said.contains("wrote c to /proc/sysrq-trigger"), "{said}");
    // There is no second process in the lab kernel to begin with.
    let ran = run(["workload", "forks", "5"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.text().contains(r#""made":0,"stopped_by":"ENOSYS""#), "{ran:?}");
}

#[test]
fn a_reader_that_goes_away_ends_the_program_as_sigpipe_does() {
    if !kvm() {
        return;
    }
    let busybox = fs::read("/bin/busybox").ok().filter(|_| installed("busybox"));
    let Some(busybox) = busybox else { return };
    let rootfs = Rootfs::new().program("bin/busybox", &busybox);
    let mut child = vmm()
        .arg("run")
        .arg("--rootfs")
        .arg(rootfs.path())
        .args(["--", "/bin/busybox", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 100];
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut some).unwrap();
    drop(pipe);
    let ran = support::collect(child);
    assert_eq!(ran.status, 128 + libc::SIGPIPE, "{ran:?}");
    ran.no_panic();
}

#[test]
fn a_full_disk_is_an_error_of_the_program() {
    if !kvm() {
        return;
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = vmm().args(["run", "workload", "hello"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// What the comparison rests on: the same bytes compute the same on both sides.
#[test]
fn the_workload_computes_the_same_in_a_guest() {
    if !kvm() {
        return;
    }
    let rootfs = Rootfs::new().program("bin/workload", guest_images::WORKLOAD);
    let report = |ran: support::Ran| {
        assert_eq!(ran.status, 0, "{ran:?}");
        serde_json::from_slice::<serde_json::Value>(&ran.stdout).unwrap()
    };
    for words in [
        &["/bin/workload", "cpu", "1000000"][..],
        &["/bin/workload", "memory", "20"],
    ] {
        let (guest, host) = (report(rootfs.run(words)), report(rootfs.run_on_host(words, b"")));
        assert_eq!(guest["checksum"], host["checksum"], "{words:?}");
    }
    let calls = report(rootfs.run(&["/bin/workload", "syscalls", "200"]));
    assert_eq!(calls["count"], 200);
    let own = report(rootfs.run_with(&["--memory", "128M"], &["/bin/workload", "whoami"], b""));
    assert_eq!(
        (&own["pid"], &own["ppid"], &own["uid"], &own["cpus"]),
        (&1.into(), &0.into(), &0.into(), &1.into())
    );
    assert!(own["kernel_release"].as_str().unwrap().ends_with("-lab"), "{own}");
    let memory = own["total_memory_bytes"].as_u64().unwrap();
    assert!((127 << 20..=128 << 20).contains(&memory), "{memory}");
    assert!(own["visible_processes"].is_null(), "the lab kernel has no /proc: {own}");
}

#[test]
fn marks_are_json_lines_in_order() {
    if !kvm() {
        return;
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    const FD: i32 = 200;
    let mut command = vmm();
    command.args(["run", "--marks-fd", &FD.to_string(), "workload", "hello"]);
    let from = writer.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe; both descriptors are the child's own.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(from, FD);
            Ok(())
        });
    }
    let before = protocol::marks::monotonic_ns();
    let ran = finish(command, b"");
    let after = protocol::marks::monotonic_ns();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(
        (ran.status, ran.text().as_str()),
        (0, HELLO),
        "marks never mix with output"
    );
    let marks: Vec<(Phase, u64, String)> = text
        .lines()
        .map(|line| {
            let mark: serde_json::Value = serde_json::from_str(line).unwrap();
            let phase = Phase::from_name(mark["name"].as_str().unwrap()).unwrap();
            (
                phase,
                mark["ns"].as_u64().unwrap(),
                mark["emitter"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let names: Vec<Phase> = marks.iter().map(|mark| mark.0).collect();
    assert_eq!(
        names,
        [
            Phase::ProcessStart,
            Phase::KvmOpened,
            Phase::VmCreated,
            Phase::MemoryMapped,
            Phase::KernelLoaded,
            Phase::VcpuReady,
            Phase::GuestKernelEntry,
            Phase::UserModeEntry,
            Phase::FirstOutput,
            Phase::Exit,
        ]
    );
    assert!(marks.is_sorted_by_key(|mark| mark.1), "{text}");
    assert!(before <= marks[0].1 && marks[marks.len() - 1].1 <= after, "{text}");
    for (phase, _, emitter) in &marks {
        let guest = [Phase::GuestKernelEntry, Phase::UserModeEntry].contains(phase);
        assert_eq!(emitter, if guest { "guest" } else { "vmm" }, "{phase:?}");
    }
}

#[test]
fn marks_to_a_descriptor_that_is_not_open_are_refused() {
    for fd in ["200", "-1", "2147483647"] {
        let ran = run([&format!("--marks-fd={fd}"), "workload", "hello"]);
        assert_eq!(ran.status, i32::from(status::LAUNCHER_FAILED), "{fd}: {ran:?}");
        assert!(ran.stderr.contains("is not an open file descriptor"), "{fd}: {ran:?}");
        assert_eq!(ran.text(), "");
    }
}

#[test]
fn the_lab_kernel_from_a_file_is_the_embedded_one() {
    if !kvm() {
        return;
    }
    let kernel = tempfile::NamedTempFile::new().unwrap();
    fs::write(kernel.path(), guest_images::KERNEL).unwrap();
    let kernel = kernel.path().to_str().unwrap();
    for words in [
        &["workload", "hello"][..],
        &["workload", "exit", "33"],
        &["workload", "crash"],
        &["none"],
    ] {
        let (embedded, file) = (
            run(words),
            run([&["--machine", "bare", "--kernel", kernel], words].concat()),
        );
        assert_eq!(embedded.status, file.status, "{words:?}");
        assert_eq!(embedded.stdout, file.stdout, "{words:?}");
        assert_eq!(embedded.stderr, file.stderr, "{words:?}");
    }
}

#[test]
fn an_archive_made_by_cpio_works_as_the_directory_does() {
    if !kvm() || !installed("cpio") || !installed("busybox") {
        return;
    }
    // A name that leaves the program's data unaligned, unlike in our own archives.
    let rootfs = Rootfs::new()
        .copy("bin/busybox", "/bin/busybox")
        .file("a", "odd")
        .file("dir/file", "content\n")
        .link("link", "dir/file");
    let archive = tempfile::NamedTempFile::new().unwrap();
    for list in ["find .", "find . | sort -r", "find * -type f -o -type l"] {
        let made = Command::new("sh")
            .args(["-c", &format!("{list} | cpio --quiet -o -H newc > \"$0\"")])
            .arg(archive.path())
            .current_dir(rootfs.path())
            .status()
            .unwrap();
        assert!(made.success());
        for words in [
            &["/bin/busybox", "cat", "link", "a"][..],
            &["/bin/busybox", "sha256sum", "/bin/busybox"],
            &["busybox", "ls", "/bin", "/dir"],
            &["/bin/busybox", "awk", "BEGIN { print 6 * 7 }"],
        ] {
            let options = ["--initrd", archive.path().to_str().unwrap(), "--"];
            let from_cpio = run([&options[..], words].concat());
            let from_directory = rootfs.run(words);
            assert_eq!(from_cpio.status, 0, "{list}, {words:?}: {from_cpio:?}");
            assert_eq!(from_cpio.stdout, from_directory.stdout, "{list}, {words:?}");
        }
    }
}
