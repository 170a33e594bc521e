//! A bounded run of every fuzz target: seeds, then what becomes of them by a few changes each. The same numbers every time;
//! `fuzz/Cargo.toml` tells how to let a fuzzer that watches its coverage go on from there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;
#[path = "../fuzz/seeds.rs"]
mod seeds;

use std::panic;

use fastrand::Rng;

/// Inputs per target: a second or two of work in a debug build.
const ROUNDS: usize = 4_000;
/// Bytes of an input that descends from none: a guest of some thousand steps.
const NOISE: usize = 40_000;
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
    let mut noise = vec![0; NOISE];
    Rng::with_seed(0x401).fill(&mut noise);
    for input in seeds.iter().cloned().chain([noise]).chain(descendants.take(ROUNDS)) {
        if let Err(cause) = panic::catch_unwind(|| body(&input)) {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{target} fails on {hex}");
            panic::resume_unwind(cause);
        }
    }
}

/// A test for each target, and the list of them.
macro_rules! targets {
    ($($part:ident :: $target:ident,)*) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
        $(#[test]
        fn $target() {
            explore(stringify!($target), bodies::$part::$target);
        })*
    };
}

targets! {
    boot::elf,
    boot::bzimage,
    boot::guest_elf,
    boot::cpio,
    boot::guest_cpio,
    boot::symbols,
    io::doorbell,
    io::ports,
    io::serial,
    io::i8042,
    virtio::queue,
    virtio::bus,
    virtio::rng,
    virtio::balloon,
    virtio::block,
    virtio::net,
    virtio::console,
    virtio::device_state,
    snapshot::snapshot,
}

/// What cargo-fuzz can run, what has inputs to begin with and what runs here are the same.
#[test]
fn every_target_runs_here() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/targets");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut here = TARGETS.to_vec();
    files.sort_unstable();
    here.sort_unstable();
    assert_eq!(files, here);
    let mut seeds: Vec<_> = seeds::all().iter().map(|(target, _)| *target).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, here);
}
