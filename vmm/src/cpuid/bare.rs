//! CPUID of the bare machine: the host's own values, cut down to what there is. No local APIC, no performance counters, no
//! virtualization inside.
//!
//! `KVM_GET_SUPPORTED_CPUID` would give a table too, by running a hundred CPUID instructions in the host's kernel. On
//! a host that is itself a guest each of them leaves that host for the one below. We ask for the few leaves we use.

use std::arch::x86_64::{__cpuid_count, CpuidResult};

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;

use super::{Error, bits};

/// How one leaf reaches the guest: the host's value, and `and` with these masks, then `or` with these.
struct Leaf {
    function: u32,
    index: Option<u32>,
    keep: [u32; 4],
    set: [u32; 4],
}

const ALL: u32 = !0;
const NONE: [u32; 4] = [0; 4];

/// Leaf 1, ECX: instruction sets a program may use without any help from the guest kernel. Left out among others:
/// MONITOR (3), VMX (5), PDCM (15), PCID (17), x2APIC (21), TSC deadline (24), XSAVE and AVX (26-28: their state needs
/// a kernel that switches it on).
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 13, 19, 20, 22, 23, 25, 30]);
/// We are a guest. Physical processors always read 0 here (Intel SDM vol. 2A; AMD APM vol. 3).
const LEAF_1_ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: FPU to SSE2, without APIC (9), machine check (7, 14) and the debug store (21).
const LEAF_1_EDX: u32 = bits(&[0, 1, 3, 4, 5, 6, 8, 11, 12, 13, 15, 16, 17, 19, 23, 24, 25, 26, 27]);
/// Leaf 7, EBX: BMI1, BMI2, fast `rep`, RDSEED, ADX, CLFLUSHOPT, CLWB, SHA. No AVX, no PCID-based INVPCID.
const LEAF_7_EBX: u32 = bits(&[3, 7, 8, 9, 18, 19, 20, 23, 24, 29]);
/// Leaf 0x80000001, ECX: LAHF, LZCNT, PREFETCHW. EDX: SYSCALL, NX, 1 GiB pages, long mode.
const EXTENDED_ECX: u32 = bits(&[0, 5, 8]);
const EXTENDED_EDX: u32 = bits(&[11, 20, 26, 29]);

const TABLE: [Leaf; 7] = [
    // Vendor; and the highest basic leaf, which is 7 here.
    Leaf {
        function: 0,
        index: None,
        keep: [0, ALL, ALL, ALL],
        set: [7, 0, 0, 0],
    },
    // Family and model; one processor with APIC id 0; features.
    Leaf {
        function: 1,
        index: None,
        keep: [ALL, 0xff00, LEAF_1_ECX, LEAF_1_EDX],
        set: [0, 1 << 16, LEAF_1_ECX_HYPERVISOR, 0],
    },
    Leaf {
        function: 7,
        index: Some(0),
        keep: [0, LEAF_7_EBX, 0, 0],
        set: NONE,
    },
    // The hypervisor's own range: highest leaf and KVM's signature "KVMKVMKVM\0\0\0" (Documentation/virt/kvm/x86/cpuid.rst),
    // with no paravirtual feature in leaf 0x40000001: this machine offers none.
    Leaf {
        function: 0x4000_0000,
        index: None,
        keep: NONE,
        set: [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
    },
    Leaf {
        function: 0x8000_0000,
        index: None,
        keep: NONE,
        set: [0x8000_0008, 0, 0, 0],
    },
    Leaf {
        function: 0x8000_0001,
        index: None,
        keep: [0, 0, EXTENDED_ECX, EXTENDED_EDX],
        set: NONE,
    },
    // How wide physical and virtual addresses are: a page table entry with a bit beyond is a fault.
    Leaf {
        function: 0x8000_0008,
        index: None,
        keep: [0xffff, 0, 0, 0],
        set: NONE,
    },
];

/// Gives the vCPU its CPUID table.
pub fn set_up(vcpu: &VcpuFd) -> Result<(), Error> {
    let entries: Vec<kvm_cpuid_entry2> = TABLE.iter().map(entry).collect();
    super::give(vcpu, &entries)
}

fn entry(leaf: &Leaf) -> kvm_cpuid_entry2 {
    // Asking the host costs an exit where the host is a guest: not for leaves that keep nothing of the answer.
    let host = match leaf.keep {
        NONE => CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        },
        _ => __cpuid_count(leaf.function, leaf.index.unwrap_or(0)),
    };
    kvm_cpuid_entry2 {
        function: leaf.function,
        index: leaf.index.unwrap_or(0),
        flags: if leaf.index.is_some() {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        },
        eax: host.eax & leaf.keep[0] | leaf.set[0],
        ebx: host.ebx & leaf.keep[1] | leaf.set[1],
        ecx: host.ecx & leaf.keep[2] | leaf.set[2],
        edx: host.edx & leaf.keep[3] | leaf.set[3],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_told_that_it_is_one_and_never_more_than_the_host_has() {
        let table: Vec<_> = TABLE.iter().map(entry).collect();
        assert_eq!(table[1].ecx & LEAF_1_ECX_HYPERVISOR, LEAF_1_ECX_HYPERVISOR);
        let host = __cpuid_count(1, 0);
        assert_eq!(table[1].edx & !host.edx, 0);
        assert_eq!(table[1].ecx & !(host.ecx | LEAF_1_ECX_HYPERVISOR), 0);
        assert_eq!(&table[3].ebx.to_le_bytes(), b"KVMK");
    }
}
