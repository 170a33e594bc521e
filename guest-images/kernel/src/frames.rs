//! Physical memory: who gives out page frames.
//!
//! Fresh frames come in order from one stretch of RAM, then from a second. The host hands RAM out zeroed and counts a page only when it is
//! touched, so neither do we touch a fresh frame: zeroing twice would cost time and make memory real that nobody uses.

use kernel::layout::{DIRECT_MAP, PAGE};

/// The free frames.
pub struct Frames {
    /// First frame never given out.
    next: u64,
    /// End of the stretch.
    end: u64,
    /// The stretch to go on with when this one is used up.
    more: (u64, u64),
    /// First of the frames given back, each holding the address of the next; 0 when there are none.
    returned: u64,
    /// How many were given back and not taken again.
    returned_count: u64,
    /// Bytes of both stretches as they were.
    pub total: u64,
}

impl Frames {
    /// No frames.
    pub const fn none() -> Frames {
        Frames {
            next: 0,
            end: 0,
            more: (0, 0),
            returned: 0,
            returned_count: 0,
            total: 0,
        }
    }

    /// Takes over RAM (physical, page-aligned, untouched): `first`, then `more`.
    pub fn take_over(&mut self, first: (u64, u64), more: (u64, u64)) {
        let length = |(start, end): (u64, u64)| end.saturating_sub(start);
        self.next = first.0;
        self.end = first.1.max(first.0);
        self.more = more;
        self.total = length(first) + length(more);
    }

    /// One zeroed frame.
    pub fn allocate(&mut self) -> Option<u64> {
        if self.returned != 0 {
            let frame = self.returned;
            self.returned_count -= 1;
            // SAFETY: a frame given back belongs to nobody; its first word links to the next.
            self.returned = unsafe { pointer(frame).cast::<u64>().read() };
            crate::host::copy(None, frame, PAGE);
            return Some(frame);
        }
        if self.next >= self.end {
            (self.next, self.end) = core::mem::take(&mut self.more);
        }
        self.allocate_fresh(1)
    }

    /// `count` zeroed frames in a row, from memory never used; None when that has run out, though single frames may
    /// still be had.
    pub fn allocate_fresh(&mut self, count: u64) -> Option<u64> {
        let frame = self.next;
        let after = frame + count * PAGE;
        if after > self.end {
            return None;
        }
        self.next = after;
        Some(frame)
    }

    /// Gives a frame back.
    pub fn free(&mut self, frame: u64) {
        // SAFETY: the caller has taken the frame out of every page table.
        unsafe { pointer(frame).cast::<u64>().write(self.returned) };
        self.returned = frame;
        self.returned_count += 1;
    }

    /// Bytes that can still be had.
    pub fn available(&self) -> u64 {
        (self.end - self.next) + (self.more.1 - self.more.0) + self.returned_count * PAGE
    }
}

/// Where the kernel sees physical memory.
#[inline(always)]
pub fn pointer(physical: u64) -> *mut u8 {
    (DIRECT_MAP + physical) as *mut u8
}
