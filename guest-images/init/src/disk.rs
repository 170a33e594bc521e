//! Disks: what `lab.disk=DEVICE:PLACE[:ro]` on the kernel command line asks to be mounted.

use std::ffi::CString;
use std::fs;
use std::io;

/// File systems to try, in this order: a small kernel knows few.
const KINDS: [&str; 5] = ["ext4", "ext2", "squashfs", "erofs", "xfs"];

/// Mounts a disk. The place is made if it is not there.
pub fn mount(option: &str) -> Result<(), String> {
    let wrong = || format!("lab.disk={option}: expected DEVICE:PLACE or DEVICE:PLACE:ro, such as /dev/vda:/mnt");
    let mut parts = option.split(':');
    let (device, place) = parts.next().zip(parts.next()).ok_or_else(wrong)?;
    let flags = match (parts.next(), parts.next()) {
        (None, None) => 0,
        (Some("ro"), None) => libc::MS_RDONLY,
        _ => return Err(wrong()),
    };
    fs::create_dir_all(place).map_err(|error| format!("cannot make {place} to mount {device} on: {error}"))?;
    let mut last = io::Error::from_raw_os_error(libc::ENODEV);
    for kind in KINDS {
        match try_mount(device, place, kind, flags) {
            Ok(()) => return Ok(()),
            // Not this file system.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            // One the kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(format!("cannot mount {device} on {place}: {error}")),
        }
    }
    Err(format!(
        "cannot mount {device} on {place} as any of {}: {last}. Is there a file system on it? mkfs.ext4 makes one",
        KINDS.join(", ")
    ))
}

fn try_mount(device: &str, place: &str, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let [device, place, kind] = [device, place, kind].map(|text| CString::new(text).unwrap_or_default());
    // SAFETY: NUL-terminated strings; no data.
    let done = unsafe { libc::mount(device.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Writes what is still in memory to the disks. Process 1 ends by ending the machine: nobody unmounts.
pub fn sync() {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::sync() };
}
