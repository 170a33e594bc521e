//! Input and output: read(2), write(2) and their relatives.

use protocol::doorbell::{MAX_SEGMENTS, Segment, op};

use super::Answer;
use super::errno::*;
use crate::address_space::{READ, WRITE};
use crate::files::{Device, Open};
use crate::host;
use crate::state::Kernel;
use kernel::layout::DIRECT_MAP;

/// One iovec: address and length.
const IOVEC: u64 = 16;
/// Most iovecs of one call (UIO_MAXIOV).
const IOVECS_MAX: u64 = 1024;
/// Most bytes of one call, as on Linux (MAX_RW_COUNT).
const TRANSFER_MAX: u64 = 0x7fff_f000;

/// Up to so many bytes the kernel copies itself; beyond, an exit is cheaper where kernel code is interpreted.
const COPY_MYSELF: usize = 64;

const SIGPIPE: u8 = 13;

const POLLIN: u16 = 1;
const POLLOUT: u16 = 4;
const POLLNVAL: u16 = 0x20;

/// read(2).
pub fn read(kernel: &mut Kernel, fd: u64, to: u64, length: u64) -> Answer {
    let length = length.min(TRANSFER_MAX);
    match kernel.files.get(fd)? {
        Open::Device(device) => {
            let device = *device;
            read_device(kernel, device, to, length)
        }
        Open::Directory(..) => Err(EISDIR),
        Open::Closed => Err(EBADF),
        Open::File(entry, position) => {
            let (content, at) = (entry.data, *position);
            let count = read_at(kernel, content, at, to, length)?;
            if let Open::File(_, position) = kernel.files.get(fd)? {
                *position += count;
            }
            Ok(count)
        }
    }
}

/// pread(2).
pub fn pread(kernel: &mut Kernel, fd: u64, to: u64, length: u64, position: u64) -> Answer {
    if position > i64::MAX as u64 {
        return Err(EINVAL);
    }
    match *kernel.files.get(fd)? {
        Open::File(entry, _) => read_at(kernel, entry.data, position, to, length),
        Open::Directory(..) => Err(EISDIR),
        Open::Device(_) | Open::Closed => Err(ESPIPE),
    }
}

/// Reads from a file. The host copies, from the initrd to the program's pages, as a disk controller would.
fn read_at(kernel: &mut Kernel, content: &[u8], position: u64, to: u64, length: u64) -> Answer {
    let rest = usize::try_from(position)
        .ok()
        .and_then(|position| content.get(position..))
        .unwrap_or(&[]);
    let part = &rest[..rest.len().min(length as usize)];
    if part.len() <= COPY_MYSELF {
        kernel.copy_out(to, part)?;
        return Ok(part.len() as u64);
    }
    let mut segments = [Segment { address: 0, length: 0 }; MAX_SEGMENTS];
    let count = kernel.pieces(to, part.len() as u64, WRITE, &mut segments, 0)?;
    answer(host::copy_all(part.as_ptr() as u64 - DIRECT_MAP, &segments[..count]))
}

/// Copies all of `content` to the program's `to`, however many requests it takes.
pub fn fill(kernel: &mut Kernel, content: &[u8], to: u64) -> Result<(), Errno> {
    let mut done = 0;
    while done < content.len() as u64 {
        done += read_at(kernel, content, done, to + done, content.len() as u64 - done).map_err(|_| ENOMEM)?;
    }
    Ok(())
}

fn read_device(kernel: &mut Kernel, device: Device, to: u64, length: u64) -> Answer {
    match device {
        Device::Null => Ok(0),
        Device::Zero | Device::Full => from_host(kernel, op::ZERO, to, length),
        Device::Random => from_host(kernel, op::RANDOM, to, length),
        // Whoever reads a descriptor open for writing gets what a pipe's other end gives: EBADF.
        Device::Output | Device::Error => Err(EBADF),
        // It can only be written to.
        Device::Trigger => Err(EINVAL),
        Device::Input => from_host(kernel, op::READ_STDIN, to, length),
    }
}

/// Has the host fill the program's memory.
pub fn from_host(kernel: &mut Kernel, op: u32, to: u64, length: u64) -> Answer {
    let mut segments = [Segment { address: 0, length: 0 }; MAX_SEGMENTS];
    let count = kernel.pieces(to, length, WRITE, &mut segments, 0)?;
    answer(host::ring_all(op, &segments[..count]))
}

/// readv(2).
pub fn readv(kernel: &mut Kernel, fd: u64, vector: u64, count: u64) -> Answer {
    each_vector(kernel, vector, count, |kernel, address, length| {
        read(kernel, fd, address, length)
    })
}

/// write(2): one exit, however long the text.
pub fn write(kernel: &mut Kernel, fd: u64, from: u64, length: u64) -> Answer {
    let length = length.min(TRANSFER_MAX);
    let Open::Device(device) = *kernel.files.get(fd)? else {
        return Err(EBADF);
    };
    if device == Device::Trigger && length > 0 {
        return pull_trigger(kernel, from, length);
    }
    let Some(op) = sink(device)? else { return Ok(length) };
    if length == 0 {
        return Ok(0);
    }
    // Most writes lie in one page: one piece, and no list to fill in.
    let first = kernel
        .space
        .translate(&mut kernel.frames, from, READ)
        .map_err(|_| EFAULT)?;
    if length <= kernel::layout::PAGE - (from & (kernel::layout::PAGE - 1)) {
        let written = host::ring(op, first, length);
        return written_or_signal(kernel, written);
    }
    let mut segments = [Segment { address: 0, length: 0 }; MAX_SEGMENTS];
    let count = kernel.pieces(from, length, READ, &mut segments, 0)?;
    let written = host::ring_all(op, &segments[..count]);
    written_or_signal(kernel, written)
}

/// Linux's Documentation/admin-guide/sysrq.rst: `c` crashes the kernel; the other commands have nothing to act on here. So
/// that a program can show what a kernel of its own is good for: it falls, and nobody else does.
fn pull_trigger(kernel: &mut Kernel, from: u64, length: u64) -> Answer {
    let mut command = [0];
    kernel.copy_in(from, &mut command)?;
    if command == *b"c" {
        panic!("a program wrote c to /proc/sysrq-trigger");
    }
    Ok(length)
}

/// Where what is written to a device goes; None: nowhere.
fn sink(device: Device) -> Result<Option<u32>, Errno> {
    match device {
        Device::Output => Ok(Some(op::WRITE_STDOUT)),
        Device::Error => Ok(Some(op::WRITE_STDERR)),
        Device::Null | Device::Zero | Device::Random | Device::Trigger => Ok(None),
        Device::Full => Err(ENOSPC),
        Device::Input => Err(EBADF),
    }
}

/// writev(2): still one exit.
pub fn writev(kernel: &mut Kernel, fd: u64, vector: u64, count: u64) -> Answer {
    let Open::Device(device) = *kernel.files.get(fd)? else {
        return Err(EBADF);
    };
    let Some(op) = sink(device)? else {
        return each_vector(kernel, vector, count, |_, _, length| Ok(length));
    };
    if count > IOVECS_MAX {
        return Err(EINVAL);
    }
    let mut segments = [Segment { address: 0, length: 0 }; MAX_SEGMENTS];
    let mut used = 0;
    for i in 0..count {
        let (address, length) = (kernel.word(vector + i * IOVEC)?, kernel.word(vector + i * IOVEC + 8)?);
        if length > 0 {
            used = kernel.pieces(address, length.min(TRANSFER_MAX), READ, &mut segments, used)?;
        }
    }
    if used == 0 {
        return Ok(0);
    }
    let written = host::ring_all(op, &segments[..used]);
    written_or_signal(kernel, written)
}

/// Calls `work` for each part of an iovec list, until one does less than it might.
fn each_vector(
    kernel: &mut Kernel,
    vector: u64,
    count: u64,
    mut work: impl FnMut(&mut Kernel, u64, u64) -> Answer,
) -> Answer {
    if count > IOVECS_MAX {
        return Err(EINVAL);
    }
    let mut total = 0;
    for i in 0..count {
        let (address, length) = (kernel.word(vector + i * IOVEC)?, kernel.word(vector + i * IOVEC + 8)?);
        if length == 0 {
            continue;
        }
        match work(kernel, address, length) {
            Ok(done) => {
                total += done;
                if done < length {
                    break;
                }
            }
            Err(error) if total == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(total)
}

/// A reader that went away ends the program, as SIGPIPE does, unless it asked to hear of it by an error.
fn written_or_signal(kernel: &mut Kernel, result: i64) -> Answer {
    if result == -i64::from(EPIPE.0) && kernel.handlers[SIGPIPE as usize] == 0 {
        super::process::end(kernel, protocol::status::SIGNAL_BASE + SIGPIPE);
    }
    answer(result)
}

fn answer(result: i64) -> Answer {
    u64::try_from(result).map_err(|_| Errno(result.unsigned_abs() as u16))
}

/// poll(2): everything open is always ready; a standard input without data makes the read wait instead.
pub fn poll(kernel: &mut Kernel, list: u64, count: u64) -> Answer {
    if count > crate::files::DESCRIPTORS as u64 {
        return Err(EINVAL);
    }
    let mut ready = 0;
    for i in 0..count {
        let entry = list + i * 8;
        let word = kernel.word(entry)?;
        let (fd, wanted) = (word as u32 as i32, (word >> 32) as u16);
        let events = match kernel.files.get(fd as u32 as u64) {
            _ if fd < 0 => 0,
            Ok(_) => wanted & (POLLIN | POLLOUT),
            Err(_) => POLLNVAL,
        };
        ready += u64::from(events != 0);
        kernel.copy_out(entry + 6, &events.to_le_bytes())?;
    }
    Ok(ready)
}

/// ioctl(2): the console is a stream, not a terminal, and nothing else takes requests either.
pub fn ioctl(kernel: &mut Kernel, fd: u64) -> Answer {
    kernel.files.get(fd)?;
    Err(ENOTTY)
}
