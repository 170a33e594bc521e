//! The serial port: a 16550A, byte by byte, as every PC kernel knows it before it knows anything else.
//!
//! vm-superio models the chip's registers. What the guest sends goes to standard error for the lab kernel (which uses
//! it for its last words only) and to standard output for any other kernel (whose console it is).

use std::io::{self, Write};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial as Chip, Trigger};

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stdout => io::stdout().write(bytes),
            Output::Stderr => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout => io::stdout().flush(),
            Output::Stderr => io::stderr().flush(),
        }
    }
}

/// No interrupt controller, so no interrupt: the guest polls the line status register.
struct Polled;

impl Trigger for Polled {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The port, and whether it ever carried output.
pub struct Serial {
    chip: Chip<Polled, NoEvents, Output>,
    /// The guest has sent a byte.
    pub spoke: bool,
}

/// Offset of the register that takes the next byte to send.
const TRANSMIT: u8 = 0;
/// Offset of the line control register; bit 7 turns offset 0 into the divisor latch.
const LINE_CONTROL: u8 = 3;
const DIVISOR_LATCH: u8 = 1 << 7;

impl Serial {
    /// A port that sends to `output`.
    pub fn new(output: Output) -> Serial {
        Serial {
            chip: Chip::new(Polled, output),
            spoke: false,
        }
    }

    /// The guest writes a register, `offset` ports above the first.
    pub fn write(&mut self, offset: u8, value: u8) {
        if offset == TRANSMIT && self.chip.read(LINE_CONTROL) & DIVISOR_LATCH == 0 {
            self.spoke = true;
        }
        // A closed or full output is the reader's business; the guest's serial line has no way to learn of it.
        let _ = self.chip.write(offset, value);
    }

    /// The guest reads a register.
    pub fn read(&mut self, offset: u8) -> u8 {
        self.chip.read(offset)
    }
}
