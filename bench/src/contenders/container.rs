//! `container`: our namespace runtime.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Bounds, Contender, Request, Setup, Skipped, command, shown, words};
use crate::equipment::wire::Side;
use crate::equipment::{Disk, Equipment};
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

impl Container {
    /// The engine, its state on this disk.
    fn engine(&self, disk: &Disk) -> Command {
        let state = disk.engine_state();
        let mut command = command(&self.launcher);
        command.env("CONTAINER_STORE", state.join("store"));
        command.env("CONTAINER_STATE", state);
        command
    }
}

impl Contender for Container {
    fn name(&self) -> &'static str {
        "container"
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        self.command_beside(request, None)
    }

    fn command_beside(&self, request: &Request, bounds: Option<&Bounds>) -> io::Result<Command> {
        let mut command = command(&self.launcher);
        command.arg("run").arg("--rootfs").arg(&self.rootfs);
        if let Some(bounds) = bounds {
            command.arg("--memory").arg(format!("{}M", bounds.memory_mib));
            command.arg("--pids").arg(bounds.processes.to_string());
        }
        if let Some(fd) = request.marks_fd {
            command.arg("--marks-fd").arg(fd.to_string());
        }
        command.arg("--").arg(PROGRAM).args(request.workload);
        Ok(command)
    }

    fn takes_bounds(&self) -> bool {
        true
    }

    fn reports_phases(&self) -> bool {
        true
    }

    /// On a disk, the engine's container: what it writes lands in an overlay's upper directory on the disk, where that of
    /// a raced one is memory. In a network, the raced one, in a network namespace made beforehand.
    fn equipped(&self, request: &Request, equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        Ok(Ok(match equipment {
            Equipment::Disk(disk) => {
                let mut command = self.engine(disk);
                command.args(["run", "--rm", "--name", request.id, "workload"]);
                command.args(words(request, Disk::file_in(Path::new("/"))));
                command
            }
            Equipment::Net(wire) => {
                let mut command = command(&self.launcher);
                command.args(["run", "--without", "net", "--rootfs"]).arg(&self.rootfs);
                command.arg("--").arg(PROGRAM);
                command.args(words(request, wire.peer_by_cable().to_string()));
                command
            }
        }))
    }

    fn network_side(&self) -> Side {
        Side::Inside
    }

    fn equipment(&self, equipment: &Equipment) -> String {
        match equipment {
            Equipment::Disk(_) => "an overlay whose upper directory lies there".into(),
            Equipment::Net(_) => "a cable (veth)".into(),
        }
    }

    fn clean_up_equipped(&self, id: &str, equipment: &Equipment) {
        if let Equipment::Disk(disk) = equipment {
            // It complains when there is nothing to remove, which is the best case.
            let remove = self
                .engine(disk)
                .args(["rm", "--force", id])
                .stdin(Stdio::null())
                .output();
            drop(remove);
        }
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
            details.insert("command".into(), shown(&command, &[(&self.rootfs, "ROOTFS")]));
        }
        details
    }

    fn fix(&self, _status: i32) -> String {
        "the message says what was refused; `lab doctor` tests each thing a container needs".into()
    }
}
