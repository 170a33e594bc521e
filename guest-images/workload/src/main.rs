//! The workload: the program both sides run, one subcommand per lesson.
//!
//! It enters at `main` as a C program does: Rust's own start-up (signal handlers, an alternate stack, a poll of the
//! standard descriptors) would cost system calls in front of the first byte, the same on every side, and blur the
//! difference the lab is after. What is left before the first line of output is what musl itself needs.

#![no_main]

mod abuse;
mod disk;
mod lessons;
mod net;
mod whoami;

use std::ffi::{CStr, c_char, c_int};
use std::io::Write;

const USAGE: &str = "usage: workload LESSON
  hello        print one line
  whoami       what the program can see of the machine it runs on, as JSON
  cpu [N]      a checksum over N rounds of fixed work (default 20000000)
  memory N     touch N MiB, print a checksum
  syscalls N   N getpid calls, nanoseconds each
  disk read N FILE      N reads of 4 KiB at scattered places of FILE, past the page cache
  disk write N FILE     N writes of 4 KiB to FILE, each followed by fsync
  net request N PEER    N times one byte to the lab's peer at ADDRESS:PORT and back
  net stream N PEER     N MiB to that peer
  idle         print a line, then sleep until killed
  exit N       exit with status N
  crash        write through a null pointer
  forks N      start up to N copies of itself, tell how many there were
  doors        what of the ways to bring down a kernel is open, without taking one
  panic        bring down the kernel it runs on, if that is a guest's of the lab
";

/// The entry point musl's start-up code calls.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C start-up code passes argc pointers to NUL-terminated strings that live as long as the process.
    let argument = |i: usize| unsafe { CStr::from_ptr(*argv.add(i)) }.to_str().unwrap_or("?");
    // No Vec: an allocation would be three system calls in front of the first byte.
    let words = match argc {
        2 => &[argument(1)][..],
        3 => &[argument(1), argument(2)][..],
        5 => &[argument(1), argument(2), argument(3), argument(4)][..],
        _ => &[],
    };
    match words {
        ["hello"] => lessons::hello(),
        ["whoami"] => whoami::print(),
        ["cpu"] => lessons::cpu(lessons::CPU_ROUNDS),
        ["cpu", rounds] => number(rounds, lessons::cpu),
        ["memory", mebibytes] => number(mebibytes, lessons::memory),
        ["syscalls", count] => number(count, lessons::syscalls),
        ["disk", "read", count, file] => number(count, |count| disk::read(count, file)),
        ["disk", "write", count, file] => number(count, |count| disk::write(count, file)),
        ["net", "request", count, peer] => number(count, |count| net::request(count, peer)),
        ["net", "stream", mebibytes, peer] => number(mebibytes, |mebibytes| net::stream(mebibytes, peer)),
        ["idle"] => lessons::idle(),
        ["exit", status] => number(status, |status| status as c_int),
        ["crash"] => lessons::crash(),
        ["forks", most] => number(most, abuse::forks),
        ["doors"] => abuse::doors(),
        ["panic"] => abuse::panic(),
        _ => usage(""),
    }
}

fn number(text: &str, lesson: impl FnOnce(u64) -> c_int) -> c_int {
    match text.parse() {
        Ok(number) => lesson(number),
        Err(_) => usage(&format!("workload: {text:?} is not a whole number\n")),
    }
}

/// Status 2 is what a shell's own commands use for wrong usage.
fn usage(problem: &str) -> c_int {
    let _ = write!(std::io::stderr(), "{problem}{USAGE}");
    2
}
