//! Exceptions: pages that were promised and not yet given, and programs that did wrong.

use protocol::status::SIGNAL_BASE;

use crate::address_space::{EXECUTE, Fault, READ, WRITE};
use crate::entry::Frame;
use crate::host::Report;
use crate::processor::cr2;
use crate::state::{KERNEL, Kernel};

const PAGE_FAULT: u64 = 14;
/// Page fault error code (Intel SDM vol. 3A, figure 4-12): the access was a write.
const ERROR_WRITE: u64 = 1 << 1;
/// The access was an instruction fetch.
const ERROR_FETCH: u64 = 1 << 4;

const SIGILL: u8 = 4;
const SIGTRAP: u8 = 5;
const SIGBUS: u8 = 7;
const SIGFPE: u8 = 8;
/// What a program that cannot be given memory ends with, as from Linux's out-of-memory killer.
pub const SIGKILL: u8 = 9;
const SIGSEGV: u8 = 11;

/// Called for every exception. Returns when the program may go on.
pub extern "C" fn exception(frame: &Frame) {
    let address = if frame.vector == PAGE_FAULT { cr2() } else { frame.rip };
    if !frame.is_from_program() {
        panic!(
            "exception {} (error {:#x}) at rip {:#x}, address {address:#x}",
            frame.vector, frame.error, frame.rip
        );
    }
    KERNEL.with(|kernel| match frame.vector {
        PAGE_FAULT => page_fault(kernel, frame, address),
        0 | 16 | 19 => die(kernel, SIGFPE, "SIGFPE", "arithmetic error", frame.rip, frame.rip),
        1 | 3 => die(kernel, SIGTRAP, "SIGTRAP", "breakpoint", frame.rip, frame.rip),
        6 => die(kernel, SIGILL, "SIGILL", "illegal instruction", frame.rip, frame.rip),
        17 => die(kernel, SIGBUS, "SIGBUS", "unaligned access", frame.rip, frame.rip),
        _ => die(
            kernel,
            SIGSEGV,
            "SIGSEGV",
            "forbidden instruction or address",
            frame.rip,
            frame.rip,
        ),
    })
}

fn page_fault(kernel: &mut Kernel, frame: &Frame, address: u64) {
    let (access, verb) = if frame.error & ERROR_FETCH != 0 {
        (EXECUTE, "jumped to")
    } else if frame.error & ERROR_WRITE != 0 {
        (WRITE, "wrote to")
    } else {
        (READ, "read from")
    };
    match kernel.space.fault(&mut kernel.frames, address, access) {
        Ok(()) => kernel.statistics.page_faults += 1,
        Err(Fault::NotAllowed) => die(kernel, SIGSEGV, "SIGSEGV", verb, address, frame.rip),
        Err(Fault::OutOfMemory) => die(kernel, SIGKILL, "SIGKILL", "out of memory at", address, frame.rip),
    }
}

/// Ends the program as a signal would, with one line about it.
pub fn die(kernel: &mut Kernel, signal: u8, name: &str, what: &str, address: u64, rip: u64) -> ! {
    let program = kernel.program().escape_ascii();
    Report::line(format_args!("{name}: {program}: {what} {address:#x}, rip {rip:#x}"));
    crate::syscalls::process::end(kernel, SIGNAL_BASE + signal)
}
