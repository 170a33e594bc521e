//! A console without an exit per byte.
//!
//! What the guest writes: buffers of text into the second queue, and empty buffers into the first, for what is typed. What
//! the host answers: it prints, and fills. The serial port ([`crate::serial`]) needs an exit for each byte and two more to
//! ask whether the byte is gone; here a line is one.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

use protocol::marks::Marks;
use protocol::phase::Phase;

use super::device::Device;
use super::queue::{Malformed, Queues};
use crate::input::Gate;

/// Virtio 1.2, section 5.3.
const ID: u32 = 3;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CTRL_D: u8 = 4;

/// The device.
pub struct Console {
    input: BorrowedFd<'static>,
    output: BorrowedFd<'static>,
    gate: Gate,
    marks: Marks,
    /// The guest has printed.
    spoke: bool,
    /// The input has not come to its end.
    open: bool,
}

impl Console {
    /// A console on standard output and, when `gate` is open, standard input, which marks the guest's first output.
    pub fn new(gate: Gate, marks: Marks) -> Console {
        // SAFETY: both are open for the life of the process.
        let [input, output] =
            [libc::STDIN_FILENO, libc::STDOUT_FILENO].map(|standard| unsafe { BorrowedFd::borrow_raw(standard) });
        Console::between(input, output, gate, marks)
    }

    /// The same between any two descriptors.
    pub fn between(input: BorrowedFd<'static>, output: BorrowedFd<'static>, gate: Gate, marks: Marks) -> Console {
        Console {
            input,
            output,
            gate,
            marks,
            spoke: false,
            open: true,
        }
    }
}

impl Device for Console {
    fn name(&self) -> &'static str {
        "virtio-console"
    }

    fn id(&self) -> u32 {
        ID
    }

    /// Neither a size (the host's terminal knows it and the guest does not need it), nor several ports.
    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &'static [u16] {
        &[64, 64]
    }

    fn serve(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Malformed> {
        if index != TRANSMIT {
            return Ok(());
        }
        // Whatever is buffered of our own comes first.
        let _ = io::stdout().flush();
        for _ in 0..queues.size(TRANSMIT) {
            let Some(mut chain) = queues.take(TRANSMIT)? else { break };
            while !chain.readable.is_empty() {
                let written = chain
                    .readable
                    // SAFETY: the list is of memory that outlives the call.
                    .transfer(|list, count| unsafe { libc::writev(self.output.as_raw_fd(), list, count) });
                // A closed output is the reader's business, as it is for the serial port.
                if written.is_err() {
                    break;
                }
                if !self.spoke {
                    self.spoke = true;
                    self.marks.mark(Phase::FirstOutput);
                }
            }
            queues.give_back(TRANSMIT, &chain, 0)?;
        }
        Ok(())
    }

    fn input_queue(&self) -> Option<usize> {
        Some(RECEIVE)
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        (self.open && self.gate.is_open()).then_some(self.input)
    }

    fn receive(&mut self, queues: &mut Queues<'_>) -> Result<(), Malformed> {
        let Some(mut chain) = queues.take(RECEIVE)? else {
            return Ok(());
        };
        let mut room = chain.writable.clone();
        // SAFETY: the list is of memory that outlives the call.
        let read = room.transfer(|list, count| unsafe { libc::readv(self.input.as_raw_fd(), list, count) });
        let written = match read {
            Ok(0) | Err(_) if !chain.writable.is_empty() => {
                self.open = false;
                // At its end: the guest's terminal takes Ctrl-D for that, twice if a line was begun.
                chain.writable.write(&[CTRL_D; 2])
            }
            Ok(count) => count,
            Err(_) => 0,
        };
        queues.give_back(RECEIVE, &chain, written)
    }
}
