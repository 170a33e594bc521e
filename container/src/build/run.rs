//! RUN: a command in a container of the image so far, and the layer of what it changed.
//!
//! The container's root is an overlay: the image's layers below, an empty directory above. What the command changes ends
//! up in that directory and nowhere else; packed, it is the layer. The container is the one `container run` makes, but
//! for three things: its changes are kept, its root may do what installing software takes (change owners, for one), and
//! it has no user namespace unless an ordinary user builds, so that the owners in the layer are those the command set.
//!
//! A process of its own mounts and launches: with it go the mount and, whatever ends it, the container.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, fork, geteuid, getppid};
use protocol::marks::Marks;
use thiserror::Error;

use super::owner::Owner;
use super::view::{self, Layers};
use crate::Config;
use crate::capabilities;
use crate::cgroup::Limits;
use crate::errno::why;
use crate::namespaces::{Namespace, Namespaces};
use crate::program::Program;
use crate::rootfs::{Image, RESOLVER};
use crate::users::User;

/// What root may do while an image is built: manage files, users and its own processes. Podman's list for containers.
const CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Directories that a container's file systems are mounted on. Those an image lacks are made for the command and taken
/// away again.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];

/// A command to run.
pub struct Command {
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// Whom it runs as.
    pub owner: Owner,
    /// Further groups of that user.
    pub groups: Vec<u32>,
    /// Where.
    pub workdir: String,
    /// Whether it has the host's network; otherwise it has none but a loopback interface.
    pub host_network: bool,
}

/// Runs the command on these layers, which have an upper directory, and returns its status. Its output goes to standard
/// error, where a build's progress is told, or to a file.
pub fn run(layers: &Layers, command: &Command, output: Option<&File>) -> Result<u8, Error> {
    let builder = Pid::this();
    // SAFETY: this process has a single thread, so its copy may do whatever it may.
    match unsafe { fork() }.map_err(Error::Fork)? {
        ForkResult::Child => {
            let status = launch(layers, command, output, builder).unwrap_or_else(|(status, message)| {
                eprintln!("container: {message}");
                status
            });
            // SAFETY: ends this process at once; exit handlers are the builder's.
            unsafe { libc::_exit(status.into()) }
        }
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, status)) => return Ok(status as u8),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(protocol::status::SIGNAL_BASE + signal as u8),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Wait(errno)),
            }
        },
    }
}

fn launch(layers: &Layers, command: &Command, output: Option<&File>, builder: Pid) -> Result<u8, (u8, String)> {
    let text = |error: &dyn std::fmt::Display| (protocol::status::LAUNCHER_FAILED, error.to_string());
    let ordinary = !geteuid().is_root();
    if ordinary {
        view::become_root_of_a_user_namespace().map_err(|error| text(&error))?;
    }
    crate::privileges::die_with_parent().map_err(|error| text(&error))?;
    if getppid() != builder {
        return Err(text(&"the builder ended"));
    }
    let root = view::mount(layers, ordinary).map_err(|error| text(&error))?;
    streams(output).map_err(|errno| {
        text(&format!(
            "cannot arrange the command's input and output: {}",
            why(&errno)
        ))
    })?;
    let config = config(command, root.as_raw_fd()).map_err(|error| text(&error))?;
    crate::run(&config).map_err(|error| (error.status(), error.to_string()))
}

/// The command reads nothing, and all it says is progress.
fn streams(output: Option<&File>) -> Result<(), Errno> {
    let nothing = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&nothing)?;
    if let Some(file) = output {
        dup2_stderr(file)?;
    }
    // SAFETY: standard output and error are numbers that dup2 accepts whatever they are.
    Errno::result(unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) }).map(drop)
}

fn config(command: &Command, root: i32) -> Result<Config, String> {
    let c_strings = |texts: &[String]| -> Result<Vec<CString>, String> {
        let texts = texts.iter().map(|text| CString::new(text.as_str()));
        texts
            .collect::<Result<_, _>>()
            .map_err(|_| "a NUL character cannot be part of an argument or a variable".into())
    };
    let mut left_out = vec![Namespace::User];
    if command.host_network {
        left_out.push(Namespace::Net);
    }
    let by_name = |name: &str| capabilities::NAMES.iter().position(|known| *known == name);
    Ok(Config {
        image: Image::Mount {
            tree: root,
            resolver: command.host_network,
        },
        namespaces: Namespaces::without(&left_out),
        limits: Limits::default(),
        hostname: Some("build".into()),
        workdir: command.workdir.clone().into(),
        user: User {
            uid: command.owner.uid,
            gid: command.owner.gid,
        },
        groups: command.groups.clone(),
        capabilities: CAPABILITIES
            .iter()
            .filter_map(|name| by_name(name))
            .fold(0, |mask, number| mask | 1 << number),
        program: Program {
            arguments: c_strings(&command.arguments)?,
            environment: c_strings(&command.environment)?,
        },
        marks: Marks::new(None, "container"),
    })
}

/// Puts the upper directory in the state in which it becomes a layer: without the mount points that were made for the
/// command, and with the one time that everything in a layer has.
pub fn settle(layers: &Layers, upper: &Path, epoch: i64) -> Result<(), Error> {
    for name in MOUNT_POINTS {
        let is_images = layers
            .lower
            .iter()
            .any(|lower| lower.join(name).symlink_metadata().is_ok());
        if !is_images {
            // One that holds files is no longer ours to remove.
            let _ = fs::remove_dir(upper.join(name));
        }
    }
    forget_resolver(layers, upper);
    still(upper, epoch).map_err(|errno| Error::Times {
        path: upper.display().to_string(),
        errno,
    })
}

/// Takes the empty file away that was made for a command to have the host's name servers on, and the directory around it.
fn forget_resolver(layers: &Layers, upper: &Path) {
    let is_images = |path: &Path| {
        layers
            .lower
            .iter()
            .any(|lower| lower.join(path).symlink_metadata().is_ok())
    };
    let file = Path::new(RESOLVER);
    let is_empty = |path: &Path| {
        path.symlink_metadata()
            .is_ok_and(|found| found.is_file() && found.len() == 0)
    };
    if is_images(file) || !is_empty(&upper.join(file)) || fs::remove_file(upper.join(file)).is_err() {
        return;
    }
    // A directory that the image has, in which only that file was made, is in the layer with nothing in it.
    if let Some(directory) = file.parent() {
        let _ = fs::remove_dir(upper.join(directory));
    }
}

/// Sets the time of everything below a directory.
fn still(directory: &Path, epoch: i64) -> Result<(), Errno> {
    let time = TimeSpec::new(epoch, 0);
    let entries = fs::read_dir(directory).map_err(|error| crate::errno::of(&error))?;
    for entry in entries {
        let entry = entry.map_err(|error| crate::errno::of(&error))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            still(&path, epoch)?;
        }
        utimensat(
            nix::fcntl::AT_FDCWD,
            &path,
            &time,
            &time,
            UtimensatFlags::NoFollowSymlink,
        )?;
    }
    Ok(())
}

/// Why a command was not run, or its layer is not there.
#[derive(Debug, Error)]
pub enum Error {
    /// No process.
    #[error("cannot start a process for the command: {}. The limit on processes may be reached (ulimit -u)", why(.0))]
    Fork(Errno),
    /// The process was lost.
    #[error("cannot wait for the command: {}", why(.0))]
    Wait(Errno),
    /// Times stayed what they were.
    #[error("cannot set the times of what the command made in {path}: {}", why(errno))]
    Times {
        /// The upper directory.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
}
