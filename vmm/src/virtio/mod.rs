//! Virtio: devices that were never hardware.
//!
//! Emulating a real disk controller means an exit for each of its registers, many per request. Virtio (OASIS, version 1.2)
//! turns it around: guest and host share lists of buffers in guest memory, and leave each other alone until there is work.
//! One store to one register says "look at queue n" (an exit); one interrupt says "some of it is done".
//!
//! ```text
//!   guest memory                                             the host
//!   +--------------------------+  address, length, flags,
//!   | descriptor table         |  next: where buffers are     [`queue`]     walks and checks them
//!   | available ring           |  guest writes: "to do"       [`transport`] the registers, one page per device
//!   | used ring                |  host writes:  "done"        [`device`]    what a device must be able to do
//!   | ... buffers ...          |                              [`block`], [`console`], [`net`], [`random`], [`balloon`]
//!   +--------------------------+
//! ```
//!
//! **Who serves.** The store to QueueNotify leaves the guest, and the vCPU's own thread does the work before it goes
//! back: one thread, one exit, nothing hidden, and the vCPU waits meanwhile. Faster hosts tie the register to an event
//! descriptor inside KVM (KVM_IOEVENTFD), so that the guest goes on while another thread serves; faster still, that thread is the host's
//! kernel (vhost). Both save waiting, none saves the notification.
//!
//! **What an operation costs** in exits: one for the notification, and two for each interrupt, whose handler reads
//! InterruptStatus and writes InterruptACK. (With PCI and MSI-X an interrupt says by its number what it is about, and needs
//! neither.) The feature EVENT_IDX spares what nobody waits for. Each device's file tells what was counted: in the traces
//! (`vmm run --trace`) of two Linux guests in the testbed, of which one did everything some more times than the other.
//! `.ci/testbed-batch` counts again (`exits_per_operation`). To be found and set up costs each device 34 (random bytes) to 61 (balloon) exits once,
//! most of them for the addresses of its queues.

pub mod balloon;
pub mod block;
pub mod buffers;
pub mod console;
pub mod device;
pub mod disk;
#[cfg(any(test, feature = "driver"))]
pub mod driver;
pub mod net;
pub mod overlay;
pub mod queue;
pub mod random;
pub mod tap;
#[cfg(test)]
mod tests;
pub mod transport;

use std::io;

use kvm_ioctls::VmFd;
use protocol::marks::Marks;
use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use crate::bus::Bus;
use crate::input::{Gate, Waker};
use crate::interrupts::{self, Line};
use crate::layout;
use device::Device;

pub use transport::{State, Transport};

/// One device to build: what the command line asks for, and what a snapshot must ask for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spec {
    /// A console on standard input and output.
    Console,
    /// A disk.
    Disk(disk::Spec),
    /// A network card on a tap.
    Net(net::Spec),
    /// Random bytes of the host's.
    Random,
    /// Memory given back; how many bytes the guest is asked to give up at once.
    Balloon(u64),
}

/// A device could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many.
    #[error(
        "a machine has {most} interrupt lines for virtio devices, and {0} devices were asked for",
        most = layout::DEVICES_MAX
    )]
    TooMany(usize),
    /// No interrupt line.
    #[error(transparent)]
    Interrupts(#[from] interrupts::Error),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The tap.
    #[error(transparent)]
    Tap(#[from] tap::Error),
    /// No randomness for an address.
    #[error("cannot draw a random hardware address: {0}")]
    Mac(io::Error),
    /// The state of a snapshot does not fit the device.
    #[error("the snapshot's state of device {name} does not fit: {what}")]
    State {
        /// Which device.
        name: &'static str,
        /// What is wrong.
        what: &'static str,
    },
}

/// What devices are connected to.
pub struct Surroundings<'a> {
    /// The machine in KVM.
    pub vm: &'a VmFd,
    /// Guest memory.
    pub memory: &'a GuestMemoryMmap,
    /// Of the input thread.
    pub waker: &'a Waker,
    /// What holds standard input back.
    pub gate: &'a Gate,
    /// Where the first output is marked.
    pub marks: Marks,
}

/// Builds the devices and puts them on a bus, in this order. The kernel learns of them by [`describe`].
///
/// # Errors
/// When a device's file or tap cannot be had, or there are too many.
pub fn attach(specs: &[Spec], surroundings: &Surroundings<'_>) -> Result<Bus, Error> {
    let &Surroundings {
        vm,
        memory,
        waker,
        gate,
        marks,
    } = surroundings;
    let mut bus = Bus::default();
    for (index, spec) in specs.iter().enumerate() {
        let number = *layout::DEVICE_LINES.get(index).ok_or(Error::TooMany(specs.len()))?;
        let device: Box<dyn Device> = match spec {
            Spec::Console => Box::new(console::Console::new(gate.clone(), marks)),
            Spec::Disk(spec) => Box::new(block::Block::new(disk::Disk::open(spec)?)),
            Spec::Net(spec) => Box::new(net::Net::open(spec)?),
            Spec::Random => Box::new(random::Random),
            Spec::Balloon(target) => Box::new(balloon::Balloon::new(*target)),
        };
        let line = Line::connect(vm, number)?;
        bus.attach(Box::new(Transport::new(device, memory.clone(), line, waker.clone())));
    }
    Ok(bus)
}

/// Options that tell a Linux kernel where `count` devices are: `SIZE@ADDRESS:LINE` each. Nothing else does: these devices are on
/// no bus that could be searched, which is why none is.
pub fn describe(count: usize) -> Vec<String> {
    let pages = (layout::DEVICES..).step_by(layout::PAGE as usize);
    let describe = |(line, address)| format!("virtio_mmio.device=4K@{address:#x}:{line}");
    layout::DEVICE_LINES
        .iter()
        .zip(pages)
        .take(count)
        .map(describe)
        .collect()
}
