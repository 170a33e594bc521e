//! `vm-empty`: a virtual machine with nothing in it. How much of a VM's start is there before any guest is.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::{Contender, Request, Setup, command, vm};

/// One page, one vCPU, one instruction.
pub struct VmEmpty {
    launcher: PathBuf,
}

impl VmEmpty {
    /// Needs the launcher alone.
    pub fn new(setup: &Setup) -> VmEmpty {
        VmEmpty {
            launcher: setup.launchers.vmm.clone(),
        }
    }
}

impl Contender for VmEmpty {
    fn name(&self) -> &'static str {
        "vm-empty"
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let mut command = command(&self.launcher);
        command.arg("empty");
        if let Some(fd) = request.marks_fd {
            command.arg("--marks-fd").arg(fd.to_string());
        }
        Ok(command)
    }

    fn reports_phases(&self) -> bool {
        true
    }

    fn runs_the_workload(&self) -> bool {
        false
    }

    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "isolation".into(),
                "virtual hardware (KVM) with nothing inside: a floor, not a way to run a program".into(),
            ),
            ("command".into(), "vmm empty".into()),
        ])
    }

    fn fix(&self, status: i32) -> String {
        vm::fix(status)
    }
}
