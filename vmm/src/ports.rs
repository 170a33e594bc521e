//! The machine's I/O ports: which device answers which address.

use protocol::doorbell::Request;
use protocol::marks::Marks;
use protocol::phase::Phase;
use protocol::ports;
use vm_memory::GuestMemoryMmap;

use crate::i8042;
use crate::input::Gate;
use crate::serial::Serial;
use crate::{doorbell, random};

/// What a port write means for the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Continue,
    /// The guest is done; its exit status.
    Exit(u8),
    /// The guest kernel gave up, after saying why on the serial port.
    Panic,
    /// The guest is where somebody wants a snapshot of it.
    Snapshot(Moment),
}

/// On which side of the instruction that left the guest a snapshot is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before: it has had no effect, and a clone executes it again.
    Before,
    /// After: its effect is done.
    After,
}

/// Everything behind the machine's I/O ports.
pub struct Ports {
    memory: GuestMemoryMmap,
    /// The first serial port.
    pub serial: Serial,
    marks: Marks,
    first_output_seen: bool,
    /// Opened when the guest's program starts.
    gate: Option<Gate>,
    /// Where to stop for a snapshot.
    stop_at: Option<Phase>,
    /// How often this machine has been restored from a snapshot.
    pub generation: u8,
}

/// What a read from a port nobody answers gives, as on a PC's bus: all lines high.
const NOBODY: u8 = 0xff;

impl Ports {
    /// The ports of a machine with this memory.
    pub fn new(memory: GuestMemoryMmap, serial: Serial, marks: Marks) -> Ports {
        Ports {
            memory,
            serial,
            marks,
            first_output_seen: false,
            gate: None,
            stop_at: None,
            generation: 0,
        }
    }

    /// From now on the guest opens this gate when its program starts.
    pub fn hold_input(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// From now on the machine stops at this mark.
    pub fn stop_at(&mut self, phase: Phase) {
        self.stop_at = Some(phase);
    }

    /// This is a clone: of which generation, and whether the guest had printed before.
    pub fn restored(&mut self, generation: u8, spoke: bool) {
        (self.generation, self.first_output_seen) = (generation, spoke);
    }

    /// The guest executed `out`: `data` is one value, or several of a string instruction.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Result<Outcome, doorbell::Error> {
        if self.stop_at == Some(Phase::FirstOutput) && self.is_output(port, data) {
            return Ok(Outcome::Snapshot(Moment::Before));
        }
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
                    if phase == Phase::UserModeEntry {
                        self.gate.iter().for_each(Gate::open);
                    }
                    if self.stop_at == Some(phase) {
                        return Ok(Outcome::Snapshot(Moment::After));
                    }
                }
            }
            ports::EXIT => match *data {
                [status] | [status, _, _, _] => return Ok(Outcome::Exit(status)),
                _ => {}
            },
            ports::PANIC => return Ok(Outcome::Panic),
            // ANCHOR: serial
            ports::SERIAL..=SERIAL_LAST => {
                for &byte in data {
                    self.serial.write((port - ports::SERIAL) as u8, byte);
                }
                if self.serial.spoke && !self.first_output_seen {
                    self.first_output_seen = true;
                    self.marks.mark(Phase::FirstOutput);
                }
            }
            // ANCHOR_END: serial
            i8042::COMMAND if i8042::resets(data) => return Ok(Outcome::Exit(0)),
            // A PC ignores writes nobody claims.
            _ => {}
        }
        Ok(Outcome::Continue)
    }

    /// Whether this write would print something.
    fn is_output(&mut self, port: u16, data: &[u8]) -> bool {
        match port {
            ports::DOORBELL => value(data).is_some_and(|address| doorbell::is_output(&self.memory, address.into())),
            ports::SERIAL..=SERIAL_LAST => self.serial.sends((port - ports::SERIAL) as u8),
            _ => false,
        }
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
            i8042::COMMAND => data.fill(i8042::STATUS),
            ports::GENERATION => data.fill(self.generation),
            // Without random bytes from the host the guest reads what an unclaimed port gives, never a made-up number.
            ports::RANDOM => {
                if random::fill(data).is_err() {
                    data.fill(NOBODY);
                }
            }
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
        ports::DIVIDER => Some("divider"),
        ports::SERIAL..=SERIAL_LAST => Some("serial"),
        i8042::DATA | i8042::COMMAND => Some("i8042"),
        _ => None,
    }
}

const SERIAL_LAST: u16 = ports::SERIAL + ports::SERIAL_LEN - 1;
const _: () = assert!(Request::SIZE < 4096, "a request fits into a page");

/// A 32-bit port takes exactly one 32-bit value; anything else is not addressed to it.
fn value(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_le_bytes)
}
