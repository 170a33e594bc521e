//! A bounded run of every fuzz target: seeds, then what becomes of them by a few changes each. The same numbers every time;
//! `fuzz/Cargo.toml` tells how to let a fuzzer that watches its coverage go on from there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "../fuzz/seeds.rs"]
mod seeds;

use std::panic;

use fastrand::Rng;

/// Inputs per target: a second or two of work in a debug build.
const ROUNDS: usize = 4_000;
/// Values that lie on a border somewhere.
const BORDERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];

fn change(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Rng) {
    if input.is_empty() {
        input.push(random.u8(..));
    }
    let at = random.usize(..input.len());
    match random.u8(..6) {
        0 => input[at] ^= 1 << random.u8(..8),
        1 => input[at] = random.u8(..),
        2 => {
            let value = random.choice(BORDERS).unwrap().to_le_bytes();
            let width = 1 << random.u8(..4);
            input[at..]
                .iter_mut()
                .zip(&value[..width])
                .for_each(|(byte, value)| *byte = *value);
        }
        3 => input.truncate(at),
        4 => {
            let part = input[at..].to_vec();
            let into = random.usize(..=input.len());
            input.splice(into..into, part.into_iter().take(64));
        }
        _ => {
            let other = random.choice(others).unwrap();
            let from = random.usize(..=other.len());
            input.extend(other[from..].iter().take(256));
        }
    }
}

/// Runs `body` on the seeds of `target` and on their descendants. Prints the input that made it panic.
fn explore(target: &str, body: fn(&[u8])) {
    let (_, seeds) = seeds::all().into_iter().find(|(name, _)| *name == target).unwrap();
    let mut random = Rng::with_seed(0x1ab);
    let descendants = std::iter::repeat_with(|| {
        let mut input = random.choice(&seeds).unwrap().clone();
        (0..random.usize(1..12)).for_each(|_| change(&mut input, &seeds, &mut random));
        input
    });
    for input in seeds.iter().cloned().chain(descendants.take(ROUNDS)) {
        if let Err(cause) = panic::catch_unwind(|| body(&input)) {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{target} fails on {hex}");
            panic::resume_unwind(cause);
        }
    }
}

#[test]
fn kernels_as_elf_files() {
    explore("elf", bodies::elf);
}

#[test]
fn kernels_as_bzimages() {
    explore("bzimage", bodies::bzimage);
}

#[test]
fn programs_for_the_lab_kernel() {
    explore("guest_elf", bodies::guest_elf);
}

#[test]
fn archives_as_the_vmm_reads_them() {
    explore("cpio", bodies::cpio);
}

#[test]
fn archives_as_the_lab_kernel_reads_them() {
    explore("guest_cpio", bodies::guest_cpio);
}

#[test]
fn symbol_files() {
    explore("symbols", bodies::symbols);
}

#[test]
fn requests_at_the_doorbell() {
    explore("doorbell", bodies::doorbell);
}

#[test]
fn accesses_to_ports() {
    explore("ports", bodies::ports);
}

#[test]
fn snapshots() {
    explore("snapshot", bodies::snapshot);
}
