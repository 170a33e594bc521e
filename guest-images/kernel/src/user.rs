//! The program's memory, as system calls see it: never trusted, always looked up.
//!
//! The kernel does not follow a program's pointers. It asks the page tables where they lead and whether the program
//! itself could go there, and then works on physical memory.

use kernel::layout::PAGE;
use protocol::doorbell::{MAX_SEGMENTS, Segment};

use crate::address_space::{READ, WRITE};
use crate::frames::pointer;
use crate::state::Kernel;
use crate::syscalls::errno::{EFAULT, ENAMETOOLONG, Errno};

/// Longest path, its NUL included (PATH_MAX).
pub const PATH_MAX: usize = 4096;

impl Kernel {
    /// Where the program's byte at `address` is, and how many follow it there.
    fn reach(&mut self, address: u64, access: u8) -> Result<(u64, u64), Errno> {
        let physical = self
            .space
            .translate(&mut self.frames, address, access)
            .map_err(|_| EFAULT)?;
        Ok((physical, PAGE - (address & (PAGE - 1))))
    }

    /// Copies from the program.
    pub fn copy_in(&mut self, address: u64, to: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < to.len() {
            let (physical, room) = self.reach(address + done as u64, READ)?;
            let count = (to.len() - done).min(room as usize);
            // SAFETY: `reach` gives `room` bytes of a frame of the program's; `to` is the kernel's.
            unsafe { core::ptr::copy_nonoverlapping(pointer(physical), to[done..].as_mut_ptr(), count) };
            done += count;
        }
        Ok(())
    }

    /// Copies to the program.
    pub fn copy_out(&mut self, address: u64, from: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < from.len() {
            let (physical, room) = self.reach(address + done as u64, WRITE)?;
            let count = (from.len() - done).min(room as usize);
            // SAFETY: `reach` gives `room` bytes of a frame the program may write; `from` is the kernel's or the
            // initrd, which no writable page shows.
            unsafe { core::ptr::copy_nonoverlapping(from[done..].as_ptr(), pointer(physical), count) };
            done += count;
        }
        Ok(())
    }

    /// A 64-bit word of the program's.
    pub fn word(&mut self, address: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.copy_in(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A NUL-terminated path of the program's; its length.
    pub fn path(&mut self, address: u64, buffer: &mut [u8; PATH_MAX]) -> Result<usize, Errno> {
        let mut length = 0;
        while length < PATH_MAX {
            let (physical, room) = self.reach(address + length as u64, READ)?;
            let count = (PATH_MAX - length).min(room as usize);
            // SAFETY: as in `copy_in`.
            let bytes = unsafe { core::slice::from_raw_parts(pointer(physical), count) };
            if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
                buffer[length..length + end].copy_from_slice(&bytes[..end]);
                return Ok(length + end);
            }
            buffer[length..length + count].copy_from_slice(bytes);
            length += count;
        }
        Err(ENAMETOOLONG)
    }

    /// The physical pieces behind `length` bytes of the program's, for the host. Adds to `segments` from `count` on and
    /// returns the new count; stops when they are full.
    pub fn pieces(
        &mut self,
        address: u64,
        length: u64,
        access: u8,
        segments: &mut [Segment; MAX_SEGMENTS],
        mut count: usize,
    ) -> Result<usize, Errno> {
        let mut done = 0;
        while done < length {
            let (physical, room) = self.reach(address + done, access)?;
            let part = room.min(length - done);
            match count.checked_sub(1).map(|last| &mut segments[last]) {
                Some(last) if last.address + last.length == physical => last.length += part,
                _ if count == MAX_SEGMENTS => break,
                _ => {
                    segments[count] = Segment {
                        address: physical,
                        length: part,
                    };
                    count += 1;
                }
            }
            done += part;
        }
        Ok(count)
    }
}
