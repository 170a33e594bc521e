//! Memory given back to the host while the guest runs.
//!
//! A guest's page, once touched, is the host's loss for good: the host cannot see that the guest has freed it. Two ways out:
//!
//! **Free page reporting.** What the guest writes: chains whose buffers *are* its free memory, in blocks of some MiB. What
//! the host answers: it drops the pages (madvise(2), MADV_DONTNEED) and gives the chain back. Touched again, a page comes back as zeros.
//! Nobody has to ask, and nothing is in a hurry.
//!
//! **The balloon.** The host asks for a number of pages in the configuration. The guest takes so many from its allocator,
//! swapping if it must, and writes their numbers into the first queue; to have pages back it writes their numbers into
//! the second and uses them.
//!
//! What it costs: 3 exits for a report, of up to 32 blocks, and for 256 pages given or taken back: the notification and the
//! interrupt's two. A guest of 256 MiB that filled 96 of them and freed them again made 3 reports, 9 exits.

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use super::device::{Device, Kept};
use super::queue::{Malformed, Queues};
use crate::{layout, memory};

/// Virtio 1.2, section 5.5.
const ID: u32 = 5;
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
/// The third queue is for reporting: it moves up where the features of the two before it are not offered.
const QUEUES: &[u16] = &[128; 3];

/// The guest need not ask before it uses a page again, and takes pages back when it runs out of memory.
const DEFLATE_ON_OOM: u64 = 1 << 2;
const FREE_PAGE_REPORTING: u64 = 1 << 5;

/// Pages taken in one turn, beyond which the rest of a full queue waits for the next: each may be a system call of its own.
const TURN_MAX: usize = 16 << 10;

/// Page numbers read at once.
const AT_ONCE: usize = 256;

/// The device.
pub struct Balloon {
    /// Pages the host wants.
    target: u32,
    /// Pages the guest says it has given.
    actual: u32,
}

impl Balloon {
    /// A balloon that asks for `bytes` of the guest's memory.
    pub fn new(bytes: u64) -> Balloon {
        Balloon {
            target: u32::try_from(bytes / layout::PAGE).unwrap_or(u32::MAX),
            actual: 0,
        }
    }
}

impl Device for Balloon {
    fn name(&self) -> &'static str {
        "virtio-balloon"
    }

    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        DEFLATE_ON_OOM | FREE_PAGE_REPORTING
    }

    fn queues(&self) -> &'static [u16] {
        QUEUES
    }

    /// `struct virtio_balloon_config`: pages wanted, pages given.
    fn configuration(&self) -> Vec<u8> {
        [self.target.to_le_bytes(), self.actual.to_le_bytes()].concat()
    }

    fn configure(&mut self, offset: usize, data: &[u8]) {
        if let (ACTUAL, Ok(word)) = (offset, data.try_into()) {
            self.actual = u32::from_le_bytes(word);
        }
    }

    fn serve(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Malformed> {
        let memory = queues.memory();
        let mut pages_taken = 0;
        for _ in 0..queues.size(index) {
            if pages_taken >= TURN_MAX {
                break;
            }
            let Some(mut chain) = queues.take(index)? else { break };
            match index {
                INFLATE => {
                    let pages = memory::size(memory) / layout::PAGE;
                    if chain.readable.length() as u64 > pages * 4 {
                        return Err(Malformed("the guest gives more pages than it has"));
                    }
                    pages_taken += chain.readable.length() / 4;
                    let mut numbers = [0; AT_ONCE * 4];
                    while let count @ 4.. = chain.readable.read(&mut numbers) {
                        let numbers = numbers[..count]
                            .as_chunks()
                            .0
                            .iter()
                            .map(|&word| u32::from_le_bytes(word));
                        inflate(memory, numbers)?;
                    }
                }
                // The page is the guest's again as soon as it touches it.
                DEFLATE => {}
                // Reporting.
                _ => chain.writable.iter().for_each(drop_pages),
            }
            queues.give_back(index, &chain, 0)?;
        }
        Ok(())
    }

    fn save(&self) -> Kept {
        Kept::Balloon {
            target: self.target,
            actual: self.actual,
        }
    }

    fn restore(&mut self, kept: &Kept) -> bool {
        let Kept::Balloon { target, actual } = *kept else {
            return false;
        };
        (self.target, self.actual) = (target, actual);
        true
    }
}

/// Offset of "pages given" in the configuration.
const ACTUAL: usize = 4;

/// Drops the pages of these numbers, neighbours together: a system call for each would cost more than the page.
fn inflate(memory: &GuestMemoryMmap, numbers: impl Iterator<Item = u32>) -> Result<(), Malformed> {
    let mut numbers = numbers.map(u64::from).peekable();
    while let Some(first) = numbers.next() {
        let (mut low, mut high) = (first, first + 1);
        // Linux takes them from the top down as often as from the bottom up.
        while let Some(next) = numbers.next_if(|&next| next == high || next + 1 == low) {
            (low, high) = (low.min(next), high.max(next + 1));
        }
        let (address, length) = (GuestAddress(low * layout::PAGE), (high - low) * layout::PAGE);
        let slices = memory.get_slices(address, length as usize, Permissions::Write);
        for slice in slices.map_err(|_| NOT_MEMORY)? {
            drop_pages(&slice.map_err(|_| NOT_MEMORY)?);
        }
    }
    Ok(())
}

const NOT_MEMORY: Malformed = Malformed("the guest gives a page it does not have");

/// Gives the whole pages within `piece` back to the host.
fn drop_pages(piece: &VolatileSlice<'_>) {
    let start = piece.ptr_guard_mut().as_ptr() as usize;
    let page = layout::PAGE as usize;
    let (first, end) = (start.next_multiple_of(page), (start + piece.len()) / page * page);
    if first < end {
        // SAFETY: these pages are guest memory, whose content only the guest cares for, and it said that it does not. A
        // failure leaves them as they are, which costs memory and nothing else.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{BUFFERS, Driver, MEMORY};
    use super::*;
    use crate::bus::Device as _;

    const REPORTING: usize = 2;
    const PAGE: u64 = layout::PAGE;

    fn number(page: u64) -> [u8; 4] {
        (page as u32).to_le_bytes()
    }

    #[test]
    fn reported_pages_are_dropped_and_come_back_as_zeros() {
        let mut driver = Driver::started(Box::new(Balloon::new(0)));
        driver.put(BUFFERS, &[1; 4 * PAGE as usize]);
        // Two pages, and a third only in part.
        driver.request(REPORTING, &[(BUFFERS, 2 * PAGE as u32), (BUFFERS + 2 * PAGE, 100)], 0);
        assert_eq!(driver.done(REPORTING), [(0, 0)]);
        let pages = driver.get(BUFFERS, 4 * PAGE as usize);
        let (dropped, kept) = pages.split_at(2 * PAGE as usize);
        assert!(dropped.iter().all(|&byte| byte == 0) && kept.iter().all(|&byte| byte == 1));
    }

    #[test]
    fn inflated_pages_are_dropped_whatever_their_order() {
        let mut driver = Driver::started(Box::new(Balloon::new(3 * PAGE)));
        assert_eq!(driver.read(0x100), 3);
        let page = BUFFERS / PAGE;
        driver.put(BUFFERS, &[1; 6 * PAGE as usize]);
        driver.put(
            BUFFERS + 5 * PAGE,
            &[number(page + 1), number(page), number(page + 3)].concat(),
        );
        driver.request(INFLATE, &[(BUFFERS + 5 * PAGE, 12)], 1);
        driver.write(0x104, 3);
        assert_eq!((driver.done(INFLATE), driver.read(0x104)), (vec![(0, 0)], 3));
        let first = |page: u64| driver.get(BUFFERS + page * PAGE, 1)[0];
        assert_eq!([0, 1, 2, 3, 4].map(first), [0, 0, 1, 0, 1]);
        driver.request(DEFLATE, &[(BUFFERS + 5 * PAGE, 12)], 1);
        assert_eq!(driver.done(DEFLATE), [(0, 0)]);
    }

    #[test]
    fn a_full_queue_takes_more_than_one_turn() {
        let mut driver = Driver::started(Box::new(Balloon::new(0)));
        let (pages, size) = (MEMORY / PAGE, QUEUES[INFLATE]);
        driver.put(BUFFERS, &number(BUFFERS / PAGE).repeat(pages as usize));
        driver.describe(Driver::rings(INFLATE), &[(BUFFERS, 4 * pages as u32, 0, 0)]);
        (1..size).for_each(|_| driver.add(INFLATE, 0));
        driver.offer(INFLATE, 0);
        let first = driver.done(INFLATE).len();
        assert_eq!(first, TURN_MAX.div_ceil(pages as usize));
        // The rest is the input thread's.
        driver.transport.input();
        assert_eq!(driver.done(INFLATE).len(), usize::from(size) - first);
        assert!(!driver.stopped());
    }

    #[test]
    fn pages_beyond_memory_stop_the_device() {
        for page in [MEMORY / PAGE, u64::from(u32::MAX)] {
            let mut driver = Driver::started(Box::new(Balloon::new(0)));
            driver.put(BUFFERS, &number(page));
            driver.request(INFLATE, &[(BUFFERS, 4)], 1);
            assert!(driver.stopped(), "{page:#x}");
        }
        let mut driver = Driver::started(Box::new(Balloon::new(0)));
        driver.request(INFLATE, &[(BUFFERS, 4 * (MEMORY / PAGE) as u32 + 4)], 1);
        assert!(driver.stopped(), "more pages than there are");
    }
}
