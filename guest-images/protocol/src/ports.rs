//! The I/O ports of the lab's machine.
//!
//! A port write is the cheapest way for a guest to call its host: one `out` instruction, one exit, no device model.
//! The lab's own ports sit at 0x0c00, which no PC device claims (the ranges in use are listed in the Linux kernel's
//! `/proc/ioports` of any PC).

/// First serial port (COM1), an 8250/16550A. One exit per byte: the price of pretending to be a chip from 1987.
pub const SERIAL: u16 = 0x3f8;
/// Number of ports the serial port's registers take.
pub const SERIAL_LEN: u16 = 8;

/// 8-bit write: a [`Phase`](crate::phase::Phase) code. The host notes the time. At "user mode entry" RCX holds the
/// address at which the program will find its 16 random bytes.
pub const MARK: u16 = 0x0c00;
/// 32-bit or 8-bit write: the guest is done; the value is its exit status (see [`status`](crate::status)).
pub const EXIT: u16 = 0x0c04;
/// 32-bit write: the guest kernel itself failed, after saying why on the serial port.
pub const PANIC: u16 = 0x0c08;
/// 32-bit write: guest-physical address of a [`Request`](crate::doorbell::Request) for the host.
pub const DOORBELL: u16 = 0x0c0c;
/// 8-bit write: nothing happens. In the ledger (`vmm run --trace`) it divides what came before from what follows.
pub const DIVIDER: u16 = 0x0c18;
/// 8-bit read: how often this machine has been restored from a snapshot (255: so often or oftener); 0 in a machine that
/// booted.
pub const GENERATION: u16 = 0x0c10;
/// 8-bit read: a random byte from the host, another one every time.
pub const RANDOM: u16 = 0x0c14;
