//! CPUID of a PC: everything KVM supports on this host, corrected by the table below.
//!
//! KVM knows the processor; it does not know our machine: how many processors it has, that it gives no performance
//! counters, that no guest of ours gets guests of its own. Each correction names the register, the bits it replaces and why.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Kvm, VcpuFd};

use super::{Error, bits, give};

/// Which processor of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// This processor's number, which is also its APIC id.
    pub cpu: u8,
    /// All of them: cores of one package, one thread each.
    pub cpus: u8,
}

impl Topology {
    /// Bits of an APIC id that number the cores.
    fn core_bits(self) -> u32 {
        u32::from(self.cpus).next_power_of_two().trailing_zeros()
    }
}

enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

/// In `register` of leaf `function` (of sub-leaf `index`, or of all), the bits of `mask` become those of `value`.
struct Correction {
    function: u32,
    index: Option<u32>,
    register: Register,
    mask: u32,
    value: fn(Topology) -> u32,
}

const fn correct(
    function: u32,
    index: Option<u32>,
    register: Register,
    mask: u32,
    value: fn(Topology) -> u32,
) -> Correction {
    Correction {
        function,
        index,
        register,
        mask,
        value,
    }
}

const ALL: u32 = !0;

/// Features of KVM's paravirtual interface (Documentation/virt/kvm/x86/cpuid.rst) that a guest of ours gets: a clock that
/// costs no exit (0, 3, 24), no delay after port accesses (1), an end of interrupt without exit (6), waking a processor
/// that waits for a lock (7). Left out: page faults and wake-ups that need an interrupt handler in the VMM's confidence.
const KVM_FEATURES: u32 = bits(&[0, 1, 3, 6, 7, 24]);

#[rustfmt::skip]
const CORRECTIONS: [Correction; 22] = [
    // Leaf 1: who am I, how many are we.
    correct(1, None, Ebx, 0xff << 24, |topology| u32::from(topology.cpu) << 24),
    correct(1, None, Ebx, 0xff << 16, |topology| u32::from(topology.cpus) << 16),
    // Hyper-threading bit: "the count above means something".
    correct(1, None, Edx, bits(&[28]), |topology| u32::from(topology.cpus > 1) << 28),
    // A guest is told that it is one (31); the local APIC inside KVM has a deadline timer (24).
    correct(1, None, Ecx, bits(&[24, 31]), |_| bits(&[24, 31])),
    // No VMX (5): a guest of ours gets no guests. No performance capabilities (15), no debug store (EDX 21).
    correct(1, None, Ecx, bits(&[5, 15]), |_| 0),
    correct(1, None, Edx, bits(&[21]), |_| 0),
    // Leaf 4, Intel's caches: cores in the package; the first two levels belong to one core, the third to all.
    correct(4, None, Eax, 0x3f << 26, |topology| u32::from(topology.cpus - 1) << 26),
    correct(4, Some(0), Eax, 0xfff << 14, |_| 0),
    correct(4, Some(1), Eax, 0xfff << 14, |_| 0),
    correct(4, Some(2), Eax, 0xfff << 14, |_| 0),
    correct(4, Some(3), Eax, 0xfff << 14, |topology| u32::from(topology.cpus - 1) << 14),
    // Leaf 0xa: no performance counters.
    correct(0xa, None, Eax, ALL, |_| 0),
    correct(0xa, None, Ebx, ALL, |_| 0),
    correct(0xa, None, Edx, ALL, |_| 0),
    // KVM's own leaf: what is left of its offers.
    correct(0x4000_0001, None, Eax, !KVM_FEATURES, |_| 0),
    // AMD: no SVM, for the same reason as no VMX.
    correct(0x8000_0001, None, Ecx, bits(&[2]), |_| 0),
    // AMD's count of cores, and how many bits of the APIC id number them.
    correct(0x8000_0008, None, Ecx, 0xff, |topology| u32::from(topology.cpus - 1)),
    correct(0x8000_0008, None, Ecx, 0xf << 12, |topology| topology.core_bits() << 12),
    // AMD's topology: the APIC id, one thread to a core, one node.
    correct(0x8000_001e, None, Eax, ALL, |topology| topology.cpu.into()),
    correct(0x8000_001e, None, Ebx, 0xffff, |topology| topology.cpu.into()),
    correct(0x8000_001e, None, Ecx, 0x7ff, |_| 0),
    correct(0x8000_000a, None, Edx, ALL, |_| 0),
];

/// Leaves that are ours alone: Intel's topology, a level of threads (one to a core) and a level of cores.
const TOPOLOGY: u32 = 0xb;
const LEVEL_THREADS: u32 = 1 << 8;
const LEVEL_CORES: u32 = 2 << 8;
/// A newer form of the same leaf; without it a guest reads 0xb.
const TOPOLOGY_V2: u32 = 0x1f;

/// Gives the vCPU its CPUID table.
pub fn set_up(kvm: &Kvm, vcpu: &VcpuFd, topology: Topology) -> Result<(), Error> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(Error::Supported)?;
    give(vcpu, &corrected(supported.as_slice(), topology))
}

fn corrected(supported: &[kvm_cpuid_entry2], topology: Topology) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<_> = supported
        .iter()
        .filter(|entry| ![TOPOLOGY, TOPOLOGY_V2].contains(&entry.function))
        .copied()
        .collect();
    for entry in &mut entries {
        for correction in CORRECTIONS.iter().filter(|correction| {
            correction.function == entry.function && correction.index.is_none_or(|index| index == entry.index)
        }) {
            let register = match correction.register {
                Eax => &mut entry.eax,
                Ebx => &mut entry.ebx,
                Ecx => &mut entry.ecx,
                Edx => &mut entry.edx,
            };
            *register = *register & !correction.mask | (correction.value)(topology) & correction.mask;
        }
    }
    let level = |index, shift, count, kind| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind | index,
        edx: topology.cpu.into(),
        ..Default::default()
    };
    entries.push(level(0, 0, 1, LEVEL_THREADS));
    entries.push(level(1, topology.core_bits(), topology.cpus.into(), LEVEL_CORES));
    entries.push(level(2, 0, 0, 0));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_how_many_processors_there_are_and_which_this_is() {
        let all = |function| kvm_cpuid_entry2 {
            function,
            eax: ALL,
            ebx: ALL,
            ecx: ALL,
            edx: ALL,
            ..Default::default()
        };
        let supported = [all(1), all(0xa), all(TOPOLOGY), all(TOPOLOGY_V2), all(0x8000_0008)];
        let table = corrected(&supported, Topology { cpu: 2, cpus: 3 });
        let leaf = |function, index| {
            *table
                .iter()
                .find(|e| (e.function, e.index) == (function, index))
                .unwrap()
        };
        assert_eq!(leaf(1, 0).ebx >> 16, 2 << 8 | 3);
        assert_eq!(leaf(1, 0).ecx & bits(&[5, 31]), bits(&[31]));
        assert_eq!(leaf(0xa, 0).eax, 0);
        assert_eq!(leaf(0x8000_0008, 0).ecx & 0xf0ff, 2 << 12 | 2);
        assert_eq!(
            (leaf(TOPOLOGY, 1).eax, leaf(TOPOLOGY, 1).ebx, leaf(TOPOLOGY, 1).edx),
            (2, 3, 2)
        );
        assert!(table.iter().all(|e| e.function != TOPOLOGY_V2));
        assert_eq!(table.iter().filter(|e| e.function == TOPOLOGY).count(), 3);
    }
}
