//! The serial port: a 16550A, byte by byte, as every PC kernel knows it before it knows anything else.
//!
//! vm-superio models the chip's registers. What the guest sends goes to standard error for the lab kernel (which uses
//! it for its last words only) and to standard output for any other kernel (whose console it is). On a PC the chip also
//! interrupts, and standard input comes in through it.
//!
//! What it costs a Linux guest: 1.5 exits for each byte it prints, one for the byte and the rest for the interrupt that comes
//! after every 16 (what is it, is there room, what does the modem say). 40 lines of 34 bytes were 2021 exits; the
//! virtio console ([`crate::virtio::console`]) took 120. Counted with `vmm run --trace` in the testbed. `lab line` prints one line by every way there is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};

use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial as Chip, Trigger};

use crate::input::{Gate, Waker};
use crate::interrupts::Line;

/// The first serial port's interrupt line on every PC.
pub const LINE: u32 = 4;

/// The port of a snapshot could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot restore the serial port: {0}")]
pub struct Error(String);

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere: no cable is plugged in.
    Nobody,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stdout => io::stdout().write(bytes),
            Output::Stderr => io::stderr().write(bytes),
            Output::Nobody => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout => io::stdout().flush(),
            Output::Stderr => io::stderr().flush(),
            Output::Nobody => Ok(()),
        }
    }
}

/// The chip's interrupt. Without controllers there is none, and the guest polls the line status register.
struct Interrupt(Option<Line>);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), Line::raise)
    }
}

const CTRL_D: u8 = 4;
const STDIN: RawFd = libc::STDIN_FILENO;

/// The chip's registers and what it has received, for a snapshot.
#[cfg_attr(feature = "driver", derive(Default))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    registers: [u8; 9],
    received: Vec<u8>,
}

impl From<SerialState> for State {
    fn from(chip: SerialState) -> State {
        State {
            registers: [
                chip.baud_divisor_low,
                chip.baud_divisor_high,
                chip.interrupt_enable,
                chip.interrupt_identification,
                chip.line_control,
                chip.line_status,
                chip.modem_control,
                chip.modem_status,
                chip.scratch,
            ],
            received: chip.in_buffer,
        }
    }
}

impl From<State> for SerialState {
    fn from(state: State) -> SerialState {
        let [
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ] = state.registers;
        SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: state.received,
        }
    }
}

/// The port, and whether it ever carried output.
pub struct Serial {
    chip: Chip<Interrupt, NoEvents, Output>,
    /// Who is told when the guest has made room for more input; nobody where standard input is not ours to read.
    waker: Option<Waker>,
    /// What holds standard input back; None where it is not for this port.
    gate: Option<Gate>,
    /// The guest has sent a byte.
    pub spoke: bool,
}

/// Offset of the register that takes the next byte to send and gives the next one received.
const DATA: u8 = 0;
/// Offset of the register whose bit 0 says that the guest wants to be told of received bytes.
const INTERRUPT_ENABLE: u8 = 1;
const RECEIVED: u8 = 1 << 0;
/// Offset of the line control register; bit 7 turns offset 0 into the divisor latch.
const LINE_CONTROL: u8 = 3;
const DIVISOR_LATCH: u8 = 1 << 7;

impl Serial {
    /// A port that sends to `output` and never interrupts.
    pub fn polled(output: Output) -> Serial {
        Serial {
            chip: Chip::new(Interrupt(None), output),
            waker: None,
            gate: None,
            spoke: false,
        }
    }

    /// A port that sends to `output`, interrupts through `line`, and takes standard input when `gate` is open; without one,
    /// standard input is another device's.
    pub fn interrupting(output: Output, line: Line, waker: Waker, gate: Option<Gate>) -> Serial {
        Serial {
            chip: Chip::new(Interrupt(Some(line)), output),
            waker: Some(waker),
            gate,
            spoke: false,
        }
    }

    /// A port with interrupts, in the state it was in.
    ///
    /// # Errors
    /// When the interrupt that state calls for cannot be raised, or it has received more than the chip holds.
    pub fn restored(
        output: Output,
        line: Line,
        waker: Waker,
        gate: Option<Gate>,
        state: &State,
    ) -> Result<Serial, Error> {
        let chip = Chip::from_state(&state.clone().into(), Interrupt(Some(line)), NoEvents, output);
        Ok(Serial {
            chip: chip.map_err(|error| Error(format!("{error:?}")))?,
            waker: Some(waker),
            gate,
            spoke: false,
        })
    }

    /// The state it is in.
    pub fn state(&self) -> State {
        self.chip.state().into()
    }

    /// Where its output goes.
    pub fn output(&self) -> Output {
        *self.chip.writer()
    }

    /// Whether a write of this register would send a byte.
    pub fn sends(&mut self, offset: u8) -> bool {
        offset == DATA && self.chip.read(LINE_CONTROL) & DIVISOR_LATCH == 0
    }

    /// The guest writes a register, `offset` ports above the first.
    pub fn write(&mut self, offset: u8, value: u8) {
        self.spoke |= self.sends(offset);
        // A closed or full output is the reader's business; the guest's serial line has no way to learn of it.
        let _ = self.chip.write(offset, value);
        if let Some(waker) = self.waker.as_ref().filter(|_| offset == INTERRUPT_ENABLE) {
            waker.wake();
        }
    }

    /// The guest reads a register.
    pub fn read(&mut self, offset: u8) -> u8 {
        let was_full = self.chip.fifo_capacity() == 0;
        let value = self.chip.read(offset);
        if let Some(waker) = self
            .waker
            .as_ref()
            .filter(|_| was_full && self.chip.fifo_capacity() > 0)
        {
            waker.wake();
        }
        value
    }

    /// Standard input, while it is open, the chip has room and the guest listens: a driver empties the chip when it
    /// starts, and what came before would be lost.
    pub fn input(&self) -> Option<BorrowedFd<'static>> {
        let open = self.gate.as_ref().is_some_and(Gate::is_open);
        let listening = open && self.chip.state().interrupt_enable & RECEIVED != 0;
        // SAFETY: standard input is open for the life of the process.
        (self.waker.is_some() && listening && self.chip.fifo_capacity() > 0)
            .then(|| unsafe { BorrowedFd::borrow_raw(STDIN) })
    }

    /// Takes from standard input what the chip has room for.
    pub fn receive(&mut self) {
        let mut bytes = [0; 64];
        let room = self.chip.fifo_capacity().min(bytes.len());
        // Not std's handle, which would read ahead and keep what the chip has no room for.
        // SAFETY: as above, and ManuallyDrop never closes it.
        let mut stdin = ManuallyDrop::new(unsafe { File::from_raw_fd(STDIN) });
        match stdin.read(&mut bytes[..room]) {
            // At its end: the guest's terminal takes Ctrl-D for that, twice if a line was begun.
            Ok(0) => {
                self.waker = None;
                let _ = self.chip.enqueue_raw_bytes(&[CTRL_D; 2][..room.min(2)]);
            }
            Err(error) if error.kind() != io::ErrorKind::Interrupted => self.waker = None,
            // The chip has room, so it takes all; an interrupt that cannot be raised leaves the guest to poll.
            Ok(count) => drop(self.chip.enqueue_raw_bytes(&bytes[..count])),
            Err(_) => {}
        }
    }
}
