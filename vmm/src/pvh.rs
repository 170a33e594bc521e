//! PVH: the other way into a kernel, made for hypervisors (Xen's docs/misc/pvh.pandoc; Linux has it as CONFIG_PVH).
//!
//! A note in the kernel's ELF file names a second entry point. The processor stands there in 32-bit protected mode without
//! paging, and RBX points to a structure that says what the zero page says: command line, initrd, memory map. QEMU and
//! Cloud Hypervisor enter an ELF kernel this way; FreeBSD has no other.

use linux_loader::loader::elf::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::{boot, initrd, layout};

/// The structure with a memory map in it (a Xen without it was version 0).
const VERSION: u32 = 1;
/// The initrd's entry behind the structure, and the memory map's behind that.
const MODULES: u64 = layout::PVH_START_INFO + size_of::<hvm_start_info>() as u64;
const MEMORY_MAP: u64 = MODULES + size_of::<hvm_modlist_entry>() as u64;

/// Writes the start info for a command line that already lies at [`layout::CMDLINE`].
pub fn write(memory: &GuestMemoryMmap, initrd: initrd::Placed) -> Result<(), GuestMemoryError> {
    let ranges = boot::ram(memory);
    for (i, range) in ranges.iter().enumerate() {
        let entry = hvm_memmap_table_entry {
            addr: range.start,
            size: range.end - range.start,
            type_: XEN_HVM_MEMMAP_TYPE_RAM,
            reserved: 0,
        };
        let at = MEMORY_MAP + (i * size_of::<hvm_memmap_table_entry>()) as u64;
        memory.write_obj(entry, GuestAddress(at))?;
    }
    let module = hvm_modlist_entry {
        paddr: initrd.address,
        size: initrd.size,
        ..Default::default()
    };
    memory.write_obj(module, GuestAddress(MODULES))?;
    let start = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: 1,
        modlist_paddr: MODULES,
        cmdline_paddr: layout::CMDLINE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: ranges.len() as u32,
        ..Default::default()
    };
    memory.write_obj(start, GuestAddress(layout::PVH_START_INFO))
}
