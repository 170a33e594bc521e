//! What the testbed tells the lab, over one virtio-serial port: everything in one order, so that the exit status comes
//! after the last byte of output.
//!
//! A frame is a kind (one byte), a length (four, little-endian) and that many bytes.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// The port's name: `/sys/class/virtio-ports/*/name` shows it inside.
pub const PORT: &str = "org.isolation-lab.testbed";

/// Longest content of a frame. More is a broken stream, not a long line.
const LONGEST: usize = 1 << 20;
const HEADER: usize = 5;

/// One thing told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The command wrote to its standard output.
    Output(Vec<u8>),
    /// The command wrote to its standard error.
    Complaint(Vec<u8>),
    /// A piece of the tar archive of the results folder.
    Results(Vec<u8>),
    /// A sign of life: the machine still runs programs, whatever the command does.
    Alive,
    /// The testbed could not be set up, or the command not started; why.
    Failure(String),
    /// It is over: the command's exit status. The last frame.
    End(u8),
}

const OUTPUT: u8 = 1;
const COMPLAINT: u8 = 2;
const RESULTS: u8 = 3;
const FAILURE: u8 = 4;
const END: u8 = 5;
const ALIVE: u8 = 6;

/// What arrived is no frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the testbed sent something that is no frame (kind {kind}, {length} bytes)")]
pub struct Broken {
    kind: u8,
    length: usize,
}

/// The sending side, shared by threads: each frame is written whole.
pub struct Sender<W> {
    port: Mutex<W>,
}

impl<W: Write> Sender<W> {
    /// Sends through `port`.
    pub fn new(port: W) -> Sender<W> {
        Sender { port: Mutex::new(port) }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// What writing to the port said.
    pub fn send(&self, frame: &Frame) -> io::Result<()> {
        let status;
        let (kind, content): (u8, &[u8]) = match frame {
            Frame::Output(bytes) => (OUTPUT, bytes),
            Frame::Complaint(bytes) => (COMPLAINT, bytes),
            Frame::Results(bytes) => (RESULTS, bytes),
            Frame::Alive => (ALIVE, &[]),
            Frame::Failure(text) => (FAILURE, text.as_bytes()),
            Frame::End(code) => {
                status = [*code];
                (END, &status)
            }
        };
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER + content.len());
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(content);
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.write_all(&bytes)
    }
}

/// The receiving side: bytes in, in whatever pieces they come; frames out.
#[derive(Default)]
pub struct Receiver {
    bytes: Vec<u8>,
}

impl Receiver {
    /// Takes what arrived.
    pub fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame that is complete.
    ///
    /// # Errors
    /// [`Broken`] when the stream makes no sense.
    pub fn frame(&mut self) -> Result<Option<Frame>, Broken> {
        let Some((&[kind, a, b, c, d], rest)) = self.bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let broken = Broken { kind, length };
        if length > LONGEST {
            return Err(broken);
        }
        let Some(content) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = match (kind, content) {
            (OUTPUT, bytes) => Frame::Output(bytes.to_vec()),
            (COMPLAINT, bytes) => Frame::Complaint(bytes.to_vec()),
            (RESULTS, bytes) => Frame::Results(bytes.to_vec()),
            (FAILURE, text) => Frame::Failure(String::from_utf8_lossy(text).into_owned()),
            (ALIVE, []) => Frame::Alive,
            (END, [code]) => Frame::End(*code),
            _ => return Err(broken),
        };
        self.bytes.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let frames = [
            Frame::Output(b"hello\n".to_vec()),
            Frame::Complaint(vec![]),
            Frame::Results(vec![0; 5000]),
            Frame::Alive,
            Frame::Failure("why".into()),
            Frame::End(7),
        ];
        let sender = Sender::new(Vec::new());
        for frame in &frames {
            sender.send(frame).unwrap();
        }
        let bytes = sender.port.into_inner().unwrap();
        for piece in [1, 4, 7, 4096, bytes.len()] {
            let mut receiver = Receiver::default();
            let mut found = vec![];
            for chunk in bytes.chunks(piece) {
                receiver.take(chunk);
                while let Some(frame) = receiver.frame().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &[9, 0, 0, 0, 0][..],
            &[OUTPUT, 255, 255, 255, 255],
            &[END, 0, 0, 0, 0],
            // A byte where none belongs.
            &[ALIVE, 1, 0, 0, 0, 0],
        ] {
            let mut receiver = Receiver::default();
            receiver.take(bytes);
            assert!(receiver.frame().is_err());
        }
    }
}
