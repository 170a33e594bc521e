//! The line between a supervisor and those who watch or feed its program.
//!
//! A socket in the container's directory. What goes over it is a sequence of frames: one byte for the kind, four for the
//! length (little-endian), then so many bytes.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// No frame carries more: a supervisor must not be made to keep gigabytes for a client.
pub const LONGEST_FRAME: usize = 64 << 10;

const HEADER: usize = 5;

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To a client: the program's standard output, or its terminal's.
    Stdout(Vec<u8>),
    /// To a client: its standard error.
    Stderr(Vec<u8>),
    /// To a client, last: the program has ended with this status and will not be started again.
    Exit(u8),
    /// From a client, first: whether it wants the output.
    Hello {
        /// Or only the end.
        output: bool,
    },
    /// From a client: what the program is to read.
    Stdin(Vec<u8>),
    /// From a client: there is no more to read.
    StdinEnd,
    /// From a client: the size of its terminal.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in each.
        columns: u16,
    },
    /// From a client: a signal for the program.
    Signal(i32),
}

impl Frame {
    /// The bytes on the line.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u8, &[u8]) = match self {
            Frame::Stdout(bytes) => (0, bytes),
            Frame::Stderr(bytes) => (1, bytes),
            Frame::Exit(status) => (2, &[*status]),
            Frame::Hello { output } => (3, &[u8::from(*output)]),
            Frame::Stdin(bytes) => (4, bytes),
            Frame::StdinEnd => (5, &[]),
            Frame::Resize { rows, columns } => {
                let ([a, b], [c, d]) = (rows.to_le_bytes(), columns.to_le_bytes());
                (6, &[a, b, c, d])
            }
            Frame::Signal(number) => (7, &number.to_le_bytes()),
        };
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.push(kind);
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Takes the first frame off `bytes`, if it is there as a whole.
    pub fn take(bytes: &mut Vec<u8>) -> io::Result<Option<Frame>> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let &[kind, a, b, c, d] = header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "not a frame");
        if length > LONGEST_FRAME {
            return Err(nonsense());
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = match (kind, payload) {
            (0, bytes) => Frame::Stdout(bytes.to_vec()),
            (1, bytes) => Frame::Stderr(bytes.to_vec()),
            (2, &[status]) => Frame::Exit(status),
            (3, &[output]) => Frame::Hello { output: output != 0 },
            (4, bytes) => Frame::Stdin(bytes.to_vec()),
            (5, []) => Frame::StdinEnd,
            (6, &[a, b, c, d]) => Frame::Resize {
                rows: u16::from_le_bytes([a, b]),
                columns: u16::from_le_bytes([c, d]),
            },
            (7, &[a, b, c, d]) => Frame::Signal(i32::from_le_bytes([a, b, c, d])),
            _ => return Err(nonsense()),
        };
        bytes.drain(..HEADER + length);
        Ok(Some(frame))
    }

    /// Sends it, waiting as long as it takes.
    pub fn send(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(&self.encode())
    }
}

/// Waits for the next frame; `None` at the end of the line. `pending` keeps what came too much.
pub fn receive(mut from: impl Read, pending: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(frame) = Frame::take(pending)? {
            return Ok(Some(frame));
        }
        match from.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(length) => pending.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The socket's name in the container's directory.
const NAME: &str = "attach.sock";

/// Listens for clients in `directory`.
pub fn listen(directory: &Path) -> io::Result<UnixListener> {
    let held = hold(directory)?;
    let _ = std::fs::remove_file(directory.join(NAME));
    let listener = UnixListener::bind(short(&held))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the supervisor that listens in `directory`.
pub fn connect(directory: &Path, output: bool) -> io::Result<UnixStream> {
    let held = hold(directory)?;
    let stream = UnixStream::connect(short(&held))?;
    Frame::Hello { output }.send(&stream)?;
    Ok(stream)
}

/// A socket's path may have 107 bytes; a state directory may be deeper than that. So the path starts at an open
/// descriptor of the directory.
fn hold(directory: &Path) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(directory)?.into())
}

fn short(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent_however_they_are_cut() {
        let frames = [
            Frame::Hello { output: true },
            Frame::Stdout(b"out".to_vec()),
            Frame::Stderr(vec![]),
            Frame::Resize { rows: 24, columns: 80 },
            Frame::Signal(15),
            Frame::StdinEnd,
            Frame::Exit(137),
        ];
        let sent: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let mut pending = Vec::new();
        let mut arrived = Vec::new();
        for byte in sent {
            pending.push(byte);
            while let Some(frame) = Frame::take(&mut pending).unwrap() {
                arrived.push(frame);
            }
        }
        assert_eq!(arrived, frames);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Frame::take(&mut vec![9, 0, 0, 0, 0]).is_err());
        assert!(Frame::take(&mut vec![0, 255, 255, 255, 255]).is_err());
    }

    #[test]
    fn a_deep_directory_has_a_socket_too() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep).unwrap();
        let client = connect(&deep, false).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (server, _) = listener.accept().unwrap();
        let hello = receive(&server, &mut Vec::new()).unwrap();
        assert_eq!(hello, Some(Frame::Hello { output: false }));
        drop(client);
    }
}
