//! How errors name the kernel's answer: `Operation not permitted (EPERM)`.

use nix::errno::Errno;

/// The errno in words and by name.
pub fn why(errno: &Errno) -> String {
    format!("{} ({errno:?})", errno.desc())
}

/// The errno inside an I/O error; EIO for the rare one that has none.
pub fn of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
