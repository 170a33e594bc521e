//! The transport: a virtio device as one page of registers (virtio-mmio version 2; Virtio 1.2, section 4.2).
//!
//! The order of a driver's life, and what each step costs in exits with the Linux driver, counted with `vmm run --trace`:
//!
//! | The guest | The host |
//! |---|---|
//! | reads MagicValue, Version, DeviceID, VendorID | says what sits on this page |
//! | writes Status: 0, ACKNOWLEDGE, DRIVER | forgets everything; watches |
//! | reads DeviceFeatures and writes DriverFeatures, 32 bits at a time | offers; notes |
//! | writes Status: FEATURES_OK, and reads it again | keeps the bit only if it can live with the choice |
//! | for each queue: size, three addresses, QueueReady | checks that all of it is memory |
//! | writes Status: DRIVER_OK | runs |
//! | writes QueueNotify whenever there is work | serves it, and interrupts if that is wanted |
//!
//! A driver that breaks a rule of the queues is told so by DEVICE_NEEDS_RESET, and the device does nothing until it is
//! reset: it cannot know what the guest meant. Registers that take no value of that kind, or not now, take none.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{VIRTIO_F_VERSION_1, *};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::Error;
use super::device::{Device, Kept};
use super::queue::{Malformed, Queues, Setup};
use crate::bus;
use crate::input::Waker;
use crate::interrupts::Line;

/// Offsets of the registers (table 4.1 of the same section).
mod register {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub const QUEUE_SELECT: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const DESCRIPTORS_LOW: u64 = 0x080;
    pub const DESCRIPTORS_HIGH: u64 = 0x084;
    pub const AVAILABLE_LOW: u64 = 0x090;
    pub const AVAILABLE_HIGH: u64 = 0x094;
    pub const USED_LOW: u64 = 0x0a0;
    pub const USED_HIGH: u64 = 0x0a4;
    pub const SHARED_MEMORY_LENGTH_LOW: u64 = 0x0b0;
    pub const SHARED_MEMORY_BASE_HIGH: u64 = 0x0bc;
    pub const GENERATION: u64 = 0x0fc;
    pub const CONFIGURATION: u64 = 0x100;
}
use register::*;

/// "virt".
const MAGIC_VALUE: u32 = 0x7472_6976;
/// The second layout of this page: the first knew only addresses of 32 bits.
const VERSION_2: u32 = 2;
/// "LAB\0": drivers do not care.
const VENDOR: u32 = 0x0042_414c;
/// No shared memory: a length of all ones.
const NONE: u32 = u32::MAX;

/// Status bits (section 2.1).
const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;
const KNOWN: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | VIRTIO_CONFIG_S_FAILED;

/// Interrupt status bits (section 4.2.2).
const USED_BUFFERS: u32 = 1 << 0;
const CONFIGURATION_CHANGED: u32 = 1 << 1;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// What every device here offers. VERSION_1: not the draft from before there was a standard; a driver must take it.
/// INDIRECT_DESC: a chain may lie in a table of its own, so that it takes one place of the queue. EVENT_IDX: each side says
/// how far the other may go on before it wants to hear of it.
const TRANSPORT_FEATURES: u64 = VERSION_1 | EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A device's page of registers.
pub struct Transport {
    device: Box<dyn Device>,
    memory: GuestMemoryMmap,
    line: Line,
    waker: Waker,
    registers: Registers,
    /// The queues that are ready.
    queues: Vec<Option<Queue>>,
    /// One bit for each queue that still had requests when its turn was over.
    left_over: u64,
    /// The guest's first broken rule was reported.
    complained: bool,
}

/// What the guest has written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    interrupt_status: u32,
    setups: Vec<Setup>,
}

/// A device's state, for a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    registers: Registers,
    kept: Kept,
}

impl Transport {
    /// A device after reset, which finds buffers in `memory`, interrupts through `line` and wakes the input thread
    /// through `waker`.
    pub fn new(device: Box<dyn Device>, memory: GuestMemoryMmap, line: Line, waker: Waker) -> Transport {
        let mut transport = Transport {
            device,
            memory,
            line,
            waker,
            registers: Registers::default(),
            queues: Vec::new(),
            left_over: 0,
            complained: false,
        };
        transport.reset();
        transport
    }

    fn reset(&mut self) {
        let setup = |&size: &u16| Setup {
            size,
            ..Setup::default()
        };
        self.registers = Registers {
            setups: self.device.queues().iter().map(setup).collect(),
            ..Registers::default()
        };
        self.queues = self.device.queues().iter().map(|_| None).collect();
        self.left_over = 0;
    }

    fn features(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// The driver is ready, and nothing is broken.
    fn running(&self) -> bool {
        self.registers.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    fn read_register(&self, offset: u64) -> u32 {
        let registers = &self.registers;
        let queue = registers.queue_select as usize;
        match offset {
            MAGIC => MAGIC_VALUE,
            VERSION => VERSION_2,
            DEVICE_ID => self.device.id(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.features(), registers.device_features_select),
            QUEUE_SIZE_MAX => self.device.queues().get(queue).map_or(0, |&most| most.into()),
            QUEUE_READY => registers.setups.get(queue).is_some_and(|setup| setup.ready).into(),
            register::INTERRUPT_STATUS => registers.interrupt_status,
            STATUS => registers.status,
            SHARED_MEMORY_LENGTH_LOW..=SHARED_MEMORY_BASE_HIGH => NONE,
            // Nothing in a configuration here changes but single words, which no reader can see half changed.
            GENERATION => 0,
            // Also registers that are for writing only.
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let negotiating = self.registers.status & (DRIVER | FEATURES_OK) == DRIVER;
        match offset {
            DEVICE_FEATURES_SELECT => self.registers.device_features_select = value,
            DRIVER_FEATURES_SELECT => self.registers.driver_features_select = value,
            DRIVER_FEATURES if negotiating => {
                let select = self.registers.driver_features_select;
                set_half(&mut self.registers.driver_features, select, value);
            }
            QUEUE_SELECT => self.registers.queue_select = value,
            QUEUE_SIZE | QUEUE_READY | DESCRIPTORS_LOW..=USED_HIGH => self.set_up_queue(offset, value),
            QUEUE_NOTIFY => self.notified(value),
            INTERRUPT_ACK => self.registers.interrupt_status &= !value,
            STATUS => self.set_status(value),
            _ => {}
        }
    }

    /// Bits of the status are only ever added, until a 0 takes all of them away.
    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let before = self.registers.status;
        let mut added = value & KNOWN & !before;
        if added & FEATURES_OK != 0 {
            let taken = self.registers.driver_features;
            let possible = taken & !self.features() == 0 && taken & VERSION_1 != 0;
            if before & DRIVER == 0 || !possible {
                added &= !FEATURES_OK;
            }
        }
        if (before | added) & FEATURES_OK == 0 {
            added &= !DRIVER_OK;
        }
        self.registers.status |= added;
        if added & DRIVER_OK != 0 {
            self.device.start(self.registers.driver_features);
            // A driver may have filled its queues before it said that it was ready.
            (0..self.queues.len()).for_each(|index| self.serve(index));
        }
    }

    fn set_up_queue(&mut self, offset: u64, value: u32) {
        let index = self.registers.queue_select as usize;
        let status = self.registers.status;
        let Some(setup) = self.registers.setups.get_mut(index) else {
            return;
        };
        if offset == QUEUE_READY && value == 0 {
            self.queues[index] = None;
            (setup.ready, setup.taken, setup.given_back) = (false, 0, 0);
            return;
        }
        // Between the features and the start, and not while it is in use.
        if setup.ready || status & (FEATURES_OK | DRIVER_OK | NEEDS_RESET) != FEATURES_OK {
            return;
        }
        match offset {
            // What does not fit into 16 bits is refused below, as 0 is.
            QUEUE_SIZE => setup.size = u16::try_from(value).unwrap_or(0),
            DESCRIPTORS_LOW => set_half(&mut setup.descriptors, 0, value),
            DESCRIPTORS_HIGH => set_half(&mut setup.descriptors, 1, value),
            AVAILABLE_LOW => set_half(&mut setup.available, 0, value),
            AVAILABLE_HIGH => set_half(&mut setup.available, 1, value),
            USED_LOW => set_half(&mut setup.used, 0, value),
            USED_HIGH => set_half(&mut setup.used, 1, value),
            QUEUE_READY => {
                let event_idx = self.registers.driver_features & EVENT_IDX != 0;
                match setup.build(self.device.queues()[index], event_idx, &self.memory) {
                    Ok(queue) => (setup.ready, self.queues[index]) = (true, Some(queue)),
                    Err(broken) => self.stop(broken),
                }
            }
            _ => {}
        }
    }

    fn notified(&mut self, queue: u32) {
        let index = queue as usize;
        if !self.running() || index >= self.queues.len() {
            return;
        }
        self.serve(index);
    }

    /// One turn of a queue: the device serves it, the guest is interrupted if it wants to be. What is left then is the
    /// input thread's: a guest that fills a queue as fast as we empty it must not keep a vCPU in here.
    fn serve(&mut self, index: usize) {
        if !self.running() {
            return;
        }
        self.left_over &= !(1 << index);
        if self.device.input_queue() == Some(index) {
            self.waker.wake();
            return;
        }
        let mut queues = Queues::new(&self.memory, &mut self.queues);
        let served = self
            .device
            .serve(index, &mut queues)
            .and_then(|()| queues.waiting(index));
        let wanted = queues.interrupt_wanted();
        match served {
            Ok(true) => {
                self.left_over |= 1 << index;
                self.waker.wake();
            }
            Ok(false) => {}
            Err(broken) => self.stop(broken),
        }
        self.settle(wanted);
    }

    fn settle(&mut self, wanted: Result<bool, Malformed>) {
        match wanted {
            Ok(true) => self.interrupt(USED_BUFFERS),
            Ok(false) => {}
            Err(broken) => self.stop(broken),
        }
    }

    fn interrupt(&mut self, reason: u32) {
        self.registers.interrupt_status |= reason;
        // Writing to an event descriptor of our own fails only when its counter is full, which Line takes as done.
        let _ = self.line.raise();
    }

    /// The guest broke a rule: nothing more until it resets the device.
    fn stop(&mut self, Malformed(rule): Malformed) {
        self.registers.status |= NEEDS_RESET;
        if !self.complained {
            self.complained = true;
            eprintln!(
                "vmm: {}: {rule}. The device stops until the guest resets it",
                self.device.name()
            );
        }
        if self.registers.status & DRIVER_OK != 0 {
            self.interrupt(CONFIGURATION_CHANGED);
        }
    }
}

impl bus::Device for Transport {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(start) = offset.checked_sub(CONFIGURATION) {
            let configuration = self.device.configuration();
            let from = configuration.get(start as usize..).unwrap_or_default();
            data.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = match offset % 4 {
                0 => self.read_register(offset).to_le_bytes(),
                _ => [0; 4],
            };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(start) = offset.checked_sub(CONFIGURATION) {
            if self.registers.status & DRIVER != 0 {
                self.device.configure(start as usize, data);
            }
        } else if let Ok(word) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(word));
        }
    }

    fn input(&mut self) -> Option<BorrowedFd<'_>> {
        for index in 0..self.queues.len() {
            if self.left_over & (1 << index) != 0 {
                self.serve(index);
            }
        }
        let index = self.device.input_queue().filter(|_| self.running())?;
        match Queues::new(&self.memory, &mut self.queues).waiting(index) {
            Ok(true) => self.device.source(),
            Ok(false) => None,
            Err(broken) => {
                self.stop(broken);
                None
            }
        }
    }

    fn receive(&mut self) {
        if !self.running() {
            return;
        }
        let mut queues = Queues::new(&self.memory, &mut self.queues);
        let received = self.device.receive(&mut queues);
        let wanted = queues.interrupt_wanted();
        if let Err(broken) = received {
            self.stop(broken);
        }
        self.settle(wanted);
    }

    fn save(&self) -> State {
        let mut registers = self.registers.clone();
        for (setup, queue) in registers.setups.iter_mut().zip(&self.queues) {
            if let Some(queue) = queue {
                (setup.taken, setup.given_back) = (queue.next_avail(), queue.next_used());
            }
        }
        State {
            registers,
            kept: self.device.save(),
        }
    }

    fn restore(&mut self, state: &State) -> Result<(), Error> {
        let name = self.device.name();
        let misfit = |what| Error::State { name, what };
        self.reset();
        if state.registers.setups.len() != self.queues.len() {
            return Err(misfit("it has another number of queues"));
        }
        let features = state.registers.driver_features;
        if features & !self.features() != 0 {
            return Err(misfit("the guest uses features that are not offered here"));
        }
        if !self.device.restore(&state.kept) {
            return Err(misfit("it is another kind of device"));
        }
        for (index, setup) in state
            .registers
            .setups
            .iter()
            .enumerate()
            .filter(|(_, setup)| setup.ready)
        {
            let queue = setup.build(self.device.queues()[index], features & EVENT_IDX != 0, &self.memory);
            self.queues[index] = Some(queue.map_err(|Malformed(what)| misfit(what))?);
        }
        self.registers = state.registers.clone();
        if self.running() {
            self.device.start(features);
            // What was left over, or had come in meanwhile, is looked at first.
            self.left_over = (1 << self.queues.len()) - 1;
            self.waker.wake();
        }
        // An interrupt may have been on its way into the controllers when their state was read.
        if self.registers.interrupt_status != 0 {
            let _ = self.line.raise();
        }
        Ok(())
    }
}

/// The low (0) or high (1) 32 bits; nothing beyond.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | u64::from(half),
        1 => *value = *value & 0xffff_ffff | u64::from(half) << 32,
        _ => {}
    }
}
