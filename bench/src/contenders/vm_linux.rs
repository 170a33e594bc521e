//! `vm-linux`: our hypervisor with a small Linux kernel in place of the lab's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_images::linux::{self, Form};

use super::linux_guest::{self, Device};
use super::{Contender, Request, Setup, Skipped, command, shown, vm, words};
use crate::equipment::Equipment;
use crate::host;
use crate::image::{self, Image, PROGRAM};
use crate::launchers::sha256;

/// Guest memory: what the small kernel needs for itself and the initrd, with room for the workload's lessons.
pub const MEMORY: &str = "128M";
/// The same in MiB.
pub const MEMORY_MIB: u64 = 128;

/// The workload on a Linux of its own, on virtual hardware.
pub struct VmLinux {
    launcher: PathBuf,
    kernel: PathBuf,
    kernel_sha256: String,
    initrd: PathBuf,
}

impl VmLinux {
    /// Runs the workload from the image's initrd on the kernel that was built for guests.
    ///
    /// # Errors
    /// When there is no such kernel, or KVM cannot run it here.
    pub fn new(setup: &Setup) -> Result<VmLinux, Skipped> {
        let kernel = kernel()?;
        let bytes = std::fs::read(&kernel).map_err(|error| Skipped {
            reason: format!("cannot read the kernel {}: {error}", kernel.display()),
            fix: linux::FIX.into(),
        })?;
        Ok(VmLinux {
            launcher: setup.launchers.vmm.clone(),
            kernel_sha256: sha256(&bytes),
            kernel,
            initrd: setup.image.initrd(),
        })
    }
}

/// The Linux kernel for guests.
///
/// # Errors
/// When there is none, or KVM cannot run it here.
pub fn kernel() -> Result<PathBuf, Skipped> {
    if host::kvm_backend() == "pvm" {
        return Err(Skipped {
                reason: "the KVM backend pvm cannot run Linux as a guest: a program's first system call does not reach the guest's kernel".into(),
                fix: "race it where KVM has hardware beneath, or in the emulated machine: `lab testbed -- lab compare`".into(),
            });
    }
    kernel_for_any_processor()
}

/// The same for a hypervisor that brings its own processor.
///
/// # Errors
/// When there is none.
pub fn kernel_for_any_processor() -> Result<PathBuf, Skipped> {
    linux::locate(Form::Vmlinux).map_err(|missing| Skipped {
        reason: missing.to_string(),
        fix: linux::FIX.into(),
    })
}

impl VmLinux {
    /// The command up to the program.
    fn machine(&self) -> Command {
        let mut command = command(&self.launcher);
        command.args(["run", "--memory", MEMORY, "--kernel"]).arg(&self.kernel);
        command.arg("--initrd").arg(&self.initrd);
        command
    }
}

impl Contender for VmLinux {
    fn name(&self) -> &'static str {
        "vm-linux"
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let mut command = self.machine();
        if let Some(fd) = request.marks_fd {
            command.arg("--marks-fd").arg(fd.to_string());
        }
        command.arg("--").arg(PROGRAM).args(request.workload);
        Ok(command)
    }

    fn equipped(&self, request: &Request, equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        Ok(linux_guest::given(equipment)?.map(|given| {
            let mut command = self.machine();
            match given.device {
                Device::Disk(raw) => command.arg("--disk").arg(raw),
                Device::Tap(tap) => command.arg("--net").arg(format!("tap={tap}")),
            };
            command.arg("--cmdline").arg(given.options);
            command.arg("--").arg(PROGRAM).args(words(request, given.object));
            command
        }))
    }

    fn equipment(&self, equipment: &Equipment) -> String {
        match equipment {
            Equipment::Disk(_) => "ext4 on virtio-block, whose raw file lies there".into(),
            Equipment::Net(_) => "virtio-net on a tap".into(),
        }
    }

    fn reports_phases(&self) -> bool {
        true
    }

    fn guest_file(&self) -> Option<&Path> {
        Some(&self.kernel)
    }

    fn has_a_kernel_of_its_own(&self) -> bool {
        true
    }

    fn details(&self) -> BTreeMap<String, String> {
        let request = Request {
            id: "",
            workload: &["LESSON".into()],
            marks_fd: None,
        };
        let mut details = BTreeMap::from([
            (
                "isolation".into(),
                "virtual hardware (KVM), a Linux kernel of its own".into(),
            ),
            ("kernel_sha256".into(), self.kernel_sha256.clone()),
        ]);
        if let Ok(command) = self.command(&request) {
            let folders = [(&*self.initrd, "INITRD"), (&*self.kernel, "KERNEL")];
            details.insert("command".into(), shown(&command, &folders));
        }
        details
    }

    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_initrd()
    }

    fn fix(&self, status: i32) -> String {
        vm::fix(status)
    }
}
