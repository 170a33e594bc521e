//! A directory that is being filled from an archive nobody vouches for.
//!
//! Every path is looked up by openat2(2) below one open directory. RESOLVE_IN_ROOT makes that directory the root of the
//! lookup: `..` stops there, and a symbolic link to `/etc` leads to the `etc` inside. RESOLVE_NO_MAGICLINKS closes the
//! door that /proc would be. The last component of a path is never looked up at all: it is made, linked or removed in
//! its parent's descriptor, so that a link planted there beforehand is replaced, not followed. There is no moment
//! between a check and a use, because nothing is checked: the kernel cannot leave the directory.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Directories opened while descending: read-only, since O_PATH descriptors can have neither mode nor times set.
pub const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Files opened to be read.
pub const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC);

/// Is told about each directory that had to be made: its path, and itself.
pub type Made<'a> = &'a mut dyn FnMut(&[u8], BorrowedFd<'_>) -> Result<(), Errno>;

/// A directory nothing leads out of.
pub struct Tree {
    root: OwnedFd,
    /// The parent used last: an archive lists a directory's files one after another.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Tree {
    /// The tree below this directory.
    pub fn open(path: &Path) -> Result<Tree, Errno> {
        let root = open(path, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
        Ok(Tree { root, last: None })
    }

    /// Its root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the directory at this path, links followed within the tree.
    pub fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(DIRECTORY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.is_empty() { b"." } else { path };
        loop {
            match openat2(self.root.as_fd(), path, how) {
                // The kernel gives up when something in the tree is renamed meanwhile, and asks to try again.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// The directory at this path for the members that follow in it. It is made, parents included, if it is missing;
    /// `made` is told about each new directory, by its path.
    pub fn parent(&mut self, path: &[u8], made: Made<'_>) -> Result<BorrowedFd<'_>, Errno> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let directory = match self.directory(path) {
                Err(Errno::ENOENT) => self.make_parents(path, made)?,
                other => other?,
            };
            self.last = Some((path.to_owned(), directory));
        }
        match &self.last {
            Some((_, directory)) => Ok(directory.as_fd()),
            // Set three lines above.
            None => Err(Errno::ENOENT),
        }
    }

    fn make_parents(&self, path: &[u8], made: Made<'_>) -> Result<OwnedFd, Errno> {
        let mut end = 0;
        let mut directory = self.directory(b"")?;
        for name in path.split(|&byte| byte == b'/') {
            end += name.len();
            let so_far = &path[..end];
            directory = match self.directory(so_far) {
                Err(Errno::ENOENT) => {
                    // A link that leads nowhere is in the way too, and EEXIST says so.
                    mkdirat(directory.as_fd(), name, Mode::S_IRWXU)?;
                    let new = open_directory(directory.as_fd(), name)?;
                    made(so_far, new.as_fd())?;
                    new
                }
                other => other?,
            };
            end += 1;
        }
        Ok(directory)
    }

    /// Something was removed: a path may mean another directory from now on.
    pub fn forget_last(&mut self) {
        self.last = None;
    }
}

/// Opens a directory in another, but no link to one.
pub fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Opens a file or directory, but no link, even if its owner has closed it to himself. An image may hold such for its
/// root, whom modes do not stop; unpacked by an ordinary user, they stop him.
pub fn open_own(parent: BorrowedFd<'_>, name: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_NOFOLLOW;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::EACCES) => {}
        result => return result,
    }
    let Some(status) = look(parent, name)?.filter(|status| !is(status, SFlag::S_IFLNK)) else {
        return Err(Errno::EACCES);
    };
    let mode = Mode::from_bits_truncate(status.st_mode & 0o7777);
    fchmodat(parent, name, mode | Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    let opened = openat(parent, name, flags, Mode::empty());
    fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
    opened
}

/// What is there under this name, if anything.
pub fn look(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileStat>, Errno> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether this is of type `kind`.
pub fn is(status: &FileStat, kind: SFlag) -> bool {
    status.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// Removes what is there under this name, with everything below it.
///
/// A directory that its owner has closed to himself is opened first: an image of another user's may hold such, and
/// unpacked by an ordinary user they are his.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => {}
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let directory = open_own(parent, name, DIRECTORY)?;
    // To be read, searched and emptied. Whoever is not its owner is root, whom modes do not stop.
    let _ = fchmod(directory.as_fd(), Mode::S_IRWXU);
    for name in names(directory.as_fd())? {
        remove(directory.as_fd(), name.to_bytes())?;
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// The same by path, for directories of our own.
pub fn remove_path(path: &Path) -> Result<(), Errno> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => match open(parent, DIRECTORY, Mode::empty()) {
            Ok(parent) => remove(parent.as_fd(), name.as_encoded_bytes()),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        },
        _ => Err(Errno::EINVAL),
    }
}

/// The names in a directory, sorted.
pub fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    // A descriptor of its own, so that reading it moves nobody else's position.
    let mut directory = Dir::openat(directory, c".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Overlay's mark for "nothing here, whatever is below": a character device with the numbers 0 and 0 (kernel document
/// `filesystems/overlayfs`, "whiteouts and opaque directories"). It opens nothing, so anybody may make one, in a user
/// namespace too (Linux 5.8).
pub fn make_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), 0)
}

/// Whether this is overlay's whiteout.
pub fn is_whiteout(status: &FileStat) -> bool {
    is(status, SFlag::S_IFCHR) && status.st_rdev == 0
}

/// The status of an open file.
pub fn status(file: BorrowedFd<'_>) -> Result<FileStat, Errno> {
    fstat(file)
}
