//! The three standard streams: the only open files the container shares with its caller.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, fchown};
use protocol::marks::Marks;
use thiserror::Error;

use crate::errno::why;

/// The file system that anonymous pipes are on (`PIPEFS_MAGIC` in `linux/magic.h`).
const PIPEFS: FsType = FsType(0x5049_5045);

/// Writes a line to standard output, like `println!`, which ends the process where nobody reads any more (`| head -1`): what the
/// process was asked to do would stay half done.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::streams::say(format_args!($($argument)*))
    };
}

/// What [`say!`](crate::say) does.
pub fn say(line: std::fmt::Arguments) {
    match writeln!(io::stdout(), "{line}") {
        // Nobody reads: then there is nothing to say.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("cannot write to standard output: {error}. A line of it is lost");
        }
        _ => {}
    }
}

/// Checks the standard streams, and gives those that are pipes to `owner`, a user and a group of the host's.
///
/// An open directory of the host is a way out: fchdir(2), and `..` from there. Nobody needs one as a standard stream.
///
/// A pipe belongs to whoever made it. Opened once more by name, as `/dev/stdout`, it would be refused to a user with
/// another id. A pipe without a name ends with its users, so that a change of its owner changes nothing on the host;
/// files and terminals keep theirs.
pub fn prepare(owner: Option<(u32, u32)>) -> Result<(), Error> {
    for fd in 0..=2 {
        // SAFETY: the standard streams stay open while this function runs; a closed one is reported by EBADF.
        let stream = unsafe { BorrowedFd::borrow_raw(fd) };
        let Ok(stat) = fstat(stream) else { continue };
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => return Err(Error::Directory(fd)),
            libc::S_IFIFO if fstatfs(stream).is_ok_and(|stat| stat.filesystem_type() == PIPEFS) => {
                if let Some((uid, gid)) = owner {
                    fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .map_err(|errno| Error::Owner { fd, errno })?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Closes whatever else the caller left open, but for `kept`: an open directory or socket of the host's, which no step of
/// the set-up could then be led to by a link such as `/proc/self/fd/7`. First thing in a process: what that opened itself
/// would be closed too.
pub fn close_inherited(kept: Option<RawFd>) {
    let close = |first: u32, last: u32| {
        // SAFETY: takes numbers only; nothing in this process has opened a descriptor yet.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    };
    match kept.and_then(|fd| u32::try_from(fd).ok()).filter(|&fd| fd > 2) {
        None => close(3, u32::MAX),
        Some(fd) => {
            if fd > 3 {
                close(3, fd - 1);
            }
            close(fd + 1, u32::MAX);
        }
    }
}

/// Closes the launcher's standard input and output: from here on they are the program's alone. When it closes its
/// output, a reader sees the end; when nobody reads its input any more, a writer hears of it. Standard error stays open,
/// since a launcher that fails must be able to say so.
///
/// They stay open too when marks are asked for: `marks` may go to one of them, and the last is written at the very end.
pub fn let_go(marks: Marks) {
    if !marks.wanted() {
        // SAFETY: takes numbers only. The launcher neither reads nor prints from here on.
        unsafe { libc::syscall(libc::SYS_close_range, 0, 1, 0) };
    }
}

/// What is wrong with a standard stream.
#[derive(Debug, Error)]
pub enum Error {
    /// It is a directory.
    #[error(
        "file descriptor {0} is a directory of the host: the program could walk out of the container through it. Redirect it from a file, or from /dev/null"
    )]
    Directory(i32),
    /// The pipe could not be given away.
    #[error(
        "cannot give the pipe at file descriptor {fd} to the container's user: {}. That needs CAP_CHOWN",
        why(errno)
    )]
    Owner {
        /// Which stream.
        fd: i32,
        /// The kernel's answer.
        errno: Errno,
    },
}
