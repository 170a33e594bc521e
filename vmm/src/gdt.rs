//! The boot GDT: what the segment registers must point to before a kernel loads tables of its own.
//!
//! In 64-bit mode segments no longer move addresses; what is left of a descriptor is the privilege level and "this is
//! 64-bit code". The selectors are the ones the Linux boot protocol asks for (Documentation/arch/x86/boot.rst,
//! "64-bit Boot Protocol": __BOOT_CS 0x10, __BOOT_DS 0x18).

use kvm_bindings::kvm_segment;

/// Selector of the code segment.
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment.
pub const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment. Hardware virtualization wants one loaded (Intel SDM vol. 3C, 27.3.1.2).
pub const TASK_SELECTOR: u16 = 0x20;

const PRESENT: u16 = 1 << 7;
/// Code or data, as opposed to a system segment.
const CODE_OR_DATA: u16 = 1 << 4;
const LONG_MODE: u16 = 1 << 13;
const DEFAULT_32_BIT: u16 = 1 << 14;
const PAGE_GRANULAR: u16 = 1 << 15;
const EXECUTE_READ_ACCESSED: u16 = 0xb;
const READ_WRITE_ACCESSED: u16 = 0x3;
const BUSY_TSS: u16 = 0xb;

/// Flags of the code segment, as bits 40-55 of its descriptor have them.
pub const CODE: u16 = PRESENT | CODE_OR_DATA | EXECUTE_READ_ACCESSED | LONG_MODE | PAGE_GRANULAR;
/// Flags of a 32-bit code segment, which a PVH kernel starts in; it loads a table of its own before it looks at ours.
pub const CODE_32: u16 = PRESENT | CODE_OR_DATA | EXECUTE_READ_ACCESSED | DEFAULT_32_BIT | PAGE_GRANULAR;
/// Flags of the data segment.
pub const DATA: u16 = PRESENT | CODE_OR_DATA | READ_WRITE_ACCESSED | DEFAULT_32_BIT | PAGE_GRANULAR;
/// Flags of the task state segment.
pub const TASK: u16 = PRESENT | BUSY_TSS;

/// The table: null, unused, code, data, and the two slots of a 64-bit task state segment.
pub const TABLE: [u64; 6] = [0, 0, descriptor(CODE), descriptor(DATA), descriptor(TASK), 0];

/// A descriptor with base 0 and the largest limit (Intel SDM vol. 3A, figure 3-8).
const fn descriptor(flags: u16) -> u64 {
    const LIMIT_LOW: u64 = 0xffff;
    const LIMIT_HIGH: u64 = 0xf << 48;
    (flags as u64 & 0xf0ff) << 40 | LIMIT_HIGH | LIMIT_LOW
}

/// The same segment as KVM wants it: what the processor caches when a selector is loaded.
pub fn segment(selector: u16, flags: u16) -> kvm_segment {
    let bit = |position: u16| ((flags >> position) & 1) as u8;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: (flags & 0xf) as u8,
        s: bit(4),
        dpl: ((flags >> 5) & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_ones_linux_boots_with() {
        // arch/x86/boot/compressed/head_64.S, gdt: __KERNEL_CS and __KERNEL_DS, with the accessed bit.
        assert_eq!(descriptor(CODE), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(DATA), 0x00cf_9300_0000_ffff);
    }
}
