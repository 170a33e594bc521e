//! `container`: our namespace runtime.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::{Contender, Request, Setup, command, shown};
use crate::image::PROGRAM;

/// The workload in namespaces of its own, on the host's kernel.
pub struct Container {
    launcher: PathBuf,
    rootfs: PathBuf,
}

impl Container {
    /// Runs the workload from the image's root directory.
    pub fn new(setup: &Setup) -> Container {
        Container {
            launcher: setup.launchers.container.clone(),
            rootfs: setup.image.rootfs(),
        }
    }
}

impl Contender for Container {
    fn name(&self) -> &'static str {
        "container"
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let mut command = command(&self.launcher);
        command.arg("run").arg("--rootfs").arg(&self.rootfs);
        if let Some(fd) = request.marks_fd {
            command.arg("--marks-fd").arg(fd.to_string());
        }
        command.arg("--").arg(PROGRAM).args(request.workload);
        Ok(command)
    }

    fn reports_phases(&self) -> bool {
        true
    }

    fn details(&self) -> BTreeMap<String, String> {
        let request = Request {
            id: "",
            workload: &["LESSON".into()],
            marks_fd: None,
        };
        let mut details = BTreeMap::from([(
            "isolation".into(),
            "namespaces, user namespace included; seccomp filter; capabilities cut; no limits asked, so no cgroup of its own".into(),
        )]);
        if let Ok(command) = self.command(&request) {
            details.insert("command".into(), shown(&command));
        }
        details
    }

    fn fix(&self, _status: i32) -> String {
        "the message says what was refused; `lab doctor` tests each thing a container needs".into()
    }
}
