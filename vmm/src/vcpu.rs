//! The vCPU loop: run the guest until it needs us, give it what it needs, again. This is what a hypervisor is.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::doorbell;
use crate::machine::Machine;
use crate::mapped;
use crate::ports::{Moment, Outcome};
use crate::watch::Watch;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest exited with this status.
    Exit(u8),
    /// The guest kernel panicked.
    Panic,
    /// Not at all: it was stopped for a snapshot.
    Stopped(Moment),
}

/// Instruction pointer after a reset (SDM volume 3, "First Instruction Executed").
const RESET_RIP: u64 = 0xfff0;

/// Where a guest triple-faulted, by the instruction pointer KVM shows afterwards. AMD's processors leave the state of a vCPU undefined
/// then (APM volume 2, "Shutdown Intercept"), so KVM resets it: the place is lost. No guest here has code where a reset leads.
pub(crate) fn place_of_fault(rip: u64) -> Option<u64> {
    (rip != RESET_RIP).then_some(rip)
}

/// Where a guest triple-faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Here.
    At {
        /// Instruction pointer.
        rip: u64,
        /// Address of the last page fault.
        cr2: u64,
    },
    /// KVM can no longer tell.
    Lost,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::At { rip, cr2 } => write!(f, "at rip {rip:#x} (cr2 {cr2:#x})"),
            Fault::Lost => f.write_str("(where is not known: its registers are lost with it, as always on AMD)"),
        }
    }
}

/// The guest, or KVM, did something after which there is no going on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Triple fault.
    #[error(
        "the guest triple-faulted {0}: an exception while it handled an exception, without a working handler. On hardware the machine would reset here. The guest kernel is broken, or is not built for this boot protocol"
    )]
    TripleFault(Fault),
    /// KVM cannot emulate.
    #[error(
        "KVM cannot emulate the guest's instruction at rip {rip:#x} (internal error {suberror}; bytes {bytes}). On a KVM without VT-x or AMD-V kernel code is interpreted, and not every instruction is known: `lab doctor` tells which KVM this is; run such a kernel where the processor does the work"
    )]
    NotEmulated {
        /// Instruction pointer.
        rip: u64,
        /// KVM_INTERNAL_ERROR_* (linux/kvm.h).
        suberror: u32,
        /// The instruction's bytes where KVM tells them.
        bytes: String,
    },
    /// The processor refused the vCPU's state.
    #[error(
        "the processor refused to enter the guest (hardware reason {0:#x}): the vCPU's registers contradict each other"
    )]
    Entry(u64),
    /// The guest's request was bad.
    #[error(transparent)]
    Doorbell(#[from] doorbell::Error),
    /// KVM_RUN failed.
    #[error("KVM_RUN failed: {0}")]
    Run(kvm_ioctls::Error),
    /// An exit this machine has no answer for.
    #[error("the guest left with {0}, for which this machine has no answer")]
    Unexpected(String),
}

/// Runs the guest until it ends, under `watch`. None: a signal called the vCPU out of the guest; it can go on where it
/// was.
pub fn run(vcpu: &mut VcpuFd, machine: &Machine, watch: &mut Watch) -> Result<Option<End>, Error> {
    // ANCHOR: loop
    loop {
        watch.entering(vcpu).map_err(Error::Run)?;
        match watch.left(vcpu.run(), machine) {
            Ok(VcpuExit::IoOut(port, data)) => {
                let mut ports = machine.ports();
                match ports.write(port, data)? {
                    Outcome::Continue if ports.spoke() => watch.output(),
                    Outcome::Continue => {}
                    Outcome::Exit(status) => return Ok(Some(End::Exit(status))),
                    Outcome::Panic => return Ok(Some(End::Panic)),
                    Outcome::Snapshot(moment) => return Ok(Some(End::Stopped(moment))),
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => machine.ports().read(port, data),
            Ok(VcpuExit::MmioRead(address, data)) => machine.bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => machine.bus.write(address, data),
            Ok(VcpuExit::Debug(stop)) => watch.stepped(vcpu, stop.pc).map_err(Error::Run)?,
            Ok(VcpuExit::Hlt) => sleep_until_killed(),
            Ok(VcpuExit::Shutdown) => return Err(triple_fault(vcpu)),
            Ok(VcpuExit::InternalError) => return Err(not_emulated(vcpu)),
            Ok(VcpuExit::FailEntry(reason, _)) => return Err(Error::Entry(reason)),
            Ok(VcpuExit::Intr) => return Ok(None),
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => return Ok(None),
            Ok(other) => return Err(Error::Unexpected(format!("{other:?}"))),
            Err(error) => return Err(failed(error)),
        }
    }
    // ANCHOR_END: loop
}

/// EFAULT: KVM found no page behind an address of the guest's.
fn failed(error: kvm_ioctls::Error) -> Error {
    mapped::check();
    Error::Run(error)
}

/// `hlt` waits for an interrupt. With interrupt controllers KVM waits itself; without, nothing will ever send one: the guest will wait for ever, and so
/// do we, without using the processor, until somebody ends the VMM.
fn sleep_until_killed() {
    loop {
        // SAFETY: pause takes nothing. It returns when a signal handler ran, and we wait again.
        unsafe { libc::pause() };
    }
}

fn triple_fault(vcpu: &VcpuFd) -> Error {
    mapped::check();
    let registers = vcpu
        .get_regs()
        .and_then(|general| Ok((general.rip, vcpu.get_sregs()?.cr2)));
    let told = registers.ok().and_then(|(rip, cr2)| Some((place_of_fault(rip)?, cr2)));
    Error::TripleFault(told.map_or(Fault::Lost, |(rip, cr2)| Fault::At { rip, cr2 }))
}

fn not_emulated(vcpu: &mut VcpuFd) -> Error {
    mapped::check();
    let rip = vcpu.get_regs().map_or(0, |registers| registers.rip);
    // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, for which KVM fills this member of the union; its
    // emulation_failure form shares the first word.
    let (suberror, failure) = unsafe {
        let exit = &vcpu.get_kvm_run().__bindgen_anon_1;
        (exit.internal.suberror, exit.emulation_failure)
    };
    let mut bytes = String::from("unknown");
    let has_bytes = failure.flags & u64::from(kvm_bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    if suberror == kvm_bindings::KVM_INTERNAL_ERROR_EMULATION && failure.ndata >= 3 && has_bytes {
        // SAFETY: the flag says that the instruction bytes are filled in.
        let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        let length = usize::from(instruction.insn_size).min(instruction.insn_bytes.len());
        let hex: Vec<String> = instruction.insn_bytes[..length]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        bytes = hex.join(" ");
    }
    Error::NotEmulated { rip, suberror, bytes }
}
