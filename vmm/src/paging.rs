//! The boot page tables: 64-bit mode cannot run without paging, so the VMM brings the simplest there is.
//!
//! Guest-virtual equals guest-physical for the first GiB, in 2 MiB pages: three tables, 514 entries. That covers what the
//! boot protocol demands (kernel, boot parameters, command line); the kernel builds its own tables first thing.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::layout;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// In a PD entry: this maps 2 MiB and there is no fourth level.
const LARGE: u64 = 1 << 7;
const ENTRIES: usize = 512;
const LARGE_PAGE: u64 = 2 << 20;

/// Writes the tables.
// ANCHOR: write
pub fn write(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    memory.write_obj(layout::PDPT | PRESENT | WRITABLE, GuestAddress(layout::PML4))?;
    memory.write_obj(layout::PD | PRESENT | WRITABLE, GuestAddress(layout::PDPT))?;
    let mut directory = [0u8; ENTRIES * 8];
    for (i, entry) in directory.chunks_exact_mut(8).enumerate() {
        entry.copy_from_slice(&((i as u64 * LARGE_PAGE) | PRESENT | WRITABLE | LARGE).to_le_bytes());
    }
    memory.write_slice(&directory, GuestAddress(layout::PD))
}
// ANCHOR_END: write
