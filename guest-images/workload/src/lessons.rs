//! The lessons, each a function that returns the exit status.

use std::ffi::c_int;
use std::io::Write;
use std::time::Instant;

/// Rounds of [`cpu`] unless told otherwise: some tens of milliseconds on a current machine.
pub const CPU_ROUNDS: u64 = 20_000_000;

const MEBIBYTE: usize = 1 << 20;
const PAGE: usize = 4096;

/// Prints one line with one write, and is done.
pub fn hello() -> c_int {
    say("hello from the workload\n")
}

/// Processor time of this program until now, in nanoseconds. Where it grew by less than the time that passed, somebody else had the
/// processor meanwhile.
fn processor_ns() -> u128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure. It refuses no clock of one's own; if one did, zeros would tell of no work.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u128 * 1_000_000_000 + time.tv_nsec as u128
}

/// Runs `work` and returns what it gives, with the report's last words: how long it took, and for how much of it there was a
/// processor. That clock is read outside of the other: it never tells of less work than there was.
fn timed<T>(work: impl FnOnce() -> T) -> (T, u128, String) {
    let processor = processor_ns();
    let start = Instant::now();
    let done = work();
    let ns = start.elapsed().as_nanos();
    let cpu_ns = processor_ns() - processor;
    (done, ns, format!("\"ns\":{ns},\"cpu_ns\":{cpu_ns}"))
}

/// A checksum over fixed work that fits into registers: what the processor alone costs.
///
/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016): every round
/// depends on the one before, so no compiler and no processor can skip any.
pub fn cpu(rounds: u64) -> c_int {
    let (sum, _, times) = timed(|| {
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut sum: u64 = 0;
        for _ in 0..rounds {
            state = xorshift(state);
            sum = sum.wrapping_add(state.wrapping_mul(0x2545_f491_4f6c_dd1d));
        }
        sum
    });
    say(&format!(
        "{{\"lesson\":\"cpu\",\"rounds\":{rounds},\"checksum\":\"{sum:016x}\",{times}}}\n"
    ))
}

/// Touches every page of `mebibytes` MiB, then reads them back: what memory costs when it is really used.
pub fn memory(mebibytes: u64) -> c_int {
    let Some(length) = usize::try_from(mebibytes).ok().and_then(|n| n.checked_mul(MEBIBYTE)) else {
        return complain(&format!(
            "workload: {mebibytes} MiB is more than an address space holds\n"
        ));
    };
    let (sum, _, times) = timed(|| {
        let mut block: Vec<u8> = Vec::new();
        block.try_reserve_exact(length).ok()?;
        // Fresh memory from the kernel is zero; one write per page makes it real.
        let pages = block.spare_capacity_mut();
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        for page in pages.chunks_mut(PAGE) {
            state = xorshift(state);
            page[0].write(state as u8);
        }
        let mut sum: u64 = 0;
        for page in pages.chunks(PAGE) {
            // SAFETY: the loop above wrote the first byte of every chunk. A volatile read, because the point is to touch.
            let byte = unsafe { std::ptr::read_volatile(page.as_ptr().cast::<u8>()) };
            sum = sum.rotate_left(7) ^ u64::from(byte);
        }
        Some((sum, block))
    });
    // The block goes here, behind the clock.
    let Some((sum, _block)) = sum else {
        return complain(&format!("workload: no memory for {mebibytes} MiB\n"));
    };
    say(&format!(
        "{{\"lesson\":\"memory\",\"mebibytes\":{mebibytes},\"checksum\":\"{sum:016x}\",{times}}}\n"
    ))
}

/// Asks the kernel for the process id `count` times: what one trip to the kernel costs.
pub fn syscalls(count: u64) -> c_int {
    let (sum, ns, times) = timed(|| {
        let mut sum: u64 = 0;
        for _ in 0..count {
            // SAFETY: getpid takes nothing and cannot fail. The raw call, so that no C library can remember the answer.
            sum = sum.wrapping_add(unsafe { libc::syscall(libc::SYS_getpid) } as u64);
        }
        sum
    });
    let each = ns as f64 / count.max(1) as f64;
    std::hint::black_box(sum);
    say(&format!(
        "{{\"lesson\":\"syscalls\",\"count\":{count},{times},\"ns_each\":{each:.1}}}\n"
    ))
}

/// Says that it is there, then sleeps until somebody ends it.
pub fn idle() -> c_int {
    let status = say("idle\n");
    if status != 0 {
        return status;
    }
    loop {
        // SAFETY: pause takes nothing; it returns only after a signal handler ran, and then we sleep again.
        unsafe { libc::pause() };
    }
}

// ANCHOR: crash
/// Writes through a null pointer, as broken programs do.
pub fn crash() -> c_int {
    // SAFETY: there is none. This is the lesson: the kernel must end this process and nothing else.
    unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
    0
}
// ANCHOR_END: crash

/// One round of xorshift64.
pub fn xorshift(mut state: u64) -> u64 {
    state ^= state >> 12;
    state ^= state << 25;
    state ^ (state >> 27)
}

/// Writes `text` to standard output with one system call where the kernel takes it whole.
pub fn say(text: &str) -> c_int {
    emit(libc::STDOUT_FILENO, text)
}

/// Writes `text` to standard error; returns the status of a failure.
pub fn complain(text: &str) -> c_int {
    emit(libc::STDERR_FILENO, text);
    1
}

fn emit(fd: c_int, text: &str) -> c_int {
    // SAFETY: the descriptor is one of the standard three and stays open: ManuallyDrop keeps it so.
    let mut file = std::mem::ManuallyDrop::new(unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    match file.write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}
