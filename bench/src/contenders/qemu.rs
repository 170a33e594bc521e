//! `qemu` and its variants: the hypervisor everybody has, with the same Linux as `vm-linux`: the same kernel file, the same
//! files in the initrd, the same command line. `microvm` is its smallest machine, `q35` the one people use; each on KVM, and
//! (`-tcg`) on its emulator, which translates every instruction and needs no KVM.
//!
//! QEMU knows nothing of the lab's ports: its guest ends by restarting, which `-no-reboot` turns into the end of QEMU. So
//! the program's exit status is lost, and a workload that ends with any but 0 cannot be raced here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use vmm::kernel::Kernel;
use vmm::machine::Kind;
use vmm::vm::{Config, Start};

use super::{Contender, Request, Setup, Skipped, command, shown, vm_linux};
use crate::image::{self, Image, PROGRAM};
use crate::launchers::sha256;

const QEMU: &str = "qemu-system-x86_64";

/// What differs between the variants.
#[derive(Debug)]
pub struct Variant {
    name: &'static str,
    machine: &'static str,
    /// The processor the guest sees.
    cpu: &'static str,
    on_kvm: bool,
}

/// A machine without PCI and without ACPI, like ours; QEMU's own firmware for it loads the kernel.
pub const MICROVM: Variant = Variant {
    name: "qemu",
    machine: "microvm,accel=kvm,acpi=off,pit=on,pic=on,rtc=off,isa-serial=on",
    cpu: "host",
    on_kvm: true,
};
/// A whole PC with PCI Express.
pub const Q35: Variant = Variant {
    name: "qemu-q35",
    machine: "q35,accel=kvm",
    cpu: "host",
    on_kvm: true,
};
/// [`MICROVM`], emulated.
pub const MICROVM_TCG: Variant = Variant {
    name: "qemu-tcg",
    machine: "microvm,accel=tcg,acpi=off,pit=on,pic=on,rtc=off,isa-serial=on",
    cpu: "max",
    on_kvm: false,
};
/// [`Q35`], emulated.
pub const Q35_TCG: Variant = Variant {
    name: "qemu-q35-tcg",
    machine: "q35,accel=tcg",
    cpu: "max",
    on_kvm: false,
};
/// How the command line has the guest restart (`reboot=k`). Without it microvm's guest would ask for it some six hundred thousand
/// times before it tried another way.
const KEYBOARD_CONTROLLER: &str = "i8042";
const PACKAGE: &str = "install QEMU: apt-get install qemu-system-x86";

/// The workload on a Linux of its own, in QEMU.
pub struct Qemu {
    variant: &'static Variant,
    kernel: PathBuf,
    initrd: PathBuf,
    folder: PathBuf,
}

impl Qemu {
    /// Runs the workload on the kernel that was built for guests.
    ///
    /// # Errors
    /// When QEMU or the kernel is missing, or KVM cannot run Linux here.
    pub fn new(variant: &'static Variant, setup: &Setup) -> Result<Qemu, Skipped> {
        let kernel = match variant.on_kvm {
            true => vm_linux::kernel()?,
            false => vm_linux::kernel_for_any_processor()?,
        };
        let found = super::SEARCH_PATH
            .split(':')
            .any(|folder| Path::new(folder).join(QEMU).is_file());
        if !found {
            return Err(Skipped {
                reason: format!("{QEMU} is not installed"),
                fix: PACKAGE.into(),
            });
        }
        Ok(Qemu {
            variant,
            kernel,
            initrd: setup.image.initrd(),
            folder: setup.image.folder().to_owned(),
        })
    }

    /// What `vmm` would make of the same wish, as far as the guest can see it.
    fn config(&self, workload: &[String]) -> Config {
        Config {
            kernel: Kernel::File(self.kernel.clone()),
            machine: Kind::Pc,
            start: Start {
                init: true,
                program: PROGRAM.into(),
                arguments: workload.iter().map(Into::into).collect(),
            },
            ..Config::default()
        }
    }

    /// The image's initrd and behind it what `vmm` puts there for a Linux guest; one file for each lesson.
    fn initrd(&self, workload: &[String]) -> io::Result<PathBuf> {
        let name = sha256(workload.join("\0").as_bytes());
        let file = self.folder.join(format!("initrd-linux-{name}"));
        if !file.exists() {
            let start = self.config(workload).start;
            let mut archive = std::fs::read(&self.initrd)?;
            archive.resize(archive.len().next_multiple_of(vmm::layout::PAGE as usize), 0);
            archive.extend(vmm::initrd::init_archive(&start).map_err(io::Error::other)?);
            std::fs::write(&file, archive)?;
        }
        Ok(file)
    }
}

impl Contender for Qemu {
    fn name(&self) -> &'static str {
        self.variant.name
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let line = vmm::command_line::build(&self.config(request.workload), false);
        let mut command = command(QEMU);
        let Variant { machine, cpu, .. } = self.variant;
        command.args(["-M", machine, "-cpu", cpu, "-m", vm_linux::MEMORY, "-kernel"]);
        command
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(self.initrd(request.workload)?);
        command.arg("-append").arg(String::from_utf8_lossy(&line).into_owned());
        if machine.starts_with("microvm") {
            // A q35 has one.
            command.args(["-device", KEYBOARD_CONTROLLER]);
        }
        command.args([
            "-nodefaults",
            "-no-user-config",
            // Not -nographic: with it a q35's firmware writes to the serial port, and its greeting would be the finish line.
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ]);
        Ok(command)
    }

    fn details(&self) -> BTreeMap<String, String> {
        let version = Command::new(QEMU).arg("--version").output().ok();
        let version = version.map(|output| {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()
                .unwrap_or("")
                .to_owned()
        });
        let request = Request {
            id: "",
            workload: &[],
            marks_fd: None,
        };
        let mut details = BTreeMap::from([
            (
                "isolation".into(),
                match self.variant.on_kvm {
                    true => "virtual hardware (KVM), a Linux kernel of its own".into(),
                    false => "an emulated computer (TCG, no KVM), a Linux kernel of its own".into(),
                },
            ),
            ("version".into(), version.unwrap_or_default()),
        ]);
        if let (Ok(command), Ok(initrd)) = (self.command(&request), self.initrd(&[])) {
            details.insert(
                "command".into(),
                shown(&command, &[(&*initrd, "INITRD"), (&*self.kernel, "KERNEL")]),
            );
        }
        details
    }

    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_initrd()
    }

    fn fix(&self, _status: i32) -> String {
        "the message says what failed; `lab doctor` tests what KVM can do here".into()
    }
}
