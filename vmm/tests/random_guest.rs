//! A guest that writes and reads every port and every device address with random values, as fast as it can: in the end
//! there is a clean message, and in between neither a panic, nor a hang, nor a VMM that grows.
//!
//! LAB_RANDOM_ACCESSES=N makes each guest do N rounds instead of a few seconds' worth.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use protocol::{ports, status};
use support::machine_code::Code;
use support::{Files, collect, kvm, vmm};

/// Rounds of one write and one read at a random port and a random address each.
const ROUNDS: u32 = 6_000;
/// Guest memory: everything from here to 4 GiB is devices, or nothing.
const MEMORY: u64 = 64 << 20;
/// Where the guest keeps the page tables it makes.
const TABLES: u64 = 0x40_0000;
/// What the VMM may grow by between its first and its last second: a heap that settles, not one that follows the guest.
const GROWTH_KIB: u64 = 2048;

/// xorshift64 on rbx: shl 13, shr 7, shl 17.
const NEXT: [u8; 30] = [
    0x48, 0x89, 0xd8, 0x48, 0xc1, 0xe0, 0x0d, 0x48, 0x31, 0xc3, // rbx ^= rbx << 13
    0x48, 0x89, 0xd8, 0x48, 0xc1, 0xe8, 0x07, 0x48, 0x31, 0xc3, // rbx ^= rbx >> 7
    0x48, 0x89, 0xd8, 0x48, 0xc1, 0xe0, 0x11, 0x48, 0x31, 0xc3, // rbx ^= rbx << 17
];

/// Maps GiB 1 to 3 as they are: the boot tables end at 1 GiB, and devices lie above.
fn map_four_gib(code: Code) -> Code {
    let mut code = code;
    for gib in 1..4u64 {
        let table = TABLES + (gib - 1) * 0x1000;
        // Present, writable; the PDPT of the boot tables is at 0xa000.
        code = code.store(0xa000 + 8 * gib, table | 0b11);
    }
    code
        // mov edi, TABLES; mov rax, 1 GiB | present, writable, 2 MiB; mov ecx, 3 * 512
        .raw(&[0xbf])
        .raw(&(TABLES as u32).to_le_bytes())
        .raw(&[0x48, 0xb8])
        .raw(&(1u64 << 30 | 0x83).to_le_bytes())
        .raw(&[0xb9])
        .raw(&(3u32 * 512).to_le_bytes())
        // again: mov [rdi], rax; add rdi, 8; add rax, 2 MiB; dec ecx; jnz again
        .raw(&[0x48, 0x89, 0x07, 0x48, 0x83, 0xc7, 0x08])
        .raw(&[0x48, 0x05, 0, 0, 0x20, 0])
        .raw(&[0xff, 0xc9, 0x75, 0xef])
        // mov rax, cr3; mov cr3, rax
        .raw(&[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8])
}

/// `rounds` times: a random value to and from a random port, and to and from a random address between RAM and the local
/// APICs, every other time within the pages of devices.
fn random_accesses(rounds: u32, seed: u64) -> Code {
    let mut body = Code::new()
        .raw(&NEXT)
        // mov edx, ebx; shr edx, 16: the port
        .raw(&[0x89, 0xda, 0xc1, 0xea, 0x10])
        // Every other time one of the first 16 KiB... of 4096: most devices are there. test bl, 1; jz +6; and edx, 0xfff
        .raw(&[0xf6, 0xc3, 0x01, 0x74, 0x06, 0x81, 0xe2, 0xff, 0x0f, 0, 0]);
    // The ports that end the machine are left for the end: mov eax, edx; and eax, 0xfff0; cmp eax, 0xc00; je behind.
    let accesses = Code::new()
        // mov eax, ebx; out dx, al; in al, dx; out dx, ax; in ax, dx; out dx, eax; in eax, dx
        .raw(&[
            0x89, 0xd8, 0xee, 0xec, 0x89, 0xd8, 0x66, 0xef, 0x66, 0xed, 0x89, 0xd8, 0xef, 0xed,
        ])
        .bytes();
    // The reset port as well: it takes 0xfe, once in 256.
    body = body
        .raw(&[0x89, 0xd0, 0x25, 0xf0, 0xff, 0, 0, 0x3d, 0, 0x0c, 0, 0, 0x74])
        .raw(&[accesses.len() as u8 + 5])
        // cmp edx, 0x64; je behind
        .raw(&[0x83, 0xfa, 0x64, 0x74, accesses.len() as u8])
        .raw(&accesses)
        .raw(&NEXT)
        // mov rdi, rbx; shr rdi, 20; and edi, 0x1ffff; add edi, DEVICES: 32 pages of registers
        .raw(&[
            0x48, 0x89, 0xdf, 0x48, 0xc1, 0xef, 0x14, 0x81, 0xe7, 0xff, 0xff, 0x01, 0,
        ])
        .raw(&[0x81, 0xc7])
        .raw(&(vmm::layout::DEVICES as u32).to_le_bytes())
        // test bl, 3; jnz over; mov edi, ebx; and edi, 0x7fffffff; add edi, MEMORY: once in four anywhere else
        .raw(&[
            0xf6, 0xc3, 0x03, 0x75, 0x0e, 0x89, 0xdf, 0x81, 0xe7, 0xff, 0xff, 0xff, 0x7f, 0x81, 0xc7,
        ])
        .raw(&(MEMORY as u32).to_le_bytes())
        // over: test bl, 4; jz +3; and edi, -4: half of the accesses where a register can be
        .raw(&[0x90, 0xf6, 0xc3, 0x04, 0x74, 0x03, 0x83, 0xe7, 0xfc])
        // mov [rdi], ebx; mov eax, [rdi]; mov [rdi], bl; mov ax, [rdi]; mov [rdi], rbx
        .raw(&[0x89, 0x1f, 0x8b, 0x07, 0x88, 0x1f, 0x66, 0x8b, 0x07, 0x48, 0x89, 0x1f]);
    let body = body.bytes();
    // dec r15d; jnz body
    let back = -(body.len() as i32 + 9);
    map_four_gib(Code::new())
        .raw(&[0x48, 0xbb])
        .raw(&seed.to_le_bytes())
        .raw(&[0x41, 0xbf])
        .raw(&rounds.to_le_bytes())
        .raw(&body)
        .raw(&[0x41, 0xff, 0xcf, 0x0f, 0x85])
        .raw(&back.to_le_bytes())
        // And the end: a request where no memory is.
        .out(ports::DOORBELL, u32::MAX)
}

/// Resident memory of a process in KiB, without what the guest was given.
fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn survive(machine: &str, options: &[&str]) {
    if !kvm() {
        return;
    }
    let rounds = std::env::var("LAB_RANDOM_ACCESSES").map_or(ROUNDS, |text| text.parse().unwrap());
    let files = Files::new();
    let kernel = files.write("kernel", &random_accesses(rounds, 0x9e37_79b9_7f4a_7c15).kernel());
    let began = std::time::Instant::now();
    let child = vmm()
        .args(["run", "--machine", machine, "--memory", "64M"])
        .args(options)
        .args(["--kernel", &kernel, "x"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (process, ended) = (child.id(), AtomicBool::new(false));
    let (ran, sizes) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut sizes = Vec::new();
            while !ended.load(Ordering::Acquire) {
                sizes.extend(resident(process));
                thread::sleep(Duration::from_millis(20));
            }
            sizes
        });
        let ran = collect(child);
        ended.store(true, Ordering::Release);
        (ran, watcher.join().unwrap())
    });
    ran.refused(
        status::GUEST_MISBEHAVED,
        &["the guest rang the doorbell for a request at 0xffffffff"],
    );
    let quarter = sizes.len() / 4;
    let early = sizes[..=quarter].iter().max().unwrap();
    let late = sizes[sizes.len() - 1 - quarter..].iter().max().unwrap();
    eprintln!(
        "{machine}: {rounds} rounds in {:.1} s; resident {early} KiB in the first quarter, {late} KiB in the last",
        began.elapsed().as_secs_f64()
    );
    assert!(late.saturating_sub(*early) <= GROWTH_KIB, "{sizes:?}");
}

#[test]
fn a_bare_machine_survives_random_accesses() {
    survive("bare", &[]);
}

#[test]
fn a_pc_survives_random_accesses() {
    survive("pc", &[]);
}
