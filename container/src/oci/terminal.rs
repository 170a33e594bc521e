//! The program's terminal: a pseudoterminal of the container's own, whose other end goes to the engine.
//!
//! The container's devpts makes the pair, so that the program finds its terminal by name. The master is sent over the
//! local socket an engine listens on (`--console-socket`), the way runc and crun do it: one message with the descriptor
//! as ancillary data.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Uid, fchown};
use thiserror::Error;

use super::line;
use crate::errno::{of, why};

/// The multiplexer of the container's own devpts.
const MULTIPLEXER: &str = "/dev/pts/ptmx";

/// Connects to the engine's socket. On the host, before there is a container.
pub fn connect(path: &Path) -> Result<OwnedFd, Error> {
    UnixStream::connect(path)
        .map(OwnedFd::from)
        .map_err(|error| Error::Socket {
            path: path.to_owned(),
            errno: of(&error),
        })
}

/// A terminal: the program's end.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Makes a pair in the container, of `rows` and `columns` where given, and sends the master to the engine.
    pub fn open(engine: &OwnedFd, size: Option<(u16, u16)>) -> Result<Terminal, Error> {
        let failed = |action| move |errno| Error::Step { action, errno };
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = open(MULTIPLEXER, flags, Mode::empty()).map_err(failed("open /dev/pts/ptmx for"))?;
        let unlock: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads an int.
        let unlocked = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) };
        Errno::result(unlocked).map_err(failed("unlock"))?;
        // By the master, not by a name that something may have been put in place of.
        // SAFETY: TIOCGPTPEER takes flags.
        let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
        // SAFETY: the ioctl just made this descriptor for us.
        let slave = Errno::result(slave).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let slave = slave.map_err(failed("open the program's end of"))?;
        if let Some((rows, columns)) = size {
            let size = libc::winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // SAFETY: TIOCSWINSZ reads a winsize.
            let set = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
            Errno::result(set).map_err(failed("set the size of"))?;
        }
        line::send(engine, MULTIPLEXER.as_bytes(), &[master.as_raw_fd()])
            .map_err(failed("send the engine its end of"))?;
        Ok(Terminal(slave))
    }

    /// Gives it to `uid`, who could not open it by name otherwise.
    pub fn give_to(&self, uid: u32) -> Result<(), Error> {
        let group = fstat(&self.0).map(|stat| stat.st_gid);
        group
            .and_then(|group| fchown(&self.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(group))))
            .map_err(|errno| Error::Step {
                action: "change the owner of",
                errno,
            })
    }

    /// Makes it the three standard streams and the session's terminal. The caller leads a session.
    pub fn take(&self) -> Result<(), Error> {
        let failed = |action| move |errno| Error::Step { action, errno };
        for stream in 0..=2 {
            // SAFETY: takes numbers only; the stream's old file is what is to be closed.
            let copied = unsafe { libc::dup2(self.0.as_raw_fd(), stream) };
            Errno::result(copied).map_err(failed("make a standard stream of"))?;
        }
        // SAFETY: TIOCSCTTY takes a number.
        let taken = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        Errno::result(taken).map(drop).map_err(failed("take charge of"))
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why there is no terminal.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody listens.
    #[error("cannot connect to the console socket {}: {}. The engine must listen on it before the container is created", path.display(), why(errno))]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The pair.
    #[error(
        "cannot {action} the program's terminal: {}. config.json must mount a devpts on /dev/pts",
        why(errno)
    )]
    Step {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Nobody to have the other end.
    #[error(
        "process.terminal is true, and nobody is there to have its other end: give --console-socket, or use `run` without --detach from a terminal"
    )]
    NoSocket,
    /// The other way round.
    #[error("--console-socket is of no use: process.terminal in config.json is false")]
    NoTerminal,
}
