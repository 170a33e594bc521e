//! `cloud-hypervisor`: the hypervisor of Intel's and Microsoft's clouds, with the same Linux guest as `vm-linux`.
//!
//! **Written from Cloud Hypervisor's documentation and not run in this project's CI**, which has no such binary: the README of
//! 2022 and the help text of version 18, whose options are kept by the project's own promise. Whoever has one puts it on the
//! search path; what it says when it does not start is shown.
//!
//! A guest that restarts is started again here, without end. So its init is told, by one more word on the kernel's command
//! line, to switch the machine off through the port Cloud Hypervisor has for that (its `devices/src/acpi.rs`).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::linux_guest::{self, LinuxGuest};
use super::{Contender, Request, Setup, Skipped, command, oci, vm_linux};
use crate::image::{self, Image};

const NAME: &str = "cloud-hypervisor";
/// Port of the ACPI shutdown device, and what switches off: sleep state 5, and the bit that enters it.
const SWITCH_OFF: &str = "lab.off=0x600,0x34";

/// The workload on a Linux of its own, in Cloud Hypervisor.
pub struct CloudHypervisor {
    program: PathBuf,
    guest: LinuxGuest,
}

impl CloudHypervisor {
    /// Runs the workload on the kernel that was built for guests, which has the PVH entry point asked for here.
    ///
    /// # Errors
    /// When Cloud Hypervisor or the kernel is missing, or KVM cannot run Linux here.
    pub fn new(setup: &Setup) -> Result<CloudHypervisor, Skipped> {
        let program = linux_guest::downloaded(NAME, "github.com/cloud-hypervisor/cloud-hypervisor")?;
        Ok(CloudHypervisor {
            program,
            guest: LinuxGuest::new(vm_linux::kernel()?, setup),
        })
    }
}

impl Contender for CloudHypervisor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let mut command = command(&self.program);
        command.arg("--kernel").arg(&self.guest.kernel);
        command.arg("--initramfs").arg(self.guest.initrd(request.workload)?);
        command
            .arg("--cmdline")
            .arg(self.guest.command_line(request.workload, SWITCH_OFF));
        command.args(["--cpus", "boot=1", "--memory"]);
        command.arg(format!("size={}", vm_linux::MEMORY));
        // The serial port is standard output; the virtio console would be another.
        command.args(["--serial", "tty", "--console", "off"]);
        Ok(command)
    }

    fn has_a_kernel_of_its_own(&self) -> bool {
        true
    }

    fn details(&self) -> BTreeMap<String, String> {
        // Where it cannot be written there is no command to show either.
        let initrd = self.guest.initrd(&[]).unwrap_or_default();
        linux_guest::details(
            self,
            "virtual hardware (KVM), a Linux kernel of its own",
            oci::version(&self.program),
            &[(&initrd, "INITRD"), (&self.guest.kernel, "KERNEL")],
        )
    }

    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_initrd()
    }

    fn fix(&self, _status: i32) -> String {
        "the message is Cloud Hypervisor's own; `lab doctor` tests what KVM can do here".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::linux_guest::tests::{failing, image, launchers, words};
    use crate::interrupt::Interrupt;
    use std::time::Duration;

    #[test]
    fn the_machine_is_that_of_vm_linux_and_a_failure_is_told_in_its_own_words() {
        let (image, launchers) = (image(), launchers());
        let setup = Setup {
            image: &image,
            launchers: &launchers,
            cgroup: None,
        };
        let (_folder, program) = failing("Error booting VM: VmBoot(no such kernel)");
        let peer = CloudHypervisor {
            program,
            guest: LinuxGuest::new("/boot/vmlinux".into(), &setup),
        };
        let hello = words("hello");
        let request = Request {
            id: "one",
            workload: &hello,
            marks_fd: None,
        };
        let command = peer.command(&request).unwrap();
        let arguments: Vec<&str> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        let behind = |option: &str| arguments[1 + arguments.iter().position(|word| *word == option).unwrap()];
        assert_eq!(behind("--kernel"), "/boot/vmlinux");
        assert_eq!([behind("--cpus"), behind("--memory")], ["boot=1", "size=128M"]);
        assert_eq!([behind("--serial"), behind("--console")], ["tty", "off"]);
        let line = behind("--cmdline");
        assert!(
            line.starts_with("console=ttyS0") && line.ends_with("lab.off=0x600,0x34 rdinit=/.lab/init"),
            "{line}"
        );
        let limit = Duration::from_secs(60);
        let outcome = crate::race::once(&peer, &request, false, limit, &Interrupt::default()).unwrap();
        let complaint = outcome.complaint(limit);
        assert!(
            complaint.contains("status 1") && complaint.contains("VmBoot(no such kernel)"),
            "{complaint}"
        );
    }
}
