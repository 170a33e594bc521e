//! A guest that writes and reads every port and every device address with random values, and fills the queues of devices
//! it has set up with random requests, as fast as it can: in the end there is a clean message, and in between neither a
//! panic, nor a hang, nor a VMM that grows.
//!
//! LAB_RANDOM_ACCESSES=N makes each guest do N rounds instead of a few seconds' worth.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use protocol::status;
use support::{Files, collect_within, compile, installed, kvm, root, vmm};

/// Rounds of one access to a port, one to an address and one request to a device each.
const ROUNDS: u32 = 2_000;
/// After this long a guest counts as hung.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the VMM may grow by between its first and its last second: a heap that settles, not one that follows the guest.
const GROWTH_KIB: u64 = 2048;

/// Resident memory of a process in KiB, without what the guest was given.
fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The guest of `programs/random_guest.c`.
fn guest(rounds: u32) -> Option<Vec<u8>> {
    let rounds = format!("-DROUNDS={rounds}");
    let flags: Vec<_> = include_str!("programs/random_guest.flags")
        .split_whitespace()
        .chain([&*rounds])
        .collect();
    compile("random_guest", &flags)
}

/// Runs the guest under `launcher`, which ends with the words of the command to run.
fn survive(machine: &str, options: &[&str], launcher: &[&str]) {
    if !kvm() {
        return;
    }
    let rounds = std::env::var("LAB_RANDOM_ACCESSES").map_or(ROUNDS, |text| text.parse().unwrap());
    let Some(guest) = guest(rounds) else { return };
    let files = Files::new();
    let kernel = files.write("kernel", &guest);
    let began = std::time::Instant::now();
    let mut command = match launcher {
        [] => vmm(),
        [first, others @ ..] => {
            let mut command = Command::new(first);
            command.args(others).arg(vmm().get_program());
            command
        }
    };
    let child = command
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
        let ran = collect_within(child, PATIENCE);
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
        "{machine} {options:?}: {rounds} rounds in {:.1} s; resident {early} KiB in the first quarter, {late} KiB in the last",
        began.elapsed().as_secs_f64()
    );
    assert!(late.saturating_sub(*early) <= GROWTH_KIB, "{sizes:?}");
}

#[test]
fn a_bare_machine_survives_random_accesses() {
    survive("bare", &[], &[]);
}

#[test]
fn a_pc_survives_random_accesses() {
    survive("pc", &[], &[]);
}

/// The disk may be written to, and the card's tap is in a network namespace of its own, where its frames go nowhere.
#[test]
fn a_pc_with_every_device_survives_random_accesses() {
    if !root() || !installed("ip") {
        return;
    }
    let files = Files::new();
    let disk = files.write("disk", &[0; 1 << 20]);
    let in_namespace = [
        "unshare",
        "--net",
        "sh",
        "-c",
        "ip tuntap add dev tap0 mode tap && ip link set tap0 up && exec \"$@\"",
        "sh",
    ];
    let devices = [
        "--disk",
        &disk,
        "--net",
        "tap=tap0",
        "--rng",
        "--balloon",
        "--console",
        "virtio",
    ];
    survive("pc", &devices, &in_namespace);
}
