//! In a machine that was restored from a snapshot: random numbers of its own.
//!
//! The kernel's pool was in the snapshot, and every clone has the same. Before the program starts, a clone mixes in bytes
//! from the host and makes the kernel draw a new key from the pool (random(4): RNDADDENTROPY, RNDRESEEDCRNG).
//!
//! Linux also asks a source of random bytes, where there is one, before anybody wants them. What it had received was in the
//! snapshot too: a clone throws it away.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

use crate::host::Host;

/// What the kernel's pool takes at once.
const SEED: usize = 32;
const _: () = assert!(SEED.is_multiple_of(4), "the kernel counts in words");

/// Where programs read what a source of random bytes gives.
pub const SOURCE: &str = "/dev/hwrng";
/// Most that Linux has of it in advance: a buffer of the source's driver (drivers/char/hw_random/virtio-rng.c) and one of the layer
/// above (core.c), of one cache line each.
const IN_ADVANCE: usize = 2 * 64;

const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info` with its bytes.
#[repr(C)]
struct Entropy {
    bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; SEED],
}

/// Reseeds the kernel's random number generator if this machine is a clone, and empties `source`. Between fork and exec: system calls
/// only.
pub fn diverge(host: &Host, pool: &File, source: Option<&File>) -> io::Result<()> {
    if host.generation()? == 0 {
        return Ok(());
    }
    if let Some(mut source) = source {
        let mut left = [0; IN_ADVANCE];
        match source.read_exact(&mut left) {
            // The file is there without a source, too.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            read => read?,
        }
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
