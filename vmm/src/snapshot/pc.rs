//! The state of what KVM emulates on a PC beside the vCPUs, and of the serial port.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip, kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::serial::{self, Serial};

/// Controllers, timer, paravirtual clock, serial port.
#[cfg_attr(feature = "driver", derive(Default))]
#[derive(Serialize, Deserialize)]
pub struct State {
    /// Both PICs, then the I/O APIC.
    controllers: Vec<kvm_irqchip>,
    timer: kvm_pit_state2,
    clock: kvm_clock_data,
    /// The serial port's registers.
    pub serial: serial::State,
}

impl State {
    /// Reads it. No vCPU runs.
    pub fn of(vm: &VmFd, serial: &Serial) -> Result<State, Error> {
        let controllers = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC]
            .into_iter()
            .map(|chip_id| {
                let mut chip = kvm_irqchip {
                    chip_id,
                    ..Default::default()
                };
                vm.get_irqchip(&mut chip)
                    .map_err(Error::kvm("read an interrupt controller"))?;
                Ok(chip)
            })
            .collect::<Result<_, Error>>()?;
        let mut clock = vm.get_clock().map_err(Error::kvm("read the guest's clock"))?;
        // Which kind of clock it was is for reading only; KVM_SET_CLOCK refuses it.
        clock.flags = 0;
        Ok(State {
            controllers,
            timer: vm.get_pit2().map_err(Error::kvm("read the interval timer"))?,
            clock,
            serial: serial.state(),
        })
    }

    /// Writes it into a machine whose controllers were just made. The guest's clock goes on from where it stopped.
    pub fn give_to(&self, vm: &VmFd) -> Result<(), Error> {
        for chip in &self.controllers {
            vm.set_irqchip(chip)
                .map_err(Error::kvm("set an interrupt controller"))?;
        }
        vm.set_pit2(&self.timer).map_err(Error::kvm("set the interval timer"))?;
        vm.set_clock(&self.clock).map_err(Error::kvm("set the guest's clock"))
    }
}
