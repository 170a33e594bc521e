//! /dev: the handful of devices every program expects, and nothing else.
//!
//! The list is the one of the OCI runtime specification (config-linux, "Default Devices"). A user namespace may not
//! make device nodes, whatever capabilities it has inside: nodes give access to the machine's hardware by number. So
//! the host's own nodes are bound into place. Without a user namespace the nodes are made.

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{mkdir, symlinkat};
use thiserror::Error;

use crate::errno::why;
use crate::mounts::{self, bind, mount_at, mount_point};
use crate::namespaces::{Namespace, Namespaces};

struct Device {
    /// On the host, relative to its root.
    host: &'static str,
    /// In the container.
    path: &'static str,
    /// Numbers from the kernel's list of devices (`admin-guide/devices.txt`).
    major: u64,
    minor: u64,
}

const fn device(host: &'static str, path: &'static str, major: u64, minor: u64) -> Device {
    Device {
        host,
        path,
        major,
        minor,
    }
}

const DEVICES: [Device; 6] = [
    device("dev/null", "/dev/null", 1, 3),
    device("dev/zero", "/dev/zero", 1, 5),
    device("dev/full", "/dev/full", 1, 7),
    device("dev/random", "/dev/random", 1, 8),
    device("dev/urandom", "/dev/urandom", 1, 9),
    device("dev/tty", "/dev/tty", 5, 0),
];

/// Name in the container, and where it leads.
const LINKS: [(&str, &str); 5] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

const EVERYBODY: Mode = Mode::from_bits_truncate(0o666);

/// Fills /dev in the new root. The working directory is the host's root.
///
/// Its file systems in memory have a bound on files beside the one on bytes: an empty file takes about 1 KiB of kernel
/// memory, and the kernel's own bound would be one file for every two pages of the machine.
///
/// `many_ids` says whether ids other than the program's own exist in the container.
pub fn populate(namespaces: Namespaces, many_ids: bool) -> Result<(), Error> {
    mount_point("/dev")?;
    mount_at(
        "tmpfs",
        "/dev",
        "mode=755,size=64k,nr_inodes=1k",
        MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
    )?;
    for device in &DEVICES {
        if namespaces.has(Namespace::User) {
            bound(device)?;
        } else {
            let number = makedev(device.major, device.minor);
            match mknod(device.path, SFlag::S_IFCHR, EVERYBODY, number) {
                // The launcher itself is root of a user namespace only.
                Err(Errno::EPERM) => bound(device)?,
                other => other.map_err(Error::create(device.path))?,
            }
        }
    }
    for (path, target) in LINKS {
        symlinkat(target, nix::fcntl::AT_FDCWD, path).map_err(Error::create(path))?;
    }
    for path in ["/dev/pts", "/dev/shm"] {
        mkdir(path, Mode::from_bits_truncate(0o755)).map_err(Error::create(path))?;
    }
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_at("devpts", "/dev/pts", terminal_options(many_ids), inert)?;
    mount_at(
        "tmpfs",
        "/dev/shm",
        "mode=1777,size=64m,nr_inodes=64k",
        inert | MsFlags::MS_NODEV,
    )?;
    if namespaces.has(Namespace::Ipc) {
        // Message queues belong to the IPC namespace, and only its owner may mount a view of them. A kernel without
        // them (CONFIG_POSIX_MQUEUE) has nothing to show.
        mkdir("/dev/mqueue", Mode::from_bits_truncate(0o755)).map_err(Error::create("/dev/mqueue"))?;
        match mount_at("mqueue", "/dev/mqueue", "mqueue", inert | MsFlags::MS_NODEV) {
            Err(mounts::Error::Mount {
                errno: Errno::ENODEV, ..
            }) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Binds the host's node on a file made for it.
fn bound(device: &Device) -> Result<(), Error> {
    mknod(device.path, SFlag::S_IFREG, EVERYBODY, 0).map_err(Error::create(device.path))?;
    Ok(bind(device.host, device.path, MsFlags::empty())?)
}

/// A new terminal belongs to group `tty`, so that write(1) may write to it; where there is only one id, to that.
const fn terminal_options(many_ids: bool) -> &'static str {
    if many_ids {
        "newinstance,ptmxmode=0666,mode=0620,gid=5"
    } else {
        "newinstance,ptmxmode=0666,mode=0620"
    }
}

/// Why /dev is incomplete.
#[derive(Debug, Error)]
pub enum Error {
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] mounts::Error),
    /// A node or link was refused.
    #[error(
        "cannot create {path} in the container: {}. Device nodes need CAP_MKNOD and a devices cgroup that permits them",
        why(errno)
    )]
    Create {
        /// Its path.
        path: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    fn create(path: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| Error::Create { path, errno }
    }
}
