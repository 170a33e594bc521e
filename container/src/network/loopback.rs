//! The loopback interface, switched on.
//!
//! A new network namespace has `lo` and nothing else, and `lo` is down. Raising it is one ioctl; the kernel then gives
//! it 127.0.0.1 and ::1 by itself (netdevice(7)).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use thiserror::Error;

use crate::errno::why;

/// Raises the loopback interface of this network namespace.
pub fn raise() -> Result<(), Error> {
    let failed = |errno| Error { errno };
    // A local socket answers interface requests as well as an IPv4 one, and is there on kernels without IPv4.
    // SAFETY: socket(2) takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let socket = Errno::result(socket).map_err(failed)?;
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: ifreq is plain integers and arrays, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads a name and flags from an ifreq, and both are set.
    let raised = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    Errno::result(raised).map(drop).map_err(failed)
}

/// Why there is no loopback interface.
#[derive(Debug, Error)]
#[error(
    "cannot raise the loopback interface: {}. A security module may forbid CAP_NET_ADMIN in user namespaces; without a network of its own the container would start: --without net",
    why(errno)
)]
pub struct Error {
    errno: Errno,
}
