//! The keyboard controller (Intel 8042): the way a PC resets itself, and otherwise a way to say "no keyboard" quickly.
//!
//! A chip that had pins to spare was wired to the processor's reset line in 1984; since then `out 0x64, 0xfe` is how a kernel reboots
//! (Linux: `reboot=k`). Here it ends the VM.
//!
//! Linux also looks for a keyboard here, and how long it looks depends on the answer. A chip that seems ready and says nothing
//! costs 500 ms: after its first command Linux waits so long for a reply. Our status says at every reading that a byte
//! waits to be fetched. Linux fetches 16, sees no end, and concludes that no controller is there
//! (drivers/input/serio/i8042.c, `i8042_flush`). Bit 1 must stay clear meanwhile: before it resets the machine, Linux
//! waits until the chip can take a command (arch/x86/kernel/reboot.c, `kb_wait`).
//!
//! What it costs: 33 exits, once: a look at the status and a byte fetched, 16 times, and a last look. Counted with `vmm run
//! --trace` of Debian's cloud kernel in the testbed, and again by `.ci/testbed-batch`. In time, by the driver's source, 1.6
//! ms: it waits 50 us before it fetches and 50 us after. (In that trace it was 46 ms from the first exit to the last, on an
//! emulated processor that others wanted too; the shortest stay in the guest was 53 us.) A kernel without the driver, such
//! as that of `guest-images/linux`, never asks.

/// Data: what is typed, for those who have a keyboard. Nobody answers.
pub const DATA: u16 = 0x60;
/// Commands, when written; the status, when read.
pub const COMMAND: u16 = 0x64;
/// A byte waits to be fetched (bit 0), a command would be taken (bit 1 clear).
pub const STATUS: u8 = 0x01;
/// Pulses the reset line.
const RESET: u8 = 0xfe;

/// Whether these bytes, written to [`COMMAND`], reset the machine.
pub fn resets(data: &[u8]) -> bool {
    data == [RESET]
}
