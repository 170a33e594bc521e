//! Network namespaces as things to hold: an open file keeps one alive without any process in it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;
use thiserror::Error;

use crate::errno::{of, why};

/// A network namespace, kept alive by an open file.
#[derive(Debug)]
pub struct NetworkNamespace(OwnedFd);

impl NetworkNamespace {
    /// The one the calling thread is in.
    pub fn current() -> Result<NetworkNamespace, Error> {
        NetworkNamespace::open("/proc/thread-self/ns/net")
    }

    /// The one process `pid` is in.
    pub fn of(pid: Pid) -> Result<NetworkNamespace, Error> {
        NetworkNamespace::open(&format!("/proc/{pid}/ns/net"))
    }

    /// A new one, with a loopback interface that is still down. The calling thread is back in its own afterwards.
    pub fn new() -> Result<NetworkNamespace, Error> {
        let before = NetworkNamespace::current()?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::New)?;
        let made = NetworkNamespace::current();
        before.enter()?;
        made
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> Result<(), Error> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(Error::Enter)
    }

    /// Calls `act` inside, and comes back. A socket belongs for ever to the namespace it was made in: one that `act`
    /// returns goes on speaking for that namespace.
    pub fn inside<T>(&self, act: impl FnOnce() -> T) -> Result<T, Error> {
        let before = NetworkNamespace::current()?;
        self.enter()?;
        let result = act();
        before.enter()?;
        Ok(result)
    }

    fn open(path: &str) -> Result<NetworkNamespace, Error> {
        let file = File::open(path).map_err(|error| Error::Open {
            path: path.to_owned(),
            errno: of(&error),
        })?;
        Ok(NetworkNamespace(file.into()))
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for NetworkNamespace {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for NetworkNamespace {
    fn from(fd: OwnedFd) -> NetworkNamespace {
        NetworkNamespace(fd)
    }
}

/// Why a namespace is out of reach.
#[derive(Debug, Error)]
pub enum Error {
    /// It could not be made.
    #[error("cannot make a network namespace: {}. That needs CAP_SYS_ADMIN, which an ordinary user has in a user namespace of his own only", why(.0))]
    New(Errno),
    /// It could not be entered.
    #[error("cannot enter the network namespace: {}. That needs CAP_SYS_ADMIN in the user namespace it belongs to", why(.0))]
    Enter(Errno),
    /// Its file could not be opened.
    #[error("cannot open the network namespace {path}: {}", why(errno))]
    Open {
        /// Where.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
}
