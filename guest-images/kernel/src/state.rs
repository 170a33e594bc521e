//! Everything the kernel knows, in one place.

use kernel::cell::Lone;

use crate::address_space::AddressSpace;
use crate::files::Files;
use crate::frames::Frames;

/// The kernel's state.
pub struct Kernel {
    /// Free physical memory.
    pub frames: Frames,
    /// The program's address space.
    pub space: AddressSpace,
    /// The initrd and what of it is open.
    pub files: Files,
    /// All RAM in bytes.
    pub ram: u64,
    /// The program's path, as the command line has it.
    pub program: [u8; 2048],
    /// Its length.
    pub program_length: usize,
    /// Where the program was found: an absolute path without links, what /proc/self/exe says.
    pub executable: [u8; 4096],
    /// Its length.
    pub executable_length: usize,
    /// What each signal does: 0 default, 1 ignore, otherwise the address of a handler.
    pub handlers: [u64; 65],
    /// Host's CLOCK_MONOTONIC when the kernel first asked, in nanoseconds; 0 before.
    pub clock_start: u64,
    /// Print `statistics` at the end.
    pub statistics_wanted: bool,
    /// What was counted.
    pub statistics: Statistics,
}

/// What the kernel counts.
pub struct Statistics {
    /// System calls served, unknown ones included.
    pub system_calls: u64,
    /// System calls answered with ENOSYS.
    pub unknown_calls: u64,
    /// Number of the last unknown one.
    pub last_unknown: u64,
    /// Page faults that brought a page in.
    pub page_faults: u64,
}

/// The one instance.
pub static KERNEL: Lone<Kernel> = Lone::new(Kernel {
    frames: Frames::none(),
    space: AddressSpace::empty(),
    files: Files::none(),
    ram: 0,
    program: [0; 2048],
    program_length: 0,
    executable: [0; 4096],
    executable_length: 0,
    handlers: [0; 65],
    clock_start: 0,
    statistics_wanted: false,
    statistics: Statistics {
        system_calls: 0,
        unknown_calls: 0,
        last_unknown: 0,
        page_faults: 0,
    },
});

impl Kernel {
    /// The program's path, for messages.
    pub fn program(&self) -> &[u8] {
        &self.program[..self.program_length]
    }
}
