//! Time: the host's clocks, one exit per question.
//!
//! Linux guests share a page with KVM (pvclock) and compute the time without an exit. Here each reading rings the
//! doorbell, so that the price of asking the host is easy to see.

use protocol::doorbell::op;

use super::Answer;
use super::errno::*;
use crate::host;
use crate::state::Kernel;
use kernel::layout::KERNEL_OFFSET;

const SECOND: u64 = 1_000_000_000;
const TIMER_ABSTIME: u64 = 1;

static TIMES: kernel::cell::Lone<[u64; 2]> = kernel::cell::Lone::new([0; 2]);

/// The host's CLOCK_REALTIME and CLOCK_MONOTONIC in nanoseconds.
fn now() -> [u64; 2] {
    TIMES.with(|times| {
        host::ring(op::CLOCK, (times.as_ptr() as u64).wrapping_sub(KERNEL_OFFSET), 16);
        // SAFETY: a valid reference; volatile because the host wrote it behind the compiler's back.
        unsafe { (&raw const *times).read_volatile() }
    })
}

fn read(kernel: &mut Kernel, clock: u64) -> Result<u64, Errno> {
    let [real, monotonic] = now();
    match clock as u32 {
        // CLOCK_REALTIME, its coarse form, and CLOCK_TAI without leap seconds known.
        0 | 5 | 11 => Ok(real),
        // CLOCK_MONOTONIC, raw, coarse, BOOTTIME.
        1 | 4 | 6 | 7 => Ok(monotonic),
        // CPU time of process and thread: one program on one processor, so the time since its first question.
        2 | 3 => {
            if kernel.clock_start == 0 {
                kernel.clock_start = monotonic;
            }
            Ok(monotonic - kernel.clock_start)
        }
        _ => Err(EINVAL),
    }
}

/// clock_gettime(2).
pub fn clock_gettime(kernel: &mut Kernel, clock: u64, to: u64) -> Answer {
    let time = read(kernel, clock)?;
    store(kernel, to, time / SECOND, time % SECOND)
}

/// clock_getres(2): nanoseconds.
pub fn clock_getres(kernel: &mut Kernel, to: u64) -> Answer {
    if to == 0 { Ok(0) } else { store(kernel, to, 0, 1) }
}

/// gettimeofday(2).
pub fn gettimeofday(kernel: &mut Kernel, to: u64) -> Answer {
    let [real, _] = now();
    if to == 0 {
        Ok(0)
    } else {
        store(kernel, to, real / SECOND, real % SECOND / 1000)
    }
}

/// time(2).
pub fn time(kernel: &mut Kernel, to: u64) -> Answer {
    let seconds = now()[0] / SECOND;
    if to != 0 {
        kernel.copy_out(to, &seconds.to_le_bytes())?;
    }
    Ok(seconds)
}

/// nanosleep(2).
pub fn nanosleep(kernel: &mut Kernel, request: u64) -> Answer {
    let duration = duration(kernel, request)?;
    host::ring_with(op::SLEEP, duration);
    Ok(0)
}

/// clock_nanosleep(2).
pub fn clock_nanosleep(kernel: &mut Kernel, clock: u64, flags: u64, request: u64) -> Answer {
    let mut duration = duration(kernel, request)?;
    if flags & TIMER_ABSTIME != 0 {
        duration = duration.saturating_sub(read(kernel, clock)?);
    }
    host::ring_with(op::SLEEP, duration);
    Ok(0)
}

fn duration(kernel: &mut Kernel, request: u64) -> Result<u64, Errno> {
    let (seconds, nanoseconds) = (kernel.word(request)?, kernel.word(request.wrapping_add(8))?);
    if nanoseconds >= SECOND || seconds > i64::MAX as u64 {
        return Err(EINVAL);
    }
    Ok(seconds.saturating_mul(SECOND).saturating_add(nanoseconds))
}

fn store(kernel: &mut Kernel, to: u64, first: u64, second: u64) -> Answer {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..].copy_from_slice(&second.to_le_bytes());
    kernel.copy_out(to, &bytes)?;
    Ok(0)
}
