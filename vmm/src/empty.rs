//! The least a virtual machine can be: one page of memory, one vCPU, one instruction, one exit.
//!
//! No kernel, no program, no isolation of anything: the floor under every VM's start. What `vm` takes beyond it is what a
//! guest costs; what it takes itself is what KVM and starting a process cost.

use kvm_ioctls::VcpuExit;
use protocol::marks::Marks;
use protocol::phase::Phase;
use vm_memory::{Bytes, GuestAddress};

use crate::vm::{self, Error};
use crate::{memory, registers};

/// `out 0x0c, al`.
const PROGRAM: [u8; 2] = [0xe6, PORT as u8];
/// A port of one byte's number, which no device here answers.
const PORT: u16 = 0x0c;

/// Builds the machine and returns when its one instruction has left the guest.
pub fn run(marks: Marks) -> Result<(), Error> {
    // ANCHOR: empty
    let kvm = vm::open_kvm()?;
    marks.mark(Phase::KvmOpened);
    let vm = vm::create(&kvm)?;
    marks.mark(Phase::VmCreated);
    let memory = memory::reserve_page()?;
    memory::give_to(&vm, &memory)?;
    memory
        .write_slice(&PROGRAM, GuestAddress(0))
        .map_err(registers::Error::from)?;
    marks.mark(Phase::MemoryMapped);
    let mut vcpu = vm::create_vcpu(&vm, 0)?;
    registers::real_mode_at_zero(&vcpu)?;
    marks.mark(Phase::VcpuReady);
    match vcpu.run() {
        Ok(VcpuExit::IoOut(PORT, _)) => Ok(()),
        Ok(other) => Err(crate::vcpu::Error::Unexpected(format!("{other:?}")).into()),
        Err(error) => Err(crate::vcpu::Error::Run(error).into()),
    }
    // ANCHOR_END: empty
}
