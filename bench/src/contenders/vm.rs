//! `vm`: our hypervisor, with the lab kernel it carries.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::status;
use vmm::permission;

use super::{Contender, Request, Setup, Skipped, command, shown};
use crate::equipment::Equipment;
use crate::image::{self, Image, PROGRAM};

/// The workload on a kernel of its own, on virtual hardware.
pub struct Vm {
    launcher: PathBuf,
    initrd: PathBuf,
}

impl Vm {
    /// Runs the workload from the image's initrd.
    pub fn new(setup: &Setup) -> Vm {
        Vm {
            launcher: setup.launchers.vmm.clone(),
            initrd: setup.image.initrd(),
        }
    }
}

impl Contender for Vm {
    fn name(&self) -> &'static str {
        "vm"
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let mut command = command(&self.launcher);
        command.arg("run").arg("--initrd").arg(&self.initrd);
        if let Some(fd) = request.marks_fd {
            command.arg("--marks-fd").arg(fd.to_string());
        }
        command.arg("--").arg(PROGRAM).args(request.workload);
        Ok(command)
    }

    fn equipped(&self, _request: &Request, _equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        Err(no_devices())
    }

    fn reports_phases(&self) -> bool {
        true
    }

    fn guest_file(&self) -> Option<&Path> {
        Some(&self.initrd)
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
        let mut details = BTreeMap::from([("isolation".into(), "virtual hardware (KVM), a kernel of its own".into())]);
        if let Ok(command) = self.command(&request) {
            details.insert("command".into(), shown(&command, &[(&self.initrd, "INITRD")]));
        }
        details
    }

    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_initrd()
    }

    fn fix(&self, status: i32) -> String {
        fix(status)
    }
}

/// Why a VM of the lab kernel takes no part in a lesson of the disk or of the network.
pub fn no_devices() -> Skipped {
    Skipped {
        reason: "the lab kernel has no driver for a disk or a network card".into(),
        fix: "vm-linux shows the same VMM with a kernel that has".into(),
    }
}

/// What would let a VM run, when `vmm` ended with this status.
pub fn fix(status: i32) -> String {
    match u8::try_from(status) {
        Ok(status::NO_KVM) => {
            "load KVM: `modprobe kvm_intel` or `modprobe kvm_amd`; in a virtual machine, switch nested \
             virtualization on in its host"
                .into()
        }
        Ok(status::KVM_NOT_PERMITTED) => permission::cure(),
        _ => "the message says what failed; `lab doctor` tests what KVM can do here".into(),
    }
}
