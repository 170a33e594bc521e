//! What a guest reaches by `in` and `out`.

use std::cell::RefCell;

use arbitrary::{Arbitrary, Unstructured};
use protocol::doorbell::op;
use protocol::marks::Marks;
use protocol::ports as port;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::input::{Gate, Waker};
use vmm::interrupts::Line;
use vmm::ports::{Outcome, Ports};
use vmm::serial::{Output, Serial};
use vmm::{doorbell as bell, i8042 as keyboard};

use super::{MEMORY, RAM};

thread_local! {
    /// Made once: what an input left behind is what any guest may find.
    static DEVICES: RefCell<Ports> = RefCell::new(RAM.with(|ram| {
        Ports::new(ram.clone(), Serial::polled(Output::Nobody), Marks::new(None, "fuzz"))
    }));
}

/// A request at the doorbell, wherever it lies, whatever it says.
pub fn doorbell(data: &[u8]) {
    let Some((address, request)) = data.split_first_chunk::<4>() else {
        return;
    };
    // Around the last place where a request fits as well as in the middle.
    let address = u64::from(u32::from_le_bytes(*address)) % (MEMORY + 8);
    RAM.with(|ram| {
        let _ = ram.write(request, GuestAddress(address));
        harmless(ram, address);
        let _ = bell::serve(ram, address, |_| {});
    });
}

/// The operations that reach our own standard streams, or take the time the guest names, become one that only fills
/// memory: the walk over the segments is the same.
fn harmless(ram: &GuestMemoryMmap, address: u64) {
    let operation = ram.read_obj::<u32>(GuestAddress(address));
    let outside = [op::WRITE_STDOUT, op::WRITE_STDERR, op::READ_STDIN, op::SLEEP];
    if operation.is_ok_and(|operation| outside.contains(&operation)) {
        ram.write_obj(op::ZERO, GuestAddress(address))
            .expect("it was just read");
    }
}

/// One thing a guest does at a port.
#[derive(Arbitrary, Debug)]
enum PortAccess {
    Read {
        port: u16,
        width: Width,
        times: u8,
    },
    Write {
        port: u16,
        width: Width,
        value: [u8; 4],
        times: u8,
    },
    /// At a port that somebody answers.
    Known {
        which: u8,
        offset: u8,
        value: [u8; 4],
        width: Width,
    },
    /// Puts something into memory, for the doorbell to find.
    Poke {
        address: u16,
        value: u64,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Width {
    One,
    Two,
    Four,
}

impl Width {
    fn bytes(self) -> usize {
        match self {
            Width::One => 1,
            Width::Two => 2,
            Width::Four => 4,
        }
    }
}

/// A guest at the I/O ports.
pub fn ports(data: &[u8]) {
    const KNOWN: [u16; 6] = [port::SERIAL, port::MARK, port::EXIT, port::PANIC, port::DOORBELL, 0x64];
    let mut choices = Unstructured::new(data);
    DEVICES.with_borrow_mut(|devices| {
        // An empty source would go on to give zeros.
        while let (false, Ok(access)) = (choices.is_empty(), PortAccess::arbitrary(&mut choices)) {
            match access {
                PortAccess::Read { port, width, times } => {
                    devices.read(port, &mut vec![0; width.bytes() * usize::from(times)]);
                }
                PortAccess::Write {
                    port,
                    width,
                    value,
                    times,
                } => {
                    write(devices, port, &value[..width.bytes()].repeat(usize::from(times)));
                }
                PortAccess::Known {
                    which,
                    offset,
                    value,
                    width,
                } => {
                    let port = KNOWN[usize::from(which) % KNOWN.len()] + u16::from(offset % 8);
                    write(devices, port, &value[..width.bytes()]);
                    devices.read(port, &mut [0; 4][..width.bytes()]);
                }
                PortAccess::Poke { address, value } => {
                    let _ = RAM.with(|ram| ram.write_obj(value, GuestAddress(address.into())));
                }
            }
        }
    });
}

fn write(devices: &mut Ports, to: u16, data: &[u8]) {
    if let (port::DOORBELL, Ok(address)) = (to, data.try_into()) {
        RAM.with(|ram| harmless(ram, u32::from_le_bytes(address).into()));
    }
    let _ = devices.write(to, data);
}

/// A serial port with interrupts, from any state that it takes: pairs of bytes are a register and a value to write, or
/// one to read.
pub fn serial(data: &[u8]) {
    let (state, accesses) = data.split_at(data.len().min(RESTORED));
    let line = || Line::unconnected().expect("an event descriptor");
    let waker = Waker::new().expect("an event descriptor");
    let gate = || Some(Gate::new(waker.clone(), true));
    let restored = postcard::from_bytes(state)
        .ok()
        .and_then(|state| Serial::restored(Output::Nobody, line(), waker.clone(), gate(), &state).ok());
    let mut chip = restored.unwrap_or_else(|| Serial::interrupting(Output::Nobody, line(), waker.clone(), gate()));
    for pair in accesses.as_chunks::<2>().0 {
        let register = pair[0] % 8;
        match pair[0] & 0x80 {
            0 => chip.write(register, pair[1]),
            _ => drop(chip.read(register)),
        }
        let _ = chip.input();
    }
    // It is the same after a snapshot.
    let state = postcard::to_allocvec(&chip.state()).expect("plain numbers");
    let again = postcard::from_bytes(&state).expect("as it was written");
    let mut again = Serial::restored(Output::Nobody, line(), waker.clone(), gate(), &again).expect("its own state");
    for register in 0..8 {
        assert_eq!(again.read(register), chip.read(register), "register {register}");
    }
}

/// Bytes of a serial port's state: nine registers, and how many bytes of what was received follow.
const RESTORED: usize = 9 + 1 + 4;

/// The keyboard controller: the machine ends by one byte at one port, and by nothing else.
pub fn i8042(data: &[u8]) {
    let serial = Serial::polled(Output::Nobody);
    let mut devices = RAM.with(|ram| Ports::new(ram.clone(), serial, Marks::new(None, "fuzz")));
    for &[to, length, value, second] in data.as_chunks::<4>().0 {
        let to = [
            keyboard::DATA,
            keyboard::COMMAND,
            keyboard::COMMAND + 1,
            keyboard::DATA - 1,
        ][usize::from(to % 4)];
        let bytes = &[value, second, second, second][..usize::from(length % 5)];
        let ends = to == keyboard::COMMAND && bytes == [0xfe];
        let outcome = devices.write(to, bytes).expect("nothing here is in memory");
        assert_eq!(outcome, if ends { Outcome::Exit(0) } else { Outcome::Continue });
        let mut read = [0; 4];
        devices.read(to, &mut read[..bytes.len()]);
        let status = if to == keyboard::COMMAND {
            keyboard::STATUS
        } else {
            0xff
        };
        assert!(read[..bytes.len()].iter().all(|&byte| byte == status));
    }
}
