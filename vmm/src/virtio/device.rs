//! What a device must be able to do. The registers are the [transport](super::transport)'s business.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use super::queue::{Malformed, Queues};

/// A virtio device.
pub trait Device: Send {
    /// What the ledger calls it.
    fn name(&self) -> &'static str;

    /// Its kind (Virtio 1.2, section 5).
    fn id(&self) -> u32;

    /// The features it offers, beside the transport's.
    fn features(&self) -> u64;

    /// The most descriptors each of its queues may have. A power of two each.
    fn queues(&self) -> &'static [u16];

    /// Its configuration, as the guest reads it.
    fn configuration(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The guest writes to its configuration.
    fn configure(&mut self, _offset: usize, _data: &[u8]) {}

    /// The guest is done setting up; it took these of the features.
    fn start(&mut self, _features: u64) {}

    /// Serves what waits in queue `index`, one turn: as many requests as the queue holds at most, for a guest may add
    /// more meanwhile, and so may a device that is told to read from a disk into the ring; fewer where they are much work.
    ///
    /// # Errors
    /// When the guest broke a rule. The transport stops the device.
    fn serve(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Malformed>;

    /// The queue whose buffers take what comes from outside. It is not served: [`Device::receive`] fills it.
    fn input_queue(&self) -> Option<usize> {
        None
    }

    /// A descriptor that is readable when something comes.
    fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// [`Device::source`] is readable and its queue has buffers.
    ///
    /// # Errors
    /// When the guest broke a rule.
    fn receive(&mut self, _queues: &mut Queues<'_>) -> Result<(), Malformed> {
        Ok(())
    }

    /// What it keeps beside its queues, for a snapshot.
    fn save(&self) -> Kept {
        Kept::Nothing
    }

    /// Takes up what [`Device::save`] gave. False: it is not this device's.
    fn restore(&mut self, kept: &Kept) -> bool {
        *kept == Kept::Nothing
    }
}

/// What a device keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// The hardware address the guest knows itself by.
    Net([u8; 6]),
    /// Pages asked for, and pages given.
    Balloon {
        /// How many the host wants.
        target: u32,
        /// How many the guest says it has given.
        actual: u32,
    },
}
