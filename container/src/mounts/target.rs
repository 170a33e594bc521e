//! Where a mount goes: a path of the container's, followed in the container's root and nowhere else.
//!
//! The image is not to be trusted. A link in it may say `/etc` and mean the host's; it may be swapped for another while
//! it is looked at. openat2(2) with RESOLVE_IN_ROOT has the kernel itself follow a path as if the root were the
//! container's, and what comes back is a descriptor, which no later change of names can lead elsewhere. Where something
//! is missing, it is made one component at a time, each beneath a directory that is held open.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use thiserror::Error;

use crate::errno::why;

/// As many links as the kernel itself follows (`MAXSYMLINKS` in `linux/namei.h`).
const MOST_LINKS: usize = 40;

/// The container's root, while it is built.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// What is to be there when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

impl Root {
    /// The root that `directory` is a descriptor of.
    pub fn new(directory: OwnedFd) -> Root {
        Root(directory)
    }

    /// Opens `path` inside the root, with `O_PATH`.
    pub fn open(&self, path: &Path) -> Result<OwnedFd, Error> {
        self.open_with(path, OFlag::O_PATH).map_err(Error::at("open", path))
    }

    /// Opens `path` inside the root with `O_PATH`, if no part of it is a link.
    pub fn open_without_links(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(self.0.as_fd(), path, how)
    }

    /// Opens `path` inside the root with these flags.
    pub fn open_with(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() {
            Path::new("/")
        } else {
            path
        };
        // EAGAIN: something was renamed meanwhile, and the kernel cannot be sure that "..", if any, stayed inside.
        loop {
            match openat2(self.0.as_fd(), path, how) {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
    }

    /// Opens `path` inside the root with `O_PATH`, making it and what leads to it where it is `missing`.
    pub fn open_or_make(&self, path: &Path, missing: Missing) -> Result<OwnedFd, Error> {
        match self.open_with(path, OFlag::O_PATH) {
            Ok(file) => Ok(file),
            Err(Errno::ENOENT) => self.make(path, missing).map_err(Error::at("create", path)),
            Err(errno) => Err(Error::at("open", path)(errno)),
        }
    }

    /// The directory that holds the last component of `path`, made where it is missing, and that component.
    pub fn parent_of(&self, path: &Path) -> Result<(OwnedFd, OsString), Error> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::at("name a file by", path)(Errno::EISDIR))?;
        let parent = self.open_or_make(path.parent().unwrap_or(Path::new("/")), Missing::Directory)?;
        Ok((parent, name.to_owned()))
    }

    /// Walks `path` component by component. Every directory from the root on is held open, so that `..` is a step back
    /// on our own way and never out.
    fn make(&self, path: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
        let mut way: Vec<OwnedFd> = Vec::new();
        let mut left: Vec<OsString> = components(path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                way.pop();
                continue;
            }
            let here = way.last().unwrap_or(&self.0).as_fd();
            let last = left.is_empty();
            let next = match look(here, &name) {
                Err(Errno::ENOENT) => {
                    if last && missing == Missing::File {
                        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                        openat(here, name.as_os_str(), flags, Mode::from_bits_truncate(0o644))?;
                    } else {
                        mkdirat(here, name.as_os_str(), Mode::from_bits_truncate(0o755))?;
                    }
                    look(here, &name)?
                }
                other => other?,
            };
            if fstat(&next)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP);
                }
                let content = PathBuf::from(readlinkat(&next, "")?);
                if content.is_absolute() {
                    way.clear();
                }
                left.extend(components(&content));
            } else {
                way.push(next);
            }
        }
        match way.pop() {
            Some(file) => Ok(file),
            None => self.0.try_clone().map_err(|error| crate::errno::of(&error)),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The names in a path, last one first.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

/// Opens one name in a directory; a link is opened itself, not followed.
fn look(directory: BorrowedFd<'_>, name: &OsString) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name.as_os_str(), flags, Mode::empty())
}

/// A second descriptor for what `file` is one of, opened anew with `flags`: what `O_PATH` found can then be read.
pub fn reopen(file: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path is NUL-terminated, and the call keeps no pointer to it.
    let opened = unsafe { libc::open(path.as_ptr(), (flags | OFlag::O_CLOEXEC).bits()) };
    // SAFETY: open just made this descriptor for us.
    Errno::result(opened).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens `path` of this process's own root with `O_PATH`.
pub fn reopen_path(path: &Path) -> Result<OwnedFd, Errno> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// Why a place in the container's root cannot be had.
#[derive(Debug, Error)]
#[error("cannot {action} {} in the container's root: {}", path.display(), why(errno))]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    /// The kernel's answer.
    pub errno: Errno,
}

impl Error {
    fn at(action: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
        move |errno| Error {
            action,
            path: path.to_owned(),
            errno,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(directory: &Path) -> Root {
        Root::new(fs::File::open(directory).unwrap().into())
    }

    #[test]
    fn links_lead_nowhere_but_into_the_root() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outside.path(), inside.path().join("absolute")).unwrap();
        symlink(
            "../../../../../../../../../../tmp/escaped",
            inside.path().join("relative"),
        )
        .unwrap();
        let root = root(inside.path());
        root.open_or_make(Path::new("/absolute/made"), Missing::Directory)
            .unwrap();
        root.open_or_make(Path::new("/relative"), Missing::File).unwrap();
        root.open_or_make(Path::new("/../up"), Missing::Directory).unwrap();
        let stripped = outside.path().strip_prefix("/").unwrap();
        assert!(inside.path().join(stripped).join("made").is_dir());
        assert!(inside.path().join("tmp/escaped").is_file());
        assert!(inside.path().join("up").is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!Path::new("/tmp/escaped").exists());
    }

    #[test]
    fn a_circle_of_links_is_refused() {
        let inside = tempfile::tempdir().unwrap();
        symlink("b", inside.path().join("a")).unwrap();
        symlink("a", inside.path().join("b")).unwrap();
        let error = root(inside.path())
            .open_or_make(Path::new("/a/c"), Missing::Directory)
            .unwrap_err();
        assert_eq!(error.errno, Errno::ELOOP);
    }

    #[test]
    fn a_file_is_made_with_the_directories_that_lead_to_it() {
        let inside = tempfile::tempdir().unwrap();
        root(inside.path())
            .open_or_make(Path::new("/a/b/c"), Missing::File)
            .unwrap();
        assert!(inside.path().join("a/b/c").is_file());
    }
}
