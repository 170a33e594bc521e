//! Calls to the hypervisor: the ports of [`protocol::ports`], from a program.
//!
//! Port instructions belong to the kernel; ioperm(2) lends single ports to a process that may.

use std::arch::asm;

use protocol::phase::Phase;
use protocol::ports;

/// Reports a phase, if the kernel lends us the port (CONFIG_X86_IOPL_IOPERM).
pub fn mark(phase: Phase) {
    if lend(ports::MARK, 1) {
        // SAFETY: the port is ours, and a write to it changes nothing in this program.
        unsafe {
            asm!("out dx, al", in("dx") ports::MARK, in("al") phase.code(), options(nomem, nostack, preserves_flags));
        }
    }
}

/// Ends the guest with this status.
pub fn end(status: u8) -> ! {
    if lend(ports::EXIT, 4) {
        // SAFETY: as above; the hypervisor does not come back from this one.
        unsafe {
            asm!("out dx, eax", in("dx") ports::EXIT, in("eax") u32::from(status), options(nomem, nostack, preserves_flags));
        }
    }
    // Without the port, or without a hypervisor behind it, at least the machine ends.
    // SAFETY: takes a number; when it fails (no permission) the loop below is all that is left.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}

fn lend(port: u16, count: libc::c_ulong) -> bool {
    // SAFETY: changes which ports this process may use, nothing else.
    unsafe { libc::ioperm(port.into(), count, 1) == 0 }
}
