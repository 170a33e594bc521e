//! Keepers: processes that outlive the launcher, to put things right whatever ends it.
//!
//! A mount namespace or a pid namespace goes away with its last process; a cgroup's directory does not, and nor do the
//! processes of a container that was given no pid namespace. Nothing can run in a launcher that was killed with
//! SIGKILL. So a second process is made beforehand, which does nothing but wait for the launcher to end or to dismiss
//! it, and then does its one duty. Both endings take the same path, so every run tests it.
//!
//! The kernel tells a keeper that its launcher has died by the signal it asked for (PR_SET_PDEATHSIG); the launcher
//! dismisses it with the same signal. The keeper is in a session of its own, or killing the launcher's process group
//! would reach it too.
//!
//! One thing no keeper survives: being killed itself. Whoever kills every process of the launcher's cgroup (version 2:
//! `cgroup.kill`) ends launcher, keeper and container together. No process and no mount is left, but the empty
//! directories `container-PID-TIME` are. systemd removes them with the unit they are in; elsewhere `rmdir` does. The
//! keeper could move to another cgroup, but would then be accounted where nobody expects it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork, getppid, setsid};
use thiserror::Error;

use crate::errno::why;
use crate::namespaces::Namespace;
use crate::signals;

/// How long a cgroup may stay busy: its processes are killed by then, but the kernel clears them away at leisure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// What a keeper does when the time has come.
pub enum Duty {
    /// Remove these directories of cgroups.
    RemoveDirectories(Vec<PathBuf>),
    /// Kill every process in this namespace, named by what its link in /proc/PID/ns says. The open file keeps the
    /// namespace alive: the kernel gives the number in the name away again at once, and the next container that had it
    /// would be killed for this one.
    EndProcesses(Namespace, PathBuf, OwnedFd),
}

/// A keeper, as its launcher knows it. Dropped, it is dismissed as well: an error on the way to the container leaves no
/// more behind than its end does.
pub struct Keeper(Option<Pid>);

impl Keeper {
    /// Starts a keeper. Every signal is blocked in the caller.
    pub fn hire(duty: Duty) -> Result<Keeper, Error> {
        let launcher = Pid::this();
        // SAFETY: the launcher has one thread, so that its copy may do whatever the launcher may.
        match unsafe { fork() }.map_err(Error::Fork)? {
            ForkResult::Parent { child } => Ok(Keeper(Some(child))),
            ForkResult::Child => {
                let done = wait_for_the_end_of(launcher, duty.kept()).is_ok() && duty.perform();
                // SAFETY: ends this process at once. The launcher's exit handlers are not ours to run.
                unsafe { libc::_exit(i32::from(!done)) }
            }
        }
    }

    /// Has the duty done, and waits until it is.
    pub fn dismiss(mut self) -> Result<(), Error> {
        self.0.take().map_or(Ok(()), dismiss)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The error that led here is the one to report.
        let _ = self.0.take().map(dismiss);
    }
}

fn dismiss(keeper: Pid) -> Result<(), Error> {
    signals::send(keeper, libc::SIGTERM);
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        let waited = unsafe { libc::waitpid(keeper.as_raw(), &raw mut status, 0) };
        match Errno::result(waited) {
            Ok(_) if status == 0 => return Ok(()),
            Ok(_) => return Err(Error::Undone),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Lost(errno)),
        }
    }
}

fn wait_for_the_end_of(launcher: Pid, kept: Option<u32>) -> Result<(), Errno> {
    // Held open, the launcher's output would not end for its reader when the launcher does.
    let close = |from: u32, to: u32| {
        // SAFETY: takes numbers only. This process uses no descriptor but the one it keeps and those it opens later.
        unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }
    };
    if let Some(fd) = kept.filter(|&fd| fd > 0) {
        close(0, fd - 1);
    }
    close(kept.map_or(0, |fd| fd + 1), u32::MAX);
    setsid()?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as u64, 0u64, 0u64, 0u64) })?;
    // If the launcher died before that line, this process has another parent by now, and no signal will come.
    while getppid() == launcher {
        if signals::wait()?.number == Signal::SIGTERM as i32 {
            break;
        }
    }
    Ok(())
}

impl Duty {
    /// The descriptor it needs.
    fn kept(&self) -> Option<u32> {
        match self {
            Duty::RemoveDirectories(_) => None,
            Duty::EndProcesses(_, _, namespace) => Some(namespace.as_raw_fd() as u32),
        }
    }

    /// Does the duty; says whether it is done.
    fn perform(&self) -> bool {
        let attempt = || match self {
            // One after the other, each as far as it goes: a busy one must not keep the others.
            Duty::RemoveDirectories(directories) => {
                directories.iter().filter(|directory| !is_removed(directory)).count() == 0
            }
            Duty::EndProcesses(namespace, link, _) => kill_members(*namespace, link) == 0,
        };
        let attempts = PATIENCE.as_millis() / PAUSE.as_millis();
        (0..attempts).any(|_| {
            attempt() || {
                std::thread::sleep(PAUSE);
                false
            }
        })
    }
}

fn is_removed(directory: &Path) -> bool {
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Kills every process in the namespace and says how many there were.
fn kill_members(namespace: Namespace, link: &Path) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let members = processes.flatten().filter_map(|entry| {
        let pid: libc::pid_t = entry.file_name().to_str()?.parse().ok()?;
        let its_link = fs::read_link(entry.path().join("ns").join(namespace.proc_name())).ok()?;
        (its_link == link).then_some(Pid::from_raw(pid))
    });
    members.map(|member| signals::send(member, libc::SIGKILL)).count()
}

/// What went wrong with a keeper.
#[derive(Debug, Error)]
pub enum Error {
    /// No process for it.
    #[error("cannot start the process that cleans up after the container: {}. The limit on processes may be reached (ulimit -u)", why(.0))]
    Fork(Errno),
    /// It gave up.
    #[error("the container's cgroups or processes could not be removed within {} seconds; look for container-* in the launcher's cgroup", PATIENCE.as_secs())]
    Undone,
    /// Somebody else waited for it.
    #[error("cannot wait for the process that cleans up after the container: {}", why(.0))]
    Lost(Errno),
}
