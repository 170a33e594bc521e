//! Interrupts: how a device gets a processor's attention. The controllers live inside KVM; we own the lines into them.
//!
//! A PC has two generations of controllers, and KVM_CREATE_IRQCHIP brings both: the PIC of 1981, and a local APIC in each
//! processor with an I/O APIC in front. A kernel starts on the PIC and moves to the APICs once a table tells it how the
//! lines run ([`crate::mptable`]). With them inside KVM, `hlt`, timers and interrupts between processors cost no exit to us.
//!
//! The lab kernel polls and needs none of this, and making it costs more than its whole boot; so only a [`Machine::Pc`]
//! has it.
//!
//! [`Machine::Pc`]: crate::machine::Kind::Pc

use std::io;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_lapic_state, kvm_pit_config};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::layout;

/// The interrupt controllers could not be made or wired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM refused.
    #[error("KVM refused to {what}: {source}")]
    Kvm {
        /// The step.
        what: &'static str,
        /// KVM's errno.
        source: kvm_ioctls::Error,
    },
    /// No event descriptor.
    #[error(
        "cannot make an event descriptor for an interrupt line: {0}. The limit on open files may be reached (ulimit -n)"
    )]
    Event(io::Error),
}

impl Error {
    fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
        move |source| Error::Kvm { what, source }
    }
}

/// Makes the controllers and the timer of a PC. KVM wants this before the first vCPU.
pub fn make_controllers(vm: &VmFd) -> Result<(), Error> {
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(Error::kvm("place its identity map"))?;
    vm.set_tss_address(layout::KVM_TASK_STATE as usize)
        .map_err(Error::kvm("place its task state segment"))?;
    vm.create_irq_chip()
        .map_err(Error::kvm("make the interrupt controllers"))?;
    // The programmable interval timer: what a kernel without another clock counts time by. Its second use, the speaker
    // port, answers from inside KVM too, so that a kernel that reads it does not exit.
    let timer = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(timer).map_err(Error::kvm("make the interval timer"))
}

/// A line from a device to the controllers. Raising it is one write to an event descriptor; KVM does the rest without us.
#[derive(Debug)]
pub struct Line(EventFd);

impl Line {
    /// A line into input `number` of the I/O APIC (and of the PIC, below 16).
    pub fn connect(vm: &VmFd, number: u32) -> Result<Line, Error> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(Error::Event)?;
        vm.register_irqfd(&event, number)
            .map_err(Error::kvm("connect an interrupt line"))?;
        Ok(Line(event))
    }

    /// A line that ends nowhere: for a machine without controllers, whose guest polls.
    pub fn unconnected() -> Result<Line, Error> {
        EventFd::new(EFD_NONBLOCK).map(Line).map_err(Error::Event)
    }

    /// Interrupts the guest once (edge-triggered).
    pub fn raise(&self) -> io::Result<()> {
        match self.0.write(1) {
            // The counter is full: an interrupt nobody has taken yet is pending, and one is as good as many.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }
}

/// Offsets of two entries of the local vector table (Intel SDM vol. 3A, table 11-1).
const LINT0: usize = 0x350;
const LINT1: usize = 0x360;
/// Delivery modes, bits 8-10 of an entry: "from the PIC", and "non-maskable".
const EXTERNAL: u32 = 0b111 << 8;
const NON_MASKABLE: u32 = 0b100 << 8;

/// Wires the two pins of a vCPU's local APIC as firmware does: the PIC on the first, NMI on the second.
pub fn wire_local_apic(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut apic = vcpu.get_lapic().map_err(Error::kvm("read the local APIC"))?;
    set(&mut apic, LINT0, EXTERNAL);
    set(&mut apic, LINT1, NON_MASKABLE);
    vcpu.set_lapic(&apic).map_err(Error::kvm("set the local APIC"))
}

fn set(apic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (register, byte) in apic.regs[offset..].iter_mut().zip(value.to_le_bytes()) {
        *register = byte as libc::c_char;
    }
}
