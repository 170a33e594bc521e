//! Parts of /proc and /sys that a container is not to see, or not to change.
//!
//! A masked file is covered with the null device, a masked directory with an empty one; what may be seen and not changed
//! is mounted on itself, read-only. The paths are the engine's, followed in the container's root and nowhere else.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{fstat, makedev};

use super::rootfs::{Error, INERT};
use crate::mounts::target::{self, Root};
use crate::mounts::tree::{Attributes, Tree};

/// What masked paths are covered with: files with the host's null device, directories with one empty directory.
pub struct Masks {
    null: Mask,
    empty: Mask,
}

/// A mount that covers the first path it is put on; the others are covered by copies of it.
///
/// Copies are made once it is placed, not before: a mount that is nowhere can be copied since Linux 6.15 only.
struct Mask {
    tree: Tree,
    is_placed: Cell<bool>,
}

impl Mask {
    fn new(tree: Tree) -> Mask {
        Mask {
            tree,
            is_placed: Cell::new(false),
        }
    }

    fn cover(&self, target: &OwnedFd) -> Result<(), Errno> {
        match self.is_placed.replace(true) {
            false => self.tree.place_on(target.as_fd()),
            true => Tree::copy_of_open(self.tree.as_fd(), false)?.place_on(target.as_fd()),
        }
    }
}

impl Masks {
    /// From the null device, which [`open_null`] opened.
    pub fn new(null: &OwnedFd) -> Result<Masks, Error> {
        let options = ["size=0".to_owned(), "nr_inodes=1".to_owned()];
        Ok(Masks {
            null: Mask::new(
                Tree::copy_of_open(null.as_fd(), false).map_err(Error::step("bind", Path::new("/dev/null")))?,
            ),
            empty: Mask::new(Tree::new_file_system(
                "tmpfs",
                "tmpfs",
                &options,
                INERT | libc::MOUNT_ATTR_RDONLY,
            )?),
        })
    }

    /// Covers `path`, if it is there.
    pub fn cover(&self, root: &Root, path: &Path) -> Result<(), Error> {
        let failed = Error::step("mask", path);
        let target = match root.open_with(path, OFlag::O_PATH) {
            // What is not there needs no mask, and what cannot be reached inside neither.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.map_err(&failed)?,
        };
        let is_directory = fstat(&target).map_err(&failed)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let mask = if is_directory { &self.empty } else { &self.null };
        mask.cover(&target).map_err(failed)
    }
}

/// Makes `path`, with what is mounted beneath it, read-only, if it is there.
pub fn make_read_only(root: &Root, path: &Path) -> Result<(), Error> {
    let failed = Error::step("make read-only", path);
    let target = match root.open_with(path, OFlag::O_PATH) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other.map_err(&failed)?,
    };
    let tree = Tree::copy_of_open(target.as_fd(), true).map_err(&failed)?;
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    tree.change(attributes, true).map_err(&failed)?;
    tree.place_on(target.as_fd()).map_err(failed)
}

/// The host's null device, made sure to be it: what masks something must not be a file of the container's choice.
pub fn open_null() -> Result<OwnedFd, Error> {
    let path = Path::new("/dev/null");
    let failed = Error::step("open", path);
    let null = target::reopen_path(path).map_err(&failed)?;
    let stat = fstat(&null).map_err(&failed)?;
    match stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == makedev(1, 3) {
        true => Ok(null),
        false => Err(failed(Errno::ENODEV)),
    }
}
