//! The contenders: each one's file says how to launch it, how to stop it, and what it needs.
//!
//! To add a peer, write such a file and name it in [`NAMES`] and [`prepare`].

mod busybox;
mod cloud_hypervisor;
mod container;
mod engine;
mod firecracker;
mod linux_guest;
pub mod oci;
mod process;
mod qemu;
pub mod vm;
mod vm_empty;
mod vm_linux;
mod vm_restored;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::process::Command;

use crate::equipment::Equipment;
use crate::equipment::wire::Side;
use crate::image::{self, Image};
use crate::launchers::Launchers;

/// Every contender there is, in the order of the race.
pub const NAMES: [&str; 17] = [
    "process",
    "busybox",
    "container",
    "vm-empty",
    "vm-restored",
    "vm",
    "vm-linux",
    "qemu",
    "qemu-q35",
    "qemu-tcg",
    "qemu-q35-tcg",
    "firecracker",
    "cloud-hypervisor",
    "crun",
    "runc",
    "podman",
    "docker",
];

/// Who races when nobody is named: all but the unit and the floor, which run no workload, and the heavy ones, other people's
/// hypervisors and the engines, which take seconds where others take milliseconds.
pub const DEFAULT: [&str; 7] = ["process", "container", "vm-restored", "vm", "vm-linux", "crun", "runc"];

/// The search path of everything that is launched: the same everywhere, whoever starts the lab.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is the same for every contender of a race.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The image to run.
    pub image: &'a Image,
    /// Our own launchers.
    pub launchers: &'a Launchers,
    /// Path of the race's own cgroup below the root of every hierarchy, where cgroups may be made.
    pub cgroup: Option<&'a str>,
}

/// One launch to come.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A name no other launch of this machine has.
    pub id: &'a str,
    /// The workload's arguments.
    pub workload: &'a [String],
    /// Where to report phases.
    pub marks_fd: Option<RawFd>,
}

/// What one instance is held to, where its contender can be told.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Processes at a time.
    pub processes: u64,
}

/// Why a contender cannot run here, and what would change that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The reason.
    pub reason: String,
    /// The cure.
    pub fix: String,
}

/// Something that runs the workload, isolated in its own way.
pub trait Contender: Sync {
    /// Its name in results, tables and charts.
    fn name(&self) -> &'static str;

    /// The command that runs the workload once. Called before the start line.
    ///
    /// # Errors
    /// When a file the launch needs cannot be written.
    fn command(&self, request: &Request) -> io::Result<Command>;

    /// The command that runs a lesson which tells its own time: its work is done in this very launch.
    ///
    /// # Errors
    /// As for [`command`](Self::command).
    fn command_at_work(&self, request: &Request) -> io::Result<Command> {
        self.command(request)
    }

    /// The command that runs a lesson of the disk or of the network, the file or the peer added to its arguments.
    ///
    /// # Errors
    /// [`Skipped`] for those that cannot have one. The command, as ever, fails when a file cannot be written.
    fn equipped(&self, _request: &Request, _equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        Err(Skipped {
            reason: format!("the lab gives {} neither disk nor network card", self.name()),
            fix: "choose from process, container, vm-linux, qemu, crun, runc, podman".into(),
        })
    }

    /// In which network namespace its launcher is started for a lesson of the network.
    fn network_side(&self) -> Side {
        Side::Host
    }

    /// What the disk or the network it is given looks like from inside.
    fn equipment(&self, _equipment: &Equipment) -> String {
        String::new()
    }

    /// [`clean_up`](Contender::clean_up) for an equipped launch.
    fn clean_up_equipped(&self, id: &str, _equipment: &Equipment) {
        self.clean_up(id);
    }

    /// The command for an instance that runs beside others of its kind, held to `bounds` if it [takes](Self::takes_bounds)
    /// them.
    ///
    /// # Errors
    /// As for [`command`](Self::command).
    fn command_beside(&self, request: &Request, _bounds: Option<&Bounds>) -> io::Result<Command> {
        self.command(request)
    }

    /// Whether it can be told bounds.
    fn takes_bounds(&self) -> bool {
        false
    }

    /// Whether the workload runs on a kernel of its own: what it does to that kernel, it does to nobody else's.
    fn has_a_kernel_of_its_own(&self) -> bool {
        false
    }

    /// Whether it takes `--marks-fd` and reports its phases.
    fn reports_phases(&self) -> bool {
        false
    }

    /// Whether it runs the workload. A floor does not: it shows how much of a start is there before any workload is.
    fn runs_the_workload(&self) -> bool {
        true
    }

    /// The file its launcher lays over a guest's memory when the workload idles; None for those that hold no guest.
    fn guest_file(&self) -> Option<&Path> {
        None
    }

    /// Ends the launch `id` if need be, and removes what `id` leaves behind when it is killed instead of ending by itself.
    fn clean_up(&self, _id: &str) {}

    /// What a reader of the results must know about it.
    fn details(&self) -> BTreeMap<String, String>;

    /// SHA-256 of the workload as this contender gets it.
    ///
    /// # Errors
    /// When it is not the lab's own workload.
    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_rootfs()
    }

    /// What would let it run, when its launcher ended with `status` instead of running the workload.
    fn fix(&self, status: i32) -> String;
}

/// Makes the contender of this name ready.
///
/// # Errors
/// Why it cannot run here. Only a real launch can tell for certain; this looks for what is plainly missing.
pub fn prepare(name: &str, setup: &Setup) -> Result<Box<dyn Contender>, Skipped> {
    match name {
        "process" => Ok(Box::new(process::Process::new(setup))),
        "busybox" => Ok(Box::new(busybox::Busybox::new()?)),
        "container" => Ok(Box::new(container::Container::new(setup))),
        "vm-empty" => Ok(Box::new(vm_empty::VmEmpty::new(setup))),
        "vm-restored" => Ok(Box::new(vm_restored::VmRestored::new(setup))),
        "vm" => Ok(Box::new(vm::Vm::new(setup))),
        "vm-linux" => Ok(Box::new(vm_linux::VmLinux::new(setup)?)),
        "qemu" => Ok(Box::new(qemu::Qemu::new(&qemu::MICROVM, setup)?)),
        "qemu-q35" => Ok(Box::new(qemu::Qemu::new(&qemu::Q35, setup)?)),
        "qemu-tcg" => Ok(Box::new(qemu::Qemu::new(&qemu::MICROVM_TCG, setup)?)),
        "qemu-q35-tcg" => Ok(Box::new(qemu::Qemu::new(&qemu::Q35_TCG, setup)?)),
        "firecracker" => Ok(Box::new(firecracker::Firecracker::new(setup)?)),
        "cloud-hypervisor" => Ok(Box::new(cloud_hypervisor::CloudHypervisor::new(setup)?)),
        "crun" => Ok(Box::new(oci::Oci::new(&oci::CRUN, setup)?)),
        "runc" => Ok(Box::new(oci::Oci::new(&oci::RUNC, setup)?)),
        "podman" => Ok(Box::new(engine::Engine::new(&engine::PODMAN, setup)?)),
        "docker" => Ok(Box::new(engine::Engine::new(&engine::DOCKER, setup)?)),
        _ => Err(Skipped {
            reason: format!("there is no contender called {name:?}"),
            fix: format!("choose from {}", NAMES.join(", ")),
        }),
    }
}

/// The lesson's arguments with what it works on at their end.
pub(crate) fn words(request: &Request, object: impl AsRef<OsStr>) -> Vec<OsString> {
    let words = request.workload.iter().map(OsString::from);
    words.chain([object.as_ref().to_owned()]).collect()
}

/// A command with the race's own small environment, so that nobody's shell set-up is part of a measurement.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", SEARCH_PATH);
    command
}

/// The command line as a reader would type it: programs by name, and this run's own folders, which are gone when
/// anybody reads it, by what they are.
fn shown(command: &Command, folders: &[(&Path, &str)]) -> String {
    let name = |word: &OsStr| {
        Path::new(word)
            .file_name()
            .unwrap_or(word)
            .to_string_lossy()
            .into_owned()
    };
    let argument = |word: &OsStr| match folders.iter().find(|(folder, _)| folder.as_os_str() == word) {
        Some((_, what)) => (*what).to_owned(),
        None => word.to_string_lossy().into_owned(),
    };
    let words = std::iter::once(name(command.get_program())).chain(command.get_args().map(argument));
    words.collect::<Vec<_>>().join(" ")
}
