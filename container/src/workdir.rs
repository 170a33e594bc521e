//! The working directory: where the program starts, which must be inside.
//!
//! A path can lead out where its links are the kernel's own: `/proc/self/fd/7` is whatever directory somebody left open,
//! of the host's too, and `..` from there is the way out (CVE-2024-21626). No path check helps, since what is asked for
//! looks like any path. But the kernel knows a directory's name only while it lies beneath the root: getcwd(2) tells.

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::chdir;
use thiserror::Error;

use crate::errno::why;

/// Enters `path` of the container. The container's root is this process's root by now.
pub fn enter(path: &Path) -> Result<(), Error> {
    chdir(path).map_err(|errno| Error::Enter {
        path: path.display().to_string(),
        errno,
    })?;
    if path == Path::new("/") || is_inside() {
        Ok(())
    } else {
        Err(Error::Outside {
            path: path.display().to_string(),
        })
    }
}

/// Whether the working directory lies beneath this process's root. The C library's getcwd(3) would hide the answer: for
/// a directory outside, the kernel gives a name that begins with "(unreachable)".
fn is_inside() -> bool {
    let mut name = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most as many bytes as it is told there is room for.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, name.as_mut_ptr(), name.len()) };
    // A directory that was removed has no name, nor one whose name is too long: neither is known to be inside.
    length > 0 && name[0] == b'/'
}

/// Why the program has no place to start in.
#[derive(Debug, Error)]
pub enum Error {
    /// It cannot be entered.
    #[error(
        "cannot enter the working directory {path} in the container: {}. --workdir names a directory of the container's root file system",
        why(errno)
    )]
    Enter {
        /// The directory.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// It is the host's.
    #[error(
        "the working directory {path} leads out of the container, to a directory that was left open. --workdir names a directory of the container's root file system"
    )]
    Outside {
        /// The directory.
        path: String,
    },
}
