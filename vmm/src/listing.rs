//! The guest's first instructions, one line each: `vmm run --single-step N`.
//!
//! KVM stops the vCPU after every instruction; before it goes on, the next one is read from guest memory, by the guest's
//! own page tables, and decoded (iced-x86). So a line is printed before its instruction runs, and the last line before a
//! crash is the one that crashed.
//!
//! What is missing is what KVM does not stop after: see [`crate::steps`]. In short: where KVM interprets the guest's kernel,
//! the program in user mode runs unseen; on VT-x and AMD-V, what the kernel does inside a system call or an exception
//! runs unseen. A `rep` instruction is shown once for every time KVM stops in it.
//!
//! The decoder is 113 KiB of the launcher's 3.6 MiB and costs a start nothing that shows: it has no initializer, 52 of the
//! program's 1289 relocations are its own, and its tables are not even read from the file before the first instruction is decoded.

use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::layout;
use crate::ledger::symbols::Symbols;

/// No x86 instruction is longer.
const LONGEST: usize = 15;

/// Prints instructions to standard error until enough are printed.
pub struct Listing {
    memory: GuestMemoryMmap,
    symbols: Symbols,
    printed: u64,
    wanted: u64,
}

impl Listing {
    /// A listing of `wanted` instructions found in `memory`.
    pub fn new(memory: GuestMemoryMmap, symbols: Symbols, wanted: u64) -> Listing {
        Listing {
            memory,
            symbols,
            printed: 0,
            wanted,
        }
    }

    /// Whether there is more to print.
    pub fn open(&self) -> bool {
        self.printed < self.wanted
    }

    /// The vCPU is about to execute the instruction at `rip`.
    pub fn next(&mut self, vcpu: &VcpuFd, rip: u64) -> Result<(), kvm_ioctls::Error> {
        let code = vcpu.get_sregs()?.cs;
        let bitness = match (code.l, code.db) {
            (0, 0) => 16,
            (0, _) => 32,
            _ => 64,
        };
        let bytes = self.fetch(vcpu, code.base.wrapping_add(rip))?;
        self.printed += 1;
        eprintln!("{}", self.line(rip, &bytes, bitness));
        if !self.open() {
            eprintln!(
                "vmm: that were {} instructions; the guest goes on unwatched",
                self.printed
            );
        }
        Ok(())
    }

    /// The bytes at a linear address, as many as an instruction may have. An instruction may lie across two pages, and the
    /// second may be missing.
    fn fetch(&self, vcpu: &VcpuFd, address: u64) -> Result<Vec<u8>, kvm_ioctls::Error> {
        let mut bytes = Vec::with_capacity(LONGEST);
        while bytes.len() < LONGEST {
            let at = address.wrapping_add(bytes.len() as u64);
            let translation = vcpu.translate_gva(at)?;
            let to_page_end = (layout::PAGE - at % layout::PAGE) as usize;
            let mut part = [0; LONGEST];
            let part = &mut part[..to_page_end.min(LONGEST - bytes.len())];
            if translation.valid == 0
                || self
                    .memory
                    .read_slice(part, GuestAddress(translation.physical_address))
                    .is_err()
            {
                break;
            }
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    fn line(&self, rip: u64, bytes: &[u8], bitness: u32) -> String {
        let mut text = String::new();
        let mut length = 0;
        if bytes.is_empty() {
            text.push_str("(no memory is mapped here)");
        } else {
            let instruction: Instruction = Decoder::with_ip(bitness, bytes, rip, DecoderOptions::NONE).decode();
            length = instruction.len();
            let mut formatter = FastFormatter::new();
            formatter.options_mut().set_space_after_operand_separator(true);
            formatter.options_mut().set_use_hex_prefix(true);
            formatter.format(&instruction, &mut text);
        }
        let hex: String = bytes[..length.min(bytes.len())]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let place = self.symbols.at(rip).map_or(String::new(), |place| place.to_string());
        let line = format!("vmm: {:>5} {rip:#018x} {hex:<22} {text:<36} {place}", self.printed);
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_number_address_bytes_text_and_symbol() {
        let memory = crate::memory::reserve(4 << 20).unwrap();
        let mut listing = Listing::new(memory, Symbols::from_map("0000000000100000 T entry\n"), 3);
        listing.printed = 1;
        // More bytes than the instruction has: what follows it is not its business.
        let line = listing.line(0x10_0004, &[0x48, 0x89, 0xe5, 0xc3], 64);
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            [
                "vmm:",
                "1",
                "0x0000000000100004",
                "4889e5",
                "mov",
                "rbp,",
                "rsp",
                "entry+0x4"
            ]
        );
        // The same bytes mean something else to a processor in another mode.
        assert!(listing.line(0, &[0x48, 0x89, 0xe5], 32).contains("dec eax"));
        assert!(listing.line(0x10, &[], 64).contains("no memory is mapped here"));
        // Cut short, and no instruction at all.
        assert!(listing.line(0x10, &[0x48], 64).contains("(bad)"));
    }
}
