//! `busybox`: fork and exec of a program that is the same everywhere. The unit that tells how slow a start is from how slow the
//! machine is.
//!
//! Milliseconds of one machine say nothing about another, least of all those of an emulated one. "As long as N programs take
//! to start" travels: a slow processor slows both. The lab's own workload would do, too, but nobody else has it, and busybox is
//! what others measure with.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Contender, Request, SEARCH_PATH, Skipped, command};

const NAME: &str = "busybox";

/// `busybox echo`, started as the plain process is.
pub struct Busybox {
    program: PathBuf,
}

impl Busybox {
    /// Finds it.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn new() -> Result<Busybox, Skipped> {
        let mut paths = SEARCH_PATH.split(':').map(|folder| Path::new(folder).join(NAME));
        match paths.find(|path| path.is_file()) {
            Some(program) => Ok(Busybox { program }),
            None => Err(Skipped {
                reason: "busybox is not installed".into(),
                fix: "install it: apt-get install busybox-static".into(),
            }),
        }
    }
}

impl Contender for Busybox {
    fn name(&self) -> &'static str {
        NAME
    }

    fn command(&self, _request: &Request) -> io::Result<Command> {
        let mut command = command(&self.program);
        command.args(["echo", "a program of everybody's"]);
        Ok(command)
    }

    fn runs_the_workload(&self) -> bool {
        false
    }

    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "isolation".into(),
                "none, and another program: a unit, not a way to run the workload".into(),
            ),
            ("command".into(), "busybox echo".into()),
        ])
    }

    fn fix(&self, _status: i32) -> String {
        "`busybox echo` must work here: apt-get install --reinstall busybox-static".into()
    }
}
