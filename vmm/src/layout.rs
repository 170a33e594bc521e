//! Where everything lies in guest memory. Every address the VMM chooses is here, with the reason beside it.
//!
//! ```text
//!   guest-physical
//!   0x0000_0000 +--------------------------+
//!               | (left empty: a null      |
//!               |  pointer must not work)  |
//!   0x0000_0500 | GDT                      |  GDTR
//!   0x0000_6000 | PVH start info           |  RBX   instead of the zero page, for kernels entered by PVH
//!   0x0000_7000 | boot parameters          |  RSI   "zero page": memory map, initrd, command line
//!   0x0000_8000 | setup data: random seed  |        linked from the boot parameters
//!   0x0000_9000 | boot page tables: PML4   |  CR3   identity map of the first 512 GiB,
//!   0x0000_a000 |                   PDPT   |        of which 1 GiB is filled in
//!   0x0000_b000 |                   PD     |
//!   0x0002_0000 | kernel command line      |
//!   0x0009_fc00 +--------------------------+        end of low RAM
//!               | MP table                 |        a PC's processors and interrupt lines
//!               | (legacy video and BIOS)  |
//!   0x0010_0000 +--------------------------+        high RAM
//!               | kernel                   |  RIP   where its own headers ask to be
//!               | ...                      |
//!               | free                     |
//!               | ...                      |
//!               | initrd                   |        page-aligned, at the top below 3 GiB
//!               +--------------------------+        --memory
//! ```
//!
//! RAM beyond 3 GiB continues at 4 GiB: below that lie the addresses of devices, as on every PC.
//!
//! ```text
//!   0xd000_0000 | virtio devices           |        one page of registers each
//!   0xfec0_0000 | I/O APIC                 |        inside KVM
//!   0xfee0_0000 | local APICs              |        inside KVM
//!   0xfffb_c000 | KVM's own four pages     |        VT-x only; no guest may use them
//!   0x1_0000_0000
//! ```

/// The boot GDT. Above the real-mode interrupt vectors and BIOS data, where Firecracker and crosvm have it too.
pub const GDT: u64 = 0x500;
/// What a kernel entered by PVH gets instead of the zero page: start info, then the list of modules and the memory map.
pub const PVH_START_INFO: u64 = 0x6000;
/// The "zero page" of the Linux boot protocol: one page.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Linked list of extra boot data. One entry: the random seed.
pub const SETUP_DATA: u64 = 0x8000;
/// First of the three boot page tables.
pub const PML4: u64 = 0x9000;
/// Second level: one entry per GiB.
pub const PDPT: u64 = 0xa000;
/// Third level: 512 entries of 2 MiB.
pub const PD: u64 = 0xb000;
/// Kernel command line, NUL-terminated.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line with its NUL, in bytes: Linux on x86 takes no more (COMMAND_LINE_SIZE).
pub const CMDLINE_MAX: usize = 2048;
/// End of low RAM: a PC's extended BIOS data area begins here, and every kernel leaves it alone.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// The MP table, in the first KiB of the extended BIOS data area: the first place where a kernel looks for it
/// (MultiProcessor Specification 1.4, section 4).
pub const MP_TABLE: u64 = LOW_RAM_END;
/// Room for it: that KiB.
pub const MP_TABLE_MAX: usize = 1024;
/// Start of high RAM, above the legacy hole.
pub const HIGH_RAM: u64 = 0x10_0000;
/// RAM below 4 GiB ends here at the latest; the GiB above it belongs to devices.
pub const DEVICE_HOLE: u64 = 0xc000_0000;
/// RAM that does not fit below [`DEVICE_HOLE`] continues here.
pub const ABOVE_4G: u64 = 0x1_0000_0000;

/// First page of device registers; each virtio device has one, in the order in which devices were asked for.
pub const DEVICES: u64 = 0xd000_0000;
/// Lines an I/O APIC has (Intel 82093AA).
pub const LINES: u32 = 24;
/// Interrupt lines of the virtio devices, one each. The others are a PC's own, and a kernel may claim them without looking: timer,
/// keyboard, cascade, serial ports (0 to 4), clock (8), mouse, coprocessor (12, 13).
pub const DEVICE_LINES: [u32; 16] = [5, 6, 7, 9, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];
/// Most virtio devices.
pub const DEVICES_MAX: usize = DEVICE_LINES.len();
/// Where every PC has its I/O APIC (MultiProcessor Specification 1.4, section 3.6.5).
pub const IO_APIC: u64 = 0xfec0_0000;
/// Where every PC's processors see their local APIC.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// One page in which KVM keeps an identity map for VT-x processors without unrestricted guest mode
/// (Documentation/virt/kvm/api.rst, KVM_SET_IDENTITY_MAP_ADDR).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages in which KVM keeps a task state segment for the same (KVM_SET_TSS_ADDR).
pub const KVM_TASK_STATE: u64 = 0xfffb_d000;

/// Most vCPUs: what the MP table's KiB describes.
pub const CPUS_MAX: u8 = 32;

/// Size of a page, in bytes.
pub const PAGE: u64 = 4096;
/// Size of a huge page: what one entry of the second-lowest level of page tables maps.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Least guest memory: low RAM, the legacy hole and a MiB for a kernel.
pub const MEMORY_MIN: u64 = 2 << 20;
/// Most guest memory we map: what one PDPT of the guest kernel's direct map covers.
pub const MEMORY_MAX: u64 = 64 << 30;
