//! The system call filter: which of the kernel's doors stay shut for the container.
//!
//! A filter is a small program in classic BPF that the kernel runs at every system call of the process and of all its
//! children, on the call's number, its architecture and its arguments (seccomp(2), and the kernel's
//! `userspace-api/seccomp_filter`). It cannot be removed again.
//!
//! The policy ([`table`]) is a list of refusals; the program ([`tree`]) is a search tree over it, made at compile time.
//! A filter that compares the number with one entry after the other is what compilers of filters usually make, and
//! loading it is dear: the kernel dry-runs a new filter for every system call number to learn which ones it always
//! allows, so that it can skip the filter for those. A linear filter costs its length each time, a tree its depth.

pub mod profile;
pub mod table;
pub mod tree;

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use seccompiler::sock_filter;
use thiserror::Error;

use crate::errno::why;

/// The filter as the kernel takes it. Made at compile time: the launcher only hands it over.
pub static FILTER: [sock_filter; tree::LENGTH] = tree::build();

/// Puts the filter in place for this thread and everything it will start. Also sets no_new_privs, without which only
/// root may load a filter: otherwise a set-user-id program could be run under one that confuses it.
pub fn apply() -> Result<(), Error> {
    seccompiler::apply_filter(&FILTER).map_err(|error| Error {
        errno: match &error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => crate::errno::of(error),
            _ => Errno::EINVAL,
        },
    })
}

/// Puts a filter made at run time in place, and nothing else: unless no_new_privs is set already, that takes
/// CAP_SYS_ADMIN. Returns the supervisor's descriptor when the filter asks one.
pub fn load(filter: &profile::Filter) -> Result<Option<OwnedFd>, Error> {
    // A sock_fprog (linux/filter.h): the length in 16 bits, then the pointer, as C lays it out.
    #[repr(C)]
    struct Program {
        length: u16,
        lines: *const sock_filter,
    }
    let program = Program {
        length: filter.program.len() as u16,
        lines: filter.program.as_ptr(),
    };
    let listener = match filter.notifies {
        true => libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        false => 0,
    };
    // SAFETY: the program points to as many instructions as it says, and the kernel copies them.
    let loaded = unsafe {
        let flags = filter.flags | listener;
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    let loaded = Errno::result(loaded).map_err(|errno| Error { errno })?;
    // SAFETY: asked for a listener, seccomp(2) returns a new descriptor that is ours alone.
    Ok(filter.notifies.then(|| unsafe { OwnedFd::from_raw_fd(loaded as i32) }))
}

/// Why there is no filter.
#[derive(Debug, Error)]
#[error(
    "cannot load the seccomp filter: {}. The kernel needs CONFIG_SECCOMP_FILTER, and an outer filter must not forbid seccomp(2)",
    why(errno)
)]
pub struct Error {
    errno: Errno,
}
