//! Staying with a program: passing signals on to it, standing between it and a terminal, and ending with its status.
//!
//! That is what `run` and `exec` do unless they are told to leave (`--detach`). With a terminal, the caller's is switched
//! to raw mode, so that every key goes to the program's, and bytes are carried both ways.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, isatty, read, write};
use thiserror::Error;

use super::create::{self, Request, create_locked};
use super::exec::{self, Child};
use super::state::{StateRoot, send_signal};
use super::{delete, line, start};
use crate::errno::why;
use crate::run::status_of;
use crate::signals;

/// `run`: create, start, stay, delete. Returns the program's status. With `keep` the container is not deleted.
pub fn run(root: &StateRoot, request: Request, keep: bool) -> Result<u8, Error> {
    signals::block_all().map_err(Error::Signals)?;
    let id = request.id.clone();
    let (ours, theirs) = match request.console_socket {
        None => terminal_line()?,
        Some(_) => (None, None),
    };
    let mut container = create_locked(root, request, theirs)?;
    let result = (|| {
        let process = container.state.process.ok_or(Error::Gone)?;
        let pidfd = process.open().ok_or(Error::Gone)?;
        start::start_locked(&mut container)?;
        Ok((Pid::from_raw(process.pid), pidfd))
    })();
    drop(container);
    let status = result.and_then(|(pid, pidfd)| stay(&Child { pid, pidfd }, ours));
    // Also when it could not be started: `run` leaves nothing.
    if !keep || status.is_err() {
        delete::delete(root, &id, true)?;
    }
    status
}

/// `run --detach`: create and start. The container is deleted when it could not be started.
pub fn run_detached(root: &StateRoot, request: Request) -> Result<(), Error> {
    let id = request.id.clone();
    let mut container = create_locked(root, request, None)?;
    let started = start::start_locked(&mut container);
    drop(container);
    if started.is_err() {
        delete::delete(root, &id, true)?;
    }
    Ok(started?)
}

/// `exec` that stays. Returns the program's status.
pub fn exec(root: &StateRoot, request: exec::Request) -> Result<u8, Error> {
    signals::block_all().map_err(Error::Signals)?;
    let (ours, theirs) = match request.console_socket {
        None if request.process.terminal() == Some(true) => terminal_line()?,
        _ => (None, None),
    };
    let child = exec::exec_with(root, request, theirs)?;
    stay(&child, ours)
}

/// A line for the terminal's master to come by: our end, and the one for the container.
fn terminal_line() -> Result<(Option<OwnedFd>, Option<OwnedFd>), Error> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.map_err(Error::Terminal)?;
    Ok((Some(ours), Some(theirs)))
}

/// Stays with a program until it ends, and returns its status. `line` is where its terminal's master comes by, if it has
/// one. Every signal must be blocked ([`signals::block_all`]).
pub fn stay(child: &Child, line: Option<OwnedFd>) -> Result<u8, Error> {
    let master = line.and_then(|line| {
        let mut name = [0; 64];
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&line, flags).ok()?;
        line::receive(&line, &mut name).ok()?.1.pop()
    });
    let signals =
        SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(Error::Signals)?;
    let terminal = master.map(Carrier::new).transpose()?;
    loop {
        let mut events = vec![
            PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(terminal) = &terminal {
            events.extend(terminal.events());
        }
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Wait(errno)),
        }
        let ready: Vec<bool> = events.iter().map(|event| event.any().unwrap_or(false)).collect();
        if let Some(terminal) = &terminal {
            terminal.carry(ready.get(2) == Some(&true), ready.get(3) == Some(&true));
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGCHLD => {}
                libc::SIGWINCH if terminal.is_some() => terminal.iter().for_each(Carrier::copy_size),
                // It may just have ended.
                number => _ = send_signal(&child.pidfd, number),
            }
        }
        if ready[0] {
            if let Some(terminal) = &terminal {
                terminal.drain();
            }
            return Ok(create::reap(child.pid).map_or(super::FAILED, status_of));
        }
    }
}

/// Carries bytes between the caller's terminal and the program's.
struct Carrier {
    master: OwnedFd,
    /// What the caller's terminal was like, to be so again.
    before: Option<Termios>,
    input_ended: std::cell::Cell<bool>,
}

impl Carrier {
    fn new(master: OwnedFd) -> Result<Carrier, Error> {
        let carrier = Carrier {
            master,
            before: match isatty(stdin()) {
                Ok(true) => Some(tcgetattr(stdin()).map_err(Error::Terminal)?),
                _ => None,
            },
            input_ended: std::cell::Cell::new(false),
        };
        if let Some(before) = &carrier.before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(stdin(), SetArg::TCSANOW, &raw).map_err(Error::Terminal)?;
            carrier.copy_size();
        }
        Ok(carrier)
    }

    fn events(&self) -> Vec<PollFd<'_>> {
        let mut events = vec![PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if !self.input_ended.get() {
            events.push(PollFd::new(stdin(), PollFlags::POLLIN));
        }
        events
    }

    fn carry(&self, from_program: bool, from_caller: bool) {
        if from_program {
            copy_some(self.master.as_fd(), stdout());
        }
        if from_caller && !copy_some(stdin(), self.master.as_fd()) {
            self.input_ended.set(true);
        }
    }

    /// What the program said last.
    fn drain(&self) {
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        if nix::fcntl::fcntl(&self.master, flags).is_ok() {
            while copy_some(self.master.as_fd(), stdout()) {}
        }
    }

    /// The program's terminal is as large as the caller's.
    fn copy_size(&self) {
        let mut size = libc::winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: TIOCGWINSZ writes a winsize, TIOCSWINSZ reads one. A caller without a terminal has no size to copy.
        unsafe {
            if libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) == 0 {
                libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
            }
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing more can be done for a terminal that has gone.
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, before);
        }
    }
}

fn stdin() -> BorrowedFd<'static> {
    // SAFETY: the standard streams stay open as long as this process runs.
    unsafe { BorrowedFd::borrow_raw(0) }
}

fn stdout() -> BorrowedFd<'static> {
    // SAFETY: as above.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Copies what is there to be read. `false`: nothing more will come.
fn copy_some(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 8192];
    let length = match read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(Errno::EINTR) => return true,
        // EIO: the program's end of the terminal is closed.
        Err(_) => return false,
    };
    let mut left = &buffer[..length];
    while !left.is_empty() {
        match write(to, left) {
            Ok(written) => left = &left[written..],
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// What went wrong beside a program.
#[derive(Debug, Error)]
pub enum Error {
    /// Creating the container.
    #[error(transparent)]
    Create(#[from] create::Error),
    /// Starting it.
    #[error(transparent)]
    Start(#[from] start::Error),
    /// Another program in it.
    #[error(transparent)]
    Exec(#[from] exec::Error),
    /// Deleting it.
    #[error(transparent)]
    Delete(#[from] delete::Error),
    /// It ended before it was started.
    #[error("the container's first process ended before it was started: something has killed it")]
    Gone,
    /// Signals.
    #[error("cannot take charge of signals: {}", why(.0))]
    Signals(Errno),
    /// The caller's terminal.
    #[error("cannot stand between the terminals: {}", why(.0))]
    Terminal(Errno),
    /// Waiting failed.
    #[error("cannot follow the program: {}", why(.0))]
    Wait(Errno),
}

impl Error {
    /// The status to exit with.
    pub fn status(&self) -> u8 {
        match self {
            Error::Create(error) => error.status(),
            Error::Start(error) => error.status(),
            Error::Exec(error) => error.status(),
            _ => super::FAILED,
        }
    }
}
