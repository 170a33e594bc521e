//! What the boot loader left for us: the boot parameters (Documentation/arch/x86/zero-page.rst, boot.rst).

use crate::frames::pointer;
use kernel::layout::{DIRECT_MAP_MAX, KERNEL_END, PAGE};

/// What the kernel needs of the boot parameters.
pub struct Boot {
    /// The command line.
    pub command_line: &'static [u8],
    /// Physical address of the initrd.
    pub initrd_address: u64,
    /// The initrd.
    pub initrd: &'static [u8],
    /// Free RAM from the kernel's end up to the initrd or the end of its stretch.
    pub free: (u64, u64),
    /// Free RAM elsewhere, the longest stretch: what goes on above 4 GiB when there is much.
    pub more: (u64, u64),
    /// All RAM, in bytes.
    pub ram: u64,
    /// Random bytes from the loader, if it gave any.
    pub seed: Option<[u8; 16]>,
}

/// Offsets in `struct boot_params`.
mod offset {
    pub const E820_ENTRIES: u64 = 0x1e8;
    pub const RAMDISK_IMAGE: u64 = 0x218;
    pub const RAMDISK_SIZE: u64 = 0x21c;
    pub const COMMAND_LINE: u64 = 0x228;
    pub const SETUP_DATA: u64 = 0x250;
    pub const E820_TABLE: u64 = 0x2d0;
}

const E820_SIZE: u64 = 20;
const E820_MAX: u8 = 128;
const E820_RAM: u32 = 1;
const SETUP_RNG_SEED: u32 = 9;
const COMMAND_LINE_MAX: usize = 2048;
/// Marks are wanted when the command line begins so; compared as one number.
const MARKS: u64 = u64::from_le_bytes(*b"lab.mark");

/// The loader's tables lie in the first GiB, which the direct map always covers.
fn read<T: Copy>(physical: u64) -> T {
    // SAFETY: RAM the loader has filled, visible in the direct map; any bytes make an integer, aligned or not.
    unsafe { pointer(physical).cast::<T>().read_unaligned() }
}

/// Whether the loader's command line asks for marks: known before anything is parsed.
#[inline(always)]
pub fn marks_wanted(parameters: u64) -> bool {
    read::<u64>(read::<u32>(parameters + offset::COMMAND_LINE).into()) == MARKS
}

/// Reads the boot parameters at physical address `parameters`.
pub fn read_parameters(parameters: u64) -> Boot {
    let line = u64::from(read::<u32>(parameters + offset::COMMAND_LINE));
    let initrd_address = u64::from(read::<u32>(parameters + offset::RAMDISK_IMAGE));
    let initrd_size = u64::from(read::<u32>(parameters + offset::RAMDISK_SIZE));
    let mut ram = 0;
    let (mut free, mut more) = ((KERNEL_END, KERNEL_END), (0, 0));
    let entries = read::<u8>(parameters + offset::E820_ENTRIES).min(E820_MAX);
    for i in 0..u64::from(entries) {
        let entry = parameters + offset::E820_TABLE + i * E820_SIZE;
        let (start, size, kind) = (read::<u64>(entry), read::<u64>(entry + 8), read::<u32>(entry + 16));
        if kind != E820_RAM {
            continue;
        }
        ram += size;
        let end = start.saturating_add(size).min(DIRECT_MAP_MAX);
        let end = if start <= initrd_address && initrd_address < end {
            initrd_address
        } else {
            end
        };
        let whole_pages = (start.next_multiple_of(PAGE), end & !(PAGE - 1));
        if start <= KERNEL_END && KERNEL_END < end {
            free = (KERNEL_END, whole_pages.1);
        } else if start > KERNEL_END && end.saturating_sub(start) > more.1 - more.0 {
            more = whole_pages;
        }
    }
    Boot {
        command_line: until_nul(line),
        initrd_address,
        // SAFETY: the loader says that the initrd lies there, in RAM, and nobody writes to it.
        initrd: unsafe { core::slice::from_raw_parts(pointer(initrd_address), initrd_size as usize) },
        free,
        more,
        ram,
        seed: find_seed(read(parameters + offset::SETUP_DATA)),
    }
}

fn until_nul(physical: u64) -> &'static [u8] {
    let mut length = 0;
    while length < COMMAND_LINE_MAX && read::<u8>(physical + length as u64) != 0 {
        length += 1;
    }
    // SAFETY: `length` bytes of RAM were just read there, and nobody writes to them.
    unsafe { core::slice::from_raw_parts(pointer(physical), length) }
}

/// Walks the list of extra data (next, type, length, data) to the loader's random seed.
fn find_seed(mut node: u64) -> Option<[u8; 16]> {
    while node != 0 {
        if read::<u32>(node + 8) == SETUP_RNG_SEED && read::<u32>(node + 12) >= 16 {
            return Some(read(node + 16));
        }
        node = read(node);
    }
    None
}
