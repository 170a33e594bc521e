//! The file systems a program expects: views of the kernel, and room for temporary files.

use std::ffi::CStr;
use std::io;

/// Type and place. The places are in the initrd.
const MOUNTS: [(&CStr, &CStr); 5] = [
    (c"devtmpfs", c"/dev"),
    (c"proc", c"/proc"),
    (c"sysfs", c"/sys"),
    // A container in this guest finds its limits here.
    (c"cgroup2", c"/sys/fs/cgroup"),
    (c"tmpfs", c"/tmp"),
];

/// Puts a mount over the first root file system and moves onto it.
///
/// The first one can't be left: pivot_root(2) refuses, and with it every container runtime. A mount on top of it can, and it
/// may show the very same files, so nothing is copied.
pub fn leave_the_first_root() -> io::Result<()> {
    const HERE: &CStr = c".";
    const ROOT: &CStr = c"/";
    let ok = |done: libc::c_long| match done {
        ..0 => Err(io::Error::last_os_error()),
        done => Ok(done as libc::c_int),
    };
    // SAFETY: NUL-terminated strings and plain numbers; the descriptor is this function's alone and is closed once.
    // ANCHOR: first_root
    unsafe {
        let copy = ok(libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            ROOT.as_ptr(),
            libc::OPEN_TREE_CLONE,
        ))?;
        let moved = ok(libc::syscall(
            libc::SYS_move_mount,
            copy,
            c"".as_ptr(),
            libc::AT_FDCWD,
            ROOT.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        ));
        // A process keeps its root through a mount on top of it: it has to go there.
        let went = moved.and_then(|_| {
            ok(libc::fchdir(copy).into())?;
            ok(libc::chroot(HERE.as_ptr()).into())
        });
        libc::close(copy);
        went.map(|_| ())
    }
    // ANCHOR_END: first_root
}

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
