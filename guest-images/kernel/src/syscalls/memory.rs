//! Memory: mmap(2), mprotect(2), munmap(2), brk(2).

use kernel::layout::*;

use super::Answer;
use super::errno::*;
use crate::address_space::{EXECUTE, NoRoom, READ, WRITE};
use crate::files::Open;
use crate::state::Kernel;

const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_SHARED: u64 = 1;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

impl From<NoRoom> for Errno {
    fn from(NoRoom: NoRoom) -> Errno {
        ENOMEM
    }
}

/// The region rights for PROT_* bits. Memory both writable and executable is refused.
fn access(protection: u64) -> Result<u8, Errno> {
    if protection & (PROT_WRITE | PROT_EXEC) == PROT_WRITE | PROT_EXEC {
        return Err(EACCES);
    }
    if protection & !(PROT_READ | PROT_WRITE | PROT_EXEC) != 0 {
        return Err(EINVAL);
    }
    // On x86 whatever can be written or executed can be read.
    let mut access = 0;
    if protection != 0 {
        access |= READ;
    }
    if protection & PROT_WRITE != 0 {
        access |= WRITE;
    }
    if protection & PROT_EXEC != 0 {
        access |= EXECUTE;
    }
    Ok(access)
}

/// The page-aligned stretch a call means.
fn stretch(address: u64, length: u64) -> Result<(u64, u64), Errno> {
    if !address.is_multiple_of(PAGE) || length == 0 {
        return Err(EINVAL);
    }
    let end = address
        .checked_add(length)
        .and_then(|end| end.checked_next_multiple_of(PAGE))
        .ok_or(ENOMEM)?;
    if end > USER_END {
        Err(ENOMEM)
    } else {
        Ok((address, end))
    }
}

/// mmap(2). Files are mapped as private copies, read when mapped: the initrd never changes, so nobody can tell.
pub fn mmap(
    kernel: &mut Kernel,
    address: u64,
    length: u64,
    protection: u64,
    flags: u64,
    fd: u64,
    offset: u64,
) -> Answer {
    let access = access(protection)?;
    let size = length
        .checked_next_multiple_of(PAGE)
        .filter(|&size| size > 0)
        .ok_or(EINVAL)?;
    if !offset.is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    // A promise of more memory than the machine has is refused at once, as Linux's heuristic does.
    if size > kernel.frames.total {
        return Err(ENOMEM);
    }
    let file = if flags & MAP_ANONYMOUS != 0 {
        None
    } else {
        match *kernel.files.get(fd as u32 as u64)? {
            Open::File(entry, _) if flags & MAP_SHARED != 0 && access & WRITE != 0 => {
                let _ = entry;
                return Err(EACCES);
            }
            Open::File(entry, _) => Some(entry),
            _ => return Err(ENODEV),
        }
    };
    let start = if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
        let (start, end) = stretch(address, size)?;
        if start < USER_START {
            return Err(EPERM);
        }
        if flags & MAP_FIXED_NOREPLACE != 0 && kernel.space.overlaps(start, end) {
            return Err(EEXIST);
        }
        kernel.space.remove(&mut kernel.frames, start, end)?;
        start
    } else {
        kernel.space.find_gap(MMAP_BASE, size).ok_or(ENOMEM)?
    };
    match file {
        None => kernel.space.add_anonymous(start, start + size, access)?,
        Some(entry) => {
            // Written while it still may be, then given the rights asked for.
            kernel.space.add_anonymous(start, start + size, READ | WRITE)?;
            let content = entry.data.get(offset as usize..).unwrap_or(&[]);
            super::input_output::fill(kernel, &content[..content.len().min(length as usize)], start)?;
            kernel.space.protect(start, start + size, access)?;
        }
    }
    Ok(start)
}

/// mprotect(2).
pub fn mprotect(kernel: &mut Kernel, address: u64, length: u64, protection: u64) -> Answer {
    let access = access(protection)?;
    if length == 0 && address.is_multiple_of(PAGE) {
        return Ok(0);
    }
    let (start, end) = stretch(address, length)?;
    if kernel.space.protect(start, end, access)? {
        Ok(0)
    } else {
        Err(ENOMEM)
    }
}

/// munmap(2).
pub fn munmap(kernel: &mut Kernel, address: u64, length: u64) -> Answer {
    let (start, end) = stretch(address, length).map_err(|_| EINVAL)?;
    kernel.space.remove(&mut kernel.frames, start, end)?;
    Ok(0)
}

/// brk(2): moves the heap's end, and returns where it is, moved or not.
pub fn brk(kernel: &mut Kernel, wanted: u64) -> Answer {
    let (start, end) = kernel.space.heap;
    if wanted < start || wanted > STACK_TOP - STACK_MAX {
        return Ok(end);
    }
    let (old, new) = (end.next_multiple_of(PAGE), wanted.next_multiple_of(PAGE));
    if new > old {
        let full = new - old > kernel.frames.available() || kernel.space.overlaps(old, new);
        if full || kernel.space.add_anonymous(old, new, READ | WRITE).is_err() {
            return Ok(end);
        }
    } else if new < old && kernel.space.remove(&mut kernel.frames, new, old).is_err() {
        return Ok(end);
    }
    kernel.space.heap.1 = wanted;
    Ok(wanted)
}
