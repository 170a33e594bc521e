//! Queues: what the guest wants done, found in its memory and checked.
//!
//! virtio-queue reads the rings and follows descriptors without leaving guest memory or its own patience. What it does not
//! do is tell a chain that was cut short (a loop, an index outside the table, an address where no memory is) from a short
//! one. A device must not guess: here a chain is whole or it is [`Malformed`], and the device then stops until the guest
//! resets it.

use std::num::Wrapping;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions};

use super::buffers::Buffers;

/// The guest broke a rule of virtio. Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A request: descriptors chained together, the readable ones before the writable ones (Virtio 1.2, section 2.7.4.2).
#[derive(Debug)]
pub struct Chain<'m> {
    /// Its first descriptor, by which the guest knows it.
    head: u16,
    /// What the guest says.
    pub readable: Buffers<'m>,
    /// Where the answer goes.
    pub writable: Buffers<'m>,
}

/// The queues of a device that runs.
pub struct Queues<'m> {
    memory: &'m GuestMemoryMmap,
    queues: &'m mut [Option<Queue>],
    /// One bit for each queue that was given requests back.
    given: u64,
}

impl<'m> Queues<'m> {
    /// These queues in this memory. One the driver has not set up is None.
    pub fn new(memory: &'m GuestMemoryMmap, queues: &'m mut [Option<Queue>]) -> Queues<'m> {
        Queues {
            memory,
            queues,
            given: 0,
        }
    }

    /// Guest memory.
    pub fn memory(&self) -> &'m GuestMemoryMmap {
        self.memory
    }

    /// How many requests a queue holds; 0 for one that is not set up.
    pub fn size(&self, index: usize) -> u16 {
        self.queues.get(index).and_then(Option::as_ref).map_or(0, Queue::size)
    }

    /// The next request of queue `index`, if there is one.
    ///
    /// # Errors
    /// When the ring or the chain breaks the rules.
    pub fn take(&mut self, index: usize) -> Result<Option<Chain<'m>>, Malformed> {
        let memory = self.memory;
        let Some(queue) = self.queues.get_mut(index).and_then(Option::as_mut) else {
            return Ok(None);
        };
        let size = queue.size();
        let next = queue
            .iter(memory)
            .map_err(|_| Malformed("the available ring holds more than the queue has room for"))?
            .next();
        let Some(descriptors) = next else { return Ok(None) };
        let mut chain = Chain {
            head: descriptors.head_index(),
            readable: Buffers::default(),
            writable: Buffers::default(),
        };
        let (mut count, mut whole, mut answers) = (0, false, false);
        for descriptor in descriptors {
            count += 1;
            if count > size {
                return Err(Malformed("a chain is longer than its queue"));
            }
            whole = !descriptor.has_next();
            if answers && !descriptor.is_write_only() {
                return Err(Malformed("a chain has readable descriptors behind writable ones"));
            }
            answers = descriptor.is_write_only();
            let (into, access) = match answers {
                true => (&mut chain.writable, Permissions::Write),
                false => (&mut chain.readable, Permissions::Read),
            };
            let slices = memory.get_slices(descriptor.addr(), descriptor.len() as usize, access);
            for slice in slices.map_err(|_| NOT_MEMORY)? {
                into.push(slice.map_err(|_| NOT_MEMORY)?);
            }
        }
        if !whole {
            return Err(Malformed(
                "a chain loops, is longer than 4 GiB, or leads out of its table",
            ));
        }
        Ok(Some(chain))
    }

    /// Gives a request back: done, with `written` bytes in its writable buffers.
    ///
    /// # Errors
    /// When the used ring is no longer memory, which it was when the queue was set up.
    pub fn give_back(&mut self, index: usize, chain: &Chain<'_>, written: usize) -> Result<(), Malformed> {
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        self.given |= 1 << index;
        match self.queues.get_mut(index).and_then(Option::as_mut) {
            None => Ok(()),
            Some(queue) => queue.add_used(self.memory, chain.head, written).map_err(|_| USED_RING),
        }
    }

    /// Puts the request that was taken last back to where it was.
    pub fn put_back(&mut self, index: usize) {
        if let Some(queue) = self.queues.get_mut(index).and_then(Option::as_mut) {
            queue.go_to_previous_position();
        }
    }

    /// Whether requests wait in queue `index`. Where none do, the guest is asked to say when that changes.
    ///
    /// # Errors
    /// When a ring is no longer memory.
    pub fn waiting(&mut self, index: usize) -> Result<bool, Malformed> {
        let Some(queue) = self.queues.get_mut(index).and_then(Option::as_mut) else {
            return Ok(false);
        };
        let available = queue.avail_idx(self.memory, Ordering::Acquire);
        if available.map_err(|_| AVAILABLE_RING)? != Wrapping(queue.next_avail()) {
            return Ok(true);
        }
        queue.enable_notification(self.memory).map_err(|_| USED_RING)
    }

    /// Whether the guest wants to be interrupted for what was given back.
    ///
    /// # Errors
    /// When a ring is no longer memory.
    pub fn interrupt_wanted(&mut self) -> Result<bool, Malformed> {
        let mut wanted = false;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if let Some(queue) = queue.as_mut().filter(|_| self.given & (1 << index) != 0) {
                wanted |= queue.needs_notification(self.memory).map_err(|_| AVAILABLE_RING)?;
            }
        }
        Ok(wanted)
    }
}

const NOT_MEMORY: Malformed = Malformed("a descriptor's buffer is not guest memory");
const AVAILABLE_RING: Malformed = Malformed("the available ring is not guest memory");
const USED_RING: Malformed = Malformed("the used ring is not guest memory");

/// What the guest has written into a queue's registers, and how far the queue has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Descriptors in its table.
    pub size: u16,
    /// Where the descriptor table is.
    pub descriptors: u64,
    /// Where the available ring is.
    pub available: u64,
    /// Where the used ring is.
    pub used: u64,
    /// The guest has set it up, and the positions below count.
    pub ready: bool,
    /// Requests taken, modulo 65536.
    pub taken: u16,
    /// Requests given back, modulo 65536.
    pub given_back: u16,
}

impl Setup {
    /// The queue these registers describe, of `most` descriptors at most.
    ///
    /// # Errors
    /// When a number is not one that virtio allows, or the rings are not in memory.
    pub fn build(&self, most: u16, event_idx: bool, memory: &GuestMemoryMmap) -> Result<Queue, Malformed> {
        let queue = Queue::try_from(QueueState {
            max_size: most,
            next_avail: self.taken,
            next_used: self.given_back,
            event_idx_enabled: event_idx,
            size: self.size,
            ready: true,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        })
        .map_err(|_| Malformed("a queue's size is no power of two within its limit, or an address is not aligned"))?;
        if !queue.is_valid(memory) {
            return Err(Malformed("a queue's rings are not guest memory"));
        }
        Ok(queue)
    }
}
