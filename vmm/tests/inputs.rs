//! Wrong inputs: each has its own exit status and a message that names the cause and the cure.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use protocol::status;
use support::{Files, Rootfs, finish, installed, kvm, root, run, skipped};

#[test]
fn wrong_usage() {
    for arguments in [
        &[][..],
        &["--no-such-option", "workload"],
        &["--memory", "nonsense", "workload"],
        &["--memory", "-5", "workload"],
        &["--memory", "", "workload"],
        &["--memory", "99999999999999999999999", "workload"],
        &["--marks-fd", "three", "workload"],
        &["--initrd", "a", "--rootfs", "b", "workload"],
        &["--kernel"],
    ] {
        let ran = run(arguments);
        ran.refused(status::LAUNCHER_FAILED, &["error:", "--help"]);
    }
    let help = run(["--help"]);
    assert_eq!(help.status, 0);
    for option in [
        "--kernel",
        "--initrd",
        "--rootfs",
        "--memory",
        "--cmdline",
        "--marks-fd",
        "PROGRAM",
    ] {
        assert!(help.text().contains(option), "{option}");
    }
    // What stands behind the program is the program's.
    if kvm() {
        assert_eq!(run(["workload", "--help"]).status, 2);
        assert_eq!(run(["--", "workload", "--memory", "1T"]).status, 2);
    }
}

#[test]
fn no_permission_for_kvm() {
    if !root() {
        return;
    }
    // Where everybody may open /dev/kvm there is no such refusal to test.
    let mode = fs::metadata("/dev/kvm").map(|metadata| std::os::unix::fs::MetadataExt::mode(&metadata));
    if mode.map_or(true, |mode| mode & 0o002 != 0) {
        skipped("/dev/kvm is missing or open to everybody");
        return;
    }
    let (files, nobody) = (Files::new(), 65534);
    let copy = files.path().join("vmm");
    fs::copy(env!("CARGO_BIN_EXE_vmm"), &copy).unwrap();
    open_to_all(files.path());
    let mut command = Command::new(copy);
    command.args(["run", "workload", "hello"]).uid(nobody).gid(nobody);
    finish(command, b"").refused(
        status::KVM_NOT_PERMITTED,
        &["no permission to open /dev/kvm", "or run as root"],
    );
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn no_kvm_at_all() {
    if !root() || !installed("unshare") {
        return;
    }
    // An empty /dev, in a mount namespace that ends with the process.
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        r#"mount -t tmpfs none /dev && exec "$0" run workload hello"#,
    ]);
    command.arg(env!("CARGO_BIN_EXE_vmm"));
    finish(command, b"").refused(status::NO_KVM, &["there is no /dev/kvm", "modprobe"]);
}

#[test]
fn memory_sizes_nobody_can_have() {
    if !kvm() {
        return;
    }
    for size in ["0", "1", "1M", "1T", "65G", "15E"] {
        let ran = run(["--memory", size, "workload", "hello"]);
        ran.refused(status::MEMORY_TOO_SMALL, &["--memory", "the least is 2 MiB"]);
    }
    // The smallest that works, an odd one, and one that goes around the device hole.
    for size in ["4M", "5000001", "5G"] {
        let ran = run(["--memory", size, "workload", "hello"]);
        assert_eq!(
            (ran.status, ran.text().as_str()),
            (0, "hello from the workload\n"),
            "{size}: {ran:?}"
        );
    }
    // Between enough for the machine and enough for the program every size ends with a message.
    for kib in (2048..4096).step_by(128) {
        let ran = run(["--memory", &format!("{kib}K"), "workload", "hello"]);
        let known = [0, 113, 116, 126, 137].contains(&ran.status);
        assert!(
            known && (ran.status == 0) == ran.stderr.is_empty(),
            "{kib} KiB: {ran:?}"
        );
    }
}

/// Shows a bug of the lab kernel: when the RAM above 4 GiB is the larger stretch, it takes the page tables for its direct
/// map from there, before the direct map reaches so far, and panics (page fault at 0xffff800100000000).
#[test]
fn a_guest_may_have_as_much_memory_as_the_message_promises() {
    if !kvm() {
        return;
    }
    for size in ["6G", "7G", "64G"] {
        let ran = run(["--memory", size, "workload", "hello"]);
        assert_eq!(
            (ran.status, ran.text().as_str()),
            (0, "hello from the workload\n"),
            "{size}: {ran:?}"
        );
    }
}

#[test]
fn initrds_that_are_none() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let refuse = |path: &str, parts: &[&str]| {
        run(["--initrd", path, "init"]).refused(status::BAD_INITRD, &[&[path], parts].concat());
    };
    refuse("/no/such/initrd", &["No such file"]);
    refuse(files.path().to_str().unwrap(), &["not a newc cpio archive", "--rootfs"]);
    refuse(
        &files.write("empty", b""),
        &["not a newc cpio archive", "cpio -o -H newc"],
    );
    refuse(
        &files.write("text", b"not an archive at all"),
        &["not a newc cpio archive"],
    );
    refuse(
        &files.write("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
        &["not a newc cpio archive"],
    );
    run(["--rootfs", "/no/such/directory", "init"]).refused(status::BAD_INITRD, &["/no/such/directory"]);
    let file = files.write("file", b"");
    run(["--rootfs", &file, "init"]).refused(status::BAD_INITRD, &[&file]);
    let large = files.write("large", b"070701");
    fs::File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(200 << 20)
        .unwrap();
    run(["--initrd", &large, "init"]).refused(status::MEMORY_TOO_SMALL, &["initrd", "64 MiB", "--memory"]);
}

#[test]
fn an_initrd_cut_anywhere_runs_or_says_damaged() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let good = vmm::initrd::workload_archive().unwrap();
    let header = 110;
    let cuts = (6..300).step_by(7).chain([header - 1, header, header + 1]);
    let cuts = cuts.chain((300..good.len()).step_by(good.len() / 25));
    let cuts = cuts.chain(good.len() - 140..good.len());
    for length in cuts {
        let path = files.write("cut", &good[..length]);
        // A program that is whole although the archive is not may run.
        for (name, whole) in [("workload", 0), ("missing", 127)] {
            let ran = run(["--initrd", &path, "--", name, "hello"]);
            if ran.status == i32::from(status::KERNEL_PANIC) {
                assert!(ran.stderr.contains("damaged"), "{length}: {ran:?}");
            } else {
                assert_eq!(ran.status, whole, "{length}: {ran:?}");
            }
        }
    }
}

#[test]
fn an_initrd_with_wrong_headers_never_hangs_or_breaks_the_kernel() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let good = vmm::initrd::workload_archive().unwrap();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for round in 0..120 {
        let mut bad = good.clone();
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The headers and names of the two entries in front.
            bad[6 + random as usize % 250] = b"0123456789abcdefXYZ\0/."[(random >> 32) as usize % 22];
        }
        let path = files.write("bad", &bad);
        let ran = run(["--initrd", &path, "--", "workload", "hello"]);
        let said = match ran.status {
            0 => ran.text() == "hello from the workload\n",
            116 => ran.stderr.contains("damaged"),
            126 | 127 => ran.stderr.contains("cannot run"),
            _ => false,
        };
        assert!(said, "round {round}: {ran:?}");
    }
}

#[test]
fn programs_that_cannot_run() {
    if !kvm() {
        return;
    }
    let workload = guest_images::WORKLOAD;
    let mut writable_code = workload.to_vec();
    // The first program header's flags: read, write and execute.
    writable_code[64 + 4] = 7;
    let rootfs = Rootfs::new()
        .program("bin/script", b"#!/bin/sh\necho hi\n")
        .program("bin/text", b"plain text\n")
        .program("bin/empty", b"")
        .program("bin/cut", &workload[..2000])
        .program("bin/header", &workload[..64])
        .program("bin/writable-code", &writable_code)
        .link("bin/dangling", "nothing")
        .link("bin/loop", "loop")
        .directory("bin/directory");
    let refuse = |name: &str, status: u8, reason: &str| {
        rootfs.run(&[name]).refused(status, &["cannot run", name, reason]);
    };
    refuse("/bin/none", status::NOT_FOUND, "no such file");
    refuse("none", status::NOT_FOUND, "no such file");
    refuse("/bin/dangling", status::NOT_FOUND, "no such file");
    refuse("/bin/loop", status::NOT_FOUND, "");
    refuse("/bin/script/x", status::NOT_FOUND, "");
    refuse("/bin/script", status::NOT_EXECUTABLE, "script");
    refuse("script", status::NOT_EXECUTABLE, "script");
    refuse("/bin/text", status::NOT_EXECUTABLE, "not an ELF file");
    refuse("/bin/empty", status::NOT_EXECUTABLE, "not an ELF file");
    refuse("/bin/cut", status::NOT_EXECUTABLE, "broken");
    refuse("/bin/header", status::NOT_EXECUTABLE, "broken");
    refuse("/bin/writable-code", status::NOT_EXECUTABLE, "writable and executable");
    let directory = rootfs.run(&["/bin/directory"]);
    assert!(
        [126, 127].contains(&directory.status) && directory.stderr.contains("cannot run"),
        "{directory:?}"
    );
    // The test itself is a dynamically linked program, if the target's C library is.
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    if !own.windows(3).any(|window| window == b"ld-") {
        skipped("this test binary is not dynamically linked");
        return;
    }
    let size = format!("{}M", (own.len() >> 20) * 2 + 64);
    let rootfs = Rootfs::new().program("bin/dynamic", &own);
    let ran = rootfs.run_with(&["--memory", &size], &["dynamic"], b"");
    ran.refused(status::NOT_EXECUTABLE, &["dynamically linked", "statically"]);
}

#[test]
fn command_lines_too_long() {
    if !kvm() {
        return;
    }
    let long = "x".repeat(3000);
    run(["workload", &long]).refused(status::LAUNCHER_FAILED, &["command line", "2047"]);
    run(["--cmdline", &long, "workload"]).refused(status::LAUNCHER_FAILED, &["command line", "--cmdline"]);
    // The longest that fits arrives whole: 2047 bytes of which "rdinit=workload -- " are 19.
    let rootfs = Rootfs::new().program("bin/workload", guest_images::WORKLOAD);
    let ran = rootfs.run(&["workload", &"x".repeat(2047 - 19)]);
    assert_eq!(ran.status, 2, "{ran:?}");
    let ran = rootfs.run(&["workload", &"x".repeat(2047 - 18)]);
    ran.refused(status::LAUNCHER_FAILED, &["2048 bytes"]);
}
