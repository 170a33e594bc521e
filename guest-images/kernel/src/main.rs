//! The lab kernel: boots in the VM, runs one static Linux program, and does nothing else.
//!
//! One processor, one program, no interrupts, no driver: what is left is what every kernel does first and cannot do
//! without. In the order of events: `entry` (first instruction), `boot` (what the loader left), `program` (ELF and
//! stack), `entry` again (into user mode), then `trap` and `syscalls` whenever the program needs something.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod address_space;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod files;
#[cfg(target_os = "none")]
mod frames;
#[cfg(target_os = "none")]
mod host;
#[cfg(target_os = "none")]
mod processor;
#[cfg(target_os = "none")]
mod program;
#[cfg(target_os = "none")]
mod state;
#[cfg(target_os = "none")]
mod syscalls;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
mod user;

/// Entered from `entry::start`, on the kernel's own tables and stack.
#[cfg(target_os = "none")]
extern "C" fn main(parameters: u64) -> ! {
    use protocol::phase::Phase;

    let marks = boot::marks_wanted(parameters);
    if marks {
        host::mark(Phase::GuestKernelEntry);
    }
    let ready = state::KERNEL.with(|kernel| {
        let boot = boot::read_parameters(parameters);
        kernel.ram = boot.ram;
        kernel.frames.take_over(boot.free.0, boot.free.1);
        kernel::tables::extend_direct_map(boot.free.1, || kernel.frames.allocate());
        kernel.files.open_initrd(boot.initrd);
        program::load(kernel, &boot)
    });
    if marks {
        host::mark(Phase::UserModeEntry);
    }
    entry::enter_program(ready.entry, ready.stack)
}

/// The kernel's own failure: say it on the serial port, which needs nothing that may be broken, and end the machine.
#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::fmt::Write;

    let _ = writeln!(host::Serial, "lab kernel: panic: {}", info.message());
    if let Some(place) = info.location() {
        let _ = writeln!(host::Serial, "lab kernel: at {}:{}", place.file(), place.line());
    }
    host::panic()
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("This is the lab kernel: it runs inside a virtual machine. Try `vmm run workload hello`.");
    std::process::exit(1);
}
