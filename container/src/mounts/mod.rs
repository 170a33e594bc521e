//! /proc and /sys: windows into the kernel, fitted for the container.
//!
//! Both are mounted anew, so that they show the container's own processes and interfaces. Much of what is beneath them
//! is not namespaced all the same, so the parts that tell too much are masked and the parts that change the machine
//! are made read-only. The two lists are those `runc spec` writes (OCI runtime specification, config-linux, "Masked
//! Paths" and "Readonly Paths").
//!
//! All of this happens after the pivot: a symbolic link in the image can lead a mount astray within the image, never
//! to a directory of the host. The host's files are reached relative to the working directory, its old root.

pub mod options;
pub mod target;
pub mod tree;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::mkdir;
use thiserror::Error;

use crate::errno::why;
use crate::namespaces::{Namespace, Namespaces};

/// Files are covered with /dev/null, directories with an empty one. What this kernel does not have needs no mask.
///
/// `powercap` is one more than `runc spec` has: the processors' energy meters tell what other programs compute
/// (CVE-2020-8694); engines mask it since.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const NO_DATA: Option<&str> = None;

/// Neither programs nor devices nor set-user-id bits have any business in a kernel file system.
const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts /proc and /sys in the new root and fits them.
pub fn kernel_views(namespaces: Namespaces) -> Result<(), Error> {
    mount_point("/proc")?;
    mount_point("/sys")?;
    if namespaces.has(Namespace::Pid) {
        mount_at("proc", "/proc", "proc", INERT)?;
    } else {
        // proc shows a pid namespace, and to mount it one must own that namespace. The host's view is the right one.
        bind("proc", "/proc", MsFlags::MS_REC)?;
    }
    if namespaces.has(Namespace::Net) {
        mount_at("sysfs", "/sys", "sysfs", INERT | MsFlags::MS_RDONLY)?;
    } else {
        // The same holds for sysfs and the network namespace.
        bind("sys", "/sys", MsFlags::MS_REC)?;
        read_only_recursively("/sys")?;
    }
    if namespaces.has(Namespace::Cgroup) && namespaces.has(Namespace::Net) {
        cgroup_view()?;
    }
    READ_ONLY.into_iter().try_for_each(make_read_only)?;
    MASKED.into_iter().try_for_each(mask)
}

/// Where the container finds its own cgroup, whose limits some programs adapt to (a Java machine sizes its heap by it).
///
/// On a host with version 2 that is one mount, rooted in the container's cgroup by the cgroup namespace. Version 1
/// needs one for each controller, some 200 microseconds together; there the directory stays empty.
fn cgroup_view() -> Result<(), Error> {
    match statfs("sys/fs/cgroup") {
        Ok(host) if host.filesystem_type() == CGROUP2_SUPER_MAGIC => {
            mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", INERT | MsFlags::MS_RDONLY)
        }
        // Version 1, a mixture, or no cgroups at all.
        _ => Ok(()),
    }
}

/// Creates a directory to mount on, unless it is there.
pub fn mount_point(path: &'static str) -> Result<(), Error> {
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::Create { path, errno }),
    }
}

/// Mounts a file system of type `kind` on `target`.
pub fn mount_at(kind: &'static str, target: &'static str, options: &str, flags: MsFlags) -> Result<(), Error> {
    let data = (options != kind).then_some(options);
    mount(Some(kind), target, Some(kind), flags, data).map_err(|errno| Error::Mount { kind, target, errno })
}

/// Makes the file or directory `source` of the host appear on `target` too. `source` is relative to the host's root.
pub fn bind(source: &'static str, target: &'static str, recursive: MsFlags) -> Result<(), Error> {
    mount(Some(source), target, NO_DATA, MsFlags::MS_BIND | recursive, NO_DATA).map_err(|errno| Error::Bind {
        source_path: source,
        target,
        errno,
    })
}

fn make_read_only(path: &'static str) -> Result<(), Error> {
    match mount(Some(path), path, NO_DATA, MsFlags::MS_BIND, NO_DATA) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => {
            return Err(Error::Bind {
                source_path: path,
                target: path,
                errno,
            });
        }
    }
    // A bind takes no flags of its own; they are set by a remount, which must repeat those the mount has.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | INERT;
    mount(NO_DATA, path, NO_DATA, flags, NO_DATA).map_err(|errno| Error::Restrict { path, errno })
}

fn read_only_recursively(path: &'static str) -> Result<(), Error> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let c_path = std::ffi::CString::new(path).map_err(|_| Error::Restrict {
        path,
        errno: Errno::EINVAL,
    })?;
    // SAFETY: the path is NUL-terminated and the attributes are a valid mount_attr of the size given.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c_path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(set)
        .map(drop)
        .map_err(|errno| Error::Restrict { path, errno })
}

fn mask(path: &'static str) -> Result<(), Error> {
    match mount(Some("dev/null"), path, NO_DATA, MsFlags::MS_BIND, NO_DATA) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // The kernel does not mount a file on a directory.
        Err(Errno::ENOTDIR) => mount_at("tmpfs", path, "size=0,nr_inodes=1", INERT | MsFlags::MS_RDONLY),
        Err(errno) => Err(Error::Bind {
            source_path: "dev/null",
            target: path,
            errno,
        }),
    }
}

/// Why a mount is missing.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no directory to mount on.
    #[error(
        "cannot create the mount point {path} in the container's root: {}. The image must be a directory the container's root may change, or bring the mount point along",
        why(errno)
    )]
    Create {
        /// The mount point.
        path: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A new file system was refused.
    #[error(
        "cannot mount {kind} on {target}: {}. When this runs inside another container whose own /proc or /sys is masked, the kernel refuses an unmasked one: run outside, or (for /proc) with --without pid, (for /sys) with --without net",
        why(errno)
    )]
    Mount {
        /// The type of file system.
        kind: &'static str,
        /// The mount point.
        target: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A part of the host could not be made visible.
    #[error("cannot bind {source_path} to {target}: {}", why(errno))]
    Bind {
        /// What was to appear.
        source_path: &'static str,
        /// Where.
        target: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A mount stayed writable.
    #[error("cannot make {path} read-only: {}", why(errno))]
    Restrict {
        /// The mount point.
        path: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}
