//! `vm-restored`: our hypervisor, going on from a snapshot of the same guest instead of booting it.
//!
//! The snapshot is taken before the race, right before the program's first output: what is left to do is what a service
//! restored from a warm snapshot has left. Restoring it earlier, say before the program starts, takes longer by what the
//! program does until then. Where work is timed and not a start, the snapshot is taken before the program's first instruction:
//! else its work would be done already, and every run would tell the figures of the one in the snapshot.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::phase::Phase;

use super::{Contender, Request, Setup, Skipped, command, vm};
use crate::equipment::Equipment;
use crate::image::{self, Image, PROGRAM};
use crate::launchers::sha256;

/// Where the guest is stopped.
const MARK: Phase = Phase::FirstOutput;
/// The same where the work itself is to be done anew in every run.
const BEFORE_ITS_WORK: Phase = Phase::UserModeEntry;

/// The workload on a kernel of its own that has booted before.
pub struct VmRestored {
    launcher: PathBuf,
    initrd: PathBuf,
    folder: PathBuf,
    /// The snapshot memory is weighed with.
    idle: PathBuf,
}

impl VmRestored {
    /// Runs the workload from the image's initrd, and keeps one snapshot for each lesson in the image's folder.
    pub fn new(setup: &Setup) -> VmRestored {
        let folder = setup.image.folder().to_owned();
        VmRestored {
            launcher: setup.launchers.vmm.clone(),
            initrd: setup.image.initrd(),
            idle: snapshot_of(&folder, MARK, &["idle".into()]),
            folder,
        }
    }

    /// The snapshot for this lesson at this mark; taken now if it was not before.
    fn snapshot(&self, mark: Phase, workload: &[String]) -> io::Result<PathBuf> {
        let file = snapshot_of(&self.folder, mark, workload);
        if file.exists() {
            return Ok(file);
        }
        let mut take = command(&self.launcher);
        take.args(["snapshot", "--at", mark.name(), "--out"]).arg(&file);
        take.arg("--initrd").arg(&self.initrd);
        let output = take.arg("--").arg(PROGRAM).args(workload).output()?;
        if output.status.success() {
            return Ok(file);
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!(
            "no snapshot could be taken: {}",
            reason.trim()
        )))
    }

    fn restore(&self, mark: Phase, request: &Request) -> io::Result<Command> {
        let mut command = command(&self.launcher);
        command.arg("restore");
        if let Some(fd) = request.marks_fd {
            command.arg("--marks-fd").arg(fd.to_string());
        }
        command.arg(self.snapshot(mark, request.workload)?);
        Ok(command)
    }
}

/// Where the snapshot for this lesson is kept.
fn snapshot_of(folder: &Path, mark: Phase, workload: &[String]) -> PathBuf {
    let name = sha256(workload.join("\0").as_bytes());
    folder.join(format!("snapshot-{}-{name}", mark.code()))
}

impl Contender for VmRestored {
    fn name(&self) -> &'static str {
        "vm-restored"
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        self.restore(MARK, request)
    }

    fn command_at_work(&self, request: &Request) -> io::Result<Command> {
        self.restore(BEFORE_ITS_WORK, request)
    }

    fn equipped(&self, _request: &Request, _equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        Err(vm::no_devices())
    }

    fn reports_phases(&self) -> bool {
        true
    }

    fn guest_file(&self) -> Option<&Path> {
        Some(&self.idle)
    }

    fn has_a_kernel_of_its_own(&self) -> bool {
        true
    }

    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "isolation".into(),
                "virtual hardware (KVM), a kernel of its own that booted before the race".into(),
            ),
            (
                "snapshot".into(),
                format!(
                    "of the same guest, taken at the mark \"{}\"; memory mapped copy-on-write",
                    MARK.name()
                ),
            ),
            ("command".into(), "vmm restore SNAPSHOT".into()),
        ])
    }

    fn workload_sha256(&self, image: &Image) -> Result<String, image::Error> {
        image.verify_initrd()
    }

    fn fix(&self, status: i32) -> String {
        vm::fix(status)
    }
}
