//! What is watched while a vCPU runs: its instructions, its exits. Nothing, as a rule, and then it costs one branch.
//!
//! The vCPU loop calls three times: when it is about to enter the guest, when it has left, when it has stopped for good.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::ledger::Account;
use crate::listing::Listing;
use crate::machine::Machine;
use crate::steps::{self, Steps};

/// The watchers of one vCPU.
#[derive(Default)]
pub struct Watch {
    /// Counts instructions.
    pub steps: Option<Steps>,
    /// Prints the first instructions.
    pub listing: Option<Listing>,
    /// Keeps account of every exit.
    pub account: Option<Account>,
}

impl Watch {
    /// The vCPU is about to enter the guest.
    #[inline]
    pub fn entering(&mut self, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        if self.steps.is_some() || self.listing.is_some() {
            steps::arm(vcpu)?;
        }
        if let Some(account) = &mut self.account {
            account.entering(vcpu);
        }
        Ok(())
    }

    /// The vCPU has left the guest; hands on what KVM said about it.
    #[inline]
    pub fn left<'v>(
        &mut self,
        exit: Result<VcpuExit<'v>, kvm_ioctls::Error>,
        machine: &Machine,
    ) -> Result<VcpuExit<'v>, kvm_ioctls::Error> {
        if let Some(account) = &mut self.account {
            account.left(&exit, machine);
        }
        exit
    }

    /// The guest executed one instruction; the next is at `rip`.
    pub fn stepped(&mut self, vcpu: &VcpuFd, rip: u64) -> Result<(), kvm_ioctls::Error> {
        if let Some(steps) = &mut self.steps {
            steps.count(rip);
        }
        if let Some(listing) = &mut self.listing {
            listing.next(vcpu, rip)?;
            if !listing.open() {
                self.listing = None;
                steps::disarm(vcpu)?;
            }
        }
        Ok(())
    }

    /// The guest has printed something.
    pub fn output(&mut self) {
        if let Some(steps) = &mut self.steps {
            steps.output();
        }
    }

    /// The vCPU will not enter the guest again.
    pub fn ended(&mut self, vcpu: &VcpuFd) {
        if let Some(account) = &mut self.account {
            account.entering(vcpu);
            account.hand_over();
        }
    }
}
