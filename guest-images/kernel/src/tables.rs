//! The tables the processor reads by itself: page tables, GDT, IDT, TSS.
//!
//! All of it is known when the kernel is linked, so all of it is constant: the kernel loads four registers at boot and
//! computes nothing. On hardware that saves microseconds. Where kernel code is interpreted it saves most of a
//! millisecond.

use core::mem::offset_of;

use crate::cell::Lone;
use crate::layout::*;

/// Entry is valid.
pub const PRESENT: u64 = 1 << 0;
/// May be written to.
pub const WRITABLE: u64 = 1 << 1;
/// A program may use it.
pub const USER: u64 = 1 << 2;
/// In a PD entry: maps 2 MiB.
pub const LARGE: u64 = 1 << 7;
/// Must not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;

const ENTRIES: usize = 512;
type Table = [u64; ENTRIES];

/// What the processor reads. One static at a known address, the first of the kernel's image.
#[repr(C, align(4096))]
pub struct Tables {
    pml4: Table,
    /// Third level for physical memory: shared by the direct map and the identity map of the first instructions.
    pdpt_physical: Table,
    pd_physical: Table,
    pdpt_kernel: Table,
    pd_kernel: Table,
    pt_kernel: Table,
    gdt: [u64; 10],
    gdt_register: TableRegister,
    idt_register: TableRegister,
    tss: TaskState,
    idt: [Gate; VECTORS_COUNT],
}

/// Operand of `lgdt` and `lidt`: limit, then address.
#[repr(C, packed)]
struct TableRegister(u16, u64);

/// The 64-bit TSS (Intel SDM vol. 3A, figure 8-11): which stack an exception switches to.
#[repr(C, packed)]
struct TaskState {
    reserved_0: u32,
    /// Stack for an exception that comes from the program.
    rsp0: u64,
    rsp1: u64,
    rsp2: u64,
    reserved_1: u64,
    /// Stacks a gate can ask for by number, from 1.
    ist: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    io_map_base: u16,
}

/// One IDT entry (Intel SDM vol. 3A, figure 6-8).
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate(u64, u64);

/// The exceptions of the architecture. No device interrupts here.
pub const VECTORS_COUNT: usize = 32;
/// Distance between two vectors' code in bytes.
pub const VECTOR_SIZE: u64 = 16;
const DOUBLE_FAULT: usize = 8;

const BASE: u64 = KERNEL_OFFSET + KERNEL_PHYSICAL;

/// Physical address of the top-level table: what CR3 holds.
pub const PML4_PHYSICAL: u64 = KERNEL_PHYSICAL + offset_of!(Tables, pml4) as u64;
/// Virtual address of the operand of `lgdt`.
pub const GDT_REGISTER: u64 = BASE + offset_of!(Tables, gdt_register) as u64;
/// Virtual address of the operand of `lidt`.
pub const IDT_REGISTER: u64 = BASE + offset_of!(Tables, idt_register) as u64;

const fn table(offset: usize) -> u64 {
    (KERNEL_PHYSICAL + offset as u64) | PRESENT | WRITABLE
}

/// The stacks lie in the data window's last pages; each grows down to the one below.
pub const STACK_TOP_KERNEL: u64 = BASE + DATA_PAGES as u64 * PAGE;
/// A double fault may mean that the kernel's stack is bad: it gets one of its own.
const STACK_TOP_DOUBLE_FAULT: u64 = STACK_TOP_KERNEL - STACK_SIZE;
/// Size of each of the two stacks.
pub const STACK_SIZE: u64 = 4 * PAGE;

/// The tables. `used`: the processor reads them, of which the compiler knows nothing.
#[used]
#[unsafe(link_section = ".tables")]
pub static TABLES: Lone<Tables> = Lone::new(Tables {
    pml4: {
        let mut t = [0; ENTRIES];
        // The entry instructions run at physical addresses; the program's tables replace this before it starts.
        t[0] = table(offset_of!(Tables, pdpt_physical));
        t[index(DIRECT_MAP, 3)] = table(offset_of!(Tables, pdpt_physical)) | NO_EXECUTE;
        t[index(BASE, 3)] = table(offset_of!(Tables, pdpt_kernel));
        t
    },
    pdpt_physical: first(table(offset_of!(Tables, pd_physical))),
    pd_physical: {
        let mut t = [0; ENTRIES];
        let mut i = 0;
        while i < ENTRIES {
            t[i] = (i as u64 * LARGE_PAGE) | PRESENT | WRITABLE | LARGE;
            i += 1;
        }
        t
    },
    pdpt_kernel: {
        let mut t = [0; ENTRIES];
        t[index(BASE, 2)] = table(offset_of!(Tables, pd_kernel));
        t
    },
    pd_kernel: {
        let mut t = [0; ENTRIES];
        t[index(BASE, 1)] = table(offset_of!(Tables, pt_kernel));
        t
    },
    pt_kernel: {
        // Data may be written and not executed, code executed and not written, constants neither.
        let mut t = [0; ENTRIES];
        let first = index(BASE, 0);
        let mut i = 0;
        while i < DATA_PAGES + TEXT_PAGES + RODATA_PAGES {
            let flags = if i < DATA_PAGES {
                PRESENT | WRITABLE | NO_EXECUTE
            } else if i < DATA_PAGES + TEXT_PAGES {
                PRESENT
            } else {
                PRESENT | NO_EXECUTE
            };
            t[first + i] = (KERNEL_PHYSICAL + i as u64 * PAGE) | flags;
            i += 1;
        }
        t
    },
    gdt: {
        // Descriptors as Linux has them (arch/x86/kernel/cpu/common.c, gdt_page), at the selectors of layout.rs.
        let tss = BASE + offset_of!(Tables, tss) as u64;
        let limit = size_of::<TaskState>() as u64 - 1;
        let mut t = [0; 10];
        t[KERNEL_CS as usize / 8] = 0x00af_9b00_0000_ffff;
        t[KERNEL_DS as usize / 8] = 0x00cf_9300_0000_ffff;
        t[USER_DS as usize / 8] = 0x00cf_f300_0000_ffff;
        t[USER_CS as usize / 8] = 0x00af_fb00_0000_ffff;
        t[TSS as usize / 8] = (tss >> 24 & 0xff) << 56 | 0x89 << 40 | (tss & 0xff_ffff) << 16 | limit;
        t[TSS as usize / 8 + 1] = tss >> 32;
        t
    },
    gdt_register: TableRegister(8 * 10 - 1, BASE + offset_of!(Tables, gdt) as u64),
    idt_register: TableRegister(16 * VECTORS_COUNT as u16 - 1, BASE + offset_of!(Tables, idt) as u64),
    tss: TaskState {
        reserved_0: 0,
        rsp0: STACK_TOP_KERNEL,
        rsp1: 0,
        rsp2: 0,
        reserved_1: 0,
        ist: [STACK_TOP_DOUBLE_FAULT, 0, 0, 0, 0, 0, 0],
        reserved_2: 0,
        reserved_3: 0,
        // Beyond the limit: no port is the program's.
        io_map_base: size_of::<TaskState>() as u16,
    },
    idt: {
        let mut t = [Gate(0, 0); VECTORS_COUNT];
        let mut vector = 0;
        while vector < VECTORS_COUNT {
            let stack = if vector == DOUBLE_FAULT { 1 } else { 0 };
            t[vector] = gate(VECTORS + vector as u64 * VECTOR_SIZE, stack);
            vector += 1;
        }
        t
    },
});

/// Index into the table of this level (0: PT, 3: PML4) for a virtual address.
pub const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize & (ENTRIES - 1)
}

const fn first(entry: u64) -> Table {
    let mut t = [0; ENTRIES];
    t[0] = entry;
    t
}

/// A gate of the kind that switches interrupts off, for the kernel's own use (a program may not `int` through it).
const fn gate(handler: u64, stack: u64) -> Gate {
    const INTERRUPT_GATE: u64 = 0x8e;
    Gate(
        (handler >> 16 & 0xffff) << 48
            | INTERRUPT_GATE << 40
            | stack << 32
            | (KERNEL_CS as u64) << 16
            | handler & 0xffff,
        handler >> 32,
    )
}

/// Extends the direct map beyond its first GiB, up to physical address `end`, with table pages from `new_page`
/// (physical, zero). Costs nothing for a guest of up to 1 GiB.
pub fn extend_direct_map(end: u64, mut new_page: impl FnMut() -> Option<u64>) {
    let end = end.min(DIRECT_MAP_MAX);
    let mut gigabyte = 1;
    while gigabyte << 30 < end {
        let Some(page) = new_page() else { return };
        let directory = (DIRECT_MAP + page) as *mut u64;
        for i in 0..ENTRIES as u64 {
            let entry = (gigabyte << 30) | (i * LARGE_PAGE) | PRESENT | WRITABLE | LARGE;
            // SAFETY: a fresh page of the first GiB, which is in the direct map; nobody else knows it.
            unsafe { directory.add(i as usize).write(entry) };
        }
        TABLES.with(|tables| set(&mut tables.pdpt_physical[gigabyte as usize], page | PRESENT | WRITABLE));
        gigabyte += 1;
    }
}

/// Makes `pdpt` (physical) the program's half of the address space. Takes the identity map away.
pub fn install_user(pdpt: u64) {
    TABLES.with(|tables| set(&mut tables.pml4[0], pdpt | PRESENT | WRITABLE | USER));
}

/// Writes an entry now, not whenever the compiler finds it convenient.
fn set(entry: &mut u64, value: u64) {
    // SAFETY: a valid exclusive reference.
    unsafe { (entry as *mut u64).write_volatile(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kernel_page_is_both_writable_and_executable_and_none_is_the_users() {
        TABLES.with(|tables| {
            for entry in tables.pt_kernel.into_iter().filter(|entry| entry & PRESENT != 0) {
                assert!(entry & WRITABLE == 0 || entry & NO_EXECUTE != 0, "{entry:#x}");
                assert_eq!(entry & USER, 0);
            }
            assert_ne!(tables.pml4[index(DIRECT_MAP, 3)] & NO_EXECUTE, 0);
            assert!(tables.pml4.iter().all(|entry| entry & USER == 0));
        });
    }

    #[test]
    fn gates_and_segments_have_the_bits_the_manual_shows() {
        TABLES.with(|tables| {
            let Gate(low, high) = tables.idt[14];
            let handler = low & 0xffff | (low >> 48) << 16 | high << 32;
            assert_eq!(handler, VECTORS + 14 * VECTOR_SIZE);
            assert_eq!(low >> 40 & 0xff, 0x8e);
            let tss = tables.gdt[8] >> 16 & 0xff_ffff | (tables.gdt[8] >> 56) << 24 | tables.gdt[9] << 32;
            assert_eq!(tss, BASE + offset_of!(Tables, tss) as u64);
        });
    }
}
