//! `net`: what a network costs, against a peer that does next to nothing.
//!
//! The peer is the lab's (`bench`, study/cost/peer.rs). The first byte says what is wanted of it: [`ECHO`] or [`SINK`].

use std::ffi::c_int;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use crate::lessons::{complain, say};

/// The peer sends back what comes.
const ECHO: u8 = b'e';
/// The peer takes as many bytes as eight say, little-endian, and answers with one.
const SINK: u8 = b's';
/// Exchanges before the clock starts: addresses are resolved and caches filled.
const WARMUPS: u64 = 16;
/// What one write hands to the kernel.
const PIECE: usize = 64 << 10;
/// Pieces in a MiB.
const PIECES: u64 = (1 << 20) / PIECE as u64;

/// Sends one byte and waits for it to come back, `count` times.
pub fn request(count: u64, peer: &str) -> c_int {
    lesson("request", &format!("\"count\":{count}"), peer, |connection| {
        connection.send(&[ECHO])?;
        let exchange = || {
            connection.send(&[0])?;
            connection.receive()
        };
        for _ in 0..WARMUPS {
            exchange()?;
        }
        let start = Instant::now();
        for _ in 0..count {
            exchange()?;
        }
        Ok(start.elapsed().as_nanos())
    })
}

/// Sends `mebibytes` MiB and waits until the peer says that it has all of them.
pub fn stream(mebibytes: u64, peer: &str) -> c_int {
    lesson("stream", &format!("\"mebibytes\":{mebibytes}"), peer, |connection| {
        connection.send(&[SINK])?;
        let piece = vec![0; PIECE];
        let deliver = |pieces: u64| {
            connection.send(&(pieces * PIECE as u64).to_le_bytes())?;
            for _ in 0..pieces {
                connection.send(&piece)?;
            }
            connection.receive()
        };
        // Until here the kernel does not know how much the connection can take (slow start, RFC 5681).
        deliver(PIECES)?;
        let start = Instant::now();
        deliver(mebibytes.saturating_mul(PIECES))?;
        Ok(start.elapsed().as_nanos())
    })
}

fn lesson(what: &str, amount: &str, peer: &str, work: impl FnOnce(&Connection) -> io::Result<u128>) -> c_int {
    let Ok(address) = peer.parse() else {
        return complain(&format!(
            "workload: {peer:?} is no address and port, such as 192.0.2.1:7\n"
        ));
    };
    match Connection::to(address).and_then(|connection| work(&connection)) {
        Ok(ns) => say(&format!("{{\"lesson\":\"net {what}\",{amount},\"ns\":{ns}}}\n")),
        Err(error) => complain(&format!("workload: {what} to {peer}: {error}\n")),
    }
}

/// A TCP connection.
struct Connection(OwnedFd);

impl Connection {
    fn to(peer: SocketAddrV4) -> io::Result<Connection> {
        // SAFETY: takes numbers; a descriptor that is none is refused below.
        let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the kernel just made it for us.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: all zeros is a valid address.
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_port = peer.port().to_be();
        address.sin_addr.s_addr = u32::from(*peer.ip()).to_be();
        let at_once: c_int = 1;
        // SAFETY: both calls read a structure of the size they are told.
        unsafe {
            // A small request is not kept back in the hope of a larger one (TCP_NODELAY, tcp(7)).
            check(libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_NODELAY,
                (&raw const at_once).cast(),
                size_of::<c_int>() as libc::socklen_t,
            ))?;
            check(libc::connect(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            ))?;
        }
        Ok(Connection(socket))
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // SAFETY: reads what the slice holds. A peer that is gone is an error, not a signal.
            let sent = unsafe {
                libc::send(
                    self.0.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    libc::MSG_NOSIGNAL,
                )
            };
            bytes = &bytes[check(sent)? as usize..];
        }
        Ok(())
    }

    /// Waits for one byte.
    fn receive(&self) -> io::Result<()> {
        let mut byte = 0u8;
        // SAFETY: writes one byte into the one there is.
        let received = unsafe { libc::recv(self.0.as_raw_fd(), (&raw mut byte).cast(), 1, 0) };
        match check(received)? {
            1 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn check<T: PartialOrd + Default>(result: T) -> io::Result<T> {
    if result < T::default() {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
