//! Boot parameters: what the Linux boot protocol tells a kernel about the machine it wakes up on.
//!
//! One page (the "zero page", `struct boot_params`): the memory map, where the initrd lies, where the command line is, and
//! a list of further data. Sources: Documentation/arch/x86/boot.rst and zero-page.rst. The lab kernel reads the same page
//! as Linux does; there is one boot path.

use std::io;
use std::ops::Range;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::{initrd, layout, memory, random};

/// "This boot loader has no number assigned."
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448; // "HdrS"
const E820_RAM: u32 = 1;
/// Type of a setup_data entry that carries a seed for the kernel's random numbers.
const SETUP_RNG_SEED: u32 = 9;
/// Bytes of the seed: what the Linux kernel's pool takes (BLAKE2s, 256 bits).
const SEED: usize = 32;

/// Boot parameters could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is too long.
    #[error(
        "the kernel command line is {0} bytes long; x86 kernels take at most {max}. Shorten --cmdline or the program's arguments",
        max = layout::CMDLINE_MAX - 1
    )]
    CommandLine(usize),
    /// The command line holds a NUL.
    #[error("the kernel command line holds a NUL byte, which would end it there")]
    Nul,
    /// No random seed.
    #[error("cannot get random bytes for the guest's seed: {0}")]
    Seed(io::Error),
    /// Guest memory.
    #[error("cannot write the boot parameters into guest memory: {0}")]
    Write(#[from] GuestMemoryError),
}

/// Writes the boot parameters, the command line and the random seed.
pub fn write(
    memory: &GuestMemoryMmap,
    from_kernel: Option<setup_header>,
    command_line: &[u8],
    initrd: initrd::Placed,
) -> Result<(), Error> {
    if command_line.len() >= layout::CMDLINE_MAX {
        return Err(Error::CommandLine(command_line.len()));
    }
    if command_line.contains(&0) {
        return Err(Error::Nul);
    }
    memory.write_slice(command_line, GuestAddress(layout::CMDLINE))?;
    memory.write_obj(0u8, GuestAddress(layout::CMDLINE + command_line.len() as u64))?;
    write_seed(memory)?;

    let mut params = boot_params {
        hdr: from_kernel.unwrap_or_default(),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.cmd_line_ptr = layout::CMDLINE as u32;
    params.hdr.cmdline_size = layout::CMDLINE_MAX as u32 - 1;
    // Both fit: the initrd lies below the device hole, and so below 4 GiB.
    params.hdr.ramdisk_image = initrd.address as u32;
    params.hdr.ramdisk_size = initrd.size as u32;
    params.hdr.setup_data = layout::SETUP_DATA;

    let ranges = ram(memory);
    for (entry, range) in params.e820_table.iter_mut().zip(&ranges) {
        *entry = boot_e820_entry {
            addr: range.start,
            size: range.end - range.start,
            r#type: E820_RAM,
        };
    }
    params.e820_entries = ranges.len() as u8;
    memory.write_obj(Page(params), GuestAddress(layout::BOOT_PARAMS))?;
    Ok(())
}

/// The memory map: what a kernel may use as RAM. Not the hole below the first MiB, nor the devices below 4 GiB.
pub fn ram(memory: &GuestMemoryMmap) -> Vec<Range<u64>> {
    let size = memory::size(memory);
    let below_hole = size.min(layout::DEVICE_HOLE);
    let mut ranges = vec![0..layout::LOW_RAM_END, layout::HIGH_RAM..below_hole];
    if size > below_hole {
        ranges.push(layout::ABOVE_4G..layout::ABOVE_4G + size - below_hole);
    }
    ranges
}

/// Linked list of one: next (0), type, length, data (`struct setup_data`).
fn write_seed(memory: &GuestMemoryMmap) -> Result<(), Error> {
    let mut node = [0u8; 16 + SEED];
    node[8..12].copy_from_slice(&SETUP_RNG_SEED.to_le_bytes());
    node[12..16].copy_from_slice(&(SEED as u32).to_le_bytes());
    random::fill(&mut node[16..]).map_err(Error::Seed)?;
    memory.write_slice(&node, GuestAddress(layout::SETUP_DATA))?;
    Ok(())
}

/// `boot_params` as bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Page(boot_params);

// SAFETY: boot_params is a packed C structure of integers: any bytes are a valid one, and it has no padding.
unsafe impl ByteValued for Page {}
