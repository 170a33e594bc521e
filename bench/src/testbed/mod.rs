//! `lab testbed`: a computer with hardware virtualization, on any machine.
//!
//! QEMU emulates a PC whose processor has AMD-V, a distribution's kernel with its KVM modules runs on it, and in there the
//! lab's own programs find what this machine may lack: a real `/dev/kvm`, and cgroups of version 2 alone. What is emulated
//! is slow, by a factor that is not the same for everything: results made inside hold as ratios and as counts, and say so
//! ([`crate::host::emulated`]).
//!
//! This file is the recipe, seen from outside; [`inside`] is the first process of the computer, and [`frames`] what the two
//! have to say to each other.

pub mod frames;
pub mod initramfs;
pub mod inside;
pub mod kernel;
pub mod modules;
pub mod qemu;

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::memfd::{MFdFlags, memfd_create};
use protocol::status;

use self::frames::{Broken, Frame, Receiver};
use self::initramfs::{FILE, Initramfs, on_path};
use self::inside::Job;
use self::kernel::Kernel;
use crate::interrupt::Interrupt;
use crate::launchers::{self, ENGINE_NAME, Launchers, cache_folder};

/// Exit status when `--timeout` ended the command, as timeout(1) has it.
pub const TIMED_OUT: u8 = 124;
/// How often the lab looks up from waiting for output, at signals and at the clock.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Most that goes inside by standard input, in MiB; it is in memory twice.
const STDIN_MAX: u64 = 256;
/// Memory the machine has beyond its file system, in MiB.
const MEMORY: u64 = 1024;
const MIB: u64 = 1 << 20;

/// Options of `lab testbed`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The kernel to boot, with KVM for AMD built in or in its modules [default: the one guest-images/testbed/fetch-kernel
    /// fetched].
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The folder of its modules [default: lib/modules/RELEASE that belongs to the kernel].
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// Memory of the computer in MiB [default: 1024, and twice what is taken inside].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(128..=1 << 20))]
    pub memory: Option<u64>,
    /// Its processors.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// A file or folder to take inside; a program comes with its libraries. It lies at the same path there, or at DEST.
    #[arg(long, value_name = "PATH[:DEST]")]
    pub include: Vec<String>,
    /// A program on PATH to take inside with its libraries: crun, mke2fs, qemu-system-x86_64, ...
    #[arg(long, value_name = "PROGRAM")]
    pub with: Vec<String>,
    /// A variable of the command's environment.
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Read standard input to its end first, and give it to the command: `... | lab testbed --stdin sh`. Without this option
    /// the command finds its standard input empty.
    #[arg(long)]
    pub stdin: bool,
    /// The folder that comes back when the command has ended, whatever its status.
    #[arg(long, value_name = "DIR", default_value = "lab-results")]
    pub results: PathBuf,
    /// Longest the whole may take, in seconds; then it ends with status 124.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub timeout: Option<u64>,
    /// Silence in seconds after which the computer is taken for dead. It gives a sign of life every second; booting, and a busy
    /// machine outside, are what the rest is for.
    #[arg(long, value_name = "S", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub patience: u64,
    /// The command: lab, vmm, container, a program file of this machine, or one of busybox's, with its arguments.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

/// What keeps the testbed from running a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Programs or files are not there.
    #[error("the testbed lacks {what}. To install what is missing: {fix}")]
    Missing {
        /// What.
        what: String,
        /// The command.
        fix: String,
    },
    /// The launchers could not be unpacked.
    #[error(transparent)]
    Launchers(#[from] launchers::Error),
    /// Something could not be taken inside.
    #[error(transparent)]
    Initramfs(#[from] initramfs::Error),
    /// The kernel's modules could not be read.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// The host refused something.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// QEMU ended on its own.
    #[error("the testbed stopped before its command had ended (QEMU's {status}). The last it said:\n{console}")]
    Stopped {
        /// QEMU's status.
        status: String,
        /// Console and complaints.
        console: String,
    },
    /// It gives no sign of life.
    #[error(
        "the emulated computer has given no sign of life for {patience} seconds, and was switched off; what the command had \
         made is lost. QEMU's emulation of several processors comes to a standstill now and then, or this machine leaves it no \
         time: run it again, alone, with --cpus 1, or with a longer --patience. The last on its console:\n{console}"
    )]
    Silent {
        /// How long the lab waited, in seconds.
        patience: u64,
        /// Console.
        console: String,
    },
    /// Its first process could not do its part.
    #[error("the testbed failed: {0}")]
    Inside(String),
    /// The stream between the two is damaged.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// Whoever reads the command's output has gone.
    #[error("cannot pass on what the command wrote: {0}")]
    Output(io::Error),
    /// An option that makes no sense.
    #[error("{0}")]
    Usage(String),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The command ended with this status.
    Command(u8),
    /// The time limit ended it.
    TimedOut,
    /// A signal to the lab ended it.
    Interrupted(i32),
}

/// Runs the command of `options` in the testbed, its output on ours.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<Ended, Error> {
    let began = Instant::now();
    if !options.stdin && input_waits() {
        let _ = writeln!(
            io::stderr(),
            "lab: what comes in by standard input does not reach the command in the testbed; `lab testbed --stdin ...` takes it inside"
        );
    }
    let (qemu, kernel) = find_machine(options.kernel.as_deref(), options.modules.as_deref())?;
    let directory = std::env::current_dir().map_err(host("find the current folder"))?;
    let archive = pack(options, &kernel, &directory)?;
    let memory = options.memory.unwrap_or(MEMORY + 2 * archive.len() as u64 / MIB);
    let machine = qemu::Machine {
        program: qemu,
        kernel: kernel.image,
        initramfs: in_memory(&archive).map_err(host("keep the testbed's file system in memory"))?,
        command_line: format!("rdinit={} -- {}", inside::PATH, inside::SUBCOMMAND),
        memory,
        cpus: options.cpus,
    };
    drop(archive);
    let limit = options.timeout.map(Duration::from_secs);
    let mut running = machine.start().map_err(host("start QEMU"))?;
    running
        .port
        .set_read_timeout(Some(LOOK_UP))
        .map_err(host("set a time limit on the port"))?;

    let mut receiver = Receiver::default();
    let mut results = tempfile::tempfile().map_err(host("make a temporary file"))?;
    let mut bytes = vec![0; 64 * 1024];
    let mut heard = Instant::now();
    let status = 'ended: loop {
        if let Some(signal) = interrupt.signal() {
            return Ok(Ended::Interrupted(signal));
        }
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            return Ok(Ended::TimedOut);
        }
        if heard.elapsed().as_secs() >= options.patience {
            return Err(Error::Silent {
                patience: options.patience,
                console: running.console(),
            });
        }
        match running.port.read(&mut bytes) {
            Ok(0) => {
                let (status, console) = running.wait().map_err(host("wait for QEMU"))?;
                let status = status.to_string();
                return Err(Error::Stopped { status, console });
            }
            Ok(n) => {
                heard = Instant::now();
                receiver.take(&bytes[..n]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(source) => return Err(host("read from the testbed")(source)),
        }
        while let Some(frame) = receiver.frame()? {
            match frame {
                Frame::Output(text) => pass_on(&mut io::stdout(), &text)?,
                Frame::Complaint(text) => pass_on(&mut io::stderr(), &text)?,
                Frame::Results(piece) => results.write_all(&piece).map_err(host("keep the results"))?,
                Frame::Alive => {}
                Frame::Failure(why) => return Err(Error::Inside(why)),
                Frame::End(status) => break 'ended status,
            }
        }
    };
    // The computer is of no more use; what it wrote to its own memory goes with it.
    drop(running);
    unpack(&mut results, &options.results).map_err(host("unpack the results"))?;
    Ok(Ended::Command(status))
}

/// QEMU and a kernel, or one message that names everything missing and the command for all of it.
///
/// # Errors
/// [`Error::Missing`], or [`Error::Usage`] for a kernel that is no file.
pub fn find_machine(image: Option<&Path>, modules: Option<&Path>) -> Result<(PathBuf, Kernel), Error> {
    let qemu = on_path(qemu::PROGRAM);
    let folder = cache_folder().map(|cache| cache.join("testbed"));
    let kernel = Kernel::find(image, modules, folder.as_deref());
    if kernel.is_none()
        && let Some(named) = image
    {
        return Err(Error::Usage(format!("--kernel: {} is no file", named.display())));
    }
    match (qemu, kernel) {
        (Some(qemu), Some(kernel)) => Ok((qemu, kernel)),
        (qemu, kernel) => {
            let (mut what, mut fix) = (Vec::new(), Vec::new());
            if qemu.is_none() {
                what.push(format!("QEMU ({} is not on PATH)", qemu::PROGRAM));
                fix.push("apt-get install qemu-system-x86 busybox-static");
            }
            if kernel.is_none() {
                let place = folder.map_or_else(|| "the cache".into(), |folder| folder.display().to_string());
                what.push(format!("a kernel with KVM (none in {place}, and no --kernel)"));
                fix.push(kernel::FETCH);
            }
            let (what, fix) = (what.join(" and "), fix.join(" && "));
            Err(Error::Missing { what, fix })
        }
    }
}

/// Puts the file system together: the lab and its launchers, a shell, the kernel's modules, and what was asked for.
fn pack(options: &Options, kernel: &Kernel, directory: &Path) -> Result<Vec<u8>, Error> {
    let mut initramfs = Initramfs::default();
    for folder in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/var/tmp", "/mnt"] {
        initramfs.directory(Path::new(folder))?;
    }
    for (file, text) in inside::FILES {
        initramfs.file(Path::new(file), FILE, text.as_bytes())?;
    }
    initramfs.directory(directory)?;

    let lab = std::env::current_exe().map_err(host("find the lab's own program file"))?;
    initramfs.host(&lab, Path::new(inside::PATH))?;
    let launchers = Launchers::find(None, None)?;
    initramfs.host(&launchers.vmm, Path::new("/bin/vmm"))?;
    initramfs.host(&launchers.container, Path::new("/bin/container"))?;
    let engine = launchers.container.with_file_name(ENGINE_NAME);
    initramfs.host(&engine, &Path::new("/bin").join(ENGINE_NAME))?;
    // Where whoever runs inside will look for them.
    for form in [guest_images::linux::Form::Vmlinux, guest_images::linux::Form::BzImage] {
        if let Ok(linux) = guest_images::linux::locate(form) {
            let name = if form == guest_images::linux::Form::Vmlinux {
                "vmlinux"
            } else {
                "bzImage"
            };
            initramfs.host(
                &linux,
                &Path::new(inside::HOME).join(".cache/isolation-lab/linux").join(name),
            )?;
        }
    }

    for pair in &options.include {
        // A path with a colon in it can only be taken by the name of its folder.
        let (from, to) = pair
            .split_once(':')
            .map_or((pair.as_str(), None), |(from, to)| (from, Some(to)));
        let to = directory.join(to.unwrap_or(from));
        initramfs.host(Path::new(from), &to)?;
    }
    for program in &options.with {
        initramfs.program(program)?;
    }
    let has_shell = initramfs.busybox()?;
    if !has_shell {
        let _ = writeln!(
            io::stderr(),
            "lab: no shell inside: this machine has no busybox. To have one: apt-get install busybox-static"
        );
    }
    if let Some(program) = options.command.first() {
        let path = Path::new(program);
        if program.contains('/') {
            if path.is_file() {
                initramfs.host(path, &directory.join(path))?;
            }
        } else if !initramfs.holds(&Path::new("/bin").join(program)) && on_path(program).is_some() {
            initramfs.program(program)?;
        }
    }

    if options.stdin {
        initramfs.file(Path::new(inside::STDIN), FILE, &read_input(io::stdin().lock())?)?;
    }
    let modules = match &kernel.modules {
        Some(directory) => modules::in_order(directory)?,
        None => Vec::new(),
    };
    for module in &modules {
        initramfs.file(&inside::module_path(&module.name), FILE, &module.bytes)?;
    }
    let job = Job {
        command: options.command.clone(),
        environment: options
            .env
            .iter()
            .map(|pair| variable(pair))
            .collect::<Result<_, _>>()?,
        directory: directory.to_owned(),
        stdin: options.stdin,
        results: directory.join(&options.results),
        modules: modules.into_iter().map(|module| module.name).collect(),
    };
    // A job is texts in lists: nothing in it that JSON cannot say.
    let job = serde_json::to_vec(&job).map_err(|error| Error::Usage(error.to_string()))?;
    initramfs.file(Path::new(inside::JOB), FILE, &job)?;
    Ok(initramfs.finish())
}

/// Everything there is to read.
fn read_input(from: impl Read) -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    let mut limited = from.take(STDIN_MAX * MIB + 1);
    limited.read_to_end(&mut input).map_err(host("read standard input"))?;
    if input.len() as u64 > STDIN_MAX * MIB {
        return Err(Error::Usage(format!(
            "--stdin: more than {STDIN_MAX} MiB come in by standard input, and all of it would lie in the testbed's memory. Take a file \
             inside with --include"
        )));
    }
    Ok(input)
}

/// Whether somebody has written something for us to read already: never for a terminal, and nothing waits for it.
fn input_waits() -> bool {
    let mut waiting: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and fails on what it does not know.
    let known = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::FIONREAD, &mut waiting) } == 0;
    known && waiting > 0 && !io::stdin().is_terminal()
}

fn variable(pair: &str) -> Result<(String, String), Error> {
    match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::Usage(format!("--env: {pair:?} is not NAME=VALUE"))),
    }
}

/// A file without a name: it vanishes with the last process that holds it.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file: File = memfd_create(c"testbed-initramfs", MFdFlags::MFD_CLOEXEC)?.into();
    file.write_all(bytes)?;
    Ok(file)
}

fn pass_on(to: &mut impl Write, text: &[u8]) -> Result<(), Error> {
    to.write_all(text).and_then(|()| to.flush()).map_err(Error::Output)
}

/// Unpacks the folder that came back; nothing when the command made none.
fn unpack(archive: &mut File, folder: &Path) -> io::Result<()> {
    if archive.stream_position()? == 0 {
        return Ok(());
    }
    archive.rewind()?;
    let mut archive = tar::Archive::new(archive);
    // The files are the user's who asked for them, whoever wrote them inside.
    archive.set_preserve_ownerships(false);
    archive.unpack(folder)
}

fn host(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Host { what, source }
}

impl Error {
    /// The exit status that goes with it.
    pub fn status(&self) -> u8 {
        status::LAUNCHER_FAILED
    }
}
