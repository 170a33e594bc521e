//! Counting the guest's instructions, one by one, by making KVM stop after each.
//!
//! Slow, exact and the same every time: a clock says how long the guest kernel took on this machine today, a count says
//! how much it did. On hardware with VT-x or AMD-V every instruction stops; a KVM that runs user mode by itself may stop
//! after kernel instructions only.

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
        vcpu.set_guest_debug(&kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
            ..Default::default()
        })?;
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
            user => write!(f, "; {user} of the program"),
        }
    }
}
