//! Kernels that are none, that do not fit, that fault, spin or halt: the VMM says which, or waits to be told to stop.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use protocol::status;
use support::machine_code::{Code, boot};
use support::{Files, kvm, run, skipped, vmm};

#[test]
fn kernels_that_are_none() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let lab = guest_images::KERNEL;
    let refuse = |path: &str, parts: &[&str]| {
        run(["--kernel", path, "workload", "hello"]).refused(status::NOT_A_KERNEL, &[&[path], parts].concat());
    };
    const CURE: &str = "leave out --kernel";
    refuse(&files.write("text", b"#!/bin/sh\necho I am no kernel\n"), &[CURE]);
    refuse(&files.write("empty", b""), &[CURE]);
    refuse(&files.write("three-bytes", b"\x7fEL"), &[CURE]);
    refuse(&files.write("zeros", &[0; 8192]), &[CURE]);
    refuse(&files.write("magic-only", b"\x7fELF"), &[CURE]);
    refuse(&files.write("header-only", &lab[..64]), &[CURE]);
    // A 32-bit ELF, and one for another byte order.
    let mut other = lab.to_vec();
    other[5] = 2;
    refuse(&files.write("big-endian", &other), &[CURE]);
}

#[test]
fn kernels_that_cannot_be_read() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let missing = run(["--kernel", "/no/such/kernel", "workload", "hello"]);
    missing.refused(status::LAUNCHER_FAILED, &["/no/such/kernel", "No such file"]);
    let directory = run(["--kernel", files.path().to_str().unwrap(), "workload", "hello"]);
    directory.refused(status::LAUNCHER_FAILED, &["directory"]);
}

#[test]
fn kernels_that_do_not_fit_or_are_cut_short() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let large = files.write("large", &Code::new().raw(&vec![0x90; 5 << 20]).exit(0).kernel());
    let ran = run(["--memory", "4M", "--kernel", &large, "x"]);
    ran.refused(status::MEMORY_TOO_SMALL, &["large", "4 MiB", "--memory"]);
    // Small in the file, large in memory.
    let bss = files.write("bss", &Code::new().exit(0).kernel_of(1 << 30));
    let ran = run(["--kernel", &bss, "x"]);
    ran.refused(status::MEMORY_TOO_SMALL, &["--memory"]);
    let endless = files.write("endless", &Code::new().exit(0).kernel_of(u64::MAX));
    let ran = run(["--kernel", &endless, "x"]);
    assert!(
        [status::MEMORY_TOO_SMALL, status::NOT_A_KERNEL]
            .map(i32::from)
            .contains(&ran.status),
        "{ran:?}"
    );
    ran.no_panic();
    let lab = guest_images::KERNEL;
    for length in [65, 119, 120, 200, 4096, lab.len() / 4] {
        let cut = files.write("cut", &lab[..length]);
        let ran = run(["--kernel", &cut, "workload", "hello"]);
        let known = [status::NOT_A_KERNEL, status::MEMORY_TOO_SMALL].map(i32::from);
        assert!(
            known.contains(&ran.status) && ran.stderr.contains("cut"),
            "{length}: {ran:?}"
        );
        ran.no_panic();
    }
}

/// Every header field of a good kernel set to something else: any refusal will do, and any guest that then runs is on
/// its own; the VMM itself must not panic or hang.
#[test]
fn kernels_with_broken_headers_never_break_the_vmm() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let good = Code::new().exit(5).kernel();
    let path = files.write("good", &good);
    assert_eq!(
        run(["--machine", "bare", "--memory", "2M", "--kernel", &path, "x"]).status,
        5
    );
    for at in (16..64).step_by(2).chain((64..120).step_by(4)) {
        for value in [0u8, 0xff] {
            let mut broken = good.clone();
            broken[at..at + 2].fill(value);
            let path = files.write("broken", &broken);
            // Little memory: a kernel entered at the wrong place walks through zeros to its end.
            let ran = run(["--machine", "bare", "--memory", "2M", "--kernel", &path, "x"]);
            // 0 and 5: it ran, as a whole or from somewhere in the middle.
            assert!(
                [0, 5, 112, 113, 114, 115, 118].contains(&ran.status),
                "{value:#x} at {at}: {ran:?}"
            );
            assert_eq!(
                [0, 5].contains(&ran.status),
                ran.stderr.is_empty(),
                "{value:#x} at {at}: {ran:?}"
            );
            ran.no_panic();
        }
    }
}

#[test]
fn a_triple_fault_has_its_own_status() {
    if !kvm() {
        return;
    }
    // ud2 without an interrupt table; a load from an address no page table maps.
    for code in [
        &[0x0f, 0x0b][..],
        &[0x48, 0xb8, 0, 0, 0, 0, 0, 1, 0, 0, 0x48, 0x8b, 0x00],
    ] {
        let ran = boot(Code::new().raw(code).exit(0));
        ran.refused(status::TRIPLE_FAULT, &["the guest triple-faulted", "kernel"]);
        // Where, or that nobody knows: never the address that a reset leaves.
        assert!(!ran.stderr.contains("rip 0xfff0"), "{ran:?}");
        let told = ["at rip 0x", "its registers are lost with it"];
        assert!(told.iter().any(|words| ran.stderr.contains(words)), "{ran:?}");
    }
}

#[test]
fn an_instruction_kvm_cannot_emulate_has_its_own_status() {
    if !kvm() {
        return;
    }
    // CR4: operating system supports SSE (bits 9 and 10); then addps xmm0, xmm0.
    let sse = [0x0f, 0x20, 0xe0, 0x0d, 0, 6, 0, 0, 0x0f, 0x22, 0xe0, 0x0f, 0x58, 0xc0];
    let ran = boot(Code::new().raw(&sse).exit(0));
    if ran.status == 0 {
        skipped("this KVM runs SSE instructions in a guest kernel: nothing to refuse");
        return;
    }
    ran.refused(status::NOT_EMULATED, &["cannot emulate", "rip 0x", "lab doctor"]);
}

#[test]
fn a_kernel_that_spins_or_halts_is_ended_by_sigterm() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    for (name, code) in [
        ("spins", Code::new().say(b'!').raw(&[0xeb, 0xfe])),
        ("halts", Code::new().say(b'!').halt()),
    ] {
        let path = files.write(name, &code.kernel());
        let mut child = vmm()
            .args(["run", "--machine", "bare", "--kernel", &path, "x"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        // Well past the byte, into the loop.
        thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "{name}: ended by itself");
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        assert_eq!(support::wait(&mut child), 128 + libc::SIGTERM, "{name}");
    }
}
