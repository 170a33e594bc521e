//! A console without an exit per byte.
//!
//! What the guest writes: buffers of text into the second queue, and empty buffers into the first, for what is typed. What
//! the host answers: it prints, and fills.
//!
//! What it costs: 3 exits for a line, however long: the notification, and the interrupt's two. The serial port
//! ([`crate::serial`]) takes 1.5 for each byte.

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
            // Somebody else was faster at a terminal we share: the buffer is for what comes next.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                queues.put_back(RECEIVE);
                return Ok(());
            }
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::super::driver::{BUFFERS, Driver};
    use super::*;
    use crate::bus::Device as _;
    use crate::input::Waker;

    #[test]
    fn a_wake_for_nothing_is_not_the_end_of_input() {
        let (input, mut keyboard) = UnixStream::pair().unwrap();
        input.set_nonblocking(true).unwrap();
        let input = OwnedFd::from(input);
        let output = OwnedFd::from(std::fs::File::options().write(true).open("/dev/null").unwrap());
        // SAFETY: both are closed after the device, at the end of this test.
        let [from, to] = [&input, &output].map(|end| unsafe { BorrowedFd::borrow_raw(end.as_raw_fd()) });
        let gate = Gate::new(Waker::new().unwrap(), true);
        let mut driver = Driver::started(Box::new(Console::between(from, to, gate, Marks::new(None, "test"))));
        driver.request(RECEIVE, &[(BUFFERS, 16)], 0);
        driver.transport.receive();
        assert_eq!(driver.done(RECEIVE), []);
        keyboard.write_all(b"typed").unwrap();
        assert!(driver.transport.input().is_some());
        driver.transport.receive();
        assert_eq!(driver.done(RECEIVE), [(0, 5)]);
        assert_eq!(driver.get(BUFFERS, 5), b"typed");
        // And now it is.
        drop(keyboard);
        driver.request(RECEIVE, &[(BUFFERS, 16)], 0);
        driver.transport.receive();
        assert_eq!(
            (driver.done(RECEIVE), driver.get(BUFFERS, 2)),
            (vec![(0, 2)], vec![CTRL_D; 2])
        );
        assert!(driver.transport.input().is_none());
    }
}
