//! `firecracker`: Amazon's hypervisor for functions and containers, with the same Linux guest as `vm-linux`.
//!
//! **Written from Firecracker's documentation and not run in this project's CI**, which has no such binary: the getting-started
//! guide, `initrd.md` and `logger.md` of version 1.x (`--no-api --config-file` is there since 0.22, `--log-path` since 1.0), and
//! the options as its `src/firecracker/src/main.rs` declares them.
//! Whoever has one puts it on the search path; what it says when it does not start is shown.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::linux_guest::{self, LinuxGuest};
use super::{Contender, Request, Setup, Skipped, command, oci, vm_linux};
use crate::image::{self, Image};

const NAME: &str = "firecracker";

/// The workload on a Linux of its own, in Firecracker.
pub struct Firecracker {
    program: PathBuf,
    guest: LinuxGuest,
    /// Memory in MiB.
    memory: u64,
}

impl Firecracker {
    /// Runs the workload on the kernel that was built for guests: an uncompressed vmlinux, the only form it takes.
    ///
    /// # Errors
    /// When Firecracker or the kernel is missing, or KVM cannot run Linux here.
    pub fn new(setup: &Setup) -> Result<Firecracker, Skipped> {
        let program = linux_guest::downloaded(NAME, "github.com/firecracker-microvm/firecracker")?;
        Ok(Firecracker {
            program,
            guest: LinuxGuest::new(vm_linux::kernel()?, setup),
            memory: vm_linux::MEMORY_MIB,
        })
    }

    /// The machine: the boot source, one vCPU, no drive and no network.
    fn config(&self, workload: &[String]) -> io::Result<Value> {
        Ok(json!({
            "boot-source": {
                "kernel_image_path": self.guest.kernel,
                "initrd_path": self.guest.initrd(workload)?,
                "boot_args": self.guest.command_line(workload, ""),
            },
            "drives": [],
            "machine-config": { "vcpu_count": 1, "mem_size_mib": self.memory },
        }))
    }
}

impl Contender for Firecracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let config = self.guest.file(NAME, request.workload);
        if !config.exists() {
            std::fs::write(&config, self.config(request.workload)?.to_string())?;
        }
        // Standard output is the guest's serial port, and by default also where Firecracker's own log goes: its first line
        // would be the finish line. The file must be there before.
        let log = self.guest.file("firecracker-log", &[]);
        std::fs::OpenOptions::new().append(true).create(true).open(&log)?;
        let mut command = command(&self.program);
        command.arg("--no-api").arg("--config-file").arg(config);
        command.arg("--log-path").arg(log).args(["--level", "Error"]);
        Ok(command)
    }

    fn has_a_kernel_of_its_own(&self) -> bool {
        true
    }

    fn details(&self) -> BTreeMap<String, String> {
        let (config, log) = (self.guest.file(NAME, &[]), self.guest.file("firecracker-log", &[]));
        linux_guest::details(
            self,
            "virtual hardware (KVM), a Linux kernel of its own; without its jailer",
            oci::version(&self.program),
            &[(&config, "CONFIG"), (&log, "LOG")],
        )
    }

    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_initrd()
    }

    fn fix(&self, _status: i32) -> String {
        "the message is Firecracker's own; `lab doctor` tests what KVM can do here".into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::contenders::linux_guest::tests::{image, launchers, words};

    #[test]
    fn the_machine_is_that_of_vm_linux() {
        let (image, launchers) = (image(), launchers());
        let setup = Setup {
            image: &image,
            launchers: &launchers,
            cgroup: None,
        };
        let firecracker = Firecracker {
            program: "/opt/firecracker".into(),
            guest: LinuxGuest::new("/boot/vmlinux".into(), &setup),
            memory: 128,
        };
        let hello = words("hello");
        let request = Request {
            id: "one",
            workload: &hello,
            marks_fd: None,
        };
        let command = firecracker.command(&request).unwrap();
        let arguments: Vec<&str> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(arguments[..2], ["--no-api", "--config-file"]);
        assert_eq!(arguments[3], "--log-path");
        assert!(Path::new(arguments[4]).is_file());
        let config: Value = serde_json::from_str(&std::fs::read_to_string(arguments[2]).unwrap()).unwrap();
        assert_eq!(
            config["machine-config"],
            json!({ "vcpu_count": 1, "mem_size_mib": 128 })
        );
        assert_eq!(config["boot-source"]["kernel_image_path"], "/boot/vmlinux");
        let initrd = config["boot-source"]["initrd_path"].as_str().unwrap();
        assert!(std::fs::read(initrd).unwrap().windows(5).any(|bytes| bytes == b"hello"));
        let line = config["boot-source"]["boot_args"].as_str().unwrap();
        assert!(
            line.starts_with("console=ttyS0 reboot=k panic=-1") && line.ends_with("rdinit=/.lab/init"),
            "{line}"
        );
        assert_eq!(config["drives"], json!([]));
    }
}
