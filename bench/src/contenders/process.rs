//! `process`: no isolation at all. What fork, exec and the program itself cost, beneath every other contender.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::{Contender, Request, Setup, Skipped, command, words};
use crate::equipment::{Disk, Equipment};

/// The workload, spawned directly.
pub struct Process {
    program: PathBuf,
}

impl Process {
    /// Runs the workload from the same file the containers see.
    pub fn new(setup: &Setup) -> Process {
        Process {
            program: setup.image.program(),
        }
    }
}

impl Contender for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    // ANCHOR: command
    fn command(&self, request: &Request) -> io::Result<Command> {
        let mut command = command(&self.program);
        command.args(request.workload);
        Ok(command)
    }
    // ANCHOR_END: command

    fn equipped(&self, request: &Request, equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        let words = match equipment {
            Equipment::Disk(disk) => disk.empty_folder().map(|folder| words(request, Disk::file_in(&folder))),
            Equipment::Net(wire) => Ok(words(request, wire.peer_by_loopback().to_string())),
        };
        Ok(words.map(|words| {
            let mut command = command(&self.program);
            command.args(words);
            command
        }))
    }

    fn equipment(&self, equipment: &Equipment) -> String {
        match equipment {
            Equipment::Disk(_) => "a file there".into(),
            Equipment::Net(_) => "loopback".into(),
        }
    }

    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("isolation".into(), "none".into())])
    }

    fn fix(&self, _status: i32) -> String {
        "mount the temporary directory without noexec, or set TMPDIR to one that is".into()
    }
}
