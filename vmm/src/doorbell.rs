//! The doorbell: the guest rings once and the host does a whole piece of work. One exit for each request, however long.
//!
//! The request lies in guest memory (see [`protocol::doorbell`]), and so does the data. Both are the guest's to choose
//! and therefore suspect: every address and length goes through vm-memory, which knows what is guest memory.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::time::Duration;

use protocol::doorbell::{MAX_SEGMENTS, MAX_TRANSFER, Request, Segment, op};
use vm_memory::{
    ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, ReadVolatile, VolatileMemoryError,
    VolatileSlice, WriteVolatile,
};

/// The guest rang for something that is not in its memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself is not.
    #[error("the guest rang the doorbell for a request at {0:#x}, which is not its memory")]
    Request(u64),
}

/// What became of a request, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Output of the workload.
    Output,
    /// Anything else.
    Other,
}

/// Serves the request at guest-physical `address`.
///
/// `before` is called when the request is known and not yet done: the moment of first output is before the bytes leave.
pub fn serve(memory: &GuestMemoryMmap, address: u64, before: impl FnOnce(Served)) -> Result<(), Error> {
    let bad = |_| Error::Request(address);
    let request = memory.read_obj::<Wire>(GuestAddress(address)).map_err(bad)?.0;
    let writes = matches!(request.op, op::WRITE_STDOUT | op::WRITE_STDERR);
    before(if writes { Served::Output } else { Served::Other });
    let result = match perform(memory, &request) {
        Ok(count) => count as i64,
        Err(errno) => -i64::from(errno),
    };
    let answer = address
        .checked_add(Request::RESULT_OFFSET)
        .ok_or(Error::Request(address))?;
    memory
        .write_obj(result, GuestAddress(answer))
        .map_err(|_| Error::Request(address))
}

/// Whether the request at guest-physical `address` is to print something.
pub fn is_output(memory: &GuestMemoryMmap, address: u64) -> bool {
    let request = memory.read_obj::<Wire>(GuestAddress(address));
    request.is_ok_and(|Wire(request)| matches!(request.op, op::WRITE_STDOUT | op::WRITE_STDERR))
}

/// Bytes transferred, or a Linux errno.
fn perform(memory: &GuestMemoryMmap, request: &Request) -> Result<u64, i32> {
    let segments = request.segments.get(..request.count as usize).ok_or(libc::EINVAL)?;
    match request.op {
        op::WRITE_STDOUT => transfer(memory, segments, |slice| to_host(libc::STDOUT_FILENO, slice)),
        op::WRITE_STDERR => transfer(memory, segments, |slice| to_host(libc::STDERR_FILENO, slice)),
        op::READ_STDIN => transfer(memory, segments, |slice| from_host(libc::STDIN_FILENO, slice)),
        op::RANDOM => transfer(memory, segments, random),
        op::CLOCK => clock(memory, segments),
        op::SLEEP => {
            sleep(request.argument);
            Ok(0)
        }
        op::COPY => copy(memory, request.argument, segments),
        op::ZERO => transfer(memory, segments, |slice| {
            slice.write_slice(&ZEROS[..slice.len()], 0).map_err(|_| libc::EFAULT)?;
            Ok(slice.len())
        }),
        _ => Err(libc::ENOSYS),
    }
}

/// Moves the segments one after another, until one moves less than it holds or the longest transfer is reached.
fn transfer(
    memory: &GuestMemoryMmap,
    segments: &[Segment],
    mut one: impl FnMut(&mut VolatileSlice<'_>) -> Result<usize, i32>,
) -> Result<u64, i32> {
    let mut moved = 0;
    for segment in segments {
        let length = segment.length.min(MAX_TRANSFER - moved);
        if length == 0 {
            continue;
        }
        let mut slice = memory
            .get_slice(GuestAddress(segment.address), length as usize)
            .map_err(|_| libc::EFAULT)?;
        match one(&mut slice) {
            Ok(count) => {
                moved += count as u64;
                if (count as u64) < length {
                    break;
                }
            }
            Err(errno) if moved == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(moved)
}

fn to_host(fd: RawFd, slice: &mut VolatileSlice<'_>) -> Result<usize, i32> {
    retry(fd, libc::POLLOUT, |file| file.write_volatile(slice))
}

fn from_host(fd: RawFd, slice: &mut VolatileSlice<'_>) -> Result<usize, i32> {
    retry(fd, libc::POLLIN, |file| file.read_volatile(slice))
}

/// Repeats what a signal interrupted, and waits where a descriptor somebody made non-blocking is not ready.
fn retry(
    fd: RawFd,
    ready: libc::c_short,
    mut io: impl FnMut(&mut File) -> Result<usize, VolatileMemoryError>,
) -> Result<usize, i32> {
    // SAFETY: one of the standard descriptors, open for the life of the process; ManuallyDrop never closes it.
    let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    loop {
        match io(&mut file) {
            Ok(count) => return Ok(count),
            Err(VolatileMemoryError::IOError(error)) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => {
                    let mut waiting = libc::pollfd {
                        fd,
                        events: ready,
                        revents: 0,
                    };
                    // SAFETY: one pollfd, and its count.
                    unsafe { libc::poll(&mut waiting, 1, -1) };
                }
                errno => return Err(errno.unwrap_or(libc::EIO)),
            },
            Err(_) => return Err(libc::EFAULT),
        }
    }
}

fn random(slice: &mut VolatileSlice<'_>) -> Result<usize, i32> {
    let mut bytes = [0u8; 256];
    let mut done = 0;
    while done < slice.len() {
        let part = (slice.len() - done).min(bytes.len());
        crate::random::fill(&mut bytes[..part]).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        slice.write_slice(&bytes[..part], done).map_err(|_| libc::EFAULT)?;
        done += part;
    }
    Ok(done)
}

static ZEROS: [u8; MAX_TRANSFER as usize] = [0; MAX_TRANSFER as usize];

/// Copies from `source` on into one segment after the other.
fn copy(memory: &GuestMemoryMmap, mut source: u64, segments: &[Segment]) -> Result<u64, i32> {
    transfer(memory, segments, |slice| {
        let from = memory
            .get_slice(GuestAddress(source), slice.len())
            .map_err(|_| libc::EFAULT)?;
        from.copy_to_volatile_slice(*slice);
        // The slice was guest memory, so the sum is below the end of the address space.
        source += slice.len() as u64;
        Ok(slice.len())
    })
}

fn clock(memory: &GuestMemoryMmap, segments: &[Segment]) -> Result<u64, i32> {
    let times = [nanoseconds(libc::CLOCK_REALTIME), nanoseconds(libc::CLOCK_MONOTONIC)];
    let first = segments
        .first()
        .filter(|segment| segment.length >= 16)
        .ok_or(libc::EINVAL)?;
    memory
        .write_obj(times, GuestAddress(first.address))
        .map_err(|_| libc::EFAULT)?;
    Ok(16)
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills `time`; both clocks always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Sleeps the whole time: `std` goes on where a signal interrupted.
fn sleep(nanoseconds: u64) {
    std::thread::sleep(Duration::from_nanos(nanoseconds));
}

/// A request as bytes.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct Wire(Request);

const _: () = assert!(size_of::<Request>() == 24 + 16 * MAX_SEGMENTS, "no padding");

// SAFETY: integers only and no padding (checked above): any bytes are a valid request.
unsafe impl ByteValued for Wire {}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x10_0000;

    fn ring(request: Request) -> (GuestMemoryMmap, i64) {
        let memory = crate::memory::reserve(4 << 20).unwrap();
        memory.write_obj(Wire(request), GuestAddress(AT)).unwrap();
        serve(&memory, AT, |_| {}).unwrap();
        let result = memory.read_obj(GuestAddress(AT + Request::RESULT_OFFSET)).unwrap();
        (memory, result)
    }

    fn request(op: u32, segments: &[(u64, u64)]) -> Request {
        let mut request = Request {
            op,
            count: segments.len() as u32,
            ..Default::default()
        };
        for (to, &(address, length)) in request.segments.iter_mut().zip(segments) {
            *to = Segment { address, length };
        }
        request
    }

    #[test]
    fn random_bytes_fill_every_segment_and_differ() {
        let (memory, result) = ring(request(op::RANDOM, &[(0x20_0000, 32), (0x30_0000, 600)]));
        assert_eq!(result, 632);
        let mut bytes = [0u8; 32];
        memory.read_slice(&mut bytes, GuestAddress(0x20_0000)).unwrap();
        assert_ne!(bytes, [0; 32]);
    }

    #[test]
    fn addresses_outside_memory_are_efault_and_never_touch_the_host() {
        for (address, length) in [
            (4 << 20, 1),
            (u64::MAX, 8),
            ((4 << 20) - 4, 8),
            (u64::MAX - 3, u64::MAX),
        ] {
            let (_, result) = ring(request(op::RANDOM, &[(address, length)]));
            assert_eq!(result, -i64::from(libc::EFAULT), "{address:#x}+{length:#x}");
        }
    }

    #[test]
    fn a_long_transfer_is_cut_short_and_says_so() {
        let (_, result) = ring(request(op::RANDOM, &[(0x20_0000, 1 << 20), (0x20_0000, 1 << 20)]));
        assert_eq!(result, MAX_TRANSFER as i64);
    }

    #[test]
    fn a_copy_goes_from_one_place_into_several() {
        let memory = crate::memory::reserve(4 << 20).unwrap();
        memory.write_slice(b"0123456789", GuestAddress(0x20_0000)).unwrap();
        let mut copy = request(op::COPY, &[(0x30_0000, 4), (0x30_1000, 6)]);
        copy.argument = 0x20_0000;
        memory.write_obj(Wire(copy), GuestAddress(AT)).unwrap();
        serve(&memory, AT, |_| {}).unwrap();
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x30_0000)).unwrap(), *b"0123");
        assert_eq!(
            memory.read_obj::<[u8; 7]>(GuestAddress(0x30_1000)).unwrap(),
            *b"456789\0"
        );
        for source in [4 << 20, u64::MAX - 2] {
            let mut copy = request(op::COPY, &[(0x30_0000, 4)]);
            copy.argument = source;
            let (_, result) = ring(copy);
            assert_eq!(result, -i64::from(libc::EFAULT));
        }
        let mut zero = request(op::ZERO, &[(0x20_0000, 5)]);
        zero.argument = 1;
        memory.write_obj(Wire(zero), GuestAddress(AT)).unwrap();
        serve(&memory, AT, |_| {}).unwrap();
        assert_eq!(
            memory.read_obj::<[u8; 10]>(GuestAddress(0x20_0000)).unwrap(),
            *b"\x00\x00\x00\x00\x0056789"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let (_, result) = ring(request(99, &[]));
        assert_eq!(result, -i64::from(libc::ENOSYS));
        let (_, result) = ring(Request {
            op: op::RANDOM,
            count: 17,
            ..Default::default()
        });
        assert_eq!(result, -i64::from(libc::EINVAL));
        let (_, result) = ring(request(op::CLOCK, &[(0x20_0000, 15)]));
        assert_eq!(result, -i64::from(libc::EINVAL));
        let memory = crate::memory::reserve(4 << 20).unwrap();
        for address in [4 << 20, u64::MAX, (4 << 20) - 8] {
            assert!(serve(&memory, address, |_| {}).is_err());
        }
    }

    #[test]
    fn the_clock_is_the_hosts() {
        let before = nanoseconds(libc::CLOCK_MONOTONIC);
        let (memory, result) = ring(request(op::CLOCK, &[(0x20_0000, 16)]));
        assert_eq!(result, 16);
        let [_, monotonic]: [u64; 2] = memory.read_obj(GuestAddress(0x20_0000)).unwrap();
        assert!((before..=nanoseconds(libc::CLOCK_MONOTONIC)).contains(&monotonic));
    }
}
