//! Physical memory: who gives out page frames.
//!
//! Fresh frames come in order from one stretch of RAM. The host hands RAM out zeroed and counts a page only when it is
//! touched, so neither do we touch a fresh frame: zeroing twice would cost time and make memory real that nobody uses.

use kernel::layout::{DIRECT_MAP, PAGE};

/// The free frames.
pub struct Frames {
    /// First frame never given out.
    next: u64,
    /// End of the stretch.
    end: u64,
    /// First of the frames given back, each holding the address of the next; 0 when there are none.
    returned: u64,
    /// How many were given back and not taken again.
    returned_count: u64,
    /// Bytes of the stretch as it was.
    pub total: u64,
}

impl Frames {
    /// No frames.
    pub const fn none() -> Frames {
        Frames {
            next: 0,
            end: 0,
            returned: 0,
            returned_count: 0,
            total: 0,
        }
    }

    /// Takes over the RAM from `start` to `end` (physical, page-aligned, untouched).
    pub fn take_over(&mut self, start: u64, end: u64) {
        *self = Frames {
            next: start,
            end,
            returned: 0,
            returned_count: 0,
            total: end.saturating_sub(start),
        };
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
        self.end - self.next + self.returned_count * PAGE
    }
}

/// Where the kernel sees physical memory.
#[inline(always)]
pub fn pointer(physical: u64) -> *mut u8 {
    (DIRECT_MAP + physical) as *mut u8
}
