//! The sandbox: what the VMM can still do once a guest runs in it.
//!
//! A guest that finds a hole in a device gets the VMM, and nothing else stands between it and the host but what the
//! host's kernel grants this process. So before the guest's first instruction the process gives up what it does not need
//! any more: every capability, the right to gain any by running a program (no_new_privs), and, thread by thread, all
//! system calls but those in [`table`].
//!
//! A call that is not in the table does not happen: the kernel sends SIGSYS instead, and the VMM says which call it was
//! and ends. Either this program has a fault, or somebody else was at work in it.
//!
//! What it costs a start: one capset(2), 10 us (median of 400 in processes of their own), and one filter of 48 instructions
//! that was made at compile time, a search tree. In a race the filter cannot be told from noise: processor time of `vmm run
//! workload hello` over that with `--no-seccomp` 1.009 (95%: 1.002 to 1.015; 500 runs of each, interleaved), and of the
//! same command over itself 1.011 (0.996 to 1.025; 240).

pub mod filter;
pub mod table;

use std::io;

use protocol::status;
use seccompiler::sock_filter;
use table::{DEVICES, INPUT, VCPU, WATCHED};

/// The sandbox cannot be closed. The guest is then not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Capabilities stay.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(io::Error),
    /// The message of a forbidden call cannot be prepared.
    #[error("cannot prepare for forbidden system calls: {0}")]
    Handler(io::Error),
    /// No filter.
    #[error(
        "cannot load the seccomp filter: {0}. The host's kernel needs CONFIG_SECCOMP_FILTER, and an outer filter must allow seccomp(2); --no-seccomp runs without"
    )]
    Filter(seccompiler::Error),
}

/// The filters of one machine's threads, if they are to have any.
#[derive(Clone, Copy, Default)]
pub struct Sandbox {
    vcpu: Option<&'static [sock_filter]>,
    input: Option<&'static [sock_filter]>,
}

/// A filter made at compile time: this program only hands it over.
macro_rules! filter {
    ($classes:expr) => {{
        static FILTER: [sock_filter; filter::length($classes)] = filter::build($classes);
        Some(&FILTER[..])
    }};
}

impl Sandbox {
    /// Gives up what all threads can do without: capabilities, and the right to gain any. Threads made from here on
    /// inherit that. Chooses the filters they will have, if `filters` are wanted: for a machine with `devices`, for vCPUs
    /// that are `watched`.
    pub fn prepare(filters: bool, devices: bool, watched: bool) -> Result<Sandbox, Error> {
        give_up_capabilities().map_err(Error::Capabilities)?;
        if !filters {
            gain_nothing().map_err(Error::Capabilities)?;
            return Ok(Sandbox::default());
        }
        answer_forbidden_calls().map_err(Error::Handler)?;
        Ok(Sandbox {
            vcpu: match (devices, watched) {
                (false, false) => filter!(VCPU),
                (false, true) => filter!(VCPU | WATCHED),
                (true, false) => filter!(VCPU | DEVICES),
                (true, true) => filter!(VCPU | DEVICES | WATCHED),
            },
            input: filter!(INPUT | DEVICES),
        })
    }

    /// Closes the sandbox around this thread, which is to run a vCPU.
    pub fn enter_as_vcpu(&self) -> Result<(), Error> {
        enter(self.vcpu)
    }

    /// Closes the sandbox around this thread, which is to take input.
    pub fn enter_as_input(&self) -> Result<(), Error> {
        enter(self.input)
    }
}

fn enter(filter: Option<&[sock_filter]>) -> Result<(), Error> {
    filter.map_or(Ok(()), seccompiler::apply_filter).map_err(Error::Filter)
}

/// No capability, and none to be had: for an ordinary user it takes nothing away, for root everything but the files root
/// owns (capabilities(7)).
fn give_up_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h): 64 bits, as two sets of three words.
    const VERSION_3: u32 = 0x2008_0522;
    // Version, and 0: this thread.
    let header = [VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: both are laid out as capset(2) wants them, and it only reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })
}

/// A set-user-id program must not give back what was given up. Loading a filter does this too, in the same breath.
fn gain_nothing() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

/// Installs the handler that says which call was forbidden.
fn answer_forbidden_calls() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = forbidden;
    // SAFETY: all zeros is a valid sigaction, and the handler has the form SA_SIGINFO asks for.
    check(
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut())
        }
        .into(),
    )
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Where `struct siginfo` has the number of the call for SIGSYS (linux/siginfo.h: `_sigsys._syscall`).
const SIGINFO_CALL: usize = 24;

/// Says what was tried and ends the process, as if the signal itself had. Runs in a thread that may have been in the
/// middle of anything: no allocation, no lock, and only calls every filter allows.
extern "C" fn forbidden(_: libc::c_int, information: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a siginfo_t, which is longer than this.
    let call = unsafe { information.cast::<u8>().add(SIGINFO_CALL).cast::<u32>().read() };
    let mut digits = [0; 10];
    for parts in [
        b"vmm: system call " as &[u8],
        decimal(call, &mut digits),
        b" is not among those a running VMM may use (vmm/src/sandbox/table.rs). It was not carried out, and the guest is ended: \
this program has a fault, or the guest has broken into it\n",
    ] {
        // SAFETY: pointer and length of bytes that outlive the call.
        unsafe { libc::write(libc::STDERR_FILENO, parts.as_ptr().cast(), parts.len()) };
    }
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(i32::from(status::SIGNAL_BASE) + libc::SIGSYS) };
}

/// `number` in decimal, written from the end.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    &digits[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_leading_zeros() {
        for number in [0, 7, 10, 257, u32::MAX] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string().as_bytes());
        }
    }
}
