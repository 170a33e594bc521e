//! The smallest driver of a virtio console that prints: found, set up, and then three exits for a line.
//!
//! The order of the steps is the standard's (Virtio 1.2, sections 3.1.1 and 4.2.3). It takes no interrupt: it asks the
//! register that says why there was one, and acknowledges it, as the handler of an interrupt would.

use core::sync::atomic::{Ordering, fence};

use kernel::cell::Lone;

/// Registers (section 4.2.2), as offsets.
const MAGIC: u64 = 0x000;
const DEVICE_ID: u64 = 0x008;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SELECT: u64 = 0x024;
const QUEUE_SELECT: u64 = 0x030;
const QUEUE_SIZE: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const DESCRIPTORS: u64 = 0x080;
const AVAILABLE: u64 = 0x090;
const USED: u64 = 0x0a0;

/// "virt".
const MAGIC_VALUE: u32 = 0x7472_6976;
/// Section 5.3.
const CONSOLE: u32 = 3;
/// The queue for what is printed; 0 is for what is typed.
const TRANSMIT: u32 = 1;
/// Bits of the status (section 2.1): each step keeps those before it.
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = ACKNOWLEDGE | 2;
const FEATURES_OK: u32 = DRIVER | 8;
const DRIVER_OK: u32 = FEATURES_OK | 4;
/// Feature 32, the one nobody may leave out: as bit 0 of the upper half.
const VERSION_1: u32 = 1;
/// Why the device interrupts: it has used a buffer.
const USED_BUFFER: u32 = 1;

/// Places in the queue: one line is on its way at a time, and a queue has a power of two.
const SIZE: usize = 2;

/// What both sides share (section 2.7).
#[repr(C, align(4096))]
struct Queue {
    descriptors: [Descriptor; SIZE],
    available: Ring<u16>,
    used: Ring<[u32; 2]>,
}

/// Where a buffer is.
#[repr(C)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

#[repr(C, align(4))]
struct Ring<T> {
    flags: u16,
    index: u16,
    places: [T; SIZE],
}

static QUEUE: Lone<Queue> = Lone::new(Queue {
    descriptors: [const {
        Descriptor {
            address: 0,
            length: 0,
            flags: 0,
            next: 0,
        }
    }; SIZE],
    available: Ring {
        flags: 0,
        index: 0,
        places: [0; SIZE],
    },
    used: Ring {
        flags: 0,
        index: 0,
        places: [[0; 2]; SIZE],
    },
});

/// One page of entries for 2 MiB each.
#[repr(align(4096))]
struct Table([u64; 512]);

static TABLE: Lone<Table> = Lone::new(Table([0; 512]));

/// A console that is ready to print.
pub struct Console {
    registers: u64,
}

impl Console {
    /// Finds the first virtio device where the command line says (`virtio_mmio.device=SIZE@ADDRESS:LINE`), as Linux does.
    pub fn find(line: &[u8]) -> Console {
        let Some(registers) = address(line) else {
            panic!("the command line names no virtio device: vmm run --machine pc --console virtio makes one");
        };
        map(registers);
        let console = Console { registers };
        let (magic, device) = (console.read(MAGIC), console.read(DEVICE_ID));
        assert!(
            (magic, device) == (MAGIC_VALUE, CONSOLE),
            "at {registers:#x} is no virtio console"
        );
        console.set_up();
        console
    }

    fn set_up(&self) {
        self.write(STATUS, 0);
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, DRIVER);
        for (half, wanted) in [(0, 0), (1, VERSION_1)] {
            self.write(DRIVER_FEATURES_SELECT, half);
            self.write(DRIVER_FEATURES, wanted);
        }
        self.write(STATUS, FEATURES_OK);
        assert!(
            self.read(STATUS) & FEATURES_OK == FEATURES_OK,
            "the console refuses a driver of the plainest kind"
        );
        QUEUE.with(|queue| {
            self.write(QUEUE_SELECT, TRANSMIT);
            self.write(QUEUE_SIZE, SIZE as u32);
            for (register, address) in [
                (DESCRIPTORS, &raw const queue.descriptors as u64),
                (AVAILABLE, &raw const queue.available as u64),
                (USED, &raw const queue.used as u64),
            ] {
                self.write(register, address as u32);
                self.write(register + 4, (address >> 32) as u32);
            }
            self.write(QUEUE_READY, 1);
        });
        self.write(STATUS, DRIVER_OK);
    }

    /// Prints a line and waits until the device has it.
    pub fn send(&mut self, line: &[u8]) {
        QUEUE.with(|queue| {
            queue.descriptors[0].address = line.as_ptr() as u64;
            queue.descriptors[0].length = line.len() as u32;
            // The device reads the index last, so it is written last. Both places of the ring name descriptor 0.
            fence(Ordering::SeqCst);
            let index = queue.available.index.wrapping_add(1);
            // SAFETY: our own memory; volatile because the host reads it behind the compiler's back.
            unsafe { (&raw mut queue.available.index).write_volatile(index) };
            fence(Ordering::SeqCst);
            self.write(QUEUE_NOTIFY, TRANSMIT);
            while self.read(INTERRUPT_STATUS) & USED_BUFFER == 0 {}
            self.write(INTERRUPT_ACK, USED_BUFFER);
            // SAFETY: as above, written by the host.
            let used = unsafe { (&raw const queue.used.index).read_volatile() };
            assert!(used == index, "the console interrupted and has not printed");
        });
    }

    fn read(&self, register: u64) -> u32 {
        // SAFETY: a register of the device's page, which `map` has made reachable.
        unsafe { ((self.registers + register) as *const u32).read_volatile() }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: as above; the only memory of ours a device touches is the queue and the line.
        unsafe { ((self.registers + register) as *mut u32).write_volatile(value) }
    }
}

/// The address of the first virtio device on the command line.
fn address(line: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"virtio_mmio.device=";
    let start = line.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let at = line[start..].iter().position(|&byte| byte == b'@')? + start + 1;
    let digits = line[at..].strip_prefix(b"0x")?;
    let digits = digits.iter().map_while(|&byte| char::from(byte).to_digit(16));
    Some(digits.fold(0, |number, digit| number << 4 | u64::from(digit)))
}

/// Makes the 2 MiB around a device's page reachable: the loader's tables end at 1 GiB.
fn map(address: u64) {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let (gib, part) = (address >> 30, address >> 21 & 511);
    assert!((1..512).contains(&gib), "a device at {address:#x} is where memory is");
    let top: u64;
    // SAFETY: reading CR3 changes nothing.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) top, options(nomem, nostack, preserves_flags)) };
    TABLE.with(|table| {
        table.0[part as usize] = part << 21 | gib << 30 | LARGE | PRESENT_WRITABLE;
        // SAFETY: the loader's tables, mapped as they are; the first entry covers 512 GiB, and beyond the first of these nothing
        // was mapped. Loading CR3 anew makes the processor look again.
        unsafe {
            let second = ((top & ADDRESS) as *const u64).read() & ADDRESS;
            ((second + gib * 8) as *mut u64).write_volatile(&raw const *table as u64 | PRESENT_WRITABLE);
            core::arch::asm!("mov cr3, {}", in(reg) top, options(nostack, preserves_flags));
        }
    });
}
