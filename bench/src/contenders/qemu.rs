//! `qemu` and its variants: the hypervisor everybody has, with the same Linux as `vm-linux`: the same kernel file, the same
//! files in the initrd, the same command line. `microvm` is its smallest machine, `q35` the one people use; each on KVM, and
//! (`-tcg`) on its emulator, which translates every instruction and needs no KVM.
//!
//! Its guest ends by restarting (see [`linux_guest`](super::linux_guest)), which `-no-reboot` turns into the end of QEMU.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

use super::linux_guest::{self, Device, LinuxGuest};
use super::{Contender, Request, Setup, Skipped, command, oci, vm_linux, words};
use crate::equipment::Equipment;
use crate::image::{self, Image};

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
/// [`MICROVM`], emulated. With a clock: KVM tells its guests the time, and a Linux that finds nobody to ask complains on the
/// console, long before the workload writes its first byte.
pub const MICROVM_TCG: Variant = Variant {
    name: "qemu-tcg",
    machine: "microvm,accel=tcg,acpi=off,pit=on,pic=on,rtc=on,isa-serial=on",
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
    guest: LinuxGuest,
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
        if oci::find(QEMU).is_none() {
            return Err(Skipped {
                reason: format!("{QEMU} is not installed"),
                fix: PACKAGE.into(),
            });
        }
        Ok(Qemu {
            variant,
            guest: LinuxGuest::new(kernel, setup),
        })
    }
}

impl Variant {
    fn is_microvm(&self) -> bool {
        self.machine.starts_with("microvm")
    }
}

impl Qemu {
    /// The command for this lesson, without further devices.
    fn machine(&self, workload: &[String], options: &str) -> io::Result<Command> {
        let mut command = command(QEMU);
        let Variant { machine, cpu, .. } = self.variant;
        command.args(["-M", machine, "-cpu", cpu, "-m", vm_linux::MEMORY, "-kernel"]);
        command
            .arg(&self.guest.kernel)
            .arg("-initrd")
            .arg(self.guest.initrd(workload)?)
            .arg("-append")
            .arg(self.guest.command_line(workload, options));
        if self.variant.is_microvm() {
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
}

impl Contender for Qemu {
    fn name(&self) -> &'static str {
        self.variant.name
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        self.machine(request.workload, "")
    }

    fn equipped(&self, request: &Request, equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        if !self.variant.is_microvm() {
            return Err(Skipped {
                reason: format!(
                    "{}'s devices are on a PCI bus, and the small guest kernel knows none",
                    self.name()
                ),
                fix: "choose its microvm: qemu, qemu-tcg".into(),
            });
        }
        Ok(linux_guest::given(equipment)?.and_then(|given| {
            let words = words(request, given.object);
            let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let mut command = self.machine(&words, &given.options)?;
            match given.device {
                // Through the host's page cache, as ours is; what the guest makes durable QEMU makes durable.
                Device::Disk(raw) => {
                    let mut drive = OsString::from("if=none,id=disk,format=raw,cache=writeback,file=");
                    drive.push(raw);
                    command.arg("-drive").arg(drive);
                    command.args(["-device", "virtio-blk-device,drive=disk"]);
                }
                Device::Tap(tap) => {
                    command.args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no")]);
                    command.args(["-device", "virtio-net-device,netdev=net"]);
                }
            }
            Ok(command)
        }))
    }

    fn equipment(&self, equipment: &Equipment) -> String {
        match equipment {
            _ if !self.variant.is_microvm() => String::new(),
            Equipment::Disk(_) => "ext4 on QEMU's virtio-blk, whose raw file lies there".into(),
            Equipment::Net(_) => "QEMU's virtio-net on a tap".into(),
        }
    }

    fn has_a_kernel_of_its_own(&self) -> bool {
        true
    }

    fn details(&self) -> BTreeMap<String, String> {
        // Where it cannot be written there is no command to show either.
        let initrd = self.guest.initrd(&[]).unwrap_or_default();
        linux_guest::details(
            self,
            match self.variant.on_kvm {
                true => "virtual hardware (KVM), a Linux kernel of its own",
                false => "an emulated computer (TCG, no KVM), a Linux kernel of its own",
            },
            oci::version(Path::new(QEMU)),
            &[(&initrd, "INITRD"), (&self.guest.kernel, "KERNEL")],
        )
    }

    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_initrd()
    }

    fn fix(&self, _status: i32) -> String {
        "the message says what failed; `lab doctor` tests what KVM can do here".into()
    }
}
