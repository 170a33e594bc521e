//! One rung of the ladder from a plain process to a container: chosen namespaces, perhaps a root, and nothing else.
//!
//! `lab ladder` times these. They are no containers: no process 1 looks after anything, no privilege is dropped, nothing is
//! cleaned up but what the kernel takes back with the process. What the next rung takes longer is what it adds.

use std::convert::Infallible;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use protocol::status;
use thiserror::Error;

use crate::channel::{self, ContainerEnd};
use crate::clone::{self, Side, clone3};
use crate::errno::why;
use crate::namespaces::{Namespace, Namespaces};
use crate::network;
use crate::program::{self, Program};
use crate::rootfs::{self, Image};
use crate::users::{self, User, UserMap};
use crate::{devices, mounts, privileges};

/// What this rung has.
pub struct Rung {
    /// The namespaces that are new.
    pub new: Vec<Namespace>,
    /// The root; None leaves the host's files in view. Needs a mount namespace.
    pub image: Option<Image>,
    /// What to run.
    pub program: Program,
}

/// Runs the program on this rung; its status.
///
/// The calling process must have a single thread.
pub fn run(rung: &Rung) -> Result<u8, Error> {
    let left_out: Vec<Namespace> = Namespace::ALL
        .into_iter()
        .filter(|namespace| !rung.new.contains(namespace))
        .collect();
    let namespaces = Namespaces::without(&left_out);
    if rung.image.is_some() && !namespaces.has(Namespace::Mount) {
        return Err(Error::MountNeeded);
    }
    let users = match namespaces.has(Namespace::User) {
        true => Some(UserMap::choose(User::default())?),
        false => None,
    };
    let (launcher_end, container_end) = channel::pair().map_err(Error::Channel)?;
    let pid = match clone3(namespaces.clone_flags(), None)? {
        Side::Launcher { pid, .. } => pid,
        Side::Container => {
            drop(launcher_end);
            let Err(error) = inside(rung, namespaces, &container_end, users.as_ref());
            eprintln!("container: {error}");
            // SAFETY: ends this process at once. The launcher's exit handlers are not ours to run.
            unsafe { libc::_exit(status::LAUNCHER_FAILED.into()) }
        }
    };
    drop(container_end);
    if let Some(users) = users {
        users.write(pid)?;
        // As a container's root: its files belong to the ids inside.
        let image = match &rung.image {
            Some(Image::Directory(path)) if users.is_range() => Some(rootfs::shift_owners(path, pid, true)?.0),
            _ => None,
        };
        // The child may have failed already and said why.
        let _ = launcher_end.go(image.as_ref().map(AsFd::as_fd));
    }
    wait(pid)
}

/// The child's part, up to the exec.
fn inside(
    rung: &Rung,
    namespaces: Namespaces,
    channel: &ContainerEnd,
    users: Option<&UserMap>,
) -> Result<Infallible, Error> {
    if namespaces.has(Namespace::Net) {
        network::loopback::raise()?;
    }
    let shifted = match users {
        Some(_) => channel.wait_for_go().ok_or(Error::LauncherGone)?,
        None => None,
    };
    let is_range = users.is_some_and(UserMap::is_range);
    if is_range {
        privileges::become_root_inside(&[])?;
    }
    if let Some(image) = &rung.image {
        let old_root = rootfs::enter(image, shifted.as_ref().map(AsFd::as_fd), namespaces)?;
        mounts::kernel_views(namespaces)?;
        devices::populate(namespaces, is_range)?;
        old_root.leave()?;
    }
    let executable = rung.program.find()?;
    Ok(rung.program.replace_with(&executable)?)
}

fn wait(pid: Pid) -> Result<u8, Error> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code).unwrap_or(status::LAUNCHER_FAILED)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(status::SIGNAL_BASE.saturating_add(u8::try_from(signal as i32).unwrap_or(0)));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Wait(errno)),
        }
    }
}

/// What can go wrong on a rung.
#[derive(Debug, Error)]
pub enum Error {
    /// A root of its own needs a mount table of its own.
    #[error("--rootfs needs mount among --new: mounting a root without one would change the host's mount table")]
    MountNeeded,
    /// Who the ids are outside.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// No line between the two processes.
    #[error("cannot make the line to the new process: {}", why(.0))]
    Channel(Errno),
    /// The namespaces.
    #[error(transparent)]
    Clone(#[from] clone::Error),
    /// Nobody is left to run for.
    #[error("the launcher ended before the program could start")]
    LauncherGone,
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
    /// The ids inside.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// The program.
    #[error(transparent)]
    Program(#[from] program::Error),
    /// The child's end.
    #[error("cannot wait for the program: {}", why(.0))]
    Wait(Errno),
}
