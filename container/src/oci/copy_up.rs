//! `tmpcopyup`: an empty tmpfs gets what the directory it is about to cover has in the image.
//!
//! Engines ask for it when the root is read-only and `/run` or `/var/tmp` must not be. Directories are walked by
//! descriptor and no link is followed: the copy has what the image has, and nothing of the host's.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use crate::mounts::target::reopen;

/// Copies what is in `from` into the empty directory `to`, and its mode and owner. Both may be `O_PATH` descriptors.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let directory = |fd| reopen(fd, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
    let (from, to) = (directory(from)?, directory(to)?);
    copy_directory(from.as_fd(), to.as_fd())
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let like = fstat(from)?;
    fchown(to, Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid)))?;
    nix::sys::stat::fchmod(to, Mode::from_bits_truncate(like.st_mode & 0o7777))?;
    let mut entries = Dir::from_fd(from.try_clone_to_owned()?)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(from, to, name, entry.file_type())?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, kind: Option<Type>) -> io::Result<()> {
    let look = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        Some(Type::Directory) => {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let flags = look | OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            let (from, to) = (
                openat(from, name, flags, Mode::empty())?,
                openat(to, name, flags, Mode::empty())?,
            );
            copy_directory(from.as_fd(), to.as_fd())
        }
        Some(Type::Symlink) => {
            let link = openat(from, name, look | OFlag::O_PATH, Mode::empty())?;
            symlinkat(readlinkat(&link, "")?.as_os_str(), to, name)?;
            let like = fstat(&link)?;
            own(to, name, &like)
        }
        Some(Type::File) => {
            let mut source = File::from(openat(from, name, look | OFlag::O_RDONLY, Mode::empty())?);
            let like = fstat(&source)?;
            let flags = look | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let mut copy = File::from(openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
            io::copy(&mut source, &mut copy)?;
            own(to, name, &like)?;
            // Behind the owner: a change of owner takes set-user-id bits away.
            nix::sys::stat::fchmod(&copy, Mode::from_bits_truncate(like.st_mode & 0o7777))?;
            Ok(())
        }
        Some(Type::Fifo) => {
            let node = openat(from, name, look | OFlag::O_PATH, Mode::empty())?;
            let like = fstat(&node)?;
            mknodat(
                to,
                name,
                SFlag::S_IFIFO,
                Mode::from_bits_truncate(like.st_mode & 0o7777),
                0,
            )?;
            own(to, name, &like)
        }
        // Devices come from config.json alone; a socket is dead without its process.
        Some(_) => Ok(()),
        // Not every file system says what an entry is.
        None => Err(Errno::EOPNOTSUPP.into()),
    }
}

fn own(directory: BorrowedFd<'_>, name: &CStr, like: &libc::stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(fchownat(directory, name, Some(uid), Some(gid), flags)?)
}
