//! Zstandard, as layers have it: frame after frame, some of them only to be skipped.
//!
//! The crate `ruzstd` decodes one frame. `zstd:chunked` images, for one, have a frame for each file and a table of
//! contents in skippable frames (RFC 8878, section 3.1.2).

use std::io::{self, Chain, Cursor, Read};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// How much memory a frame may ask for to look back into: what zstd's own command line tool allows.
const MAX_WINDOW: u64 = 128 << 20;

type Frame<R> = StreamingDecoder<Chain<Cursor<[u8; 4]>, R>, FrameDecoder>;

/// The bytes of all frames.
pub struct Zstd<R: Read> {
    state: State<R>,
}

enum State<R: Read> {
    Between(R),
    Inside(Box<Frame<R>>),
    Over,
}

impl<R: Read> Zstd<R> {
    /// Decodes from here on.
    pub fn new(stored: R) -> Zstd<R> {
        Zstd {
            state: State::Between(stored),
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Ok(0),
                State::Between(stored) => next_frame(stored)?,
                State::Inside(mut frame) => match frame.read(buffer)? {
                    0 if !buffer.is_empty() => State::Between(frame.into_inner().into_inner().1),
                    size => {
                        self.state = State::Inside(frame);
                        return Ok(size);
                    }
                },
            }
        }
    }
}

fn next_frame<R: Read>(mut stored: R) -> io::Result<State<R>> {
    let mut magic = [0; 4];
    if stored.by_ref().take(1).read(&mut magic[..1])? == 0 {
        return Ok(State::Over);
    }
    stored.read_exact(&mut magic[1..])?;
    if matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18]) {
        let mut length = [0; 4];
        stored.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if io::copy(&mut stored.by_ref().take(length), &mut io::sink())? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok(State::Between(stored));
    }
    let frame = StreamingDecoder::new_with_max_window_size(Cursor::new(magic).chain(stored), MAX_WINDOW);
    let frame =
        frame.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("not a zstd stream: {error}")))?;
    Ok(State::Inside(Box::new(frame)))
}
