//! A virtual machine, from nothing to a running guest. This file is the recipe; each step is taught by the file it calls.

use std::ffi::OsString;
use std::io;

use kvm_ioctls::Kvm;
use protocol::marks::Marks;
use protocol::phase::Phase;
use protocol::status;

use crate::kernel::Kernel;
use crate::ports::Ports;
use crate::steps::Steps;
use crate::vcpu::{self, End};
use crate::{boot, command_line, cpuid, initrd, kernel, layout, memory, registers, serial};

/// What to run, and in what machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The guest kernel.
    pub kernel: Kernel,
    /// The file system the guest starts with.
    pub initrd: initrd::Source,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Options for the guest kernel.
    pub options: OsString,
    /// The program, a path in the guest's file system or a name to look up there.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where phases are reported.
    pub marks: Marks,
    /// Count the guest's instructions and say how many on standard error.
    pub count_instructions: bool,
}

/// The machine could not be built, or the guest ended badly. [`Error::status`] is the launcher's exit status for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no KVM.
    #[error(
        "there is no /dev/kvm on this machine. Load the module (modprobe kvm_intel or kvm_amd), switch on virtualization in the firmware, or, inside a VM, nested virtualization on the host below"
    )]
    NoKvm,
    /// KVM may not be used.
    #[error(
        "no permission to open /dev/kvm. Add yourself to its group (sudo usermod -aG kvm $USER, then log in again), or run as root"
    )]
    NotPermitted,
    /// KVM cannot be opened for another reason.
    #[error("cannot open /dev/kvm: {0}")]
    Open(io::Error),
    /// KVM refused a step.
    #[error("KVM refused to {what}: {source}{cure}")]
    Kvm {
        /// The step.
        what: &'static str,
        /// KVM's errno.
        source: kvm_ioctls::Error,
        /// What to do about it, where we know.
        cure: &'static str,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The initrd.
    #[error(transparent)]
    Initrd(#[from] initrd::Error),
    /// The boot parameters.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// CPUID.
    #[error(transparent)]
    Cpuid(#[from] cpuid::Error),
    /// Registers.
    #[error(transparent)]
    Registers(#[from] registers::Error),
    /// The run.
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
}

impl Error {
    /// The launcher's exit status for this error.
    pub fn status(&self) -> u8 {
        match self {
            Error::NoKvm => status::NO_KVM,
            Error::NotPermitted => status::KVM_NOT_PERMITTED,
            Error::Kernel(kernel::Error::NotAKernel { .. }) => status::NOT_A_KERNEL,
            Error::Kernel(kernel::Error::TooBig { .. }) | Error::Initrd(initrd::Error::TooBig { .. }) => {
                status::MEMORY_TOO_SMALL
            }
            Error::Memory(memory::Error::Size(_)) => status::MEMORY_TOO_SMALL,
            Error::Initrd(_) => status::BAD_INITRD,
            Error::Vcpu(vcpu::Error::TripleFault { .. }) => status::TRIPLE_FAULT,
            Error::Vcpu(vcpu::Error::NotEmulated { .. }) => status::NOT_EMULATED,
            Error::Vcpu(_) => status::GUEST_MISBEHAVED,
            _ => status::LAUNCHER_FAILED,
        }
    }
}

/// Builds the machine, runs the guest to its end and says how it ended.
pub fn run(config: &Config) -> Result<End, Error> {
    let marks = config.marks;

    let kvm = open_kvm()?;
    marks.mark(Phase::KvmOpened);

    let vm = kvm.create_vm().map_err(|source| Error::Kvm {
        what: "create a virtual machine",
        source,
        cure: if source.errno() == libc::EBUSY {
            ". Another hypervisor holds the processor: stop it"
        } else {
            ""
        },
    })?;
    marks.mark(Phase::VmCreated);

    let memory = memory::reserve(config.memory)?;
    memory::give_to(&vm, &memory)?;
    marks.mark(Phase::MemoryMapped);

    let kernel = kernel::load(&memory, &config.kernel)?;
    let initrd = initrd::place(&memory, &config.initrd, kernel.end)?;
    let line = command_line::build(marks.wanted(), &config.options, &config.program, &config.arguments);
    boot::write(&memory, kernel.setup_header, &line, initrd)?;
    marks.mark(Phase::KernelLoaded);

    let mut vcpu = vm.create_vcpu(0).map_err(|source| Error::Kvm {
        what: "create a vCPU",
        source,
        cure: "",
    })?;
    cpuid::set_up(&vcpu)?;
    registers::set_up(&vcpu, &memory, kernel.entry)?;
    marks.mark(Phase::VcpuReady);

    let console = match config.kernel {
        Kernel::Lab => serial::Output::Stderr,
        Kernel::File(_) => serial::Output::Stdout,
    };
    let mut steps = match config.count_instructions {
        true => Some(
            Steps::start(&vcpu, layout::HIGH_RAM..kernel.end).map_err(|source| Error::Kvm {
                what: "single-step the vCPU",
                source,
                cure: "",
            })?,
        ),
        false => None,
    };
    let end = vcpu::run(&mut vcpu, &mut Ports::new(&memory, console, marks), &mut steps)?;
    marks.mark(Phase::Exit);
    if let Some(steps) = steps {
        eprintln!("vmm: {steps}");
    }
    Ok(end)
}

/// Opens KVM, or says what keeps us from it.
pub fn open_kvm() -> Result<Kvm, Error> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::NoKvm,
        libc::EACCES | libc::EPERM => Error::NotPermitted,
        errno => Error::Open(io::Error::from_raw_os_error(errno)),
    })
}
