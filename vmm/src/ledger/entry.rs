//! One exit.

use std::fmt::Write as _;
use std::io::{self, Write};

use kvm_ioctls::VcpuExit;

use super::symbols::Symbols;

/// Why the guest left, in the words of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `in`, from a port that is not KVM's own.
    PortRead,
    /// `out`.
    PortWrite,
    /// A load from an address without memory.
    MemoryRead,
    /// A store to one.
    MemoryWrite,
    /// `hlt` on a machine without interrupt controllers.
    Halt,
    /// One instruction of a vCPU that is single-stepped.
    Step,
    /// A signal called the vCPU out.
    Signal,
    /// Triple fault.
    Shutdown,
    /// KVM could not emulate an instruction.
    NotEmulated,
    /// Anything else KVM says.
    Other,
}

impl Reason {
    /// Reason, address (port or guest-physical) and number of bytes.
    pub fn of(exit: &Result<VcpuExit, kvm_ioctls::Error>) -> (Reason, u64, u32) {
        match exit {
            Ok(VcpuExit::IoIn(port, data)) => (Reason::PortRead, (*port).into(), data.len() as u32),
            Ok(VcpuExit::IoOut(port, data)) => (Reason::PortWrite, (*port).into(), data.len() as u32),
            Ok(VcpuExit::MmioRead(address, data)) => (Reason::MemoryRead, *address, data.len() as u32),
            Ok(VcpuExit::MmioWrite(address, data)) => (Reason::MemoryWrite, *address, data.len() as u32),
            Ok(VcpuExit::Hlt) => (Reason::Halt, 0, 0),
            Ok(VcpuExit::Debug(_)) => (Reason::Step, 0, 0),
            Ok(VcpuExit::Intr) => (Reason::Signal, 0, 0),
            Err(error) if error.errno() == libc::EINTR => (Reason::Signal, 0, 0),
            Ok(VcpuExit::Shutdown) => (Reason::Shutdown, 0, 0),
            Ok(VcpuExit::InternalError) => (Reason::NotEmulated, 0, 0),
            _ => (Reason::Other, 0, 0),
        }
    }

    /// What the trace and the summary call it.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::PortRead => "port read",
            Reason::PortWrite => "port write",
            Reason::MemoryRead => "memory read",
            Reason::MemoryWrite => "memory write",
            Reason::Halt => "halt",
            Reason::Step => "step",
            Reason::Signal => "signal",
            Reason::Shutdown => "shutdown",
            Reason::NotEmulated => "not emulated",
            Reason::Other => "other",
        }
    }

    /// Whether [`Entry::address`] says something.
    const fn has_address(self) -> bool {
        matches!(
            self,
            Reason::PortRead | Reason::PortWrite | Reason::MemoryRead | Reason::MemoryWrite
        )
    }
}

/// One exit.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// When KVM_RUN returned, on CLOCK_MONOTONIC.
    pub left_ns: u64,
    /// How long the guest had run before, KVM's own work for it included.
    pub guest_ns: u64,
    /// How long it was in our hands.
    pub host_ns: u64,
    /// Why it left.
    pub reason: Reason,
    /// Whom it wanted; None where nobody answers.
    pub device: Option<&'static str>,
    /// Port or guest-physical address.
    pub address: u64,
    /// How many bytes it moved: the width of the access times its repetitions.
    pub bytes: u32,
    /// The guest's instruction pointer as KVM leaves it: at the instruction, or, where KVM had carried it out before it
    /// asked us (a store to a device), at the next. None where it is not known: a triple
    /// fault on AMD takes it along, and a halt for ever is written down before anybody asks.
    pub rip: Option<u64>,
}

impl Entry {
    /// Writes the entry as one JSON line.
    pub fn write(&self, vcpu: usize, symbols: &Symbols, to: &mut impl Write) -> io::Result<()> {
        let Entry {
            left_ns,
            guest_ns,
            host_ns,
            reason,
            device,
            address,
            bytes,
            rip,
        } = self;
        write!(
            to,
            r#"{{"vcpu":{vcpu},"left_ns":{left_ns},"guest_ns":{guest_ns},"host_ns":{host_ns},"reason":"{}""#,
            reason.name()
        )?;
        if let Some(device) = device {
            write!(to, r#","device":"{device}""#)?;
        }
        if reason.has_address() {
            write!(to, r#","address":"{address:#x}","bytes":{bytes}"#)?;
        }
        if let Some(rip) = rip {
            write!(to, r#","rip":"{rip:#x}""#)?;
        }
        if let Some(place) = rip.and_then(|rip| symbols.at(rip)) {
            write!(to, r#","symbol":{}"#, quoted(&place.to_string()))?;
        }
        writeln!(to, "}}")
    }
}

/// `text` as a JSON string: names in a kernel's file are anybody's to choose.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            // Writing to a String does not fail.
            letter if letter < ' ' => drop(write!(out, "\\u{:04x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_the_kernels_symbols_are_called() {
        let symbols = Symbols::from_map("0000000000001000 T we\"ird\\\u{1}name\n");
        let entry = Entry {
            left_ns: 5,
            guest_ns: 6,
            host_ns: 7,
            reason: Reason::PortWrite,
            device: Some("serial"),
            address: 0x3f8,
            bytes: 1,
            rip: Some(0x1004),
        };
        let mut line = Vec::new();
        entry.write(2, &symbols, &mut line).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(json["symbol"], "we\"ird\\\u{1}name+0x4");
        assert_eq!((&json["vcpu"], &json["host_ns"]), (&2.into(), &7.into()));
        assert_eq!((&json["address"], &json["rip"]), (&"0x3f8".into(), &"0x1004".into()));
        assert_eq!(
            (&json["reason"], &json["device"]),
            (&"port write".into(), &"serial".into())
        );
    }
}
