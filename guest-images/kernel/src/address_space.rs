//! The program's address space: what it may touch (regions), and what the processor has been told of that (page tables).
//!
//! A region is a promise; a page table entry keeps it. Most promises are kept late, when the program first touches a
//! page and faults. Pages that need no new memory, because they lie ready in the initrd, are mapped where they are.

use kernel::elf;
use kernel::layout::*;
use kernel::tables::{self, NO_EXECUTE, PRESENT, USER, WRITABLE};

use crate::frames::{Frames, pointer};
use crate::processor::flush_translation;

/// Program may read.
pub const READ: u8 = 1;
/// Program may write.
pub const WRITE: u8 = 2;
/// Program may execute.
pub const EXECUTE: u8 = 4;

/// A stretch of addresses with one meaning.
#[derive(Clone, Copy)]
struct Region {
    start: u64,
    end: u64,
    /// [`READ`], [`WRITE`], [`EXECUTE`].
    access: u8,
    /// Physical address of the content of `start`; 0: anonymous memory, which starts as zeros.
    source: u64,
    /// How many bytes of content there are from `source` on. What lies behind them is zero.
    content: u64,
}

/// How many regions a program can have. Linux allows 65,530; the programs meant for here need some ten.
const REGIONS: usize = 256;
/// Pages of new memory mapped at one fault. A fault costs far more than an entry, and a mapped frame nobody touches
/// costs the host nothing.
const FAULT_AROUND: u64 = 16;
/// Set in entries whose frame is the program's own, to be given back; clear where the initrd shows through. (Bits 9 to
/// 11 are the system's to use: Intel SDM vol. 3A, table 4-20.)
const OWNED: u64 = 1 << 9;
/// Accessed and dirty, set from the start so that the processor has nothing to note down.
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
/// One page table.
type PageTable = [u64; 512];

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Why a page cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No region, or not for this kind of access.
    NotAllowed,
    /// There is no memory left.
    OutOfMemory,
}

/// A region could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// The address space.
pub struct AddressSpace {
    pdpt: u64,
    count: usize,
    regions: [Region; REGIONS],
    /// Where the heap begins and ends (brk).
    pub heap: (u64, u64),
}

const NO_REGION: Region = Region {
    start: 0,
    end: 0,
    access: 0,
    source: 0,
    content: 0,
};

impl AddressSpace {
    /// An empty one.
    pub const fn empty() -> AddressSpace {
        AddressSpace {
            pdpt: 0,
            count: 0,
            regions: [NO_REGION; REGIONS],
            heap: (0, 0),
        }
    }

    /// Takes its first page table. To be called once, before anything else.
    pub fn start(&mut self, frames: &mut Frames) -> Result<(), NoRoom> {
        self.pdpt = frames.allocate().ok_or(NoRoom)?;
        Ok(())
    }

    /// Gives the processor this address space. From here on the identity map is gone.
    pub fn install(&self) {
        tables::install_user(self.pdpt);
        crate::processor::flush_translations();
    }

    /// Adds a region of zeros. It must not overlap another.
    pub fn add_anonymous(&mut self, start: u64, end: u64, access: u8) -> Result<(), NoRoom> {
        self.add(Region {
            start,
            end,
            access,
            source: 0,
            content: 0,
        })
    }

    /// Adds a program's segment, shifted by `base`, from the file at physical `file` of `file_size` bytes.
    pub fn add_segment(&mut self, segment: &elf::Segment, base: u64, file: u64, file_size: u64) -> Result<(), NoRoom> {
        let start = (segment.address + base) & !(PAGE - 1);
        let end = (segment.address + base + segment.memory_size).next_multiple_of(PAGE);
        let inside = (segment.address + base) - start;
        let mut access = 0;
        for (flag, bit) in [(elf::READ, READ), (elf::WRITE, WRITE), (elf::EXECUTE, EXECUTE)] {
            if segment.flags & flag != 0 {
                access |= bit;
            }
        }
        if start < USER_START || end > USER_END {
            return Err(NoRoom);
        }
        let from = segment.offset - inside;
        // A segment that is only read may show what follows it in the file, as it does on Linux, and so be mapped in
        // whole pages. Behind one that is written lie the program's zeros.
        let writable = segment.flags & elf::WRITE != 0 || segment.memory_size != segment.file_size;
        let content = if writable {
            inside + segment.file_size
        } else {
            file_size - from
        };
        if self.overlaps(start, end) {
            return Err(NoRoom);
        }
        self.add(Region {
            start,
            end,
            access,
            source: file + from,
            content,
        })
    }

    fn add(&mut self, region: Region) -> Result<(), NoRoom> {
        if region.start >= region.end {
            return Ok(());
        }
        // A program's segments come in ascending order, and most mappings go behind all others.
        let last = self.count.checked_sub(1).map(|last| self.regions[last].start);
        let at = if last.is_none_or(|last| last < region.start) {
            self.count
        } else {
            self.position(region.start)
        };
        // Anonymous neighbours with the same rights are one region: a heap grows a page at a time.
        if at > 0 && region.source == 0 {
            let before = &mut self.regions[at - 1];
            if before.end == region.start && before.source == 0 && before.access == region.access {
                before.end = region.end;
                return Ok(());
            }
        }
        if self.count == REGIONS {
            return Err(NoRoom);
        }
        if at < self.count {
            self.regions.copy_within(at..self.count, at + 1);
        }
        self.regions[at] = region;
        self.count += 1;
        Ok(())
    }

    /// Index of the first region that begins at or above `address`.
    fn position(&self, address: u64) -> usize {
        let regions = &self.regions[..self.count];
        regions
            .iter()
            .position(|region| region.start >= address)
            .unwrap_or(self.count)
    }

    fn find(&self, address: u64) -> Option<&Region> {
        self.regions[..self.count]
            .iter()
            .find(|region| region.start <= address && address < region.end)
    }

    /// Whether anything of `start..end` is taken.
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        self.regions[..self.count]
            .iter()
            .any(|region| region.start < end && start < region.end)
    }

    /// A free stretch of `length` bytes at or above `from`, with nothing in the program's way.
    pub fn find_gap(&self, from: u64, length: u64) -> Option<u64> {
        let mut start = from;
        for region in &self.regions[..self.count] {
            if region.end <= start {
                continue;
            }
            if region.start >= start && region.start - start >= length {
                return Some(start);
            }
            start = region.end;
        }
        start.checked_add(length).filter(|&end| end <= USER_END).map(|_| start)
    }

    /// Takes `start..end` away, pages and all. Splits regions it cuts through.
    pub fn remove(&mut self, frames: &mut Frames, start: u64, end: u64) -> Result<(), NoRoom> {
        self.change(start, end, |_| None)?;
        self.unmap_pages(frames, start, end);
        Ok(())
    }

    /// Gives `start..end` other rights. False when part of it is not mapped.
    pub fn protect(&mut self, start: u64, end: u64, access: u8) -> Result<bool, NoRoom> {
        let mut at = start;
        while at < end {
            let Some(region) = self.find(at) else { return Ok(false) };
            at = region.end;
        }
        self.change(start, end, |region| Some(Region { access, ..region }))?;
        self.remap_pages(start, end, access);
        Ok(true)
    }

    /// Replaces what lies in `start..end`, part of a region or several, by `new` of it.
    fn change(&mut self, start: u64, end: u64, new: impl Fn(Region) -> Option<Region>) -> Result<(), NoRoom> {
        let mut i = 0;
        while i < self.count {
            let region = self.regions[i];
            if region.end <= start || region.start >= end {
                i += 1;
                continue;
            }
            // Cut at most into three: before, inside, behind. Only the one inside changes.
            let pieces = [
                part(region, region.start, start),
                part(region, start, end).and_then(&new),
                part(region, end, region.end),
            ];
            let count = pieces.iter().flatten().count();
            if self.count - 1 + count > REGIONS {
                return Err(NoRoom);
            }
            self.regions.copy_within(i + 1..self.count, i + count);
            self.count = self.count - 1 + count;
            for piece in pieces.into_iter().flatten() {
                self.regions[i] = piece;
                i += 1;
            }
        }
        Ok(())
    }

    /// Maps in advance what needs no memory: the program's pages where they lie in the initrd, to be read and executed.
    /// The first write to one that may be written gets the program a copy.
    pub fn map_in_place(&mut self, frames: &mut Frames) -> Result<(), Fault> {
        for i in 0..self.count {
            let region = self.regions[i];
            if region.source != 0 && region.source.is_multiple_of(PAGE) {
                self.map_source(frames, &region, region.start, region.end)?;
            }
        }
        Ok(())
    }

    /// Maps `first..end` of a region with a source in place, as far as whole pages of content reach. Nothing may be
    /// mapped there yet.
    fn map_source(&mut self, frames: &mut Frames, region: &Region, first: u64, end: u64) -> Result<(), Fault> {
        let end = end.min(region.start + (region.content & !(PAGE - 1)));
        let flags = flags(region.access & !WRITE);
        let mut address = first;
        while address < end {
            let table = self.table(frames, address).ok_or(Fault::OutOfMemory)?;
            let index = tables::index(address, 0);
            let count = (512 - index as u64).min((end - address) / PAGE);
            let mut entry = (region.source + (address - region.start)) | flags;
            for place in &mut table[index..index + count as usize] {
                *place = entry;
                entry += PAGE;
            }
            address += count * PAGE;
        }
        Ok(())
    }

    /// Makes the page at `address` usable for `access`, if the program may use it so.
    pub fn fault(&mut self, frames: &mut Frames, address: u64, access: u8) -> Result<(), Fault> {
        let page = address & !(PAGE - 1);
        let region = *self.find(page).ok_or(Fault::NotAllowed)?;
        if region.access & access != access {
            return Err(Fault::NotAllowed);
        }
        let table = self.table(frames, page).ok_or(Fault::OutOfMemory)?;
        let index = tables::index(page, 0);
        let present = table[index] & PRESENT != 0;
        if present && (access & WRITE == 0 || table[index] & WRITABLE != 0) {
            // The entry allows it already and the processor remembered an older one.
            return Ok(());
        }
        let flags = flags(region.access);
        // As far as neighbours may be brought in with it: those of the region, in this table, not there yet.
        let room = (512 - index as u64).min((region.end - page) / PAGE).min(FAULT_AROUND) as usize;
        let absent = table[index..index + room]
            .iter()
            .take_while(|&&entry| entry & PRESENT == 0)
            .count() as u64;
        if region.source != 0 {
            let inside = page - region.start;
            let whole = inside + PAGE <= region.content;
            if whole && access & WRITE == 0 && region.source.is_multiple_of(PAGE) {
                return self.map_source(frames, &region, page, page + absent * PAGE);
            }
            // Copy on write: the initrd stays as it is, the program gets a page of its own.
            let frame = frames.allocate().ok_or(Fault::OutOfMemory)?;
            let content = region.content.saturating_sub(inside).min(PAGE);
            crate::host::copy(Some(region.source + inside), frame, content);
            table[index] = frame | flags | OWNED;
            if present {
                flush_translation(page);
            }
            return Ok(());
        }
        // Several pages at once while there is memory nobody used; they stay untouched until the program comes.
        if let Some(first) = frames.allocate_fresh(absent) {
            let mut entry = first | flags | OWNED;
            for place in &mut table[index..index + absent as usize] {
                *place = entry;
                entry += PAGE;
            }
        } else {
            table[index] = frames.allocate().ok_or(Fault::OutOfMemory)? | flags | OWNED;
        }
        Ok(())
    }

    /// Maps `count` frames from `frame` on, already filled in by the kernel, at `address`: within one page table.
    pub fn map_owned(
        &mut self,
        frames: &mut Frames,
        address: u64,
        frame: u64,
        count: u64,
        access: u8,
    ) -> Result<(), Fault> {
        let table = self.table(frames, address).ok_or(Fault::OutOfMemory)?;
        let index = tables::index(address, 0);
        let mut entry = frame | flags(access) | OWNED;
        for place in &mut table[index..index + count as usize] {
            *place = entry;
            entry += PAGE;
        }
        Ok(())
    }

    /// Physical address behind the program's `address`, which it must be allowed to access so. Brings the page in.
    pub fn translate(&mut self, frames: &mut Frames, address: u64, access: u8) -> Result<u64, Fault> {
        if address >= USER_END {
            return Err(Fault::NotAllowed);
        }
        let index = tables::index(address, 0);
        let needed = PRESENT | USER | if access & WRITE != 0 { WRITABLE } else { 0 };
        let mut entry = self.existing_table(address).map_or(0, |table| table[index]);
        if entry & needed != needed {
            self.fault(frames, address, access)?;
            entry = self.existing_table(address).map_or(0, |table| table[index]);
        }
        Ok(entry & ADDRESS | address & (PAGE - 1))
    }

    /// The page table for `address`, made if there is none.
    #[inline(always)]
    fn table(&mut self, frames: &mut Frames, address: u64) -> Option<&'static mut PageTable> {
        match self.existing_table(address) {
            Some(table) => Some(table),
            None => self.make_table(frames, address),
        }
    }

    /// The page table for `address` if there is one.
    #[inline(always)]
    fn existing_table(&self, address: u64) -> Option<&'static mut PageTable> {
        // A missing table reads as physical address 0, where there is nothing of ours.
        let directory = entry(self.pdpt, tables::index(address, 2));
        // SAFETY: entries of our page tables, in the direct map. Address 0 is RAM too, and never a table.
        let table = unsafe { *directory } & ADDRESS;
        if table == 0 {
            return None;
        }
        // SAFETY: as above.
        let table = unsafe { *entry(table, tables::index(address, 1)) } & ADDRESS;
        // SAFETY: a frame that has served as page table since it was allocated. The callers hold the only reference to
        // the address space and drop this one before they ask again.
        (table != 0).then(|| unsafe { &mut *pointer(table).cast() })
    }

    #[cold]
    fn make_table(&mut self, frames: &mut Frames, address: u64) -> Option<&'static mut PageTable> {
        let directory = next_table(frames, self.pdpt, tables::index(address, 2))?;
        let table = next_table(frames, directory, tables::index(address, 1))?;
        // SAFETY: as in `existing_table`.
        Some(unsafe { &mut *pointer(table).cast() })
    }

    fn unmap_pages(&mut self, frames: &mut Frames, start: u64, end: u64) {
        self.each_entry(start, end, |entry| {
            if *entry & OWNED != 0 {
                frames.free(*entry & ADDRESS);
            }
            *entry = 0;
        });
    }

    fn remap_pages(&mut self, start: u64, end: u64, access: u8) {
        let new = flags(access);
        self.each_entry(start, end, |entry| {
            if *entry & OWNED != 0 && access != 0 {
                *entry = *entry & (ADDRESS | OWNED) | new;
            } else if *entry & OWNED != 0 {
                // No access at all, but the content must survive until there is some again.
                *entry = *entry & (ADDRESS | OWNED) | PRESENT | NO_EXECUTE;
            } else {
                // The initrd shows through: the next access decides whether that may stay so.
                *entry = 0;
            }
        });
    }

    /// Calls `work` for every entry of `start..end` that is present, then makes the processor forget what it knew.
    fn each_entry(&mut self, start: u64, end: u64, mut work: impl FnMut(&mut u64)) {
        let mut address = start;
        while address < end {
            let block_end = ((address / LARGE_PAGE + 1) * LARGE_PAGE).min(end);
            if let Some(table) = self.existing_table(address) {
                let first = tables::index(address, 0);
                let count = ((block_end - address) / PAGE) as usize;
                for entry in &mut table[first..first + count] {
                    if *entry & PRESENT != 0 {
                        work(entry);
                    }
                }
            }
            address = block_end;
        }
        crate::processor::flush_translations();
    }
}

/// The part of `region` within `start..end`, if any.
fn part(region: Region, start: u64, end: u64) -> Option<Region> {
    let (start, end) = (start.max(region.start), end.min(region.end));
    if start >= end {
        return None;
    }
    let skipped = start - region.start;
    let (source, content) = match region.source {
        0 => (0, 0),
        source => (source + skipped, region.content.saturating_sub(skipped)),
    };
    Some(Region {
        start,
        end,
        source,
        content,
        ..region
    })
}

/// Entry bits for a program's page of these rights. x86 cannot forbid reading what may be written or executed.
fn flags(access: u8) -> u64 {
    let mut flags = PRESENT | ACCESSED_DIRTY;
    if access != 0 {
        flags |= USER;
    }
    if access & WRITE != 0 {
        flags |= WRITABLE;
    }
    if access & EXECUTE == 0 {
        flags |= NO_EXECUTE;
    }
    flags
}

/// Where entry `index` of the table at `table` (physical) lies.
#[inline(always)]
fn entry(table: u64, index: usize) -> *mut u64 {
    pointer(table).cast::<u64>().wrapping_add(index)
}

/// The next-level table in entry `index` of the table at `table` (both physical), made if there is none.
fn next_table(frames: &mut Frames, table: u64, index: usize) -> Option<u64> {
    // SAFETY: a page table of ours, in the direct map.
    let entry = unsafe { &mut *entry(table, index) };
    if *entry == 0 {
        *entry = frames.allocate()? | PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
    }
    Some(*entry & ADDRESS)
}
