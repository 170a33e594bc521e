//! The vCPU's registers at the guest's first instruction: 64-bit mode as the Linux boot protocol wants it, or 32-bit
//! protected mode as PVH does.
//!
//! A real processor starts in 16-bit real mode and firmware walks it up through protected mode, paging and long mode.
//! A virtual one starts where we say: writing the registers is the whole walk.

use kvm_bindings::{Msrs, kvm_dtable, kvm_msr_entry, kvm_regs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::kernel::Entry;
use crate::{gdt, layout, paging};

const CR0_PROTECTED_MODE: u64 = 1 << 0;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads 1; interrupts are off, as the boot protocol demands.
const RFLAGS_RESERVED: u64 = 1 << 1;

const MSR_MISC_ENABLE: u32 = 0x1a0;
/// Fast `rep movs`/`rep stos` microcode: what firmware leaves on.
const MISC_ENABLE_FAST_STRING: u64 = 1 << 0;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// MTRRs on, and memory is write-back unless they say otherwise. Without it Linux would run uncached.
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// A register could not be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The boot GDT or page tables do not fit into guest memory.
    #[error("cannot write the boot tables into guest memory: {0}")]
    Tables(#[from] GuestMemoryError),
    /// KVM refused a group of registers.
    #[error("KVM refused the vCPU's {what}: {source}")]
    Registers {
        /// Which group.
        what: &'static str,
        /// KVM's errno.
        source: kvm_ioctls::Error,
    },
}

impl Error {
    fn of(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
        move |source| Error::Registers { what, source }
    }
}

/// Starts a vCPU at address 0, in the 16-bit mode it is in after a reset.
pub fn real_mode_at_zero(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut special = vcpu.get_sregs().map_err(Error::of("special registers"))?;
    (special.cs.base, special.cs.selector) = (0, 0);
    vcpu.set_sregs(&special).map_err(Error::of("special registers"))?;
    let general = kvm_regs {
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    vcpu.set_regs(&general).map_err(Error::of("general registers"))
}

/// Sets everything the guest's first instruction depends on; execution will start at `entry`.
pub fn set_up(vcpu: &VcpuFd, memory: &GuestMemoryMmap, entry: Entry) -> Result<(), Error> {
    for (i, descriptor) in gdt::TABLE.into_iter().enumerate() {
        memory.write_obj(descriptor, GuestAddress(layout::GDT + 8 * i as u64))?;
    }

    let mut special = vcpu.get_sregs().map_err(Error::of("special registers"))?;
    special.gdt = kvm_dtable {
        base: layout::GDT,
        limit: (size_of_val(&gdt::TABLE) - 1) as u16,
        ..Default::default()
    };
    let data = gdt::segment(gdt::DATA_SELECTOR, gdt::DATA);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = gdt::segment(gdt::TASK_SELECTOR, gdt::TASK);
    special.cr0 = CR0_PROTECTED_MODE | CR0_EXTENSION_TYPE;
    let mut general = kvm_regs {
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    match entry {
        // ANCHOR: linux64
        Entry::Linux64(rip) => {
            paging::write(memory)?;
            special.cs = gdt::segment(gdt::CODE_SELECTOR, gdt::CODE);
            special.cr0 |= CR0_PAGING;
            special.cr3 = layout::PML4;
            special.cr4 = CR4_PHYSICAL_ADDRESS_EXTENSION;
            special.efer = EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE;
            (general.rip, general.rsi) = (rip, layout::BOOT_PARAMS);
        }
        // ANCHOR_END: linux64
        Entry::Pvh(rip) => {
            special.cs = gdt::segment(gdt::CODE_SELECTOR, gdt::CODE_32);
            (general.rip, general.rbx) = (rip, layout::PVH_START_INFO);
        }
    }
    vcpu.set_sregs(&special).map_err(Error::of("special registers"))?;
    vcpu.set_regs(&general).map_err(Error::of("general registers"))?;

    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let msrs = Msrs::from_entries(&[
        msr(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        msr(MSR_MTRR_DEFAULT_TYPE, MTRR_ENABLED_WRITE_BACK),
    ])
    // Two entries are far below the limit, so this cannot fail; ENOMEM is the honest name if it did.
    .map_err(|_| Error::Registers {
        what: "MSRs",
        source: kvm_ioctls::Error::new(libc::ENOMEM),
    })?;
    vcpu.set_msrs(&msrs).map_err(Error::of("MSRs"))?;
    Ok(())
}
