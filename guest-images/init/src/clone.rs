//! In a machine that was restored from a snapshot: random numbers of its own.
//!
//! The kernel's pool was in the snapshot, and every clone has the same. Before the program starts, a clone mixes in bytes
//! from the host and makes the kernel draw a new key from the pool (random(4): RNDADDENTROPY, RNDRESEEDCRNG).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::host::Host;

/// What the kernel's pool takes at once.
const SEED: usize = 32;
const _: () = assert!(SEED.is_multiple_of(4), "the kernel counts in words");

const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info` with its bytes.
#[repr(C)]
struct Entropy {
    bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; SEED],
}

/// Reseeds the kernel's random number generator if this machine is a clone. Between fork and exec: system calls only.
pub fn diverge(host: &Host, pool: &File) -> io::Result<()> {
    if host.generation()? == 0 {
        return Ok(());
    }
    let entropy = Entropy {
        bits: SEED as libc::c_int * 8,
        size: SEED as libc::c_int,
        bytes: host.random()?,
    };
    // SAFETY: the kernel reads the structure whose address it is given, as long as its own size says.
    let added = unsafe { libc::ioctl(pool.as_raw_fd(), RNDADDENTROPY as _, &raw const entropy) };
    // SAFETY: takes nothing.
    let reseeded = unsafe { libc::ioctl(pool.as_raw_fd(), RNDRESEEDCRNG as _) };
    match (added, reseeded) {
        (0, 0) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
