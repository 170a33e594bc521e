//! One vCPU's part of the ledger: what happens at an exit. In memory only, so that watching disturbs little.

use std::sync::Arc;

use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};
use protocol::marks::monotonic_ns;

use super::Ledger;
use super::entry::{Entry, Reason};
use crate::machine::Machine;
use crate::vcpu::place_of_fault;

/// Exits kept in memory before they are written: 4.5 MiB of them.
const CHUNK: usize = 1 << 16;

/// The account of one vCPU.
pub struct Account {
    ledger: Arc<Ledger>,
    vcpu: usize,
    entries: Vec<Entry>,
    /// The exit that is being served.
    open: Option<Entry>,
    /// When the guest was last entered.
    entered_ns: u64,
}

impl Account {
    pub(super) fn open(ledger: Arc<Ledger>, vcpu: usize, fd: &mut VcpuFd) -> Account {
        // From now on KVM leaves the registers in the page it shares with us at each exit: reading rip costs no call.
        fd.set_sync_valid_reg(SyncReg::Register);
        Account {
            ledger,
            vcpu,
            entries: Vec::with_capacity(CHUNK),
            open: None,
            entered_ns: 0,
        }
    }

    /// The vCPU is about to enter the guest: the exit before, if there was one, has been served.
    pub fn entering(&mut self, vcpu: &VcpuFd) {
        let now = monotonic_ns();
        if let Some(mut entry) = self.open.take() {
            entry.host_ns = now - entry.left_ns;
            let rip = vcpu.sync_regs().regs.rip;
            entry.rip = match entry.reason {
                Reason::Shutdown => place_of_fault(rip),
                _ => Some(rip),
            };
            self.entries.push(entry);
            if self.entries.len() == CHUNK {
                self.hand_over();
            }
        }
        // Read again: what the above took is neither the guest's time nor the exit's.
        self.entered_ns = monotonic_ns();
    }

    /// The vCPU has left the guest.
    pub fn left(&mut self, exit: &Result<VcpuExit, kvm_ioctls::Error>, machine: &Machine) {
        let left_ns = monotonic_ns();
        let (reason, address, bytes) = Reason::of(exit);
        let device = match reason {
            Reason::PortRead | Reason::PortWrite => crate::ports::name(address as u16),
            Reason::MemoryRead | Reason::MemoryWrite => machine.bus.name_at(address),
            _ => None,
        };
        self.open = Some(Entry {
            left_ns,
            guest_ns: left_ns - self.entered_ns,
            host_ns: 0,
            reason,
            device,
            address,
            bytes,
            rip: None,
        });
        if reason == Reason::Halt {
            // On a machine without interrupts nothing follows this but the VMM's end by a signal: write while we can.
            self.entries.extend(self.open.take());
            self.hand_over();
            self.ledger.flush();
        }
    }

    /// Hands what is held to the ledger.
    pub fn hand_over(&mut self) {
        self.ledger.enter(self.vcpu, &self.entries);
        self.entries.clear();
    }
}
