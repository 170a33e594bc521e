//! Network namespaces as things to hold: an open file keeps one alive without any process in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
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

    /// A new one, in which `prepare` was called. The calling process, which has one thread, stays where it is: in a user
    /// namespace of his own an ordinary user may leave the host's network namespace, but never come back to it. So a
    /// process is made that goes there, and ends once the namespace is held open. It belongs to the user namespace `users`,
    /// if one is given.
    pub fn new_with(users: Option<BorrowedFd<'_>>, prepare: impl FnOnce() -> bool) -> Result<NetworkNamespace, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| Error::New(of(&error)))?;
        // SAFETY: the caller has one thread, so that its copy may do whatever it may.
        match unsafe { fork() }.map_err(Error::New)? {
            ForkResult::Child => {
                drop(ours);
                let entered = users.map_or(Ok(()), |users| setns(users, CloneFlags::CLONE_NEWUSER));
                let made = entered.and_then(|()| unshare(CloneFlags::CLONE_NEWNET));
                let made = made.map_err(|errno| errno as u8);
                let answer = made.and_then(|()| if prepare() { Ok(0) } else { Err(Errno::EPERM as u8) });
                let _ = (&theirs).write_all(&[answer.unwrap_or_else(|errno| errno)]);
                // Until the other side has opened the namespace and lets go.
                let _ = (&theirs).read(&mut [0]);
                // SAFETY: ends this process at once. The caller's exit handlers are not ours to run.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop(theirs);
                let mut answer = [Errno::ESRCH as u8];
                let _ = (&ours).read_exact(&mut answer);
                let made = match answer {
                    [0] => NetworkNamespace::of(child),
                    [errno] => Err(Error::New(Errno::from_raw(errno.into()))),
                };
                drop(ours);
                let _ = waitpid(child, None);
                made
            }
        }
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
