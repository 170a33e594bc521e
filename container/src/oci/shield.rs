//! The runtime's own file, out of the reach of what it runs.
//!
//! A process that enters a container brings its file along: /proc/PID/exe leads there. A program of the container's can
//! have itself executed as `#!/proc/self/exe`, hold that link open, and when the runtime has ended, write through it: the
//! next container would be started by the attacker's code, as root (CVE-2019-5736). Hiding the process does not help
//! against the first step, which the kernel takes for the runtime itself.
//!
//! So the file is reached through a mount that cannot be written and is nowhere: a detached, read-only copy of the one
//! it lies on ([`Tree`]). The runtime executes itself once through it; then /proc/PID/exe leads into that mount, and
//! nobody can make it writable, since no namespace holds it. It costs one execve(2) of a static program.
//!
//! Measured on two shared cores with 30 ms gaps (p50 of 100 each, interleaved; a static program of 3.6 MB): through the
//! read-only mount a command takes 1.5 ms longer than one that does without, from a sealed copy in memory, which is what
//! a user without rights over mounts needs, 4.3 ms.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use thiserror::Error;

use crate::errno::{of, why};
use crate::mounts::tree::{Attributes, Tree};

/// The link to this process's own file.
const OWN_FILE: &str = "/proc/self/exe";

/// Has this process run from a file that cannot be written. Returns when it does; before that it executes itself again
/// with the same arguments, so call it first thing. The descriptor it is executed by closes with that.
pub fn raise() -> Result<(), Error> {
    let own = File::open(OWN_FILE).map_err(Error::step("open"))?;
    if is_unwritable(&own) {
        return Ok(());
    }
    let safe = match read_only_mount() {
        Ok(safe) => safe,
        // An ordinary user has no rights over mounts.
        Err(Errno::EPERM) => sealed_copy(own).map_err(Error::step("copy"))?,
        Err(errno) => return Err(Error::step("mount")(errno.into())),
    };
    let arguments: Vec<CString> = strings(std::env::args_os());
    let environment: Vec<CString> = strings(std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    }));
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    // SAFETY: path, arguments and environment are NUL-terminated strings in NULL-terminated arrays, all alive.
    unsafe {
        let (fd, empty) = (safe.as_raw_fd(), c"".as_ptr());
        let flags = libc::AT_EMPTY_PATH;
        libc::syscall(
            libc::SYS_execveat,
            fd,
            empty,
            arguments.as_ptr(),
            environment.as_ptr(),
            flags,
        );
    }
    Err(Error::step("execute")(Errno::last().into()))
}

/// Whether the file lies on a read-only mount, or is a sealed one in memory.
fn is_unwritable(own: &File) -> bool {
    let read_only = fstatvfs(own).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY));
    let sealed = || fcntl(own, FcntlArg::F_GET_SEALS).is_ok_and(|seals| seals & SealFlag::F_SEAL_WRITE.bits() != 0);
    read_only || sealed()
}

fn read_only_mount() -> Result<OwnedFd, Errno> {
    use std::os::fd::AsFd;
    let tree = Tree::copy_of(Path::new(OWN_FILE), false)?;
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    tree.change(attributes, false)?;
    tree.as_fd().try_clone_to_owned().map_err(|error| of(&error))
}

fn sealed_copy(mut own: File) -> std::io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy = File::from(memfd_create(c"container-oci", flags)?);
    std::io::copy(&mut own, &mut copy)?;
    copy.flush()?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}

/// What came from the process's own arguments contains no NUL.
fn strings(list: impl Iterator<Item = std::ffi::OsString>) -> Vec<CString> {
    list.map(|text| CString::new(text.into_vec()).unwrap_or_default())
        .collect()
}

/// The file stayed within reach.
#[derive(Debug, Error)]
#[error(
    "cannot {step} the runtime's own file so that a container cannot overwrite it: {}. It needs /proc, and execveat(2)",
    why(errno)
)]
pub struct Error {
    step: &'static str,
    errno: Errno,
}

impl Error {
    fn step(step: &'static str) -> impl Fn(std::io::Error) -> Error {
        move |error| Error {
            step,
            errno: of(&error),
        }
    }
}
