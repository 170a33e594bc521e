//! Counting the guest's instructions, one by one, by making KVM stop after each.
//!
//! A clock says how long the guest kernel took on this machine today; a count says how much it did, and says the same
//! every time. It is slow, and complete only where KVM interprets the guest's kernel: on VT-x and AMD-V the processor
//! clears its trap flag whenever it enters the kernel, so what the kernel does inside a system call or a page fault
//! passes uncounted. The way from the first instruction into the program is counted on both.

use std::ops::Range;

use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};
use kvm_ioctls::VcpuFd;

/// First address of the upper half of the address space, where kernels live.
const UPPER_HALF: u64 = 1 << 63;

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Where the kernel lies in physical memory: its first instructions run there.
    kernel_image: Range<u64>,
    /// Instructions of the guest kernel.
    pub kernel: u64,
    /// Instructions of the program that KVM stopped after.
    pub user: u64,
    /// `kernel` at the moment of the first output.
    pub kernel_until_output: Option<u64>,
}

impl Steps {
    /// Switches single-stepping on.
    pub fn start(vcpu: &VcpuFd, kernel_image: Range<u64>) -> Result<Steps, kvm_ioctls::Error> {
        arm(vcpu)?;
        Ok(Steps {
            kernel_image,
            kernel: 0,
            user: 0,
            kernel_until_output: None,
        })
    }

    /// One instruction was executed; the next is at `rip`.
    pub fn count(&mut self, rip: u64) {
        if rip >= UPPER_HALF || self.kernel_image.contains(&rip) {
            self.kernel += 1;
        } else {
            self.user += 1;
        }
    }

    /// The guest has printed something.
    pub fn output(&mut self) {
        self.kernel_until_output.get_or_insert(self.kernel);
    }
}

/// Makes the next instruction stop. Needed before each: where KVM itself carries an instruction out (`mov cr`, a page
/// fault's device access), it writes the flags back without the trap flag it had set.
pub fn arm(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_guest_debug(&kvm_guest_debug {
        control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
        ..Default::default()
    })
}

/// Lets the guest run freely again.
pub fn disarm(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_guest_debug(&kvm_guest_debug::default())
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} kernel instructions", self.kernel)?;
        if let Some(before) = self.kernel_until_output {
            write!(f, ", {before} of them before the first output")?;
        }
        match self.user {
            0 => write!(
                f,
                "; this KVM runs user mode without stopping, so the program's are not counted"
            ),
            user => write!(
                f,
                "; {user} of the program. On this KVM the kernel's work inside system calls and page faults is not among them: entering it clears the trap flag"
            ),
        }
    }
}
