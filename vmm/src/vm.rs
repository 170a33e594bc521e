//! A virtual machine, from nothing to a running guest. This file is the recipe; each step is taught by the file it calls.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use protocol::marks::Marks;
use protocol::phase::Phase;
use protocol::status;

use crate::bus::Bus;
use crate::input::{Gate, Waker};
use crate::interrupts::Line;
use crate::kernel::{Entry, Kernel};
use crate::ledger::Ledger;
use crate::ledger::symbols::Symbols;
use crate::listing::Listing;
use crate::machine::{Kind, Machine};
use crate::ports::Ports;
use crate::processors::Processor;
use crate::sandbox::{self, Sandbox};
use crate::serial::Serial;
use crate::steps::Steps;
use crate::vcpu::{self, End};
use crate::watch::Watch;
use crate::{
    boot, command_line, cpuid, footprint, initrd, interrupts, kernel, layout, ledger, memory, mptable, permission,
    processors, pvh, registers, serial, snapshot, virtio,
};

/// What to run, and in what machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The guest kernel.
    pub kernel: Kernel,
    /// Enter it by PVH.
    pub pvh: bool,
    /// How much of a machine it gets.
    pub machine: Kind,
    /// Number of vCPUs; more than one needs a [`Kind::Pc`].
    pub cpus: u8,
    /// Virtio devices; they need a [`Kind::Pc`].
    pub devices: Vec<virtio::Spec>,
    /// The file system the guest starts with.
    pub initrd: initrd::Source,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Options for the guest kernel.
    pub options: OsString,
    /// What the guest kernel starts.
    pub start: Start,
    /// Where phases are reported.
    pub marks: Marks,
    /// Where to stop, and where to keep the machine then.
    pub snapshot: Option<snapshot::Wish>,
    /// Count the guest's instructions and say how many on standard error.
    pub count_instructions: bool,
    /// Where the ledger of exits is kept, if anywhere.
    pub trace: Option<PathBuf>,
    /// Largest size of the ledger's file in bytes.
    pub trace_limit: u64,
    /// How many of the guest's first instructions are printed.
    pub single_step: u64,
    /// Names for the kernel's addresses in both, where its own file has none.
    pub symbols: Option<PathBuf>,
    /// Filter the system calls of every thread while the guest runs.
    pub seccomp: bool,
}

impl Default for Config {
    /// The workload without arguments on the lab kernel, in 64 MiB.
    fn default() -> Config {
        Config {
            kernel: Kernel::Lab,
            pvh: false,
            machine: Kind::Bare,
            cpus: 1,
            devices: Vec::new(),
            initrd: initrd::Source::Workload,
            memory: 64 << 20,
            options: OsString::new(),
            start: Start {
                init: false,
                program: "workload".into(),
                arguments: Vec::new(),
            },
            marks: Marks::new(None, "vmm"),
            snapshot: None,
            count_instructions: false,
            trace: None,
            trace_limit: ledger::LIMIT,
            single_step: 0,
            symbols: None,
            seccomp: true,
        }
    }
}

/// How the program comes to run in the guest.
#[derive(Clone, Debug)]
pub struct Start {
    /// The kernel's first process is the lab's own init, which sets up file systems, runs the program and reports its
    /// status. Otherwise it is the program itself.
    pub init: bool,
    /// The program, a path in the guest's file system or a name to look up there.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
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
    #[error("no permission to open /dev/kvm: {}", permission::cure())]
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
    /// Interrupt controllers.
    #[error(transparent)]
    Interrupts(#[from] interrupts::Error),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The serial port of a snapshot.
    #[error(transparent)]
    Serial(#[from] serial::Error),
    /// Virtio devices.
    #[error(transparent)]
    Virtio(#[from] virtio::Error),
    /// No way to wake the input thread.
    #[error("cannot make an event descriptor: {0}. The limit on open files may be reached (ulimit -n)")]
    Waker(io::Error),
    /// No handler for SIGBUS.
    #[error("cannot prepare for a snapshot that is cut short (sigaction): {0}")]
    Mapped(io::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The run.
    #[error(transparent)]
    Run(#[from] processors::Error),
}

impl From<vcpu::Error> for Error {
    fn from(error: vcpu::Error) -> Error {
        Error::Run(error.into())
    }
}

impl Error {
    /// The launcher's exit status for this error.
    pub fn status(&self) -> u8 {
        match self {
            Error::NoKvm => status::NO_KVM,
            Error::NotPermitted => status::KVM_NOT_PERMITTED,
            Error::Kernel(kernel::Error::NotAKernel { .. } | kernel::Error::Empty(_)) => status::NOT_A_KERNEL,
            Error::Kernel(kernel::Error::TooBig { .. }) | Error::Initrd(initrd::Error::TooBig { .. }) => {
                status::MEMORY_TOO_SMALL
            }
            Error::Snapshot(
                snapshot::Error::Foreign(_)
                | snapshot::Error::Version { .. }
                | snapshot::Error::Length { .. }
                | snapshot::Error::Damaged { .. }
                | snapshot::Error::Processor { .. }
                | snapshot::Error::File {
                    what: snapshot::READ, ..
                },
            ) => status::BAD_SNAPSHOT,
            Error::Memory(memory::Error::Size(_)) => status::MEMORY_TOO_SMALL,
            Error::Initrd(_) => status::BAD_INITRD,
            Error::Run(processors::Error::Vcpu(vcpu::Error::TripleFault(_))) => status::TRIPLE_FAULT,
            Error::Run(processors::Error::Vcpu(vcpu::Error::NotEmulated { .. })) => status::NOT_EMULATED,
            Error::Run(processors::Error::Vcpu(_)) => status::GUEST_MISBEHAVED,
            _ => status::LAUNCHER_FAILED,
        }
    }
}

/// Builds the machine, runs the guest to its end and says how it ended.
pub fn run(config: &Config) -> Result<End, Error> {
    let marks = config.marks;

    let kvm = open_kvm()?;
    marks.mark(Phase::KvmOpened);

    let vm = create(&kvm)?;
    marks.mark(Phase::VmCreated);

    let memory = match config.machine {
        Kind::Bare => memory::reserve(config.memory)?,
        Kind::Pc => memory::reserve_huge(config.memory)?,
    };
    memory::give_to(&vm, &memory)?;
    marks.mark(Phase::MemoryMapped);

    // ANCHOR: load
    let kernel = kernel::load(&memory, &config.kernel, config.pvh)?;
    let initrd = initrd::place(&memory, &config.initrd, &config.start, config.machine, kernel.end)?;
    let line = command_line::build(config, marks.wanted() || config.snapshot.is_some());
    boot::write(&memory, kernel.setup_header, &line, initrd)?;
    // ANCHOR_END: load
    if let Entry::Pvh(_) = kernel.entry {
        pvh::write(&memory, initrd).map_err(boot::Error::from)?;
    }
    marks.mark(Phase::KernelLoaded);

    let console = match config.kernel {
        Kernel::Lab => serial::Output::Stderr,
        Kernel::File(_) => serial::Output::Stdout,
    };
    let (serial, input) = match config.machine {
        Kind::Bare => (Serial::polled(console), None),
        Kind::Pc => {
            interrupts::make_controllers(&vm)?;
            mptable::write(&memory, config.cpus).map_err(boot::Error::from)?;
            let waker = Waker::new().map_err(Error::Waker)?;
            let gate = Gate::new(waker.clone(), !config.start.init);
            let line = Line::connect(&vm, serial::LINE)?;
            let takes_input = !config.devices.contains(&virtio::Spec::Console);
            (
                Serial::interrupting(console, line, waker.clone(), takes_input.then(|| gate.clone())),
                Some((waker, gate)),
            )
        }
    };
    let mut ports = Ports::new(memory.clone(), serial, marks);
    if let Some(wish) = &config.snapshot {
        wish.check(config)?;
        ports.stop_at(wish.at);
    }
    let bus = match &input {
        None => Bus::default(),
        Some((waker, gate)) => {
            ports.hold_input(gate.clone());
            let surroundings = virtio::Surroundings {
                vm: &vm,
                memory: &memory,
                waker,
                gate,
                marks,
            };
            virtio::attach(&config.devices, &surroundings)?
        }
    };
    let machine = Machine::new(memory, ports, bus);

    let mut processors = Vec::with_capacity(config.cpus.into());
    for cpu in 0..config.cpus {
        let vcpu = make_vcpu(&kvm, &vm, config, cpu)?;
        let watch = Watch::default();
        processors.push(Processor { vcpu, watch });
    }
    let first = &mut processors[0];
    registers::set_up(&first.vcpu, &machine.memory, kernel.entry)?;
    if config.count_instructions {
        let steps = Steps::start(&first.vcpu, layout::HIGH_RAM..kernel.end);
        first.watch.steps = Some(steps.map_err(|source| Error::Kvm {
            what: "single-step the vCPU",
            source,
            cure: "",
        })?);
    }
    if config.single_step > 0 {
        first.watch.listing = begin_listing(config, &first.vcpu, &machine)?;
    }
    let ledger = open_ledger(config, &vm, &mut processors)?;
    let watched = config.trace.is_some() || config.count_instructions || config.single_step > 0;
    let sandbox = match config.snapshot {
        // Writing a machine down takes files, and most of what KVM can be asked: that is done outside.
        Some(_) => Sandbox::default(),
        None => Sandbox::prepare(config.seccomp, config.machine == Kind::Pc, watched)?,
    };
    if config.machine == Kind::Pc {
        footprint::forget_set_up();
    }
    marks.mark(Phase::VcpuReady);

    let end = match &input {
        None => processors::run_one(&mut processors[0], &machine, sandbox),
        Some((waker, _)) => processors::run_all(&mut processors, &machine, waker, sandbox),
    };
    let end = match (end, &config.snapshot) {
        (Ok(End::Stopped(moment)), Some(wish)) => {
            let stopped = snapshot::Stopped {
                config,
                kvm: &kvm,
                vm: &vm,
                processors: &mut processors,
                machine: &machine,
            };
            snapshot::take(wish, moment, stopped)?;
            Ok(End::Exit(0))
        }
        (Ok(_), Some(wish)) => return Err(snapshot::Error::Ended(wish.at.name()).into()),
        (end, _) => end,
    };
    marks.mark(Phase::Exit);
    if let Some(ledger) = ledger {
        ledger.close()?;
    }
    if let Some(steps) = &processors[0].watch.steps {
        eprintln!("vmm: {steps}");
    }
    Ok(end?)
}

/// A vCPU that knows what processor it is. All but the first then wait for the guest's kernel to start them.
fn make_vcpu(kvm: &Kvm, vm: &VmFd, config: &Config, cpu: u8) -> Result<VcpuFd, Error> {
    let vcpu = create_vcpu(vm, cpu.into())?;
    match config.machine {
        Kind::Bare => cpuid::bare::set_up(&vcpu)?,
        Kind::Pc => {
            let cpus = config.cpus;
            cpuid::pc::set_up(kvm, &vcpu, cpuid::pc::Topology { cpu, cpus })?;
            interrupts::wire_local_apic(&vcpu)?;
        }
    }
    Ok(vcpu)
}

/// A ledger that watches every vCPU, if one is wanted.
fn open_ledger(config: &Config, vm: &VmFd, processors: &mut [Processor]) -> Result<Option<Arc<Ledger>>, Error> {
    let Some(path) = &config.trace else { return Ok(None) };
    let file = ledger::Place {
        path,
        limit: config.trace_limit,
    };
    let ledger = Ledger::open(file, &config.kernel, config.symbols.as_deref(), vm, config.cpus)?;
    for Processor { vcpu, watch } in processors {
        watch.account = Some(ledger.account(vcpu));
    }
    Ok(Some(ledger))
}

/// A listing that has printed the guest's first instruction; None if that was all.
fn begin_listing(config: &Config, vcpu: &VcpuFd, machine: &Machine) -> Result<Option<Listing>, Error> {
    let symbols = Symbols::of(&config.kernel, config.symbols.as_deref()).map_err(ledger::Error::from)?;
    let mut listing = Listing::new(machine.memory.clone(), symbols, config.single_step);
    let first = vcpu.get_regs().and_then(|registers| listing.next(vcpu, registers.rip));
    first.map_err(|source| Error::Kvm {
        what: "show the vCPU's first instruction",
        source,
        cure: "",
    })?;
    Ok(Some(listing).filter(Listing::open))
}

/// Creates a virtual machine without anything in it.
pub fn create(kvm: &Kvm) -> Result<VmFd, Error> {
    kvm.create_vm().map_err(|source| Error::Kvm {
        what: "create a virtual machine",
        source,
        cure: match source.errno() {
            libc::EBUSY => ". Another hypervisor holds the processor: stop it",
            _ => "",
        },
    })
}

/// Creates a vCPU as it is after a reset.
pub fn create_vcpu(vm: &VmFd, number: u64) -> Result<VcpuFd, Error> {
    vm.create_vcpu(number).map_err(|source| Error::Kvm {
        what: "create a vCPU",
        source,
        cure: "",
    })
}

/// Opens KVM, or says what keeps us from it.
pub fn open_kvm() -> Result<Kvm, Error> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::NoKvm,
        libc::EACCES | libc::EPERM => Error::NotPermitted,
        errno => Error::Open(io::Error::from_raw_os_error(errno)),
    })
}
