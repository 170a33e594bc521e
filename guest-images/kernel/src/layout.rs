//! Where everything lies: the kernel in physical memory, and everybody in virtual memory.
//!
//! ```text
//!   virtual
//!   0xffff_ffff_8010_0000  the kernel: data, code, constants        (supervisor)
//!   0xffff_8000_0000_0000  all physical memory, in 2 MiB pages      (supervisor, never executable)
//!   - - - - - - - - - - -  the non-canonical hole
//!   0x0000_0080_0000_0000  end of the program's addresses           (user)
//!              4000_0000   mmap, upwards
//!              3fff_f000   top of the stack, downwards
//!              ...         heap (brk), upwards
//!              0040_0000   the program
//!   0x0000_0000_0000_0000  never mapped: a null pointer must fault
//! ```
//!
//! Program, heap and stack share the first GiB on purpose: one page-table page at each level serves them all.

/// Size of a page, and of a page table, in bytes.
pub const PAGE: u64 = 4096;
/// What one entry of a PD maps.
pub const LARGE_PAGE: u64 = 2 << 20;

/// Added to a physical address of the kernel's image to get its virtual one (see kernel.ld).
pub const KERNEL_OFFSET: u64 = 0xffff_ffff_8000_0000;
/// Physical address of the kernel's image: the first address above a PC's legacy hole.
pub const KERNEL_PHYSICAL: u64 = 0x10_0000;
/// Pages of the data window: page tables, GDT, IDT, TSS, stack, state.
pub const DATA_PAGES: usize = 0x40;
/// Pages of the code window.
pub const TEXT_PAGES: usize = 0x20;
/// Pages of the constants window.
pub const RODATA_PAGES: usize = 0x40;
/// Virtual address of the code window; the exception vectors are the first thing in it.
pub const VECTORS: u64 = KERNEL_OFFSET + KERNEL_PHYSICAL + DATA_PAGES as u64 * PAGE;
/// First physical address behind the kernel's windows.
pub const KERNEL_END: u64 = KERNEL_PHYSICAL + (DATA_PAGES + TEXT_PAGES + RODATA_PAGES) as u64 * PAGE;

/// Virtual address at which all physical memory is visible to the kernel.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Most physical memory the direct map covers: what the page-table pages set aside for it can map.
pub const DIRECT_MAP_MAX: u64 = 64 << 30;

/// Lowest address a program may map.
pub const USER_START: u64 = 0x1_0000;
/// First address a program may not use: one PML4 entry.
pub const USER_END: u64 = 1 << 39;
/// Where a position-independent program is put.
pub const PIE_BASE: u64 = 0x40_0000;
/// One past the stack's highest byte. The page above stays unmapped.
pub const STACK_TOP: u64 = 0x3fff_f000;
/// How far the stack may grow, as Linux's default limit.
pub const STACK_MAX: u64 = 8 << 20;
/// First address of anonymous mappings; they grow upwards.
pub const MMAP_BASE: u64 = 0x4000_0000;

/// Selector of kernel code. What the boot protocol hands us in CS, so that CS never needs reloading.
pub const KERNEL_CS: u16 = 0x10;
/// Selector of kernel data. `syscall` loads SS with KERNEL_CS + 8 (Intel SDM vol. 2B, SYSCALL).
pub const KERNEL_DS: u16 = 0x18;
/// What `sysretq` counts from: it loads SS with this + 8 and CS with this + 16.
pub const SYSRET_BASE: u16 = 0x23;
/// Selector of user data, privilege level 3.
pub const USER_DS: u16 = 0x28 | 3;
/// Selector of user code, privilege level 3.
pub const USER_CS: u16 = 0x30 | 3;
/// Selector of the task state segment.
pub const TSS: u16 = 0x40;
