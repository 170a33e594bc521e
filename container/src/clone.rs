//! The one system call that makes the container: clone3(2), with every namespace at once.
//!
//! Asking for all of them in one call is cheaper than a series of unshare(2), and the user namespace is made first
//! whatever the order of the flags, so that the others belong to it: that is what gives an ordinary user's container
//! its rights over its own mounts and interfaces.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;
use thiserror::Error;

use crate::errno::why;

/// Start the child in the cgroup whose directory `clone_args.cgroup` names (cgroup v2 only, Linux 5.7). The libc
/// crate's constant does not fit the type it gives it, so the value from `linux/sched.h` stands here.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of the clone this is.
pub enum Side {
    /// The launcher. The container's first process has this id, and this descriptor refers to it for certain.
    Launcher {
        /// Its process id, as the host sees it.
        pid: Pid,
        /// Readable once it has ended; no other process can ever be meant by it.
        pidfd: OwnedFd,
    },
    /// The container's first process, inside all its new namespaces.
    Container,
}

/// Clones this process into the namespaces of `flags`, and into the v2 cgroup whose directory is `cgroup`.
///
/// The child runs on a copy of this process's memory and must not return from the caller's caller: it goes on to exec
/// or exit. This process must have only one thread, or the copy could hold a lock nobody will release.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Error> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero is the documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // ANCHOR: arguments
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd).addr() as u64;
    // ANCHOR_END: arguments
    // A child that becomes the caller's sibling ends as the caller does; the kernel wants no other signal named.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 {
        libc::SIGCHLD as u64
    } else {
        0
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are a valid clone_args of the given size. Without CLONE_VM the child has its own memory,
    // and with stack 0 it runs on its copy of this stack, as after fork(2).
    // ANCHOR: call
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match Errno::result(pid) {
        Ok(0) => Ok(Side::Container),
        Ok(pid) => Ok(Side::Launcher {
            pid: Pid::from_raw(pid as libc::pid_t),
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor that is ours alone.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        // ANCHOR_END: call
        Err(errno) => Err(Error {
            errno,
            cure: cure(errno),
        }),
    }
}

/// Why the kernel made no container.
#[derive(Debug, Error)]
#[error("cannot create the container's namespaces: {}. {cure}", why(errno))]
pub struct Error {
    /// The kernel's answer.
    pub errno: Errno,
    /// What to do about it on this machine.
    pub cure: String,
}

/// What to do, from what this machine's switches say.
fn cure(errno: Errno) -> String {
    let switch = |name: &str| {
        fs::read_to_string(format!("/proc/sys/{name}"))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let is = |name: &str, value: &str| switch(name).as_deref() == Some(value);
    match errno {
        Errno::EPERM if is("kernel/unprivileged_userns_clone", "0") => {
            "Unprivileged user namespaces are switched off here by kernel.unprivileged_userns_clone=0; set it to 1, or run as root".into()
        }
        Errno::EPERM if is("kernel/apparmor_restrict_unprivileged_userns", "1") => {
            "Unprivileged user namespaces are restricted here by kernel.apparmor_restrict_unprivileged_userns=1; set it to 0, or run as root".into()
        }
        Errno::EPERM => {
            "A user namespace may not be made here: this process may be in a chroot, or under a seccomp filter or security module (a container's, perhaps) that forbids it. Run outside of it".into()
        }
        Errno::ENOSPC => format!(
            "The limit on user namespaces is reached: user.max_user_namespaces={} (there are user.max_*_namespaces for the other kinds). Raise it with sysctl",
            switch("user/max_user_namespaces").unwrap_or_else(|| "unknown".into())
        ),
        Errno::EUSERS => "User namespaces are nested 32 deep already, the kernel's limit. Run further out".into(),
        Errno::EINVAL => "This kernel lacks one of the namespaces: it needs CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_UTS_NS, CONFIG_IPC_NS and CONFIG_CGROUPS".into(),
        Errno::ENOSYS => "clone3 needs Linux 5.3, and no seccomp filter that hides it".into(),
        Errno::EAGAIN => "The limit on processes is reached: see ulimit -u and the pids cgroup of the caller".into(),
        Errno::ENOMEM => "The kernel is out of memory, or the pid namespace's first process is gone".into(),
        Errno::EBUSY => "The cgroup has controllers enabled for its children and may hold no process itself".into(),
        _ => "See clone(2) for the meaning of this error".into(),
    }
}
