//! CPUID: what the guest is told about its processor.
//!
//! Every CPUID instruction of a guest asks the hypervisor, and the answer decides what the guest's kernel dares to use. Both
//! machines set bit 31 of leaf 1, which is how a guest learns that it is one. [`bare`] says the least there is; [`pc`]
//! says what KVM offers, corrected where our machine differs.

pub mod bare;
pub mod pc;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;

/// KVM refused the table, or would not say what it supports.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No table to start from.
    #[error("KVM does not tell which CPUID leaves it supports: {0}")]
    Supported(kvm_ioctls::Error),
    /// Not this table.
    #[error("KVM refused the CPUID table: {0}")]
    Refused(kvm_ioctls::Error),
}

/// Gives the vCPU this table.
pub fn give(vcpu: &VcpuFd, entries: &[kvm_cpuid_entry2]) -> Result<(), Error> {
    // E2BIG is what KVM itself says to a table that is too long.
    let table = CpuId::from_entries(entries).map_err(|_| Error::Refused(kvm_ioctls::Error::new(libc::E2BIG)))?;
    vcpu.set_cpuid2(&table).map_err(Error::Refused)
}

const fn bits(positions: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < positions.len() {
        mask |= 1 << positions[i];
        i += 1;
    }
    mask
}
