//! The other end of the network lessons: a server that does next to nothing.
//!
//! The first byte of a connection says what is wanted. `e`: what comes is sent back. `s`: eight bytes say how many follow
//! (little-endian); they are taken, and answered with one byte; then the next eight. The workload is the client
//! (guest-images/workload/src/net.rs).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A client that says nothing for so long is gone: a VM that was killed does not even hang up.
const PATIENCE: Duration = Duration::from_secs(30);
/// As much as a client's write.
const PIECE: usize = 64 << 10;

/// Serves until it is told to stop.
pub struct Peer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Peer {
    /// Listens on all addresses of the network namespace the calling thread is in, on a port of the kernel's choice.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen() -> io::Result<Peer> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // A socket belongs to the namespace it was made in, whatever its thread's is.
        thread::Builder::new().name("peer".into()).spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // A client that fails has told the harness itself.
                let Ok(connection) = connection else { continue };
                thread::spawn(move || drop(serve(connection)));
            }
        })?;
        Ok(Peer { address, stop })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Has it stop listening. To be called from its network namespace.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it. If it cannot be reached it is gone already.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port()));
    }
}

fn serve(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut wanted = [0];
    connection.read_exact(&mut wanted)?;
    let mut piece = vec![0; PIECE];
    match wanted {
        [b'e'] => loop {
            let n = connection.read(&mut piece)?;
            if n == 0 {
                return Ok(());
            }
            connection.write_all(&piece[..n])?;
        },
        [b's'] => loop {
            let mut length = [0; 8];
            connection.read_exact(&mut length)?;
            let mut left = u64::from_le_bytes(length);
            while left > 0 {
                let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                match connection.read(&mut piece[..most])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => left -= n as u64,
                }
            }
            connection.write_all(&[1])?;
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_echoes_and_it_counts() {
        let peer = Peer::listen().unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, peer.port())).unwrap();
        let mut echo = connect();
        echo.write_all(b"ehello").unwrap();
        let mut back = [0; 5];
        echo.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");

        let mut sink = connect();
        sink.write_all(b"s").unwrap();
        for length in [3u64, 200_000] {
            sink.write_all(&length.to_le_bytes()).unwrap();
            sink.write_all(&vec![7; length as usize - 1]).unwrap();
            // One byte is missing: no answer yet.
            sink.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(sink.read(&mut back).is_err());
            sink.set_read_timeout(None).unwrap();
            sink.write_all(&[7]).unwrap();
            assert_eq!(sink.read(&mut back[..2]).unwrap(), 1);
        }
        let port = peer.port();
        peer.stop();
        // The listener is gone as soon as its thread has seen it.
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
