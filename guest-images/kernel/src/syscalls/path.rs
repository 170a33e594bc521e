//! Paths: open(2), stat(2), access(2), readlink(2), getcwd(2), chdir(2).

use kernel::cell::Lone;
use kernel::cpio::Entry;

use super::Answer;
use super::errno::*;
use crate::files::{self, Device, Node, Open, mode};
use crate::state::Kernel;
use crate::user::PATH_MAX;

/// AT_FDCWD: relative to the working directory.
pub const CURRENT: u64 = -100i32 as u32 as u64;
/// AT_SYMLINK_NOFOLLOW.
pub const NO_FOLLOW: u32 = 0x100;
/// AT_EMPTY_PATH: the descriptor itself is meant.
const EMPTY_PATH: u32 = 0x1000;

const O_ACCESS_MODE: u32 = 3;
const O_CREATE: u32 = 0o100;
const O_EXCLUSIVE: u32 = 0o200;
const O_TRUNCATE: u32 = 0o1000;
const O_DIRECTORY: u32 = 0o200000;
const O_NO_FOLLOW: u32 = 0o400000;

const R_OK: u32 = 4;
const W_OK: u32 = 2;
const X_OK: u32 = 1;

/// What st_blksize and the sizes in blocks count in.
const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;

/// The path of the call in progress, and where it led. Statics, so that nobody clears 8 KiB per call.
struct Buffers {
    path: [u8; PATH_MAX],
    found: [u8; PATH_MAX],
}

static BUFFERS: Lone<Buffers> = Lone::new(Buffers {
    path: [0; PATH_MAX],
    found: [0; PATH_MAX],
});

/// Reads the path at `address`, finds what it leads to from `directory`, and calls `work` with that and the path
/// without links.
fn with_node<R>(
    kernel: &mut Kernel,
    directory: u64,
    address: u64,
    follow: bool,
    work: impl FnOnce(&mut Kernel, Node, &[u8]) -> Result<R, Errno>,
) -> Result<R, Errno> {
    BUFFERS.with(|Buffers { path, found }| {
        let length = kernel.path(address, path)?;
        let path = &path[..length];
        if path.is_empty() {
            return Err(ENOENT);
        }
        let mut found_length = 0;
        let keep = |clean: &[u8]| {
            found[..clean.len()].copy_from_slice(clean);
            found_length = clean.len();
        };
        let files = &kernel.files;
        let node = if directory as u32 == CURRENT as u32 || path.starts_with(b"/") {
            files.resolve_from(&files.directory[..files.directory_length], path, follow, keep)?
        } else {
            files.resolve_from(files.path_of(directory as u32 as u64)?, path, follow, keep)?
        };
        work(kernel, node, &found[..found_length])
    })
}

/// open(2), openat(2). The initrd is read-only.
pub fn open(kernel: &mut Kernel, directory: u64, path: u64, flags: u32) -> Answer {
    let writes = flags & O_ACCESS_MODE != 0 || flags & (O_CREATE | O_TRUNCATE) != 0;
    let opened = with_node(
        kernel,
        directory,
        path,
        flags & O_NO_FOLLOW == 0,
        |kernel, node, path| {
            if flags & O_CREATE != 0 && flags & O_EXCLUSIVE != 0 {
                return Err(EEXIST);
            }
            let open = match node {
                Node::Device(device) => Open::Device(device),
                Node::Implied => Open::Directory(None, 0),
                Node::Entry(entry) => match entry.mode() & mode::KIND {
                    mode::REGULAR if writes => return Err(EROFS),
                    mode::REGULAR => Open::File(entry, 0),
                    mode::DIRECTORY => Open::Directory(Some(entry), 0),
                    mode::DEVICE => Open::Device(files::device_of(&entry)?),
                    mode::LINK => return Err(ELOOP),
                    _ => return Err(ENXIO),
                },
            };
            match open {
                Open::Directory(..) if writes => Err(EISDIR),
                Open::Directory(..) => kernel.files.add(open, path),
                _ if flags & O_DIRECTORY != 0 => Err(ENOTDIR),
                _ => kernel.files.add(open, &[]),
            }
        },
    );
    match opened {
        Err(ENOENT) if flags & O_CREATE != 0 => Err(EROFS),
        other => other,
    }
}

/// What `struct stat` and `struct statx` are filled from.
#[derive(Default)]
struct Status {
    inode: u64,
    mode: u32,
    links: u32,
    uid: u32,
    gid: u32,
    device: (u32, u32),
    size: u64,
    modified: u64,
}

fn status_of_entry(entry: &Entry<'_>) -> Status {
    Status {
        // 1 is the root's, and 0 means "no file" to some programs.
        inode: entry.offset as u64 + 2,
        mode: entry.mode(),
        links: entry.links(),
        uid: entry.uid(),
        gid: entry.gid(),
        device: entry.device(),
        size: entry.data.len() as u64,
        modified: entry.modified().into(),
    }
}

fn status_of_device(device: Device) -> Status {
    let (mode, device) = match device {
        Device::Input | Device::Output | Device::Error => (mode::PIPE | 0o600, (0, 0)),
        Device::Null => (mode::DEVICE | 0o666, (1, 3)),
        Device::Zero => (mode::DEVICE | 0o666, (1, 5)),
        Device::Full => (mode::DEVICE | 0o666, (1, 7)),
        Device::Random => (mode::DEVICE | 0o666, (1, 9)),
        Device::Trigger => (mode::REGULAR | 0o200, (0, 0)),
    };
    Status {
        inode: 1,
        mode,
        links: 1,
        device,
        ..Default::default()
    }
}

fn status_of_node(node: &Node) -> Status {
    match node {
        Node::Entry(entry) => status_of_entry(entry),
        Node::Implied => Status {
            inode: 1,
            mode: mode::DIRECTORY | 0o755,
            links: 2,
            ..Default::default()
        },
        Node::Device(device) => status_of_device(*device),
    }
}

fn status_of_open(kernel: &mut Kernel, fd: u64) -> Result<Status, Errno> {
    Ok(match kernel.files.get(fd)? {
        Open::Device(device) => status_of_device(*device),
        Open::File(entry, _) | Open::Directory(Some(entry), _) => status_of_entry(entry),
        Open::Directory(None, _) => status_of_node(&Node::Implied),
        Open::Closed => return Err(EBADF),
    })
}

fn status(kernel: &mut Kernel, directory: u64, path: u64, flags: u32) -> Result<Status, Errno> {
    if flags & EMPTY_PATH != 0 {
        let mut first = [0];
        kernel.copy_in(path, &mut first)?;
        if first == [0] {
            return status_of_open(kernel, directory as u32 as u64);
        }
    }
    with_node(kernel, directory, path, flags & NO_FOLLOW == 0, |_, node, _| {
        Ok(status_of_node(&node))
    })
}

/// stat(2), lstat(2), newfstatat(2).
pub fn stat(kernel: &mut Kernel, directory: u64, path: u64, to: u64, flags: u32) -> Answer {
    let status = status(kernel, directory, path, flags)?;
    store(kernel, to, &status)
}

/// fstat(2).
pub fn fstat(kernel: &mut Kernel, fd: u64, to: u64) -> Answer {
    let status = status_of_open(kernel, fd)?;
    store(kernel, to, &status)
}

/// Device numbers as st_rdev has them (Linux's `new_encode_dev`).
fn device_number((major, minor): (u32, u32)) -> u64 {
    u64::from(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// Fills `struct stat` (arch/x86/include/uapi/asm/stat.h).
fn store(kernel: &mut Kernel, to: u64, status: &Status) -> Answer {
    let mut bytes = [0; 144];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &1u64.to_le_bytes());
    put(8, &status.inode.to_le_bytes());
    put(16, &u64::from(status.links).to_le_bytes());
    put(24, &status.mode.to_le_bytes());
    put(28, &status.uid.to_le_bytes());
    put(32, &status.gid.to_le_bytes());
    put(40, &device_number(status.device).to_le_bytes());
    put(48, &status.size.to_le_bytes());
    put(56, &BLOCK.to_le_bytes());
    put(64, &status.size.div_ceil(SECTOR).to_le_bytes());
    for time in [72, 88, 104] {
        put(time, &status.modified.to_le_bytes());
    }
    kernel.copy_out(to, &bytes)?;
    Ok(0)
}

/// statx(2): the basic fields (linux/stat.h).
pub fn statx(kernel: &mut Kernel, directory: u64, path: u64, flags: u32, to: u64) -> Answer {
    const BASIC_STATS: u32 = 0x7ff;
    let status = status(kernel, directory, path, flags)?;
    let mut bytes = [0; 256];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &BASIC_STATS.to_le_bytes());
    put(4, &(BLOCK as u32).to_le_bytes());
    put(16, &status.links.to_le_bytes());
    put(20, &status.uid.to_le_bytes());
    put(24, &status.gid.to_le_bytes());
    put(28, &(status.mode as u16).to_le_bytes());
    put(32, &status.inode.to_le_bytes());
    put(40, &status.size.to_le_bytes());
    put(48, &status.size.div_ceil(SECTOR).to_le_bytes());
    // Access, birth, change, modification.
    for time in [64, 80, 96, 112] {
        put(time, &status.modified.to_le_bytes());
    }
    put(128, &status.device.0.to_le_bytes());
    put(132, &status.device.1.to_le_bytes());
    put(140, &1u32.to_le_bytes());
    kernel.copy_out(to, &bytes)?;
    Ok(0)
}

/// access(2), faccessat(2): root may do everything that the file system allows, and execute what anybody may.
pub fn access(kernel: &mut Kernel, directory: u64, path: u64, wanted: u32) -> Answer {
    if wanted & !(R_OK | W_OK | X_OK) != 0 {
        return Err(EINVAL);
    }
    let status = status(kernel, directory, path, 0)?;
    let kind = status.mode & mode::KIND;
    if wanted & W_OK != 0 && (kind == mode::REGULAR || kind == mode::DIRECTORY) {
        return Err(EROFS);
    }
    if wanted & X_OK != 0 && kind != mode::DIRECTORY && status.mode & 0o111 == 0 {
        return Err(EACCES);
    }
    Ok(0)
}

/// readlink(2), readlinkat(2). One link is not in the initrd: /proc/self/exe, which C libraries ask for.
pub fn readlink(kernel: &mut Kernel, directory: u64, path: u64, to: u64, room: u64) -> Answer {
    // In C the size is an int.
    if room as i32 <= 0 {
        return Err(EINVAL);
    }
    let room = room as u32;
    let mut own = [0; 15];
    if kernel.copy_in(path, &mut own).is_ok() && &own == b"/proc/self/exe\0" {
        let length = kernel.executable_length.min(room as usize);
        let executable = kernel.executable;
        kernel.copy_out(to, &executable[..length])?;
        return Ok(length as u64);
    }
    with_node(kernel, directory, path, false, |kernel, node, _| match node {
        Node::Entry(entry) if entry.mode() & mode::KIND == mode::LINK => {
            let target = &entry.data[..entry.data.len().min(room as usize)];
            kernel.copy_out(to, target)?;
            Ok(target.len() as u64)
        }
        _ => Err(EINVAL),
    })
}

/// getcwd(2): length with the NUL.
pub fn getcwd(kernel: &mut Kernel, to: u64, room: u64) -> Answer {
    let mut path = [0; 258];
    path[0] = b'/';
    let length = kernel.files.directory_length;
    path[1..=length].copy_from_slice(&kernel.files.directory[..length]);
    if room < length as u64 + 2 {
        return Err(ERANGE);
    }
    kernel.copy_out(to, &path[..length + 2])?;
    Ok(length as u64 + 2)
}

/// chdir(2).
pub fn chdir(kernel: &mut Kernel, path: u64) -> Answer {
    with_node(kernel, CURRENT, path, true, |kernel, node, path| {
        if !files::is_directory(&node) {
            return Err(ENOTDIR);
        }
        kernel
            .files
            .directory
            .get_mut(..path.len())
            .ok_or(ENAMETOOLONG)?
            .copy_from_slice(path);
        kernel.files.directory_length = path.len();
        Ok(0)
    })
}
