//! Kernels of a few instructions, made here byte by byte: guests no compiler would produce.

use super::{Files, Ran, run};

/// Where such a kernel lies and starts: the first address above a PC's legacy hole.
pub const AT: u64 = 0x10_0000;
/// Offset of the code in the ELF file: a page, as usual.
const IN_FILE: usize = 0x1000;

/// x86-64 machine code in the making.
#[derive(Default)]
pub struct Code(Vec<u8>);

impl Code {
    /// No instructions.
    pub fn new() -> Code {
        Code::default()
    }

    /// These bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Code {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `mov qword ptr [address], value`, by way of rax.
    pub fn store(self, address: u64, value: u64) -> Code {
        self.raw(&[0x48, 0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0x48, 0xa3])
            .raw(&address.to_le_bytes())
    }

    /// `out port, value`, 32 bits wide.
    pub fn out(self, port: u16, value: u32) -> Code {
        self.raw(&[0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0x66, 0xba])
            .raw(&port.to_le_bytes())
            .raw(&[0xef])
    }

    /// Ends the machine with this status.
    pub fn exit(self, status: u8) -> Code {
        self.out(protocol::ports::EXIT, status.into())
    }

    /// One byte to the serial port.
    pub fn say(self, byte: u8) -> Code {
        self.raw(&[0xb0, byte, 0x66, 0xba])
            .raw(&protocol::ports::SERIAL.to_le_bytes())
            .raw(&[0xee])
    }

    /// `hlt`, for ever.
    pub fn halt(self) -> Code {
        self.raw(&[0xf4, 0xeb, 0xfd])
    }

    /// The code alone.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }

    /// A 64-bit ELF file with this code as its one segment.
    pub fn kernel(self) -> Vec<u8> {
        let size = self.0.len() as u64;
        self.kernel_of(size)
    }

    /// The same, with a segment that takes `memory_size` bytes in memory.
    pub fn kernel_of(self, memory_size: u64) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        // Executable, x86-64, ELF version 1.
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        // Entry, program headers behind this header, no section headers.
        for word in [AT, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        // Flags; sizes of both headers; one program header; no sections.
        file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
        // Loadable, readable, writable and executable.
        file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
        for word in [IN_FILE as u64, AT, AT, self.0.len() as u64, memory_size, IN_FILE as u64] {
            file.extend(word.to_le_bytes());
        }
        file.resize(IN_FILE, 0);
        file.extend(self.0);
        file
    }
}

/// Boots a kernel of these instructions; the VMM must not panic, whatever they do.
#[track_caller]
pub fn boot(code: Code) -> Ran {
    let files = Files::new();
    let ran = run([
        "--machine",
        "bare",
        "--kernel",
        &files.write("kernel", &code.kernel()),
        "x",
    ]);
    ran.no_panic();
    ran
}
