//! Snapshots: a machine stopped at a mark, kept in a file, and started from there as often as one likes.
//!
//! What makes a machine is little: its memory, the registers of its vCPUs, and on a PC the state of the controllers inside
//! KVM. [`take`] writes it down; [`restore`](crate::restore) builds a machine around it. The memory is mapped from the file,
//! privately: a clone reads the host's page cache, which all clones share, until it writes to a page and gets a copy of its
//! own. That is copy-on-write for machines, and why a clone starts in a fraction of a boot.
//!
//! **Clones must not share random numbers.** Two machines with the same memory would draw the same keys. The lab kernel
//! keeps no random state: it asks the host each time, and the 16 bytes a program finds at its start (AT_RANDOM) are drawn
//! anew in every clone of a machine stopped at "user mode entry". Linux does keep a pool, so a Linux guest can only be stopped
//! at "user mode entry": the lab's init, which reports that mark, then asks which generation the machine is, and in a
//! clone feeds the pool with random bytes from the host and reseeds it before the program starts. What a *program* drew
//! before a later mark is in its memory and in every clone's, as after fork(2).

mod file;
pub mod pc;
pub mod processor;

use std::io;
use std::path::{Path, PathBuf};

use kvm_ioctls::{Kvm, VmFd};
use protocol::phase::Phase;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::kernel::Kernel;
use crate::machine::{Kind, Machine};
use crate::ports::Moment;
use crate::processors::Processor;
use crate::virtio::disk::Mode;
use crate::vm::Config;
use crate::{cpio, initrd, serial, virtio};

pub use file::{FORMAT, Opened, Run, open};

/// Bytes a program finds at AT_RANDOM (getauxval(3)).
pub const PROGRAM_RANDOM: usize = 16;

/// What [`Error::File`] says when a snapshot cannot be read.
pub const READ: &str = "read the snapshot";

/// A snapshot somebody wants.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The mark to stop at: after it was reported, or for [`Phase::FirstOutput`] right before the output.
    pub at: Phase,
    /// The file to write.
    pub file: PathBuf,
}

impl Wish {
    /// Whether a machine of this configuration can be stopped there.
    ///
    /// # Errors
    /// See [`Error::Mark`] and [`Error::Disk`].
    pub fn check(&self, config: &Config) -> Result<(), Error> {
        let marks: &[Phase] = match (config.machine, &config.kernel) {
            (Kind::Bare, _) => &[Phase::GuestKernelEntry, Phase::UserModeEntry, Phase::FirstOutput],
            (Kind::Pc, Kernel::File(_)) if config.start.init => &[Phase::UserModeEntry],
            (Kind::Pc, _) => &[],
        };
        let written = |spec: &&virtio::Spec| matches!(spec, virtio::Spec::Disk(disk) if disk.mode != Mode::ReadOnly);
        if let Some(virtio::Spec::Disk(disk)) = config.devices.iter().find(written) {
            return Err(Error::Disk(disk.file.clone()));
        }
        if marks.contains(&self.at) {
            return Ok(());
        }
        Err(Error::Mark {
            mark: self.at.name(),
            possible: match marks {
                [] => "At none: only a kernel that runs the lab's init, or the lab kernel on a bare machine, says where it is".into(),
                marks => format!("At one of: {}", marks.iter().map(|mark| mark.name()).collect::<Vec<_>>().join(", ")),
            },
        })
    }
}

/// Everything of a machine but its memory's content.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// The mark it was stopped at.
    pub mark: String,
    /// How much of a machine it is.
    pub kind: Kind,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Which stretches of it are in the file; the rest is zeros.
    pub runs: Vec<Run>,
    /// Where the serial port's output goes.
    pub console: serial::Output,
    /// The guest has printed already.
    pub spoke: bool,
    /// Guest-physical address of the 16 random bytes its program will find, where a clone gets others.
    pub random: Option<u64>,
    /// How often it had been restored when it was stopped.
    pub generation: u8,
    /// SHA-256 of the kernel's file, in hexadecimal.
    pub kernel_sha256: String,
    /// SHA-256 of the program's file in the initrd, in hexadecimal; None where the initrd holds no such file.
    pub program_sha256: Option<String>,
    /// What the guest was told of the processor: family, model and stepping of the host's (CPUID leaf 1, EAX).
    pub processor: u32,
    /// One per vCPU.
    pub vcpus: Vec<processor::State>,
    /// Virtio devices: what they are, and what they know.
    pub devices: Vec<(virtio::Spec, virtio::State)>,
    /// What KVM emulates on a PC.
    pub pc: Option<pc::State>,
}

/// A snapshot could not be taken or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not at this mark.
    #[error("this machine cannot be stopped for a snapshot at the mark \"{mark}\". {possible}")]
    Mark {
        /// The mark asked for.
        mark: &'static str,
        /// Which are possible, as a sentence.
        possible: String,
    },
    /// A disk that would have to be in the snapshot.
    #[error(
        "a machine that writes to the disk {0} cannot be kept in a snapshot: its memory remembers what is on the disk, and the next clone would find it changed. Give it the disk as {0}:ro"
    )]
    Disk(PathBuf),
    /// The guest ended first.
    #[error(
        "the guest ended before it came to the mark \"{0}\", so there is no snapshot. Does the program run without --at?"
    )]
    Ended(&'static str),
    /// The output instruction was not found again.
    #[error(
        "cannot go back to before the guest's first output: the bytes in front of rip {0:#x} are not the instruction that made it. Take the snapshot at another mark"
    )]
    Rewind(u64),
    /// KVM refused.
    #[error("KVM refused to {what}: {source}{cure}")]
    Kvm {
        /// The step.
        what: &'static str,
        /// KVM's errno.
        source: kvm_ioctls::Error,
        /// What may help.
        cure: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{0} is not a snapshot of this lab. Make one with `vmm snapshot --out FILE PROGRAM`")]
    Foreign(PathBuf),
    /// The format is not ours.
    #[error(
        "{path} has snapshot format {found}, and this vmm reads format {known} only. Take it anew with this vmm, or restore it with the one that made it"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The file is shorter or longer than it says.
    #[error(
        "{path} is not whole: {found} of {expected} bytes. The copy was interrupted, or the disk was full; take the snapshot anew"
    )]
    Length {
        /// Which file.
        path: PathBuf,
        /// Bytes there.
        found: u64,
        /// Bytes it says it has.
        expected: u64,
    },
    /// The bytes are not those that were written.
    #[error("{path} is damaged ({what}). Take the snapshot anew")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// Another processor.
    #[error(
        "{path} was taken on another model of processor (CPUID signature {found:#x}, here {here:#x}): its guest would use features this one may not have. Take it anew on this machine"
    )]
    Processor {
        /// Which file.
        path: PathBuf,
        /// The snapshot's.
        found: u32,
        /// This host's.
        here: u32,
    },
    /// Guest memory.
    #[error("cannot reach guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

impl Error {
    fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
        move |source| Error::Kvm { what, source, cure: "" }
    }
}

/// What identifies the model of this host's processor.
pub fn processor_signature() -> u32 {
    std::arch::x86_64::__cpuid(1).eax
}

/// A machine that has stopped: no vCPU runs any more, and the first made the exit that stopped it.
pub struct Stopped<'a> {
    /// What it was made from.
    pub config: &'a Config,
    /// KVM.
    pub kvm: &'a Kvm,
    /// The machine inside KVM.
    pub vm: &'a VmFd,
    /// Its vCPUs.
    pub processors: &'a mut [Processor],
    /// The machine outside.
    pub machine: &'a Machine,
}

/// Writes a stopped machine to `wish.file`.
pub fn take(wish: &Wish, moment: Moment, stopped: Stopped<'_>) -> Result<(), Error> {
    let Stopped {
        config,
        kvm,
        vm,
        processors,
        machine,
    } = stopped;
    for Processor { vcpu, .. } in processors.iter_mut() {
        processor::finish_exit(vcpu)?;
    }
    let first = &processors[0].vcpu;
    if moment == Moment::Before {
        processor::step_back(first, &machine.memory)?;
    }
    let random = match (wish.at, &config.kernel) {
        (Phase::UserModeEntry, Kernel::Lab) => processor::program_random(first)?,
        _ => None,
    };
    let msrs = processor::wanted_msrs(kvm, config.machine)?;
    let vcpus = processors
        .iter()
        .map(|Processor { vcpu, .. }| processor::State::of(vcpu, &msrs, config.machine))
        .collect::<Result<_, _>>()?;
    let ports = machine.ports();
    let mut state = State {
        mark: wish.at.name().into(),
        kind: config.machine,
        memory: crate::memory::size(&machine.memory),
        runs: Vec::new(),
        console: ports.serial.output(),
        spoke: ports.spoke(),
        random,
        generation: ports.generation,
        kernel_sha256: kernel_sha256(&config.kernel)?,
        program_sha256: program_sha256(config),
        processor: processor_signature(),
        vcpus,
        devices: config
            .devices
            .iter()
            .cloned()
            .zip(machine.bus.devices().map(|device| device.save()))
            .collect(),
        pc: match config.machine {
            Kind::Bare => None,
            Kind::Pc => Some(pc::State::of(vm, &ports.serial)?),
        },
    };
    file::write(&wish.file, &mut state, &machine.memory)
}

fn kernel_sha256(kernel: &Kernel) -> Result<String, Error> {
    match kernel {
        Kernel::Lab => Ok(sha256(guest_images::KERNEL)),
        Kernel::File(path) => std::fs::read(path)
            .map(|bytes| sha256(&bytes))
            .map_err(|source| Error::File {
                what: "read",
                path: path.clone(),
                source,
            }),
    }
}

fn program_sha256(config: &Config) -> Option<String> {
    use std::os::unix::ffi::OsStrExt;
    let program = config.start.program.as_bytes();
    match &config.initrd {
        initrd::Source::Workload => Some(sha256(guest_images::WORKLOAD)),
        initrd::Source::Archive(path) => {
            let archive = std::fs::read(path).ok()?;
            let found = cpio::find(&archive, program.strip_prefix(b"/").unwrap_or(program));
            found.ok().map(sha256)
        }
        initrd::Source::Directory(path) => {
            let relative = Path::new(&config.start.program);
            let relative = relative.strip_prefix("/").unwrap_or(relative);
            std::fs::read(path.join(relative)).ok().map(|bytes| sha256(&bytes))
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives a clone's program random bytes of its own.
pub fn draw_anew(memory: &GuestMemoryMmap, address: u64) -> Result<(), Error> {
    let mut bytes = [0; PROGRAM_RANDOM];
    crate::random::fill(&mut bytes).map_err(|source| Error::File {
        what: "draw random bytes from",
        path: "the host's kernel".into(),
        source,
    })?;
    Ok(memory.write_slice(&bytes, GuestAddress(address))?)
}
