//! The file systems a program expects: views of the kernel, and room for temporary files.

use std::ffi::CStr;
use std::io;

/// Type and place. The places are in the initrd.
const MOUNTS: [(&CStr, &CStr); 4] = [
    (c"devtmpfs", c"/dev"),
    (c"proc", c"/proc"),
    (c"sysfs", c"/sys"),
    (c"tmpfs", c"/tmp"),
];

/// Mounts all of them. A kernel may have been built without one; the program that needs it will say so.
pub fn mount_all() {
    for (kind, place) in MOUNTS {
        // SAFETY: NUL-terminated strings; no data.
        let done = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        let error = io::Error::last_os_error();
        // EBUSY: the kernel did it before us (CONFIG_DEVTMPFS_MOUNT).
        if done < 0 && error.raw_os_error() != Some(libc::EBUSY) {
            eprintln!(
                "init: cannot mount {} on {}: {error}",
                kind.to_string_lossy(),
                place.to_string_lossy()
            );
        }
    }
}
