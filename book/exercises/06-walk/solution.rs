/// Bits of an entry that are its address.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The entry is valid.
pub const PRESENT: u64 = 1 << 0;
/// In the third table: maps 2 MiB.
pub const LARGE: u64 = 1 << 7;

/// The physical address for `virtual_address`; None is a page fault. `cr3` is the address of the first table, and `read` reads eight bytes
/// of physical memory.
pub fn walk(read: impl Fn(u64) -> u64, cr3: u64, virtual_address: u64) -> Option<u64> {
    let mut table = cr3;
    for shift in [39, 30, 21, 12] {
        let entry = read(table + 8 * (virtual_address >> shift & 511));
        if entry & PRESENT == 0 {
            return None;
        }
        table = entry & ADDRESS;
        if shift == 21 && entry & LARGE != 0 {
            return Some(table + (virtual_address & 0x1f_ffff));
        }
    }
    Some(table + (virtual_address & 0xfff))
}
