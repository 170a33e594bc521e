//! The container's root file system: built on a throw-away tmpfs, entered by pivot_root.
//!
//! Everything a run writes lands on a tmpfs that exists in the container's own mount namespace only. When the last
//! process of the container ends, so does the namespace, and with it the tmpfs: there is nothing to remove, whatever
//! ended the run.
//!
//! - Without an image the tmpfs is the root, with the workload in `/bin`.
//! - With a directory the root is an overlay: the image's directory below, read-only; an empty directory of the tmpfs
//!   above. A changed file is copied up first, so that the image stays as it is (kernel document
//!   `filesystems/overlayfs`).
//! - Layers of an image become an overlay too: see [`crate::layered`].

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chdir, fchdir, mkdir, pivot_root};
use thiserror::Error;

use crate::errno::{of, why};
use crate::layered::{self, Layers};
use crate::mounts::target::{Missing, Root};
use crate::mounts::tree::{Attributes, Tree};
use crate::namespaces::{Namespace, Namespaces};

/// Where the tmpfs is mounted while the root is built. Any directory every host has would do; in the container's mount
/// namespace the host's /tmp is covered for the moment, and gone after the pivot.
const BASE: &str = "/tmp";

/// What a run writes is memory that belongs to no process. With `--memory` it is charged to the container, whose
/// program is killed when it writes too much. Without, the kernel's own bound would be half the machine's memory: an
/// out-of-memory killer that looks for the largest process would end others first. So a container may fill a quarter of
/// the memory, and have 262144 files, which take about 1 KiB of kernel memory each (kernel document
/// `filesystems/tmpfs`). Beyond that a write fails with ENOSPC.
const BASE_OPTIONS: &str = "mode=755,size=25%,nr_inodes=256k";

/// Where, on the tmpfs, the image is mounted when its ids are shifted.
const SHIFTED_IMAGE: &str = "/tmp/image";

/// The name of the embedded workload in a container without an image.
pub const WORKLOAD_PATH: &str = "bin/workload";

const NO_DATA: Option<&str> = None;

/// What a container's root is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// The embedded workload and nothing else.
    Workload,
    /// A directory of the host.
    Directory(PathBuf),
    /// A mount that was made beforehand and is in no directory yet, by its descriptor. What is written stays in it: so a
    /// builder keeps what a command changes.
    Mount {
        /// Its descriptor.
        tree: RawFd,
        /// Whether the host's /etc/resolv.conf is put over the image's, for a command that has the host's network.
        resolver: bool,
    },
    /// Layers of an image in the store.
    Layers(Layers),
}

/// The host's root directory, still reachable after the pivot: the devices are bound from it.
pub struct OldRoot(());

/// Refuses a directory that is none, before anything is made.
pub fn check(image: &Image) -> Result<(), Error> {
    let path = match image {
        Image::Workload | Image::Mount { .. } => return Ok(()),
        Image::Directory(path) => path,
        Image::Layers(layers) => &layers.store,
    };
    let failed = |errno| Error::Image {
        path: path.clone(),
        errno,
    };
    let metadata = fs::metadata(path).map_err(|error| failed(of(&error)))?;
    if metadata.is_dir() {
        Ok(())
    } else {
        Err(failed(Errno::ENOTDIR))
    }
}

/// The image as a mount whose owners are shifted like the container's ids: what belongs to the host's root appears
/// as the container's root's (mount_setattr(2), "idmapped mounts"). Called by the launcher, who alone has the right.
///
/// The second result is false when the image's file system cannot do it: its files then belong to `nobody` inside,
/// readable as far as they are readable to everybody.
pub fn shift_owners(image: &Path, container: Pid, read_only: bool) -> Result<(OwnedFd, bool), Error> {
    let failed = |errno| Error::Shift {
        path: image.to_owned(),
        errno,
    };
    let namespace = File::open(format!("/proc/{container}/ns/user")).map_err(|error| failed(of(&error)))?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let path = std::ffi::CString::new(image.as_os_str().as_encoded_bytes()).map_err(|_| failed(Errno::EINVAL))?;
    // SAFETY: the path is a NUL-terminated string, and the call keeps no pointer to it.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let tree = Errno::result(tree).map_err(failed)?;
    // SAFETY: open_tree just made this descriptor for us.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as i32) };
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | read_only,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    // SAFETY: the empty path with AT_EMPTY_PATH means the descriptor itself; the attributes are a valid mount_attr of
    // the size given.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match Errno::result(set) {
        Ok(_) => Ok((tree, true)),
        Err(Errno::EINVAL | Errno::ENOSYS) => Ok((tree, false)),
        Err(errno) => Err(failed(errno)),
    }
}

/// Builds the root file system and makes it this process's root. The host's root stays reachable through the result.
pub fn enter(image: &Image, shifted: Option<BorrowedFd<'_>>, namespaces: Namespaces) -> Result<OldRoot, Error> {
    // With a user namespace of its own the new mount namespace is less privileged than the one it was copied from, so
    // the kernel has made every mount in it a slave already (mount_namespaces(7)). Without one, mounts would travel
    // back to the host.
    if !namespaces.has(Namespace::User) {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NO_DATA, "/", NO_DATA, flags, NO_DATA).map_err(Error::step("make the mounts private at", "/"))?;
    }
    let old_root = open(
        "/",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(Error::step("open", "/"))?;
    match image {
        Image::Workload => workload_root()?,
        Image::Directory(path) => overlay_root(path, shifted, namespaces)?,
        Image::Mount { tree, resolver } => {
            place(*tree, c"/tmp").map_err(Error::step("mount the image on", BASE))?;
            if *resolver {
                resolve_as_the_host()?;
            }
        }
        Image::Layers(layers) => layered::enter(layers, shifted, namespaces, BASE, mount_base)?,
    }
    chdir(BASE).map_err(Error::step("enter", BASE))?;
    // With "." twice the old root is stacked on the new one, no directory in the image is needed to keep it
    // (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").map_err(|errno| Error::Pivot { errno })?;
    fchdir(old_root.as_fd()).map_err(Error::step("stay in", "the host's root"))?;
    Ok(OldRoot(()))
}

impl OldRoot {
    /// Lets go of the host's root. From here on no path leads to a file of the host.
    pub fn leave(self) -> Result<(), Error> {
        umount2(".", MntFlags::MNT_DETACH).map_err(Error::step("detach", "the host's root"))?;
        chdir("/").map_err(Error::step("enter", "/"))
    }
}

/// Where a name server is named.
pub const RESOLVER: &str = "etc/resolv.conf";

/// Binds the host's /etc/resolv.conf over the image's, read-only. It is made where the image has none; a link is followed
/// inside, and where it leads to nothing, left alone.
fn resolve_as_the_host() -> Result<(), Error> {
    let host = Path::new("/").join(RESOLVER);
    let step = |verb, errno| Error::Step {
        verb,
        object: host.display().to_string(),
        errno,
    };
    let tree = match Tree::copy_of(&host, false) {
        // The host knows no names itself.
        Err(Errno::ENOENT) => return Ok(()),
        copied => copied.map_err(|errno| step("copy the mount of", errno))?,
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = Root::new(open(BASE, flags, Mode::empty()).map_err(Error::step("open", BASE))?);
    let is_link = Path::new(BASE).join(RESOLVER).is_symlink();
    let target = match root.open(Path::new(RESOLVER)) {
        Err(_) if is_link => return Ok(()),
        _ => root.open_or_make(Path::new(RESOLVER), Missing::File),
    };
    let target = target.map_err(|error| step("find a place in the image for", error.errno))?;
    let read_only = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    tree.change(read_only, false)
        .and_then(|()| tree.place_on(target.as_fd()))
        .map_err(|errno| step("mount", errno))
}

fn workload_root() -> Result<(), Error> {
    mount_base()?;
    let directory =
        |path: &'static str| mkdir(path, Mode::from_bits_truncate(0o755)).map_err(Error::step("create", path));
    directory("/tmp/bin")?;
    let path = Path::new(BASE).join(WORKLOAD_PATH);
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o755).open(&path)?;
        file.write_all(guest_images::WORKLOAD)
    };
    write().map_err(|error| Error::Step {
        verb: "write",
        object: path.display().to_string(),
        errno: of(&error),
    })
}

fn overlay_root(image: &Path, shifted: Option<BorrowedFd<'_>>, namespaces: Namespaces) -> Result<(), Error> {
    // The options name directories, separated by commas and colons. A path of the caller's could contain both, so it
    // is entered and called ".": that also keeps the host's path out of the container's mount table.
    if shifted.is_none() {
        chdir(image).map_err(|errno| Error::Image {
            path: image.to_owned(),
            errno,
        })?;
    }
    mount_base()?;
    if let Some(tree) = shifted {
        mkdir(SHIFTED_IMAGE, Mode::S_IRWXU).map_err(Error::step("create", SHIFTED_IMAGE))?;
        place(tree.as_raw_fd(), c"/tmp/image").map_err(Error::step("mount the image on", SHIFTED_IMAGE))?;
        chdir(SHIFTED_IMAGE).map_err(Error::step("enter", SHIFTED_IMAGE))?;
    }
    for path in ["/tmp/upper", "/tmp/work"] {
        mkdir(path, Mode::from_bits_truncate(0o755)).map_err(Error::step("create", path))?;
    }
    // Overlay keeps its notes in extended attributes: trusted.* by default, which a user namespace may not write.
    let options = if namespaces.has(Namespace::User) {
        "lowerdir=.,upperdir=/tmp/upper,workdir=/tmp/work,userxattr"
    } else {
        "lowerdir=.,upperdir=/tmp/upper,workdir=/tmp/work"
    };
    mount(Some("overlay"), BASE, Some("overlay"), MsFlags::MS_NODEV, Some(options)).map_err(|errno| Error::Overlay {
        path: image.to_owned(),
        errno,
    })
}

/// Puts a mount that is nowhere yet on a directory.
pub(crate) fn place(tree: RawFd, directory: &CStr) -> Result<(), Errno> {
    // SAFETY: both paths are NUL-terminated; a descriptor that is none is answered with EBADF.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree,
            c"".as_ptr(),
            libc::AT_FDCWD,
            directory.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(moved).map(drop)
}

fn mount_base() -> Result<(), Error> {
    // No devices on it: the ones a container has are bound from the host.
    mount(
        Some("tmpfs"),
        BASE,
        Some("tmpfs"),
        MsFlags::MS_NODEV,
        Some(BASE_OPTIONS),
    )
    .map_err(Error::step("mount a tmpfs on", BASE))
}

/// Why there is no root file system.
#[derive(Debug, Error)]
pub enum Error {
    /// The image is not there, no directory, or not permitted.
    #[error("cannot use {} as root file system: {}. --rootfs takes a directory that this user may read and enter", path.display(), why(errno))]
    Image {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The image's owners could not be shifted.
    #[error("cannot mount {} with shifted owners: {}. See mount_setattr(2); --without user does without", path.display(), why(errno))]
    Shift {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Layers.
    #[error(transparent)]
    Layers(#[from] layered::Error),
    /// The overlay was refused.
    #[error("cannot mount an overlay over {}: {}. The kernel needs CONFIG_OVERLAY_FS and, for one in a user namespace, Linux 5.11; the file system of the directory must be one overlay takes as lower layer (see the end of dmesg)", path.display(), why(errno))]
    Overlay {
        /// The image.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The root stayed the host's.
    #[error(
        "cannot pivot into the new root: {}. The kernel refuses to leave the initial ramfs this way: where that is still the host's root, move to another one first (switch_root)",
        why(errno)
    )]
    Pivot {
        /// The kernel's answer.
        errno: Errno,
    },
    /// One of the steps in between.
    #[error(
        "cannot {verb} {object} while building the root file system: {}. A security module may restrict mounts in user namespaces",
        why(errno)
    )]
    Step {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    fn step(verb: &'static str, object: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| Error::Step {
            verb,
            object: object.to_owned(),
            errno,
        }
    }
}
