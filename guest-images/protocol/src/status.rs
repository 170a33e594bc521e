//! Exit statuses of the launchers `vmm` and `container`.
//!
//! A workload that ran gives its own status: its exit code, or 128 + n when signal n ended it, as a shell reports it.
//! When there was no workload to speak of, the launcher's own status says why. Programs rarely use these numbers; the
//! message on standard error tells the two apart for certain. 125, 126 and 127 mean what they mean to `docker run`.

/// There is no `/dev/kvm`.
pub const NO_KVM: u8 = 110;
/// `/dev/kvm` is there and may not be opened.
pub const KVM_NOT_PERMITTED: u8 = 111;
/// The file given as kernel is not one.
pub const NOT_A_KERNEL: u8 = 112;
/// Kernel and initrd do not fit into the guest's memory.
pub const MEMORY_TOO_SMALL: u8 = 113;
/// The guest's processor shut down after a triple fault.
pub const TRIPLE_FAULT: u8 = 114;
/// KVM met an instruction or state it cannot emulate.
pub const NOT_EMULATED: u8 = 115;
/// The guest kernel panicked.
pub const KERNEL_PANIC: u8 = 116;
/// The initrd cannot be read or made.
pub const BAD_INITRD: u8 = 117;
/// The guest did something no machine of ours answers.
pub const GUEST_MISBEHAVED: u8 = 118;
/// The file to restore is no snapshot, or not a whole one.
pub const BAD_SNAPSHOT: u8 = 119;

/// The launcher failed before there was a workload: wrong usage, or a resource the host refused.
pub const LAUNCHER_FAILED: u8 = 125;
/// The program was found and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the program.
pub const SIGNAL_BASE: u8 = 128;
