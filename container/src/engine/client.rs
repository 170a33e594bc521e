//! A command that watches a container's program, and lets its user speak with it.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Error;
use super::attach::{Frame, receive};
use crate::signals;
use crate::terminal::{DetachKeys, RawMode, own_size};

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program has ended with this status.
    Ended(u8),
    /// The user left; the program goes on.
    Detached,
    /// The supervisor went without a word: it was killed.
    Lost,
}

/// What the user's side is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// The program has a terminal: ours becomes raw, and there are keys to leave by.
    pub terminal: bool,
    /// What is typed here, or comes from a file, is for the program.
    pub input: bool,
    /// Signals sent to this command are for the program.
    pub signals: bool,
}

/// Passes everything on, both ways, until the end.
pub fn relay(stream: &UnixStream, manner: Manner) -> Result<Outcome, Error> {
    let failed = |action: &'static str| move |errno: Errno| Error::Kernel { action, errno };
    let here = io::stdin();
    let mask = signals::block_all().map_err(failed("take charge of signals"))?;
    let signal_fd = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(failed("take charge of signals"))?;
    let raw = match manner.terminal && manner.input {
        true => Some(RawMode::enter(here.as_fd()).map_err(failed("switch the terminal to raw mode"))?),
        false => None,
    };
    if manner.terminal {
        tell_size(stream);
    }
    let outcome = pass_on(stream, manner, here.as_fd(), &signal_fd);
    drop(raw);
    nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&mask), None)
        .map_err(failed("restore the signal mask"))?;
    outcome
}

fn pass_on(stream: &UnixStream, manner: Manner, here: BorrowedFd<'_>, signal_fd: &SignalFd) -> Result<Outcome, Error> {
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(Outcome::Lost),
        _ => Err(Error::io(
            "speak with the supervisor through",
            std::path::Path::new("attach.sock"),
        )(error)),
    };
    let mut keys = DetachKeys::new();
    let mut pending = Vec::new();
    let mut input = manner.input;
    let mut chunk = [0; 16 << 10];
    loop {
        let mut polled = vec![
            PollFd::new(stream.as_fd(), PollFlags::POLLIN),
            PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
        ];
        if input {
            polled.push(PollFd::new(here, PollFlags::POLLIN));
        }
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::kernel("wait for the container")(errno)),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| polled.any().unwrap_or(false)).collect();
        if ready[0] {
            match next_frames(stream, &mut pending) {
                Ok(None) => {}
                Ok(Some(outcome)) => return Ok(outcome),
                Err(error) => return lost(error),
            }
        }
        while let Ok(Some(signal)) = signal_fd.read_signal() {
            let frame = match signal.ssi_signo as i32 {
                libc::SIGWINCH if manner.terminal => {
                    tell_size(stream);
                    continue;
                }
                libc::SIGCHLD | libc::SIGWINCH | libc::SIGURG => continue,
                number if manner.signals => Frame::Signal(number),
                // Watching only: the watcher ends as it would have without us.
                number => return Ok(Outcome::Ended(protocol::status::SIGNAL_BASE + number as u8)),
            };
            if let Err(error) = frame.send(stream) {
                return lost(error);
            }
        }
        if ready.get(2) == Some(&true) {
            let frame = match nix::unistd::read(here, &mut chunk) {
                Ok(0) => None,
                Ok(length) => Some(&chunk[..length]),
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                Err(_) => None,
            };
            let sent = match frame {
                None => {
                    input = false;
                    Frame::StdinEnd.send(stream)
                }
                Some(typed) if manner.terminal => match keys.filter(typed) {
                    Some(typed) => Frame::Stdin(typed).send(stream),
                    None => return Ok(Outcome::Detached),
                },
                Some(typed) => Frame::Stdin(typed.to_vec()).send(stream),
            };
            if let Err(error) = sent {
                return lost(error);
            }
        }
    }
}

/// Shows what has come; the end if it is among it.
fn next_frames(stream: &UnixStream, pending: &mut Vec<u8>) -> io::Result<Option<Outcome>> {
    let Some(mut frame) = receive(stream, pending)? else {
        return Ok(Some(Outcome::Lost));
    };
    loop {
        match frame {
            // Nobody reads our output any more: the program's business goes on, and its log.
            Frame::Stdout(bytes) => drop(write_all(&mut io::stdout(), &bytes)),
            Frame::Stderr(bytes) => drop(write_all(&mut io::stderr(), &bytes)),
            Frame::Exit(status) => return Ok(Some(Outcome::Ended(status))),
            _ => {}
        }
        match Frame::take(pending)? {
            Some(next) => frame = next,
            None => return Ok(None),
        }
    }
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

fn tell_size(stream: &UnixStream) {
    if let Some((rows, columns)) = own_size() {
        // A supervisor that is gone is noticed by the next read.
        let _ = Frame::Resize { rows, columns }.send(stream);
    }
}

/// Waits for the end alone; `None` when the supervisor was killed.
pub fn wait(stream: &UnixStream) -> io::Result<Option<u8>> {
    let mut pending = Vec::new();
    while let Some(frame) = receive(stream, &mut pending)? {
        if let Frame::Exit(status) = frame {
            return Ok(Some(status));
        }
    }
    Ok(None)
}
