//! The machine around the vCPUs: memory, ports, devices, and whether it is still to run. All vCPUs share one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use crate::bus::Bus;
use crate::ports::Ports;

/// How much of a machine a guest kernel gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Memory, one vCPU and ports: what the lab kernel needs.
    Bare,
    /// A PC without the parts nobody misses: interrupt controllers, timer, serial port with interrupts, several vCPUs and
    /// virtio devices. What Linux needs.
    Pc,
}

/// The machine.
pub struct Machine {
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    /// Devices in memory addresses.
    pub bus: Bus,
    ports: Mutex<Ports>,
    ending: AtomicBool,
}

impl Machine {
    /// A machine that runs.
    pub fn new(memory: GuestMemoryMmap, ports: Ports, bus: Bus) -> Machine {
        Machine {
            memory,
            bus,
            ports: Mutex::new(ports),
            ending: AtomicBool::new(false),
        }
    }

    /// The devices behind I/O ports. One vCPU at a time.
    pub fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No vCPU is to enter the guest again.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether the machine has ended.
    pub fn ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}
