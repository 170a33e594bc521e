//! The recipe: how a container is made, from top to bottom.
//!
//! Launcher: make the cgroup, clone into the namespaces, map the users, say go, wait. The other half, from "go" to
//! execve, happens inside and is told in [`crate::init`]: build the root, pivot, drop privileges, exec.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, geteuid};
use protocol::marks::Marks;
use protocol::phase::Phase;
use protocol::status;
use thiserror::Error;

use crate::cgroup::{self, Cgroup};
use crate::channel;
use crate::clone::{self, Side, clone3};
use crate::config::Config;
use crate::errno::why;
use crate::init::Init;
use crate::keeper::{self, Duty, Keeper};
use crate::namespaces::{self, Namespace, Namespaces};
use crate::rootfs::{self, Image};
use crate::signals;
use crate::stone;
use crate::streams;
use crate::users::{self, UserMap};

/// Runs a container to its end and returns the program's status: its exit code, or 128 + n for signal n.
///
/// The calling process must have a single thread; its signals stay blocked, and its standard input and output are
/// closed.
pub fn run(config: &Config) -> Result<u8, Error> {
    let as_root = geteuid().is_root();
    config
        .namespaces
        .check(as_root, config.image != Image::Workload, config.hostname.is_some())?;
    rootfs::check(&config.image)?;
    let users = match config.namespaces.has(Namespace::User) {
        true => Some(UserMap::choose(config.user)?),
        false => None,
    };
    // Ids of a range are nobody's outside.
    let owns_launcher = stone::is_needed(match &users {
        Some(users) if users.is_range() => None,
        Some(users) => Some(users.outside(config.user).0),
        None => Some(config.user.uid),
    });
    let ranged = users.filter(UserMap::is_range);
    streams::prepare(ranged.map(|users| users.outside(config.user)))?;
    let mask = signals::block_all().map_err(Error::Signals)?;

    let cgroup = Cgroup::make(&config.limits)?;
    if cgroup.is_made() {
        config.marks.mark(Phase::CgroupMade);
    }
    let (launcher_end, container_end) = channel::pair().map_err(Error::Channel)?;
    let launcher = Pid::this();
    let (pid, pidfd) = match clone3(clone_flags(config.namespaces, &cgroup), cgroup.clone_into())? {
        Side::Launcher { pid, pidfd } => (pid, pidfd),
        Side::Container => {
            drop(launcher_end);
            let mapped_range = users.map_or_else(users::may_change_ids, |users| users.is_range());
            Init {
                config,
                cgroup: &cgroup,
                launcher,
                mask,
                channel: container_end,
                mapped_range,
                owns_launcher,
            }
            .run()
        }
    };
    drop(container_end);

    // ANCHOR: users
    if let Some(users) = users {
        users.write(pid)?;
        config.marks.mark(Phase::UserMapWritten);
    }
    // ANCHOR_END: users
    let image = match (&config.image, users) {
        (Image::Directory(path), Some(users)) if users.is_range() => shifted(path, pid, true)?,
        (Image::Layers(layers), Some(users)) if users.is_range() => shifted(&layers.store, pid, layers.is_read_only())?,
        _ => None,
    };
    let stragglers = match config.namespaces.has(Namespace::Pid) {
        true => None,
        false => Some(Keeper::hire(straggler_duty(config.namespaces, pid)?)?),
    };
    // The container may have failed already and say why; then the message counts, not that nobody listens.
    let _ = launcher_end.go(image.as_ref().map(AsFd::as_fd));
    drop(image);

    let status = wait_for(pid, pidfd.as_fd(), config.marks)?;
    stragglers.map_or(Ok(()), Keeper::dismiss)?;
    cgroup.remove()?;
    match launcher_end.failure() {
        Some(failure) => Err(Error::Container {
            status: failure.status,
            message: failure.message,
        }),
        None => Ok(status),
    }
}

/// The image as a mount whose owners are shifted, if its file system can.
fn shifted(path: &Path, pid: Pid, read_only: bool) -> Result<Option<OwnedFd>, Error> {
    let (tree, is_shifted) = rootfs::shift_owners(path, pid, read_only)?;
    if !is_shifted {
        // Worth a word, no reason to stop: most images can be read by everybody.
        eprintln!(
            "container: note: the file system of {} cannot shift owners (tmpfs can from Linux 6.3 on, overlay and network file systems cannot): its files belong to nobody inside",
            path.display()
        );
    }
    Ok(Some(tree))
}

/// The cgroup namespace is made later when there is a cgroup to move into first.
fn clone_flags(namespaces: Namespaces, cgroup: &Cgroup) -> u64 {
    let later = if cgroup.is_made() {
        Namespace::Cgroup.clone_flag()
    } else {
        0
    };
    namespaces.clone_flags() & !later
}

/// How to recognise what a container without a pid namespace leaves running.
fn straggler_duty(namespaces: Namespaces, pid: Pid) -> Result<Duty, Error> {
    let kinds = [Namespace::Mount, Namespace::Net, Namespace::Ipc, Namespace::Uts];
    let kind = kinds
        .into_iter()
        .find(|&kind| namespaces.has(kind))
        .ok_or(namespaces::Error::NothingToRecogniseBy)?;
    let path = format!("/proc/{pid}/ns/{}", kind.proc_name());
    let failed = |error: std::io::Error| Error::Wait(crate::errno::of(&error));
    let namespace = fs::File::open(&path).map_err(failed)?;
    let link = fs::read_link(&path).map_err(failed)?;
    Ok(Duty::EndProcesses(kind, link, namespace.into()))
}

/// Waits for the container's first process, passing signals on to it, and returns its status.
fn wait_for(pid: Pid, pidfd: BorrowedFd<'_>, marks: Marks) -> Result<u8, Error> {
    let signal_fd =
        SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(Error::Signals)?;
    // After the signal descriptor was made, which would have taken the freed number.
    streams::let_go(marks);
    loop {
        let mut events = [
            PollFd::new(pidfd, PollFlags::POLLIN),
            PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Wait(errno)),
        }
        if events[0].any().unwrap_or(false) {
            return reap(pid);
        }
        while let Ok(Some(signal)) = signal_fd.read_signal() {
            let number = signal.ssi_signo as i32;
            if number != libc::SIGCHLD && signal.ssi_code != libc::SI_KERNEL {
                // SAFETY: the descriptor is open; no siginfo is passed. A process that has ended needs no signal.
                unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, 0usize, 0) };
            }
        }
    }
}

fn reap(pid: Pid) -> Result<u8, Error> {
    let mut raw = 0;
    // SAFETY: the kernel writes the status to the integer whose address it is given.
    Errno::result(unsafe { libc::waitpid(pid.as_raw(), &raw mut raw, 0) }).map_err(Error::Wait)?;
    Ok(status_of(raw))
}

/// The status a shell would report for what wait(2) says.
pub(crate) fn status_of(raw: i32) -> u8 {
    if libc::WIFSIGNALED(raw) {
        status::SIGNAL_BASE + libc::WTERMSIG(raw) as u8
    } else {
        libc::WEXITSTATUS(raw) as u8
    }
}

/// Why there was no container, or no program in it.
#[derive(Debug, Error)]
pub enum Error {
    /// The namespaces do not go together.
    #[error(transparent)]
    Namespaces(#[from] namespaces::Error),
    /// The root file system.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// The limits.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The clone.
    #[error(transparent)]
    Clone(#[from] clone::Error),
    /// The user map.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// The process that cleans up.
    #[error(transparent)]
    Keeper(#[from] keeper::Error),
    /// The standard streams.
    #[error(transparent)]
    Streams(#[from] streams::Error),
    /// Signals.
    #[error("cannot take charge of signals: {}", why(.0))]
    Signals(Errno),
    /// The line to the container.
    #[error("cannot make the line between launcher and container: {}. The limit on open files may be reached (ulimit -n)", why(.0))]
    Channel(Errno),
    /// Waiting failed.
    #[error("cannot follow the container's first process: {}", why(.0))]
    Wait(Errno),
    /// The container's own account of what failed inside.
    #[error("{message}")]
    Container {
        /// The status to exit with.
        status: u8,
        /// What failed, on what, why, and what to do.
        message: String,
    },
}

impl Error {
    /// The launcher's exit status for this: see [`protocol::status`].
    pub fn status(&self) -> u8 {
        match self {
            Error::Container { status, .. } => *status,
            _ => status::LAUNCHER_FAILED,
        }
    }
}
