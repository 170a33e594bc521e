//! The MP table: how a kernel learns which processors there are and where interrupt lines end.
//!
//! Firmware writes it, the kernel finds it by its signature (MultiProcessor Specification 1.4). ACPI tells the same and
//! far more; a machine without power management, hot plug or PCI has no more to tell, and this fits into 1 KiB.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::layout;

/// Version 1.4 of the specification.
const REVISION: u8 = 4;
/// What a local APIC and an I/O APIC of the integrated kind say of their version.
const APIC_VERSION: u8 = 0x14;

/// Types of entries (section 4.3).
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

const ENABLED: u8 = 1 << 0;
const BOOT_PROCESSOR: u8 = 1 << 1;
/// Types of interrupt: an ordinary line, the non-maskable one, and "ask the PIC".
const ORDINARY: u8 = 0;
const NON_MASKABLE: u8 = 1;
const FROM_PIC: u8 = 3;
/// "All local APICs".
const EVERY_APIC: u8 = 0xff;
/// The only bus: ISA, whose lines are edge-triggered and active high unless a table says otherwise.
const ISA: u8 = 0;
/// Family 6 in the processor entry; kernels read CPUID instead and only keep this.
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES_FPU_AND_APIC: u32 = 0x201;

const FLOATING_POINTER: usize = 16;
const HEADER: usize = 44;

/// Writes the table for `cpus` processors with local APICs 0, 1, 2, ...
pub fn write(memory: &GuestMemoryMmap, cpus: u8) -> Result<(), GuestMemoryError> {
    memory.write_slice(&table(cpus), GuestAddress(layout::MP_TABLE))
}

fn table(cpus: u8) -> Vec<u8> {
    // The I/O APIC's id must differ from every local APIC's.
    let io_apic = cpus;
    let mut entries = Vec::new();
    let mut count = 0u16;
    let mut entry = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for cpu in 0..cpus {
        let role = if cpu == 0 { BOOT_PROCESSOR } else { 0 };
        let mut processor = vec![PROCESSOR, cpu, APIC_VERSION, ENABLED | role];
        processor.extend_from_slice(&CPU_SIGNATURE.to_le_bytes());
        processor.extend_from_slice(&CPU_FEATURES_FPU_AND_APIC.to_le_bytes());
        processor.extend_from_slice(&[0; 8]);
        entry(&processor);
    }
    entry(&[BUS, ISA, b'I', b'S', b'A', b' ', b' ', b' ']);
    let mut controller = vec![IO_APIC, io_apic, APIC_VERSION, ENABLED];
    controller.extend_from_slice(&(layout::IO_APIC as u32).to_le_bytes());
    entry(&controller);
    // Line n of the bus is input n of the I/O APIC: how KVM wires them, and how we number ours.
    for line in 0..layout::LINES as u8 {
        entry(&[IO_INTERRUPT, ORDINARY, 0, 0, ISA, line, io_apic, line]);
    }
    entry(&[LOCAL_INTERRUPT, FROM_PIC, 0, 0, ISA, 0, EVERY_APIC, 0]);
    entry(&[LOCAL_INTERRUPT, NON_MASKABLE, 0, 0, ISA, 0, EVERY_APIC, 1]);

    let length = (HEADER + entries.len()) as u16;
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(b"PCMP");
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(&[REVISION, 0]);
    header.extend_from_slice(b"LAB     ISOLATION   "); // who made the machine (8), and which (12)
    header.extend_from_slice(&[0; 6]); // no further table of the maker's
    header.extend_from_slice(&count.to_le_bytes());
    header.extend_from_slice(&(layout::LOCAL_APIC as u32).to_le_bytes());
    header.extend_from_slice(&[0; 4]); // no extended entries
    header.extend_from_slice(&entries);
    header[7] = checksum(&header);

    let mut pointer = Vec::with_capacity(FLOATING_POINTER);
    pointer.extend_from_slice(b"_MP_");
    pointer.extend_from_slice(&(layout::MP_TABLE as u32 + FLOATING_POINTER as u32).to_le_bytes());
    pointer.extend_from_slice(&[1, REVISION, 0, 0, 0, 0, 0, 0]); // length in paragraphs, revision, checksum, features
    pointer[10] = checksum(&pointer);
    pointer.extend_from_slice(&header);
    pointer
}

/// The byte that makes the sum of all of them 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_zero_lengths_are_true_and_the_largest_machine_fits() {
        for cpus in [1, 4, layout::CPUS_MAX] {
            let table = table(cpus);
            let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum(&table[..FLOATING_POINTER]), 0);
            assert_eq!(sum(&table[FLOATING_POINTER..]), 0);
            let length = u16::from_le_bytes([table[FLOATING_POINTER + 4], table[FLOATING_POINTER + 5]]);
            assert_eq!(usize::from(length), table.len() - FLOATING_POINTER);
            let count = u16::from_le_bytes([table[FLOATING_POINTER + 34], table[FLOATING_POINTER + 35]]);
            assert_eq!(u32::from(count), u32::from(cpus) + 2 + layout::LINES + 2);
            assert!(table.len() <= layout::MP_TABLE_MAX, "{cpus}: {}", table.len());
        }
    }
}
