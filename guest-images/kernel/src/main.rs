//! The lab kernel: boots in the VM, runs one static Linux program, and does nothing else.
//!
//! One processor, one program, no interrupts, no driver: what is left is what every kernel does first and cannot do
//! without. In the order of events: `entry` (first instruction), `boot` (what the loader left), `program` (ELF and
//! stack), `entry` again (into user mode), then `trap` and `syscalls` whenever the program needs something.

#![no_std]
#![no_main]

mod address_space;
mod boot;
mod entry;
mod files;
mod frames;
mod host;
mod processor;
mod program;
mod state;
mod syscalls;
mod trap;
mod user;

use core::fmt::Write;

use protocol::phase::Phase;

// ANCHOR: main
/// Entered from `entry::start`, on the kernel's own tables and stack.
extern "C" fn main(parameters: u64) -> ! {
    let marks = boot::marks_wanted(parameters);
    if marks {
        host::mark(Phase::GuestKernelEntry);
    }
    let ready = state::KERNEL.with(|kernel| {
        let boot = boot::read_parameters(parameters);
        kernel.ram = boot.ram;
        kernel.frames.take_over(boot.free, boot.more);
        kernel::tables::extend_direct_map(boot.free.1.max(boot.more.1), || kernel.frames.allocate());
        kernel.files.open_initrd(boot.initrd);
        program::load(kernel, &boot)
    });
    if marks {
        host::mark_user_mode_entry(ready.random);
    }
    entry::enter_program(ready.entry, ready.stack)
}
// ANCHOR_END: main

/// The kernel's own failure: say it on the serial port, which needs nothing that may be broken, and end the machine.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(host::Serial, "lab kernel: panic: {}", info.message());
    if let Some(place) = info.location() {
        let _ = writeln!(host::Serial, "lab kernel: at {}:{}", place.file(), place.line());
    }
    host::panic()
}
