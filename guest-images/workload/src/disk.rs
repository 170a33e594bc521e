//! `disk`: what a disk costs when the page cache does not answer in its place.
//!
//! Both lessons work on one file of [`FILE_BYTES`]. If it is not there it is written, and made durable, before the clock
//! starts: allocating blocks is another lesson. Blocks are visited far from each other and none twice, so that no kernel
//! reads ahead.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Instant;

use crate::lessons::{complain, say, xorshift};

/// What one operation reads or writes.
const BLOCK: usize = 4096;
/// A power of two, which makes [`place`] a permutation.
const BLOCKS: u64 = 4096;
/// Size of the file: enough to be scattered over, little enough to be written before every run.
const FILE_BYTES: u64 = BLOCKS * BLOCK as u64;

/// O_DIRECT wants memory aligned like the disk's blocks (open(2)).
#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// Reads `count` scattered blocks past the page cache (O_DIRECT), one after the other.
pub fn read(count: u64, path: &str) -> c_int {
    lesson("read", count, path, |file| {
        let mut block = Block([0; BLOCK]);
        let start = Instant::now();
        for i in 0..count {
            file.read_exact_at(&mut block.0, place(i))?;
        }
        let ns = start.elapsed().as_nanos();
        std::hint::black_box(&block);
        Ok(ns)
    })
}

/// Overwrites `count` scattered blocks, each made durable (fsync) before the next.
pub fn write(count: u64, path: &str) -> c_int {
    lesson("write", count, path, |file| {
        let mut block = Block([0; BLOCK]);
        let start = Instant::now();
        for i in 0..count {
            block.0.fill(i as u8);
            file.write_all_at(&block.0, place(i))?;
            file.sync_all()?;
        }
        Ok(start.elapsed().as_nanos())
    })
}

fn lesson(what: &str, count: u64, path: &str, work: impl FnOnce(&File) -> io::Result<u128>) -> c_int {
    if count > BLOCKS {
        return complain(&format!(
            "workload: the file has {BLOCKS} blocks, {count} different ones cannot be had\n"
        ));
    }
    let direct = if what == "read" { libc::O_DIRECT } else { 0 };
    let worked = prepare(path)
        .and_then(|()| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(what == "write")
                .custom_flags(direct)
                .open(path)
        })
        .and_then(|file| work(&file));
    match worked {
        Ok(ns) => say(&format!(
            "{{\"lesson\":\"disk {what}\",\"count\":{count},\"block_bytes\":{BLOCK},\"ns\":{ns}}}\n"
        )),
        Err(error) if direct != 0 && error.raw_os_error() == Some(libc::EINVAL) => complain(&format!(
            "workload: the file system of {path} cannot be read past the page cache (O_DIRECT): {error}\n"
        )),
        Err(error) => complain(&format!("workload: cannot {what} {path}: {error}\n")),
    }
}

/// Writes the file, unless it is there in full.
fn prepare(path: &str) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() == FILE_BYTES) {
        return Ok(());
    }
    let mut file = File::create(path)?;
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut block = [0; BLOCK];
    for _ in 0..BLOCKS {
        // No two blocks alike: nothing below may store one for many.
        for word in block.chunks_mut(size_of::<u64>()) {
            state = xorshift(state);
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// Where the `i`th block is: steps of an odd number of blocks, which visit all of a power of two before one comes again.
fn place(i: u64) -> u64 {
    const STEP: u64 = 2481;
    i.wrapping_mul(STEP) % BLOCKS * BLOCK as u64
}
