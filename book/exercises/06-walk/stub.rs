// ANCHOR: stub
/// Bits of an entry that are its address.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The entry is valid.
pub const PRESENT: u64 = 1 << 0;
/// In the third table: maps 2 MiB.
pub const LARGE: u64 = 1 << 7;

/// The physical address for `virtual_address`; None is a page fault. `cr3` is the address of the first table, and `read` reads eight bytes
/// of physical memory.
pub fn walk(read: impl Fn(u64) -> u64, cr3: u64, virtual_address: u64) -> Option<u64> {
    let index = virtual_address >> 39 & 511;
    let entry = read(cr3 + 8 * index);
    Some(entry & ADDRESS)
}
// ANCHOR_END: stub
