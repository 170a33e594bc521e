//! The host's side of marks: one JSON line per phase to a file descriptor the harness passed in.
//!
//! `{"name":"VM created","ns":81273640001234,"emitter":"vmm"}`, with `ns` on CLOCK_MONOTONIC, the clock the harness
//! reads too. Marks never travel with the workload's output, and cost one branch when nobody asked for them.

use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use crate::phase::Phase;

/// Where a launcher reports its phases, if anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    to: Option<Destination>,
    emitter: &'static str,
}

/// Room for a line with the longest names of a phase and an emitter. A longer line would not be written at all.
const LONGEST: usize = 160;

/// What becomes of a mark.
#[derive(Clone, Copy, Debug)]
enum Destination {
    /// A JSON line to this descriptor.
    Report(RawFd),
    /// Nothing, until this phase is complete: then a line to standard output and the end of the process.
    StopAt(Phase),
}

impl Marks {
    /// Reports to `fd` (nowhere when `None`) as `emitter`. The descriptor stays the caller's and is never closed here.
    pub const fn new(fd: Option<RawFd>, emitter: &'static str) -> Marks {
        let to = match fd {
            Some(fd) => Some(Destination::Report(fd)),
            None => None,
        };
        Marks { to, emitter }
    }

    /// Reports nothing; as soon as `phase` is complete, writes a line to standard output and ends the process. A launch
    /// that goes no further is one rung of a ladder: its finish line is where that phase ends.
    pub const fn stop_at(phase: Phase, emitter: &'static str) -> Marks {
        let to = Some(Destination::StopAt(phase));
        Marks { to, emitter }
    }

    /// The same destination under another emitter's name.
    pub const fn emitter(self, emitter: &'static str) -> Marks {
        Marks { to: self.to, emitter }
    }

    /// Whether anybody asked for marks.
    pub const fn wanted(&self) -> bool {
        self.to.is_some()
    }

    /// The descriptor they go to, if any.
    pub const fn descriptor(&self) -> Option<RawFd> {
        match self.to {
            Some(Destination::Report(fd)) => Some(fd),
            _ => None,
        }
    }

    /// Reports that `phase` is complete now.
    ///
    /// A reader that went away is no reason to stop a run: errors of the write are ignored.
    #[inline]
    pub fn mark(&self, phase: Phase) {
        if self.to.is_some() {
            self.mark_at(phase, monotonic_ns());
        }
    }

    /// Reports that `phase` was complete at `ns` nanoseconds on CLOCK_MONOTONIC.
    pub fn mark_at(&self, phase: Phase, ns: u64) {
        let fd = match self.to {
            None => return,
            Some(Destination::Report(fd)) => fd,
            Some(Destination::StopAt(last)) => {
                return if last == phase {
                    stop(phase)
                };
            }
        };
        let mut line = [0u8; LONGEST];
        let mut rest = &mut line[..];
        // Safe to call between clone and exec: no allocation, no lock.
        let fits = writeln!(
            rest,
            r#"{{"name":"{}","ns":{ns},"emitter":"{}"}}"#,
            phase.name(),
            self.emitter
        )
        .is_ok();
        let length = LONGEST - rest.len();
        if fits {
            // SAFETY: the pointer and length describe initialized bytes of `line`.
            unsafe { libc::write(fd, line.as_ptr().cast(), length) };
        }
    }
}

/// Says so and ends the process, all threads at once. What it holds the kernel takes back.
fn stop(phase: Phase) {
    let mut line = [0u8; LONGEST];
    let mut rest = &mut line[..];
    // It fits; and did it not, the finish line would be missed and the launch reported as failed.
    let _ = writeln!(rest, "stopped: {}", phase.name());
    let length = LONGEST - rest.len();
    // SAFETY: the pointer and length describe initialized bytes of `line`; _exit takes a number and does not return.
    unsafe {
        libc::write(libc::STDOUT_FILENO, line.as_ptr().cast(), length);
        libc::_exit(0)
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills the structure; CLOCK_MONOTONIC always exists, so the call cannot fail.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_mark_is_one_json_line() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        Marks::new(Some(writer.as_raw_fd()), "vmm").mark_at(Phase::VmCreated, 42);
        Marks::new(None, "vmm").mark(Phase::Exit);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "{\"name\":\"VM created\",\"ns\":42,\"emitter\":\"vmm\"}\n");
    }
}
