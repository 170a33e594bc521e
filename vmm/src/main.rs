//! `vmm`: run a program in a virtual machine.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, FromArgMatches, ValueEnum};
use protocol::marks::Marks;
use protocol::phase::Phase;
use protocol::status;
use vmm::kernel::Kernel;
use vmm::machine::Kind;
use vmm::vcpu::End;
use vmm::virtio::{Spec, disk, net};
use vmm::vm::{self, Config, Start};
use vmm::{empty, initrd, layout, restore, snapshot};

/// What to do.
enum Command {
    Run(Run),
    Snapshot(Snapshot),
    Restore(Restore),
    Empty(Empty),
}

#[derive(Args)]
struct Empty {
    /// Report phases as JSON lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    marks_fd: Option<RawFd>,
}

#[derive(Args)]
struct Snapshot {
    /// The mark to stop at: "guest kernel entry", "user mode entry", or "first output", which is right before it
    #[arg(long, value_name = "MARK", default_value = "user mode entry", value_parser = phase)]
    at: Phase,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    run: Run,
}

#[derive(Args)]
struct Restore {
    /// Report phases as JSON lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    marks_fd: Option<RawFd>,
    /// Copy every page of the snapshot before the guest runs, instead of when it first writes there
    #[arg(long)]
    prefault: bool,
    /// Say how many page faults the guest's run took
    #[arg(long)]
    count_faults: bool,
    /// Run without the filter on the VMM's own system calls: for a debugger, or a tool that needs other calls inside it
    #[arg(long)]
    no_seccomp: bool,
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn phase(text: &str) -> Result<Phase, String> {
    Phase::from_name(text).ok_or_else(|| {
        format!(
            "no mark is called that; a guest can be stopped at {:?}, {:?} and {:?}",
            "guest kernel entry", "user mode entry", "first output"
        )
    })
}

#[derive(Args)]
struct Run {
    /// Kernel to boot: a 64-bit ELF file or a Linux bzImage [default: the lab kernel inside this binary]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Enter an ELF kernel by its PVH entry point instead of the Linux boot protocol
    #[arg(long)]
    pvh: bool,
    /// How much of a machine the guest gets [default: bare for the lab kernel, pc for any other]
    #[arg(long, value_name = "KIND")]
    machine: Option<Machine>,
    /// Number of vCPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=CPUS_MAX))]
    cpus: u8,
    /// Start PROGRAM itself as a Linux guest's first process, instead of the lab's init, which mounts /proc, /sys and /dev,
    /// runs PROGRAM and brings back its exit status
    #[arg(long)]
    no_init: bool,
    /// The guest's file system: a newc cpio archive [default: the workload as /bin/workload]
    #[arg(long, value_name = "CPIO", conflicts_with = "rootfs")]
    initrd: Option<PathBuf>,
    /// The guest's file system: a directory, packed on the way
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// A disk, /dev/vda and so on in the guest: FILE is written to, FILE:ro is not, FILE:cow looks writable and its
    /// changes are discarded, FILE:cow=OVERLAY keeps them in the file OVERLAY. With "--cmdline lab.disk=/dev/vda:/mnt[:ro]" the
    /// lab's init mounts it
    #[arg(long = "disk", value_name = "FILE[:ro|:cow]")]
    disks: Vec<disk::Spec>,
    /// A network card on a tap that exists. With "--cmdline lab.ip=ADDRESS/PREFIX[,GATEWAY]" the lab's init configures it
    #[arg(long = "net", value_name = "tap=NAME[,mac=MAC]")]
    cards: Vec<net::Spec>,
    /// Random bytes of the host's, as /dev/hwrng
    #[arg(long)]
    rng: bool,
    /// Let the guest give memory back as it frees it; with SIZE, ask it to give up that much at once
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = size)]
    balloon: Option<u64>,
    /// The guest's console [default: serial]
    #[arg(long, value_name = "DEVICE")]
    console: Option<Console>,
    /// Guest memory, such as 64M or 1G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    memory: u64,
    /// Options for the guest kernel; NAME=VALUE becomes a variable in the program's environment. The lab kernel knows
    /// lab.statistics; Linux on a pc gets "console=ttyS0 reboot=k panic=-1 quiet noreplace-smp" in front, and its devices' addresses
    #[arg(long, value_name = "OPTIONS", default_value = "", hide_default_value = true)]
    cmdline: OsString,
    /// Report phases as JSON lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    marks_fd: Option<RawFd>,
    /// End right after this mark, with a line on standard output: one rung of `lab ladder`
    #[arg(long, value_name = "MARK", hide = true, conflicts_with = "marks_fd", value_parser = phase)]
    until: Option<Phase>,
    /// Count the guest's instructions by single-stepping (slow), and print how many
    #[arg(long)]
    count_instructions: bool,
    /// Keep a ledger of every exit in this file, as JSON lines, and print a summary
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Largest size of that file: exits beyond it are counted in the summary alone, for a guest can make as many as it likes
    #[arg(long, value_name = "SIZE", default_value = "256M", requires = "trace", value_parser = size)]
    trace_limit: u64,
    /// Print the guest's first N instructions
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    single_step: u64,
    /// Names for trace and instructions from this file, where the kernel's own has none: an unstripped ELF file or a
    /// System.map
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Run without the filter on the VMM's own system calls: for a debugger, or a tool that needs other calls inside it
    #[arg(long)]
    no_seccomp: bool,
    /// Program to run: a path in the guest's file system, or a name looked up there
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// [`Kind`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum Machine {
    /// Memory, one vCPU, I/O ports
    Bare,
    /// Interrupt controllers, timer, several vCPUs
    Pc,
}

/// What the guest's console is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Console {
    /// The first serial port: an exit for each byte
    Serial,
    /// A virtio device: an exit for each line
    Virtio,
}

/// What clap's range wants.
const CPUS_MAX: i64 = layout::CPUS_MAX as i64;

fn size(text: &str) -> Result<u64, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|error| error.to_string())
}

/// The command line. Every option takes the parser some microseconds to build, and a race starts this program hundreds of
/// times: so those of a subcommand are built only once its name was read.
fn command_line() -> clap::Command {
    let subcommand = |name: &'static str, about: &'static str, options: fn(clap::Command) -> clap::Command| {
        clap::Command::new(name).about(about).defer(options)
    };
    clap::Command::new("vmm")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Isolation by virtual hardware: a tiny KVM hypervisor")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(subcommand(
            "run",
            "Boot a guest kernel that runs PROGRAM; end with its exit status",
            Run::augment_args,
        ))
        .subcommand(subcommand(
            "snapshot",
            "Boot as `run` does, stop at a mark and keep the machine in a file, to be restored any number of times",
            Snapshot::augment_args,
        ))
        .subcommand(subcommand("restore", "Go on from a snapshot", Restore::augment_args))
        .subcommand(subcommand(
            "empty",
            "Create a VM of one page and one vCPU, execute one instruction, print a line: the floor under every VM's start",
            Empty::augment_args,
        ))
}

fn parse() -> Result<Command, clap::Error> {
    let matches = command_line().try_get_matches()?;
    match matches.subcommand() {
        Some(("run", options)) => Run::from_arg_matches(options).map(Command::Run),
        Some(("snapshot", options)) => Snapshot::from_arg_matches(options).map(Command::Snapshot),
        Some(("restore", options)) => Restore::from_arg_matches(options).map(Command::Restore),
        Some(("empty", options)) => Empty::from_arg_matches(options).map(Command::Empty),
        // The parser has refused whatever else there could be.
        _ => Err(command_line().error(ErrorKind::InvalidSubcommand, "there is no such command")),
    }
}

fn main() -> ExitCode {
    let started = protocol::marks::monotonic_ns();
    let command = match parse() {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    let marks_fd = match &command {
        Command::Run(run) | Command::Snapshot(Snapshot { run, .. }) => run.marks_fd,
        Command::Restore(restore) => restore.marks_fd,
        Command::Empty(empty) => empty.marks_fd,
    };
    if let Some(fd) = marks_fd.filter(|&fd| !is_open(fd)) {
        eprintln!(
            "vmm: --marks-fd {fd} is not an open file descriptor. In a shell: vmm run --marks-fd 3 ... 3>marks.jsonl"
        );
        return ExitCode::from(status::LAUNCHER_FAILED);
    }
    let marks = match &command {
        Command::Run(Run { until: Some(last), .. }) => Marks::stop_at(*last, "vmm"),
        _ => Marks::new(marks_fd, "vmm"),
    };
    marks.mark_at(Phase::ProcessStart, started);
    let end = match command {
        Command::Run(run) => run.config(marks, None).and_then(|config| Ok(vm::run(&config)?)),
        Command::Snapshot(Snapshot { at, out, run }) => run
            .config(marks, Some(snapshot::Wish { at, file: out }))
            .and_then(|config| Ok(vm::run(&config)?)),
        Command::Restore(restore) => restore::run(&restore::Options {
            file: restore.file,
            marks,
            prefault: restore.prefault,
            count_faults: restore.count_faults,
            seccomp: !restore.no_seccomp,
        })
        .map_err(Failure::Vm),
        Command::Empty(_) => empty::run(marks).map_err(Failure::Vm).map(|()| {
            println!("an empty virtual machine");
            End::Exit(0)
        }),
    };
    match end {
        Ok(End::Exit(status)) => ExitCode::from(status),
        Ok(End::Panic) => ExitCode::from(status::KERNEL_PANIC),
        // vm::run turns a stop it was asked for into an exit; a restored machine is never asked.
        Ok(End::Stopped(_)) => ExitCode::from(status::LAUNCHER_FAILED),
        Err(Failure::Usage(message)) => {
            eprintln!("vmm: {message}");
            ExitCode::from(status::LAUNCHER_FAILED)
        }
        Err(Failure::Vm(error)) => {
            eprintln!("vmm: {error}");
            ExitCode::from(error.status())
        }
    }
}

/// Why there is no end of a guest to report.
enum Failure {
    /// The options contradict each other.
    Usage(String),
    /// The machine failed.
    Vm(vm::Error),
}

impl From<vm::Error> for Failure {
    fn from(error: vm::Error) -> Failure {
        Failure::Vm(error)
    }
}

impl Run {
    /// The virtio devices asked for. The console comes first, so that it can tell about the others.
    fn devices(&self) -> Vec<Spec> {
        let console = self
            .console
            .filter(|&console| console == Console::Virtio)
            .map(|_| Spec::Console);
        let disks = self.disks.iter().cloned().map(Spec::Disk);
        let cards = self.cards.iter().cloned().map(Spec::Net);
        let random = self.rng.then_some(Spec::Random);
        let balloon = self.balloon.map(Spec::Balloon);
        console
            .into_iter()
            .chain(disks)
            .chain(cards)
            .chain(random)
            .chain(balloon)
            .collect()
    }

    /// The machine these options describe.
    fn config(self, marks: Marks, snapshot: Option<snapshot::Wish>) -> Result<Config, Failure> {
        let machine = match (self.machine, &self.kernel) {
            (Some(Machine::Bare), _) | (None, None) => Kind::Bare,
            (Some(Machine::Pc), _) | (None, Some(_)) => Kind::Pc,
        };
        if machine == Kind::Bare && self.cpus > 1 {
            return Err(Failure::Usage(format!(
                "a bare machine has one vCPU. Add --machine pc to give the guest {}; the lab kernel uses the first only, Linux (--kernel) uses all",
                self.cpus
            )));
        }
        let devices = self.devices();
        if machine == Kind::Bare && !devices.is_empty() {
            return Err(Failure::Usage(
                "a bare machine has no devices. Add --machine pc for a kernel that has drivers for them; the lab kernel has none, Linux (--kernel) has"
                    .into(),
            ));
        }
        let mut words = self.program.into_iter();
        Ok(Config {
            devices,
            start: Start {
                init: machine == Kind::Pc && self.kernel.is_some() && !self.no_init,
                // clap asks for at least one word.
                program: words.next().unwrap_or_default(),
                arguments: words.collect(),
            },
            kernel: self.kernel.map_or(Kernel::Lab, Kernel::File),
            pvh: self.pvh,
            machine,
            cpus: self.cpus,
            initrd: match (self.initrd, self.rootfs) {
                (Some(archive), _) => initrd::Source::Archive(archive),
                (None, Some(directory)) => initrd::Source::Directory(directory),
                (None, None) => initrd::Source::Workload,
            },
            memory: self.memory,
            options: self.cmdline,
            marks,
            snapshot,
            count_instructions: self.count_instructions,
            trace: self.trace,
            trace_limit: self.trace_limit,
            single_step: self.single_step,
            symbols: self.symbols,
            seccomp: !self.no_seccomp,
        })
    }
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes a number and changes nothing.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Help goes to standard output with status 0; wrong usage to standard error with the launcher's own status.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody left to read it: the status says enough.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(status::LAUNCHER_FAILED),
    }
}
