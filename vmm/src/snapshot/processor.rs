//! A vCPU's state, out of KVM and back into it.

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Error, PROGRAM_RANDOM};
use crate::machine::Kind;

/// Everything a vCPU is, as KVM hands it out (Documentation/virt/kvm/api.rst).
#[cfg_attr(feature = "driver", derive(Default))]
#[derive(Serialize, Deserialize)]
pub struct State {
    /// What it was told to be.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    general: kvm_regs,
    special: kvm_sregs,
    /// Floating point and vector registers.
    extended: kvm_xsave,
    msrs: Vec<kvm_msr_entry>,
    pc: Option<PcState>,
}

/// What only a vCPU with interrupts has.
#[cfg_attr(feature = "driver", derive(Default))]
#[derive(Serialize, Deserialize)]
struct PcState {
    apic: kvm_lapic_state,
    running: kvm_mp_state,
    pending: kvm_vcpu_events,
    debug: kvm_debugregs,
    extended_control: kvm_xcrs,
}

/// MSRs the lab kernel sets, and the time stamp counter: TSC, MISC_ENABLE, SYSENTER (3), PAT, MTRR default type, STAR,
/// LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE. (EFER and the bases of FS and GS are among the special registers.)
const BARE_MSRS: [u32; 12] = [
    0x10,
    0x1a0,
    0x174,
    0x175,
    0x176,
    0x277,
    0x2ff,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
];

/// Which MSRs to keep: for Linux all that KVM says it keeps.
pub fn wanted_msrs(kvm: &Kvm, kind: Kind) -> Result<Vec<u32>, Error> {
    match kind {
        Kind::Bare => Ok(BARE_MSRS.to_vec()),
        Kind::Pc => Ok(kvm
            .get_msr_index_list()
            .map_err(Error::kvm("list the MSRs it keeps"))?
            .as_slice()
            .to_vec()),
    }
}

impl State {
    /// Reads it. The vCPU is out of the guest and has nothing half done.
    pub fn of(vcpu: &VcpuFd, msrs: &[u32], kind: Kind) -> Result<State, Error> {
        let pc = match kind {
            Kind::Bare => None,
            Kind::Pc => Some(PcState {
                // First: it settles what is on its way to the processor.
                running: vcpu.get_mp_state().map_err(Error::kvm("read whether a vCPU runs"))?,
                apic: vcpu.get_lapic().map_err(Error::kvm("read a local APIC"))?,
                pending: vcpu
                    .get_vcpu_events()
                    .map_err(Error::kvm("read a vCPU's pending events"))?,
                debug: vcpu
                    .get_debug_regs()
                    .map_err(Error::kvm("read a vCPU's debug registers"))?,
                extended_control: vcpu
                    .get_xcrs()
                    .map_err(Error::kvm("read a vCPU's extended control registers"))?,
            }),
        };
        Ok(State {
            cpuid: vcpu
                .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
                .map_err(Error::kvm("read a vCPU's CPUID table"))?
                .as_slice()
                .to_vec(),
            general: vcpu.get_regs().map_err(Error::kvm("read a vCPU's registers"))?,
            special: vcpu
                .get_sregs()
                .map_err(Error::kvm("read a vCPU's special registers"))?,
            extended: vcpu.get_xsave().map_err(Error::kvm("read a vCPU's vector registers"))?,
            msrs: msrs.iter().filter_map(|&index| read_msr(vcpu, index)).collect(),
            pc,
        })
    }

    /// One with nothing in it, for tests.
    #[cfg(feature = "driver")]
    pub fn blank(kind: Kind) -> State {
        State {
            pc: (kind == Kind::Pc).then(PcState::default),
            ..State::default()
        }
    }

    /// Of which kind of machine it is.
    pub fn kind(&self) -> Kind {
        match self.pc {
            None => Kind::Bare,
            Some(_) => Kind::Pc,
        }
    }

    /// Writes it into a vCPU that has not run yet.
    ///
    /// The order matters: what CPUID allows decides which registers are accepted, the local APIC must be on before the MSR
    /// of its timer, and pending events come last.
    pub fn give_to(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        crate::cpuid::give(vcpu, &self.cpuid).map_err(|error| match error {
            crate::cpuid::Error::Supported(source) | crate::cpuid::Error::Refused(source) => Error::Kvm {
                what: "set the snapshot's CPUID table",
                source,
                cure: "",
            },
        })?;
        if let Some(pc) = &self.pc {
            vcpu.set_mp_state(pc.running)
                .map_err(Error::kvm("set whether a vCPU runs"))?;
        }
        vcpu.set_sregs(&self.special)
            .map_err(Error::kvm("set a vCPU's special registers"))?;
        vcpu.set_regs(&self.general)
            .map_err(Error::kvm("set a vCPU's registers"))?;
        if let Some(pc) = &self.pc {
            vcpu.set_xcrs(&pc.extended_control)
                .map_err(Error::kvm("set a vCPU's extended control registers"))?;
            vcpu.set_debug_regs(&pc.debug)
                .map_err(Error::kvm("set a vCPU's debug registers"))?;
            vcpu.set_lapic(&pc.apic).map_err(Error::kvm("set a local APIC"))?;
        }
        // SAFETY: no vCPU of ours has had the larger XSAVE areas (KVM_CAP_XSAVE2) switched on, so 4 KiB hold all.
        unsafe { vcpu.set_xsave(&self.extended) }.map_err(Error::kvm("set a vCPU's vector registers"))?;
        let msrs = Msrs::from_entries(&self.msrs).map_err(|_| Error::Kvm {
            what: "take so many MSRs",
            source: kvm_ioctls::Error::new(libc::E2BIG),
            cure: "",
        })?;
        let set = vcpu.set_msrs(&msrs).map_err(Error::kvm("set a vCPU's MSRs"))?;
        if set != self.msrs.len() {
            return Err(Error::Kvm {
                what: "set one of the vCPU's MSRs",
                source: kvm_ioctls::Error::new(libc::EINVAL),
                cure: ". The snapshot comes from a KVM that knows more of them; take it anew here",
            });
        }
        if let Some(pc) = &self.pc {
            vcpu.set_vcpu_events(&pc.pending)
                .map_err(Error::kvm("set a vCPU's pending events"))?;
        }
        Ok(())
    }
}

/// One at a time: KVM stops at the first it will not read, and some depend on the guest.
fn read_msr(vcpu: &VcpuFd, index: u32) -> Option<kvm_msr_entry> {
    let mut one = Msrs::from_entries(&[kvm_msr_entry {
        index,
        ..Default::default()
    }])
    .ok()?;
    match vcpu.get_msrs(&mut one) {
        Ok(1) => one.as_slice().first().copied(),
        _ => None,
    }
}

/// Lets KVM complete the instruction that left the guest. Until then the registers are those of before or of the middle.
pub fn finish_exit(vcpu: &mut VcpuFd) -> Result<(), Error> {
    vcpu.set_kvm_immediate_exit(1);
    let left = vcpu.run().map(drop);
    vcpu.set_kvm_immediate_exit(0);
    match left {
        Err(error) if error.errno() != libc::EINTR => Err(Error::kvm("complete the guest's last exit")(error)),
        _ => Ok(()),
    }
}

/// `out dx, al` and `out dx, eax`: one byte each.
const OUT: [u8; 2] = [0xee, 0xef];

/// Makes the guest's next instruction the output it has just made, so that every clone makes it again.
pub fn step_back(vcpu: &VcpuFd, memory: &GuestMemoryMmap) -> Result<(), Error> {
    let mut general = vcpu.get_regs().map_err(Error::kvm("read a vCPU's registers"))?;
    let before = general.rip.wrapping_sub(1);
    let byte = vcpu
        .translate_gva(before)
        .ok()
        .filter(|found| found.valid != 0)
        .and_then(|found| memory.read_obj::<u8>(GuestAddress(found.physical_address)).ok());
    if !byte.is_some_and(|byte| OUT.contains(&byte)) {
        return Err(Error::Rewind(general.rip));
    }
    general.rip = before;
    vcpu.set_regs(&general).map_err(Error::kvm("set a vCPU's registers"))
}

/// Where, in guest-physical memory, the program about to start will find its random bytes: the kernel says it in RCX.
pub fn program_random(vcpu: &VcpuFd) -> Result<Option<u64>, Error> {
    let rcx = vcpu.get_regs().map_err(Error::kvm("read a vCPU's registers"))?.rcx;
    let translate = |address| -> Result<Option<u64>, Error> {
        let found = vcpu
            .translate_gva(address)
            .map_err(Error::kvm("translate an address of the guest"))?;
        Ok((found.valid != 0).then_some(found.physical_address))
    };
    // All of them in one page, or a clone would write beyond.
    let (first, last) = (translate(rcx)?, translate(rcx.wrapping_add(PROGRAM_RANDOM as u64 - 1))?);
    Ok(first.filter(|&first| last == Some(first + PROGRAM_RANDOM as u64 - 1)))
}
