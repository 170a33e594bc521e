//! The machine's I/O ports: which device answers which address.

use protocol::doorbell::Request;
use protocol::marks::Marks;
use protocol::phase::Phase;
use protocol::ports;
use vm_memory::GuestMemoryMmap;

use crate::doorbell;
use crate::serial::Serial;

/// What a port write means for the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Continue,
    /// The guest is done; its exit status.
    Exit(u8),
    /// The guest kernel gave up, after saying why on the serial port.
    Panic,
}

/// Everything behind the machine's I/O ports.
pub struct Ports {
    memory: GuestMemoryMmap,
    /// The first serial port.
    pub serial: Serial,
    marks: Marks,
    first_output_seen: bool,
}

/// What a read from a port nobody answers gives, as on a PC's bus: all lines high.
const NOBODY: u8 = 0xff;
/// Keyboard controller command port; writing 0xfe here pulses the processor's reset line, the classic way to reboot.
const I8042_COMMAND: u16 = 0x64;
const I8042_RESET: u8 = 0xfe;
/// The keyboard controller's status: nothing to read, ready for a command.
const I8042_STATUS_IDLE: u8 = 0;

impl Ports {
    /// The ports of a machine with this memory.
    pub fn new(memory: GuestMemoryMmap, serial: Serial, marks: Marks) -> Ports {
        Ports {
            memory,
            serial,
            marks,
            first_output_seen: false,
        }
    }

    /// The guest executed `out`: `data` is one value, or several of a string instruction.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Result<Outcome, doorbell::Error> {
        match port {
            ports::DOORBELL => {
                if let Some(address) = value(data) {
                    let (first, marks) = (&mut self.first_output_seen, self.marks);
                    doorbell::serve(&self.memory, address.into(), |served| {
                        if served == doorbell::Served::Output && !*first {
                            *first = true;
                            marks.mark(Phase::FirstOutput);
                        }
                    })?;
                }
            }
            ports::MARK => {
                if let Some(phase) = data.first().and_then(|&code| Phase::from_code(code)) {
                    self.marks.emitter("guest").mark(phase);
                }
            }
            ports::EXIT => return Ok(value(data).map_or(Outcome::Continue, |status| Outcome::Exit(status as u8))),
            ports::PANIC => return Ok(Outcome::Panic),
            ports::SERIAL..=SERIAL_LAST => {
                for &byte in data {
                    self.serial.write((port - ports::SERIAL) as u8, byte);
                }
                if self.serial.spoke && !self.first_output_seen {
                    self.first_output_seen = true;
                    self.marks.mark(Phase::FirstOutput);
                }
            }
            I8042_COMMAND if data == [I8042_RESET] => return Ok(Outcome::Exit(0)),
            // A PC ignores writes nobody claims.
            _ => {}
        }
        Ok(Outcome::Continue)
    }

    /// Whether the guest has printed anything yet.
    pub fn spoke(&self) -> bool {
        self.first_output_seen
    }

    /// The guest executed `in`.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        match port {
            ports::SERIAL..=SERIAL_LAST => {
                for byte in data {
                    *byte = self.serial.read((port - ports::SERIAL) as u8);
                }
            }
            I8042_COMMAND => data.fill(I8042_STATUS_IDLE),
            _ => data.fill(NOBODY),
        }
    }
}

/// What the ledger calls the device behind a port; None where nobody answers.
pub fn name(port: u16) -> Option<&'static str> {
    match port {
        ports::DOORBELL => Some("doorbell"),
        ports::MARK => Some("mark"),
        ports::EXIT => Some("exit"),
        ports::PANIC => Some("panic"),
        ports::SERIAL..=SERIAL_LAST => Some("serial"),
        I8042_COMMAND => Some("i8042"),
        _ => None,
    }
}

const SERIAL_LAST: u16 = ports::SERIAL + ports::SERIAL_LEN - 1;
const _: () = assert!(Request::SIZE < 4096, "a request fits into a page");

/// A 32-bit port takes exactly one 32-bit value; anything else is not addressed to it.
fn value(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_le_bytes)
}
