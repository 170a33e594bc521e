//! The container's first process: builds the container from inside, starts the program, then looks after it.
//!
//! In a pid namespace this is process 1, and process 1 has two duties a program seldom knows of: to reap every orphan,
//! or zombies fill the process table, and to pass signals on, since the kernel drops those it does not handle. When it
//! ends, the kernel kills everything else in the namespace.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, getppid, sethostname};
use protocol::phase::Phase;
use protocol::status;
use thiserror::Error;

use crate::cgroup::{self, Cgroup};
use crate::channel::{ContainerEnd, Failure};
use crate::config::Config;
use crate::errno::why;
use crate::namespaces::Namespace;
use crate::privileges::Rights;
use crate::run::status_of;
use crate::{capabilities, devices, mounts, network, privileges, program, rootfs, signals, users, workdir};

/// The container's name unless it is given one: a new UTS namespace starts with a copy of the host's, and a program that
/// prints the host's name looks as if it had none of its own.
const DEFAULT_HOSTNAME: &str = "lab-container";

/// What the first process has from the launcher.
pub struct Init<'a> {
    /// What to run, and how.
    pub config: &'a Config,
    /// Where to join, if limits were asked for.
    pub cgroup: &'a Cgroup,
    /// The launcher's process id, as the launcher sees it.
    pub launcher: Pid,
    /// Which signals the program is to find blocked.
    pub mask: SigSet,
    /// The line to the launcher.
    pub channel: ContainerEnd,
    /// Whether ids must be taken on after the launcher mapped them.
    pub mapped_range: bool,
    /// Whether the program's user is, outside, the owner of the launcher's file.
    pub owns_launcher: bool,
}

impl Init<'_> {
    /// Runs the program and ends with its status.
    pub fn run(self) -> ! {
        let status = match self.start_program() {
            Ok(program) => {
                drop(self);
                look_after(program)
            }
            Err(error) => {
                let failure = Failure {
                    status: error.status(),
                    message: error.to_string(),
                };
                self.channel.report(&failure);
                failure.status
            }
        };
        // SAFETY: ends this process at once. The launcher's exit handlers are not ours to run.
        unsafe { libc::_exit(status.into()) }
    }

    fn start_program(&self) -> Result<Pid, Error> {
        let (config, marks) = (self.config, self.config.marks);
        marks.mark(Phase::CloneReturned);
        self.before_ids()?;
        let image = self.channel.wait_for_go().ok_or(Error::LauncherGone)?;
        self.take_ids()?;
        if config.namespaces.has(Namespace::Mount) {
            let old_root = rootfs::enter(&config.image, image.as_ref().map(AsFd::as_fd), config.namespaces)?;
            mounts::kernel_views(config.namespaces)?;
            devices::populate(config.namespaces, self.mapped_range)?;
            marks.mark(Phase::MountsDone);
            old_root.leave()?;
            marks.mark(Phase::PivotDone);
        }
        workdir::enter(&config.workdir)?;
        let in_memory = match config.namespaces.has(Namespace::Mount) {
            true => None,
            false => config.program.find_in_memory()?,
        };
        let executable = match in_memory {
            Some(executable) => executable,
            None => config.program.find()?,
        };
        let executable = if self.owns_launcher {
            executable.by_stone().map_err(program::Error::from)?
        } else {
            executable
        };
        privileges::filter_system_calls()?;
        let tied = !config.namespaces.has(Namespace::Pid);
        let rights = Rights {
            user: config.user,
            capabilities: config.capabilities,
        };
        Ok(config.program.start(executable, rights, &self.mask, marks, tied)?)
    }

    /// What needs no ids. The launcher writes the user map meanwhile, on another processor.
    fn before_ids(&self) -> Result<(), Error> {
        let namespaces = self.config.namespaces;
        self.cgroup.join()?;
        if namespaces.has(Namespace::User) && self.cgroup.is_made() {
            // Part of the limits: without any, a container may take what there is.
            users::bound_shared_counts()?;
        }
        if namespaces.has(Namespace::Cgroup) && self.cgroup.is_made() {
            // A cgroup namespace shows as root the cgroup its maker is in, so it is made after moving in.
            unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|errno| Error::CgroupNamespace { errno })?;
        }
        if namespaces.has(Namespace::Net) {
            network::loopback::raise()?;
        }
        let own_name = namespaces.has(Namespace::Uts).then_some(DEFAULT_HOSTNAME);
        if let Some(name) = self.config.hostname.as_deref().or(own_name) {
            sethostname(name).map_err(|errno| Error::Hostname {
                name: name.to_owned(),
                errno,
            })?;
        }
        capabilities::cut_bounding_set(self.config.capabilities).map_err(privileges::Error::from)?;
        Ok(())
    }

    fn take_ids(&self) -> Result<(), Error> {
        if self.mapped_range {
            privileges::become_root_inside(&self.config.groups)?;
        }
        privileges::hide_from_inside()?;
        privileges::die_with_parent()?;
        // The launcher may have died before the line above took effect. The channel tells, but for one moment: a keeper
        // that was just forked holds a copy of the launcher's end. There is one when there is no pid namespace, and
        // then the parent's id tells; inside a pid namespace that would be 0, dead or alive.
        let has_parent = self.config.namespaces.has(Namespace::Pid) || getppid() == self.launcher;
        if has_parent && self.channel.launcher_is_there() {
            Ok(())
        } else {
            Err(Error::LauncherGone)
        }
    }
}

/// Process 1's life: reap, and pass signals on, until `program` ends. Returns the status to end with.
fn look_after(program: Pid) -> u8 {
    // This process was left every capability for the case that the program could not be started.
    let _ = capabilities::keep_only(capabilities::KEPT);
    // Nothing is left to say on any descriptor, and an open one would keep a pipe's reader from seeing its end.
    // SAFETY: takes numbers only. Nothing in this process uses a descriptor from here on.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    signals::block_terminal_stop();
    loop {
        // Children first: the program may have ended before the first wait for a signal.
        while let Some((pid, raw)) = reap_one() {
            if pid == program {
                return status_of(raw);
            }
        }
        if let Ok(arrival) = signals::wait() {
            arrival.pass_on(program);
        }
    }
}

/// A child that has ended, and what wait(2) says about it.
fn reap_one() -> Option<(Pid, i32)> {
    let mut raw = 0;
    // SAFETY: the kernel writes the status to the integer whose address it is given.
    let pid = unsafe { libc::waitpid(-1, &raw mut raw, libc::WNOHANG | libc::__WALL) };
    (pid > 0).then_some((Pid::from_raw(pid), raw))
}

/// Why the container could not be built from inside.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody is left to run for.
    #[error("the launcher ended before the container was ready")]
    LauncherGone,
    /// The host name was refused.
    #[error("cannot set the host name to {name:?}: {}. It may have at most 64 bytes", why(errno))]
    Hostname {
        /// The name.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The cgroup namespace was refused.
    #[error("cannot make the cgroup namespace: {}", why(errno))]
    CgroupNamespace {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The working directory.
    #[error(transparent)]
    Workdir(#[from] workdir::Error),
    /// Limits.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// What is counted for each user.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] network::loopback::Error),
    /// The root file system.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// /proc and /sys.
    #[error(transparent)]
    Mounts(#[from] mounts::Error),
    /// /dev.
    #[error(transparent)]
    Devices(#[from] devices::Error),
    /// Privileges.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// The program.
    #[error(transparent)]
    Program(#[from] program::Error),
}

impl Error {
    fn status(&self) -> u8 {
        match self {
            Error::Program(error) => error.status(),
            _ => status::LAUNCHER_FAILED,
        }
    }
}
