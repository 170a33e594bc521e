//! How a guest can end: with a status, by a crash, without memory; and how it never may: with a kernel panic or a hang.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use protocol::status;
use support::{Ran, Rootfs, kvm, rootfs_with, run, vmm, wait_within};

#[test]
fn exit_statuses_pass_through() {
    if !kvm() {
        return;
    }
    for wanted in [0, 1, 7, 110, 116, 127, 255] {
        let ran = run(["workload", "exit", &wanted.to_string()]);
        assert_eq!((ran.status, ran.stderr.as_str()), (wanted, ""));
    }
}

/// Runs `/bin/faults HOW` and expects this signal, and one line that names it and has these words.
#[track_caller]
fn dies(rootfs: &Rootfs, how: &[&str], signal: u8, words: &[&str]) {
    let ran = run_fault(rootfs, how);
    assert_eq!(ran.status, i32::from(status::SIGNAL_BASE + signal), "{how:?}: {ran:?}");
    assert_eq!(
        ran.text(),
        "before\n",
        "{how:?}: output before the crash must not be lost"
    );
    assert_eq!(ran.stderr.lines().count(), 1, "{how:?}: {}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{how:?}: no {word} in {}", ran.stderr);
    }
}

fn run_fault(rootfs: &Rootfs, how: &[&str]) -> Ran {
    let words: Vec<&str> = ["/bin/faults"].iter().chain(how).copied().collect();
    rootfs.run(&words)
}

#[test]
fn a_crash_is_one_line_and_a_signal_status() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("faults") else { return };
    const SEGV: &[&str] = &["SIGSEGV", "/bin/faults", "rip 0x"];
    let with = |more: &'static str| [SEGV, &[more]].concat();
    dies(&rootfs, &["write-null"], 11, &with("wrote to 0x0,"));
    dies(&rootfs, &["read", "dead0000"], 11, &with("read from 0xdead0000,"));
    dies(&rootfs, &["jump", "0"], 11, &with("jumped to 0x0,"));
    dies(&rootfs, &["write-code"], 11, &with("wrote to"));
    dies(&rootfs, &["write-constant"], 11, &with("wrote to"));
    dies(&rootfs, &["run-data"], 11, &with("jumped to"));
    dies(&rootfs, &["run-stack"], 11, &with("jumped to"));
    dies(&rootfs, &["run-heap"], 11, &with("jumped to"));
    dies(&rootfs, &["overflow-stack"], 11, SEGV);
    dies(&rootfs, &["not-canonical"], 11, SEGV);
    dies(&rootfs, &["divide"], 8, &["SIGFPE", "rip 0x"]);
    dies(&rootfs, &["ud2"], 4, &["SIGILL", "rip 0x"]);
    dies(&rootfs, &["abort"], 6, &["signal 6"]);
}

#[test]
fn privileged_instructions_are_crashes_of_the_program() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("faults") else { return };
    for how in ["hlt", "cli", "in", "out", "lgdt", "wrmsr", "mov-cr3", "invlpg"] {
        dies(&rootfs, &[how], 11, &["SIGSEGV", "rip 0x"]);
    }
    // Odd flags and segments in front of a system call: the kernel must not inherit them.
    for how in [
        "trap-and-call",
        "odd-flags-and-call",
        "odd-segments-and-call",
        "odd-stack-and-call",
    ] {
        let ran = run_fault(&rootfs, &[how]);
        assert!([99, 133, 135, 139].contains(&ran.status), "{how}: {ran:?}");
        assert!(!ran.stderr.contains("panic"), "{how}: {ran:?}");
    }
    // Software interrupts have no gate for a program. Some KVMs report them as an undefined instruction instead.
    for how in ["int80", "int3", "trap-flag", "sysenter", "unaligned"] {
        let ran = run_fault(&rootfs, &[how]);
        let signal = ran.status - i32::from(status::SIGNAL_BASE);
        assert!([4, 5, 7, 11].contains(&signal), "{how}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{how}: {}", ran.stderr);
    }
}

#[test]
fn the_kernel_is_out_of_reach() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("faults") else { return };
    let kernel = [
        symbol("syscall_entry"),
        symbol("start"),
        // Start of the kernel's image, the direct map, the last byte.
        0xffff_ffff_8010_0000,
        0xffff_8000_0000_0000,
        0xffff_ffff_ffff_ffff,
        // The first address behind the program's half, and what the identity map had while booting.
        1 << 39,
        0x7000,
        0x10_0000,
    ];
    for address in kernel {
        let address = format!("{address:x}");
        dies(&rootfs, &["read", &address], 11, &["SIGSEGV", "read from"]);
        dies(&rootfs, &["write", &address], 11, &["SIGSEGV", "wrote to"]);
        if address != format!("{:x}", symbol("syscall_entry")) {
            dies(&rootfs, &["jump", &address], 11, &["SIGSEGV"]);
        }
    }
}

/// The one kernel address where a jump is a call; see the kernel's `entry.rs`.
#[test]
fn a_jump_to_the_system_call_entry_is_a_system_call_or_a_crash_and_never_more() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("faults") else { return };
    let entry = format!("{:x}", symbol("syscall_entry"));
    // exit_group(42) from there, with a return address and flags of the program's choosing.
    let ran = run_fault(&rootfs, &["enter", &entry, "400000", "0"]);
    assert!([42, 139].contains(&ran.status), "{ran:?}");
    // A return address in the kernel, behind the program's half, or not canonical.
    for back in ["ffffffff80100000", "8000000000", "800000000000", "ffffffffffffffff"] {
        dies(&rootfs, &["enter", &entry, back, "0"], 11, &["SIGSEGV"]);
    }
    // Flags with I/O privilege: getpid, and then `cli` must still be forbidden.
    let ran = run_fault(&rootfs, &["enter-with-iopl", &entry]);
    assert_eq!(ran.status, 139, "{ran:?}");
    assert!(!ran.stderr.contains("panic"), "{ran:?}");
}

#[test]
fn memory_that_is_not_there_is_refused_with_a_message() {
    if !kvm() {
        return;
    }
    let ran = run(["--memory", "64M", "workload", "memory", "200"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("no memory for 200 MiB"), "{ran:?}");
    let enough = run(["--memory", "256M", "workload", "memory", "200"]);
    assert_eq!(enough.status, 0, "{enough:?}");
}

#[test]
fn a_program_that_takes_all_memory_is_killed() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("devour") else { return };
    for how in ["maps", "heap"] {
        let ran = rootfs.run_with(&["--memory", "16M"], &["/bin/devour", how], b"");
        // 137: killed for a page nobody had; 3: mmap or brk said no first, which is fine too.
        assert!([137, 3].contains(&ran.status), "{how}: {ran:?}");
        let said = ran.stderr.contains("out of memory") || ran.text().contains("refused");
        assert!(said, "{how}: {ran:?}");
    }
    let ran = rootfs.run_with(&["--memory", "16M"], &["/bin/devour", "promises"], b"");
    assert_eq!(ran.status, 137, "{ran:?}");
    assert!(
        ran.stderr.contains("SIGKILL") && ran.stderr.contains("out of memory"),
        "{ran:?}"
    );
}

/// Shows a bug of the lab kernel: with one place left in its table of regions, an mprotect that must split two regions
/// changes the first, fails at the second and leaves the page tables as they were. The write to the first then faults,
/// is allowed by the region, finds the page present, and faults again, for ever.
#[test]
fn a_program_with_too_many_regions_never_makes_the_kernel_fault_for_ever() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("regions") else { return };
    for spare in ["0", "1", "2", "3", "4", "5"] {
        let mut child = vmm()
            .arg("run")
            .arg("--rootfs")
            .arg(rootfs.path())
            .args(["--", "/bin/regions", spare])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let status = wait_within(&mut child, Duration::from_secs(20));
        assert!([0, 139].contains(&status), "{spare} regions to spare: {status}");
    }
}

/// Every system call number with pointers that lead nowhere, then thousands of calls with random arguments from a
/// fixed seed. The program must reach its end.
#[test]
fn garbage_arguments_never_hurt_the_kernel() {
    if !kvm() {
        return;
    }
    let Some(rootfs) = rootfs_with("fuzz") else { return };
    for words in [
        &["/bin/fuzz", "pointers"][..],
        &["/bin/fuzz", "1", "8000"],
        &["/bin/fuzz", "2", "8000"],
    ] {
        let ran = rootfs.run_with(&[], words, b"input");
        assert_eq!(ran.status, 0, "{words:?}: {ran:?}");
        assert!(ran.stdout.ends_with(b"survived\n"), "{words:?}: {ran:?}");
        assert!(!ran.stderr.contains("panic"), "{words:?}: {}", ran.stderr);
    }
}

/// Address of a symbol of the embedded lab kernel, from its ELF symbol table (System V ABI, chapter 4).
fn symbol(wanted: &str) -> u64 {
    const SYMBOL_TABLE: u32 = 2;
    let file = guest_images::KERNEL;
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&file[at..at + size]);
        u64::from_le_bytes(bytes) as usize
    };
    let (sections, each, count) = (number(40, 8), number(58, 2), number(60, 2));
    let section = |i: usize| sections + i * each;
    let table = (0..count)
        .map(section)
        .find(|&at| number(at + 4, 4) as u32 == SYMBOL_TABLE);
    let table = table.expect("the lab kernel keeps its symbol table");
    let names = number(section(number(table + 40, 4)) + 24, 8);
    let (start, length) = (number(table + 24, 8), number(table + 32, 8));
    for entry in (start..start + length).step_by(24) {
        let name = &file[names + number(entry, 4)..];
        if name.starts_with(wanted.as_bytes()) && name[wanted.len()] == 0 {
            return number(entry + 8, 8) as u64;
        }
    }
    panic!("the lab kernel has no symbol {wanted}");
}
