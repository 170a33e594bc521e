//! A program's standard streams, as its supervisor holds them: three pipes, or one terminal.
//!
//! A pseudo-terminal is a pair (pty(7)): the program has one end, which behaves like a terminal in every way; what it
//! shows comes out at the other end, and what is put in there has been typed.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2, read, write};

use super::Error;
use super::logs::Stream;

/// What a program was given.
pub struct ProgramEnds {
    /// Its standard input, output and error.
    pub streams: [OwnedFd; 3],
}

/// What its supervisor keeps.
#[derive(Default)]
pub struct Streams {
    /// Where what the program reads is put in.
    input: Option<OwnedFd>,
    /// What it has not read yet.
    pub typed: Vec<u8>,
    /// Close the input once all is read.
    ends: bool,
    /// Its outputs, while they are open.
    outputs: [Option<OwnedFd>; 2],
    terminal: bool,
}

/// How much is kept for a program that does not read.
pub const TYPED_AHEAD: usize = 64 << 10;

impl Streams {
    /// Pipes; without `interactive` the program's standard input is empty. A pipe belongs to whoever made it: opened once
    /// more by name, as `/dev/stdout`, it would be refused to a program of another user's, unless it is given to `owner`.
    pub fn pipes(interactive: bool, owner: Option<(u32, u32)>) -> Result<(Streams, ProgramEnds), Error> {
        let make = || {
            let pipe = pipe2(OFlag::O_CLOEXEC).map_err(Error::kernel("make a pipe"))?;
            if let Some((uid, gid)) = owner {
                fchown(&pipe.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                    .map_err(Error::kernel("give a pipe to the container's user"))?;
            }
            Ok::<_, Error>(pipe)
        };
        let null = std::path::Path::new("/dev/null");
        let (theirs, input) = match interactive {
            true => {
                let (theirs, ours) = make()?;
                (theirs, Some(ours))
            }
            false => (File::open(null).map_err(Error::io("open", null))?.into(), None),
        };
        let (stdout, their_stdout) = make()?;
        let (stderr, their_stderr) = make()?;
        let streams = Streams {
            input,
            outputs: [Some(stdout), Some(stderr)],
            ..Streams::default()
        };
        streams.do_not_wait()?;
        let streams_of_program = [theirs, their_stdout, their_stderr];
        Ok((
            streams,
            ProgramEnds {
                streams: streams_of_program,
            },
        ))
    }

    /// A terminal, of which the supervisor holds `master`.
    pub fn terminal(master: OwnedFd) -> Result<Streams, Error> {
        let again = master
            .try_clone()
            .map_err(Error::io("copy", std::path::Path::new("the terminal")))?;
        let streams = Streams {
            input: Some(again),
            outputs: [Some(master), None],
            terminal: true,
            ..Streams::default()
        };
        streams.do_not_wait()?;
        Ok(streams)
    }

    fn do_not_wait(&self) -> Result<(), Error> {
        for fd in self.outputs.iter().chain([&self.input]).flatten() {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(Error::kernel("set up a pipe"))?;
        }
        Ok(())
    }

    /// The outputs that are open, to be waited for.
    pub fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.outputs.iter().flatten().map(AsFd::as_fd)
    }

    /// The input, if there is something to put in.
    pub fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|_| !self.typed.is_empty()).map(AsFd::as_fd)
    }

    /// Whether every output has ended.
    pub fn are_at_their_end(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Hands on what the program wrote, at most one buffer of each output. `false` when there was nothing.
    pub fn read(&mut self, mut take: impl FnMut(Stream, &[u8])) -> bool {
        let mut chunk = [0; 32 << 10];
        let mut any = false;
        for (output, stream) in self.outputs.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            let Some(fd) = output else { continue };
            match read(&*fd, &mut chunk) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // A terminal's other end reports with EIO that nobody has it open any more.
                Ok(0) | Err(_) => *output = None,
                Ok(length) => {
                    any = true;
                    take(stream, &chunk[..length]);
                }
            }
        }
        any
    }

    /// Puts in what was typed, as far as the program's side takes it.
    pub fn write(&mut self) {
        while let Some(fd) = self.input.as_ref().filter(|_| !self.typed.is_empty()) {
            match write(fd, &self.typed) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                // It closed its standard input: nothing will be read any more.
                Err(_) => {
                    self.typed.clear();
                    self.input = None;
                }
            }
        }
        if self.ends {
            self.input = None;
        }
    }

    /// Takes what somebody typed.
    pub fn type_in(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.ends {
            self.typed.extend_from_slice(bytes);
        }
    }

    /// There is no more to read for the program. A terminal has no end: the key for it is part of what is typed.
    pub fn end_input(&mut self) {
        if !self.terminal {
            self.ends = true;
            self.write();
        }
    }

    /// Tells the terminal how large it is; the kernel then tells the program (SIGWINCH).
    pub fn resize(&self, rows: u16, columns: u16) {
        if self.terminal
            && let Some(master) = &self.outputs[0]
        {
            set_size(master.as_fd(), rows, columns);
        }
    }
}

/// Sets a terminal's size; one that is closing needs none.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a winsize.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
}
