//! Requests: what the guest asks of the host by ringing [`ports::DOORBELL`](crate::ports::DOORBELL).
//!
//! The guest fills a [`Request`] in its own memory, writes its physical address to the port, and finds
//! [`Request::result`] filled when the `out` instruction returns. One exit per request, whatever its length; a serial
//! port takes one per byte. Virtio grew from the same observation.
//!
//! The host treats every field as hostile: it checks each address and length against the guest's memory.

/// What a [`Request`] asks for.
pub mod op {
    /// Write the segments to the host's standard output. Result: bytes written.
    pub const WRITE_STDOUT: u32 = 1;
    /// Write the segments to the host's standard error. Result: bytes written.
    pub const WRITE_STDERR: u32 = 2;
    /// Read from the host's standard input into the segments. Result: bytes read, 0 at its end.
    pub const READ_STDIN: u32 = 3;
    /// Fill the segments with random bytes from the host. Result: bytes filled.
    pub const RANDOM: u32 = 4;
    /// Write the host's CLOCK_REALTIME, then CLOCK_MONOTONIC, as two little-endian u64 of nanoseconds into the first
    /// segment (16 bytes). Result: 16.
    pub const CLOCK: u32 = 5;
    /// Sleep for [`Request::argument`](super::Request::argument) nanoseconds. Result: 0.
    pub const SLEEP: u32 = 6;
    /// Copy guest memory from physical address [`Request::argument`](super::Request::argument) on into the segments,
    /// as the DMA engine of a disk controller would. Source and segments must not overlap. Result: bytes copied.
    ///
    /// A processor copies a page in a tenth of a microsecond. A KVM that interprets the guest's kernel needs half a
    /// millisecond for the same `rep movs`, and one exit is fifty times cheaper.
    pub const COPY: u32 = 7;
    /// Fill the segments with zeros. Result: bytes filled.
    pub const ZERO: u32 = 8;
}

/// Most segments one request can carry. A transfer that needs more is cut short and reports how far it came, as
/// writev(2) may.
pub const MAX_SEGMENTS: usize = 16;

/// Longest transfer of one request in bytes, all segments together. A longer one is cut short.
pub const MAX_TRANSFER: u64 = 1 << 20;

/// A piece of guest-physical memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

/// One request, as it lies in guest memory (little-endian, 16-byte header, then result, argument and segments).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What is asked: a constant of [`op`].
    pub op: u32,
    /// How many of the segments are used.
    pub count: u32,
    /// A number some operations take.
    pub argument: u64,
    /// Filled by the host: bytes transferred, or a negative Linux errno.
    pub result: i64,
    /// Where the data is.
    pub segments: [Segment; MAX_SEGMENTS],
}

impl Request {
    /// Size of a request in guest memory, in bytes.
    pub const SIZE: usize = core::mem::size_of::<Request>();
    /// Offset of [`Request::result`], in bytes.
    pub const RESULT_OFFSET: u64 = core::mem::offset_of!(Request, result) as u64;
    /// Offset of [`Request::segments`], in bytes.
    pub const SEGMENTS_OFFSET: u64 = core::mem::offset_of!(Request, segments) as u64;
}
