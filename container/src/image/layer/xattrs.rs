//! Extended attributes: what a file has beside mode, owner and times.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Where overlay keeps its notes: for root, and with the mount option `userxattr` (kernel document
/// `filesystems/overlayfs`).
pub const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// "Nothing below this directory shows through": one for each kind of mount.
const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

/// The same as set by a file whose whiteouts are attributes (Linux 6.7).
const WHITEOUT: [&CStr; 2] = [c"trusted.overlay.whiteout", c"user.overlay.whiteout"];

/// Sets an attribute of an open file.
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: the name is NUL-terminated, the value is as long as is said, and the kernel copies both.
    let set = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(set).map(drop)
}

/// Sets an attribute of a link, pipe or the like, which cannot be opened: by way of its directory's descriptor.
pub fn set_at(parent: BorrowedFd<'_>, file: &[u8], name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let path = path_at(parent, file)?;
    // SAFETY: both strings are NUL-terminated, the value is as long as is said, and the kernel copies all of them.
    let set = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(set).map(drop)
}

/// All attributes of a file that is not followed if it is a link, in the order of their names.
pub fn all_at(parent: BorrowedFd<'_>, file: &[u8]) -> Result<Vec<(CString, Vec<u8>)>, Errno> {
    let path = path_at(parent, file)?;
    let list = grow(|buffer| {
        // SAFETY: the path is NUL-terminated and the buffer as large as is said.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    let list = match list {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut attributes = Vec::new();
    for name in list.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let value = grow(|buffer| {
            // SAFETY: both strings are NUL-terminated and the buffer is as large as is said.
            unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
        });
        match value {
            Ok(value) => attributes.push((name.to_owned(), value)),
            // Listed to all, readable for some.
            Err(Errno::ENODATA | Errno::EPERM | Errno::EACCES) => {}
            Err(errno) => return Err(errno),
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// Makes a directory opaque for either kind of mount. An ordinary user can set the second mark only, and needs no other.
pub fn set_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    match set(directory, OPAQUE[0], b"y") {
        Ok(()) | Err(Errno::EPERM) => set(directory, OPAQUE[1], b"y"),
        Err(errno) => Err(errno),
    }
}

/// Whether overlay takes the directory for opaque.
pub fn is_opaque(attributes: &[(CString, Vec<u8>)]) -> bool {
    attributes
        .iter()
        .any(|(name, value)| OPAQUE.contains(&name.as_c_str()) && value == b"y")
}

/// Whether overlay takes the (empty) file for a whiteout.
pub fn is_whiteout(attributes: &[(CString, Vec<u8>)]) -> bool {
    attributes.iter().any(|(name, _)| WHITEOUT.contains(&name.as_c_str()))
}

/// Whether an attribute is overlay's own.
pub fn is_overlays(name: &[u8]) -> bool {
    OVERLAY.iter().any(|prefix| name.starts_with(prefix))
}

/// The link in /proc leads to the directory, and the last component is not followed.
fn path_at(parent: BorrowedFd<'_>, file: &[u8]) -> Result<CString, Errno> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(file);
    CString::new(path).map_err(|_| Errno::EINVAL)
}

/// Calls until the buffer is large enough.
fn grow(mut call: impl FnMut(&mut [u8]) -> isize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match Errno::result(call(&mut buffer)) {
            Ok(size) => {
                buffer.truncate(size as usize);
                return Ok(buffer);
            }
            // The kernel's own limit is 64 KiB (XATTR_SIZE_MAX, XATTR_LIST_MAX).
            Err(Errno::ERANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}
