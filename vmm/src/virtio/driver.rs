//! The guest's side, for tests and fuzzing: a driver that sets a device up as it should be and then offers it anything.
//!
//! virtio-queue has a mock of its own, which writes rings only. This one goes through the registers, so that what is
//! tested is what a guest can reach.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::device::Device;
use super::transport::Transport;
use crate::bus::Device as _;
use crate::input::Waker;
use crate::interrupts::Line;

/// Flags of a descriptor: another follows.
pub const NEXT: u16 = VRING_DESC_F_NEXT as u16;
/// For the device to write.
pub const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// It is a table of descriptors.
pub const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// The guest's memory in bytes.
pub const MEMORY: u64 = 1 << 20;
/// Where it keeps buffers.
pub const BUFFERS: u64 = 0x8_0000;
/// Each queue's rings: descriptors, available ring, used ring, a page each and the first two.
const QUEUE: u64 = 0x8000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x6000;

/// A descriptor: address, length, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

/// The driver of one device.
pub struct Driver {
    /// The device.
    pub transport: Transport,
    /// The guest's memory.
    pub memory: GuestMemoryMmap,
    offered: Vec<u16>,
    seen: Vec<u16>,
}

impl Driver {
    /// A device that was reset, and a driver that has not begun.
    ///
    /// # Panics
    /// When the test's host has no memory or descriptors left.
    #[allow(clippy::expect_used, reason = "this is for tests, which may panic")]
    pub fn new(device: Box<dyn Device>) -> Driver {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("memory");
        let queues = device.queues().len();
        let line = Line::unconnected().expect("an event descriptor");
        let waker = Waker::new().expect("an event descriptor");
        Driver {
            transport: Transport::new(device, memory.clone(), line, waker),
            memory,
            offered: vec![0; queues],
            seen: vec![0; queues],
        }
    }

    /// A device that runs, with every feature it offers and every queue as large as it may be.
    pub fn started(device: Box<dyn Device>) -> Driver {
        let sizes = device.queues();
        let mut driver = Driver::new(device);
        driver.negotiate();
        for (index, &size) in sizes.iter().enumerate() {
            driver.set_up(index, size.into());
        }
        driver.write(0x70, 0xf);
        driver
    }

    /// The same memory and positions, and another device.
    #[allow(clippy::expect_used, reason = "this is for tests, which may panic")]
    pub fn with(self, device: Box<dyn Device>) -> Driver {
        let line = Line::unconnected().expect("an event descriptor");
        let waker = Waker::new().expect("an event descriptor");
        Driver {
            transport: Transport::new(device, self.memory.clone(), line, waker),
            ..self
        }
    }

    /// The same device after a reset, set up anew.
    pub fn again(mut self) -> Driver {
        self.offered.fill(0);
        self.seen.fill(0);
        self.negotiate();
        for index in 0..self.offered.len() {
            self.put(Driver::rings(index) + AVAILABLE, &[0; 4]);
            self.put(Driver::rings(index) + USED, &[0; 4]);
            self.write(0x30, index as u32);
            let size = self.read(0x34);
            self.set_up(index, size);
        }
        self.write(0x70, 0xf);
        self
    }

    /// Up to FEATURES_OK, taking every feature.
    pub fn negotiate(&mut self) {
        for (offset, value) in [(0x70, 0), (0x70, 1), (0x70, 3)] {
            self.write(offset, value);
        }
        for select in [0, 1] {
            self.write(0x14, select);
            let offered = self.read(0x10);
            self.write(0x24, select);
            self.write(0x20, offered);
        }
        self.write(0x70, 0xb);
    }

    /// Sets up a queue of this size.
    pub fn set_up(&mut self, index: usize, size: u32) {
        let base = Driver::rings(index);
        self.write(0x30, index as u32);
        self.write(0x38, size);
        for (low, address) in [(0x80, base), (0x90, base + AVAILABLE), (0xa0, base + USED)] {
            self.write(low, address as u32);
            self.write(low + 4, 0);
        }
        self.write(0x44, 1);
    }

    /// Where a queue's rings are: its descriptor table.
    pub fn rings(index: usize) -> u64 {
        0x1000 + index as u64 * QUEUE
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    /// Writes one.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Whether the device wants to be reset.
    pub fn stopped(&mut self) -> bool {
        self.read(0x70) & 0x40 != 0
    }

    /// Puts bytes into memory; outside of it, nowhere.
    pub fn put(&self, address: u64, bytes: &[u8]) {
        let _ = self.memory.write_slice(bytes, GuestAddress(address));
    }

    /// Bytes of memory.
    pub fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let _ = self.memory.read_slice(&mut bytes, GuestAddress(address));
        bytes
    }

    /// Writes descriptors into a table.
    pub fn describe(&self, table: u64, descriptors: &[Descriptor]) {
        for (&(address, length, flags, next), at) in descriptors.iter().zip((table..).step_by(16)) {
            self.put(at, &address.to_le_bytes());
            self.put(at + 8, &length.to_le_bytes());
            self.put(at + 12, &flags.to_le_bytes());
            self.put(at + 14, &next.to_le_bytes());
        }
    }

    /// Offers the chain that begins at descriptor `head`, and notifies.
    pub fn offer(&mut self, queue: usize, head: u16) {
        self.add(queue, head);
        self.write(0x50, queue as u32);
    }

    /// Offers without notifying.
    pub fn add(&mut self, queue: usize, head: u16) {
        self.write(0x30, queue as u32);
        let size = self.read(0x34).max(1) as u16;
        let available = Driver::rings(queue) + AVAILABLE;
        let slot = self.offered[queue] % size;
        self.put(available + 4 + 2 * u64::from(slot), &head.to_le_bytes());
        self.offered[queue] = self.offered[queue].wrapping_add(1);
        self.put(available + 2, &self.offered[queue].to_le_bytes());
    }

    /// Offers one chain of these buffers: the first `readable` of them are for reading.
    pub fn request(&mut self, queue: usize, buffers: &[(u64, u32)], readable: usize) {
        let last = buffers.len() - 1;
        let descriptors: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(index, &(address, length))| {
                let direction = if index < readable { 0 } else { WRITE };
                let next = if index < last { NEXT } else { 0 };
                (address, length, direction | next, index as u16 + 1)
            })
            .collect();
        self.describe(Driver::rings(queue), &descriptors);
        self.offer(queue, 0);
    }

    /// What the device gave back since this was last asked: first descriptor and bytes written.
    pub fn done(&mut self, queue: usize) -> Vec<(u32, u32)> {
        self.write(0x30, queue as u32);
        let size = self.read(0x34).max(1) as u16;
        let used = Driver::rings(queue) + USED;
        let word = |at| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&self.get(at, 4));
            u32::from_le_bytes(bytes)
        };
        let now = (word(used) >> 16) as u16;
        let first = self.seen[queue];
        let done = (0..now.wrapping_sub(first))
            .map(|index| used + 4 + 8 * u64::from(first.wrapping_add(index) % size))
            .map(|at| (word(at), word(at + 4)))
            .collect();
        self.seen[queue] = now;
        done
    }

    /// Does what these bytes say, as hostile a guest as they can describe: writes and reads of registers of every width, pokes into rings
    /// and buffers, notifications, input. Returns when the bytes are used up.
    pub fn misbehave(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        for &[what, offset, a, b, c, d, e, f] in words {
            let value = u32::from_le_bytes([a, b, c, d]);
            let small = u64::from(offset);
            match what % 8 {
                // A register, as it should be addressed ...
                0 => self.write(small & !3, value),
                // ... or not.
                1 => self
                    .transport
                    .write(small + u64::from(a), &value.to_le_bytes()[..1 << (b % 3)]),
                2 => {
                    let mut data = [0; 8];
                    self.transport.read(small * u64::from(a), &mut data[..1 << (b % 4)]);
                }
                // A descriptor: near the buffers, or anywhere.
                3 => {
                    let queue = usize::from(offset) % self.offered.len().max(1);
                    let address = match what & 0x80 {
                        0 => BUFFERS + u64::from(a) * 64,
                        _ => u64::from_le_bytes([a, b, c, d, e, f, a, b]),
                    };
                    let length = u32::from(b) << (c % 24);
                    let table = Driver::rings(queue) + u64::from(d % 16) * 16;
                    self.describe(table, &[(address, length, (e % 8).into(), (f % 20).into())]);
                }
                // A request as it should be, or nearly: a header of two words and a sector, data, a status.
                4 => {
                    let queue = usize::from(offset) % self.offered.len().max(1);
                    let header = [u32::from(a % 16), 0, u32::from(b), 0].map(u32::to_le_bytes);
                    self.put(BUFFERS, header.as_flattened());
                    let data = (BUFFERS + 0x1000, u32::from(c) << (d % 14));
                    let buffers = [(BUFFERS, 16), data, (BUFFERS + 0x800, 1)];
                    self.request(queue, &buffers[..1 + usize::from(e % 3)], usize::from(f % 4));
                }
                5 => {
                    let queue = usize::from(offset) % self.offered.len().max(1);
                    self.offer(queue, (a % 20).into());
                }
                // Anything into memory: headers of requests, ring positions.
                6 => self.put(
                    [BUFFERS, Driver::rings(0), Driver::rings(1)][usize::from(offset) % 3] + u64::from(a) * 64,
                    &[b, c, d, e, f],
                ),
                _ => match a % 4 {
                    0 => self.write(0x70, 0),
                    1 => {
                        // What the input thread does when the descriptor is ready.
                        if self.transport.input().is_some() {
                            self.transport.receive();
                        }
                    }
                    2 => {
                        let state = self.transport.save();
                        // A state of its own always fits, unless the guest has since made memory of its rings; then it is refused.
                        let _ = self.transport.restore(&state);
                    }
                    _ => {
                        self.negotiate();
                        for index in 0..self.offered.len() {
                            self.set_up(index, 16);
                        }
                        self.write(0x70, 0xf);
                        self.offered.fill(0);
                        self.seen.fill(0);
                    }
                },
            }
        }
    }
}
