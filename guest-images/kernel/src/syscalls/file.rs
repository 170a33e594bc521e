//! Open files: lseek(2), fcntl(2), getdents64(2).

use super::Answer;
use super::errno::*;
use crate::files::{Open, mode};
use crate::state::Kernel;

const SEEK_SET: u32 = 0;
const SEEK_CUR: u32 = 1;
const SEEK_END: u32 = 2;

const F_DUPFD: u32 = 0;
const F_GETFD: u32 = 1;
const F_SETFD: u32 = 2;
const F_GETFL: u32 = 3;
const F_SETFL: u32 = 4;
const F_DUPFD_CLOEXEC: u32 = 1030;

/// `struct linux_dirent64`: inode, offset, record length, type, name.
const RECORD_HEADER: usize = 19;
/// Longest record: header, a name of 255 bytes, its NUL, padded to 8.
const RECORD_MAX: usize = 280;
const NAME_MAX: usize = 255;

/// Positions 0 and 1 of a directory are `.` and `..`; an archive offset o is position o + 2.
const ENTRIES_FROM: u64 = 2;

/// lseek(2).
pub fn lseek(kernel: &mut Kernel, fd: u64, offset: i64, whence: u32) -> Answer {
    match kernel.files.get(fd)? {
        Open::File(entry, position) => {
            let base = match whence {
                SEEK_SET => 0,
                SEEK_CUR => *position as i64,
                SEEK_END => entry.data.len() as i64,
                _ => return Err(EINVAL),
            };
            let target = base
                .checked_add(offset)
                .and_then(|target| u64::try_from(target).ok())
                .ok_or(EINVAL)?;
            *position = target;
            Ok(target)
        }
        // Rewinding, or going back to a position getdents64 gave out.
        Open::Directory(_, position) if whence == SEEK_SET && offset >= 0 => {
            *position = offset as u64;
            Ok(*position)
        }
        Open::Directory(..) => Err(EINVAL),
        Open::Device(_) | Open::Closed => Err(ESPIPE),
    }
}

/// fcntl(2).
pub fn fcntl(kernel: &mut Kernel, fd: u64, command: u32, argument: u64) -> Answer {
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => kernel.files.duplicate(fd, argument),
        // Close-on-exec means nothing without exec, and every file is read-only or a stream.
        F_GETFD | F_SETFD | F_GETFL | F_SETFL => kernel.files.get(fd).map(|_| 0),
        _ => Err(EINVAL),
    }
}

/// getdents64(2).
pub fn getdents64(kernel: &mut Kernel, fd: u64, to: u64, room: u64) -> Answer {
    let Open::Directory(_, mut position) = *kernel.files.get(fd)? else {
        return Err(ENOTDIR);
    };
    let mut path = [0; 256];
    let length = {
        let directory = kernel.files.path_of(fd)?;
        path[..directory.len()].copy_from_slice(directory);
        directory.len()
    };
    let mut written = 0;
    loop {
        let (inode, kind, name, next): (u64, u32, &[u8], u64) = match position {
            0 => (1, mode::DIRECTORY, b".", 1),
            1 => (1, mode::DIRECTORY, b"..", ENTRIES_FROM),
            _ => match kernel
                .files
                .next_in(&path[..length], (position - ENTRIES_FROM) as usize)
            {
                Some((entry, name, next)) => (
                    entry.offset as u64 + 2,
                    entry.mode() & mode::KIND,
                    name,
                    next as u64 + ENTRIES_FROM,
                ),
                None => break,
            },
        };
        if name.len() > NAME_MAX {
            position = next;
            continue;
        }
        let size = (RECORD_HEADER + name.len() + 1).next_multiple_of(8);
        if written + size as u64 > room {
            if written == 0 {
                return Err(EINVAL);
            }
            break;
        }
        let mut record = [0; RECORD_MAX];
        record[..8].copy_from_slice(&inode.to_le_bytes());
        record[8..16].copy_from_slice(&next.to_le_bytes());
        record[16..18].copy_from_slice(&(size as u16).to_le_bytes());
        // The type is the mode's top four bits (DT_* in dirent.h).
        record[18] = (kind >> 12) as u8;
        record[RECORD_HEADER..RECORD_HEADER + name.len()].copy_from_slice(name);
        kernel.copy_out(to + written, &record[..size])?;
        written += size as u64;
        position = next;
    }
    if let Open::Directory(_, kept) = kernel.files.get(fd)? {
        *kept = position;
    }
    Ok(written)
}
