//! The kernel's only device: the host itself, behind four ports (see `protocol`).

use core::fmt::{self, Write};

use kernel::cell::Lone;
use kernel::layout::KERNEL_OFFSET;
use protocol::doorbell::{MAX_SEGMENTS, Request, Segment, op};
use protocol::phase::Phase;
use protocol::ports;

use crate::processor::{out8, out8_with, out32};

/// The one request in flight.
static REQUEST: Lone<Request> = Lone::new(Request {
    op: 0,
    count: 0,
    argument: 0,
    result: 0,
    segments: [Segment { address: 0, length: 0 }; MAX_SEGMENTS],
});

/// Rings the doorbell for one piece of physical memory. Bytes transferred, or a negative errno.
pub fn ring(op: u32, address: u64, length: u64) -> i64 {
    REQUEST.with(|request| {
        request.op = op;
        request.count = 1;
        request.segments[0] = Segment { address, length };
        submit(request)
    })
}

/// Rings the doorbell for several pieces of physical memory, [`MAX_SEGMENTS`] at most.
pub fn ring_all(op: u32, segments: &[Segment]) -> i64 {
    REQUEST.with(|request| {
        request.op = op;
        let count = segments.len().min(MAX_SEGMENTS);
        request.count = count as u32;
        request.segments[..count].copy_from_slice(&segments[..count]);
        submit(request)
    })
}

/// Has the host copy `length` bytes from one physical address to another, or zeros there when there is no `from`.
pub fn copy(from: Option<u64>, to: u64, length: u64) {
    if length == 0 {
        return;
    }
    let done = REQUEST.with(|request| {
        request.op = if from.is_some() { op::COPY } else { op::ZERO };
        request.argument = from.unwrap_or(0);
        request.count = 1;
        request.segments[0] = Segment { address: to, length };
        submit(request)
    });
    assert!(done == length as i64, "the host copied {done} bytes of {length}");
}

/// Has the host copy from one physical address into several pieces. Bytes copied, or a negative errno.
pub fn copy_all(from: u64, segments: &[Segment]) -> i64 {
    REQUEST.with(|request| request.argument = from);
    ring_all(op::COPY, segments)
}

/// Rings the doorbell for an operation that takes a number.
pub fn ring_with(op: u32, argument: u64) -> i64 {
    REQUEST.with(|request| {
        request.op = op;
        request.count = 0;
        request.argument = argument;
        submit(request)
    })
}

fn submit(request: &mut Request) -> i64 {
    // Statics lie in the kernel's image, whose physical addresses are below 4 GiB.
    let physical = (&raw const *request as u64).wrapping_sub(KERNEL_OFFSET);
    out32(ports::DOORBELL, physical as u32);
    // SAFETY: a valid reference; volatile because the host wrote it behind the compiler's back.
    unsafe { (&raw const request.result).read_volatile() }
}

/// Reports a phase. One exit; only for a host that asked.
#[inline(always)]
pub fn mark(phase: Phase) {
    out8(ports::MARK, phase.code());
}

/// Reports that the program is about to start, and in RCX where its random bytes lie: a host that stops the machine here
/// and starts it several times gives each its own ([`ports::MARK`]).
#[inline(always)]
pub fn mark_user_mode_entry(random: u64) {
    out8_with(ports::MARK, Phase::UserModeEntry.code(), random);
}

/// Ends the machine with this exit status.
pub fn exit(status: u8) -> ! {
    out32(ports::EXIT, status.into());
    crate::processor::halt()
}

/// Ends the machine because the kernel failed.
pub fn panic() -> ! {
    out32(ports::PANIC, 0);
    crate::processor::halt()
}

/// The serial port, for the kernel's last words: it needs no memory, no tables and nothing that may just have failed.
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            out8(ports::SERIAL, byte);
        }
        Ok(())
    }
}

/// The host's standard error, for reports about the program: a line at a time, one exit each.
pub struct Report {
    line: [u8; 512],
    length: usize,
}

static REPORT: Lone<Report> = Lone::new(Report {
    line: [0; 512],
    length: 0,
});

impl Report {
    /// Prints one line.
    pub fn line(text: fmt::Arguments<'_>) {
        REPORT.with(|report| {
            report.length = 0;
            // A line that is too long is cut: write_str never fails.
            let _ = writeln!(report, "lab kernel: {text}");
            if report.length == report.line.len() {
                report.line[report.length - 1] = b'\n';
            }
            let physical = (report.line.as_ptr() as u64).wrapping_sub(KERNEL_OFFSET);
            ring(protocol::doorbell::op::WRITE_STDERR, physical, report.length as u64);
        });
    }
}

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.line[self.length..];
        let count = room.len().min(text.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}
