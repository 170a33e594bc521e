//! `container peel`: the same program with one namespace after another taken away, and what it sees then.
//!
//! A namespace shows best by its absence. Each rung of the ladder is an ordinary `container run --without ...` that
//! leaves out what the rungs above left out and one namespace more; what differs from the rung above is what that
//! namespace had kept from view. At the bottom there is no container any more but a plain process of the host.

pub mod cost;
pub mod facts;
pub mod ladder;
pub mod rung;

use std::ffi::OsString;
use std::path::PathBuf;

use nix::errno::Errno;
use serde_json::{Value, json};
use thiserror::Error;

use crate::errno::why;
use crate::namespaces::Namespace;
use cost::Costs;
use facts::Facts;
use ladder::{Outcome, Rung};

/// The order unless another is asked for: the network first, since every machine has one to show; the mount table late,
/// since the image goes with it. What is last stays: a container without a pid namespace needs one by which its
/// processes are recognised, and the plain process at the bottom shows what it hides.
pub const ORDER: [Namespace; 7] = [
    Namespace::Net,
    Namespace::Pid,
    Namespace::Uts,
    Namespace::Cgroup,
    Namespace::User,
    Namespace::Mount,
    Namespace::Ipc,
];

/// Lines of a program's output that are shown for one rung.
const LINES_SHOWN: usize = 12;

/// Columns of the sentences, which stand two to the right.
const WIDTH: usize = 76;

/// What to peel.
#[derive(Clone, Debug)]
pub struct Peel {
    /// What to take away, first to last.
    pub order: Vec<Namespace>,
    /// The image, if the program comes from one.
    pub rootfs: Option<PathBuf>,
    /// The program and its arguments; without one, the embedded workload tells who it is.
    pub program: Vec<OsString>,
}

/// What was seen on every rung, from the whole container down.
pub struct Report {
    rungs: Vec<Rung>,
    costs: Costs,
    facts: bool,
}

/// Climbs down the ladder.
///
/// The calling process must have a single thread.
pub fn peel(peel: &Peel) -> Result<Report, Error> {
    let costs = Costs::measure()?;
    // Something for the IPC namespace to hide: most hosts have no object of that kind.
    let _segment = facts::SharedMemory::make().map_err(Error::SharedMemory)?;
    Ok(Report {
        rungs: ladder::climb_down(peel)?,
        costs,
        facts: peel.program.is_empty(),
    })
}

impl Report {
    /// For a terminal of 80 columns.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.facts {
            text.push_str(&self.table());
        }
        let mut above: Option<&Rung> = None;
        for rung in &self.rungs {
            text.push_str(&format!("\n{}\n", rung.title()));
            for line in self.sentences(rung, above) {
                for (i, part) in fold(&line, WIDTH).into_iter().enumerate() {
                    text.push_str(&format!("  {}{part}\n", if i > 0 { "  " } else { "" }));
                }
            }
            if matches!(rung.outcome, Outcome::Ran { .. }) {
                above = Some(rung);
            }
        }
        text.push_str(&self.costs.text());
        text
    }

    fn table(&self) -> String {
        let mut text = String::from("taken away   procs      pid  host name       ifaces  mounts  IPC  root is uid\n");
        for rung in &self.rungs {
            let Outcome::Ran { output, .. } = &rung.outcome else {
                text.push_str(&format!("{:<11}  cannot be taken away, stays\n", rung.name()));
                continue;
            };
            let Some(facts) = Facts::read(output) else { continue };
            let count = |count: Option<usize>| count.map_or("?".into(), |count| count.to_string());
            text.push_str(&format!(
                "{:<11}  {:>5}  {:>7}  {:<15.15} {:>6}  {:>6}  {:>3}  {:>11}\n",
                rung.name(),
                count(facts.processes),
                facts.pid,
                facts.hostname,
                count(facts.interfaces.as_ref().map(Vec::len)),
                count(facts.mounts),
                count(facts.ipc_objects),
                facts.root_outside().unwrap_or("?"),
            ));
        }
        text
    }

    /// What differs from the rung above.
    fn sentences(&self, rung: &Rung, above: Option<&Rung>) -> Vec<String> {
        let (output, status) = match &rung.outcome {
            Outcome::Refused(reason) => return vec![format!("refused, and kept from here on: {reason}")],
            Outcome::Ran { output, status, .. } => (output, status),
        };
        let before = above.map(|rung| match &rung.outcome {
            Outcome::Ran { output, .. } => output.as_str(),
            Outcome::Refused(_) => "",
        });
        let mut lines = match (self.facts, before) {
            (true, None) => Facts::read(output).map(|facts| facts.sentences()).unwrap_or_default(),
            (true, Some(before)) => match (Facts::read(before), Facts::read(output)) {
                (Some(before), Some(after)) => after.differences(&before),
                _ => Vec::new(),
            },
            (false, before) => changed_lines(before.unwrap_or(""), output),
        };
        if *status != 0 {
            lines.push(format!("the program ended with status {status}"));
        }
        if lines.is_empty() {
            lines.push("nothing that this program looks at".into());
        }
        lines
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let mut above: Option<&Rung> = None;
        let mut rungs = Vec::new();
        for rung in &self.rungs {
            let changes = self.sentences(rung, above);
            let names: Vec<_> = rung.without.iter().map(|namespace| namespace.name()).collect();
            rungs.push(match &rung.outcome {
                Outcome::Refused(reason) => json!({
                    "taken_away": rung.name(), "without": names, "refused": reason,
                }),
                Outcome::Ran {
                    output,
                    status,
                    command,
                } => json!({
                    "taken_away": rung.name(), "without": names, "command": command, "status": status,
                    "saw": serde_json::from_str(output).unwrap_or_else(|_| Value::from(output.as_str())),
                    "changes": changes,
                }),
            });
            if matches!(rung.outcome, Outcome::Ran { .. }) {
                above = Some(rung);
            }
        }
        json!({ "rungs": rungs, "costs": self.costs.json() })
    }
}

/// The lines that appeared (+) and those that are gone (-).
fn changed_lines(before: &str, after: &str) -> Vec<String> {
    let gone = before
        .lines()
        .filter(|line| !after.lines().any(|other| other == *line))
        .map(|line| format!("- {line}"));
    let new = after
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line))
        .map(|line| format!("+ {line}"));
    let mut lines: Vec<String> = gone.chain(new).collect();
    if lines.len() > LINES_SHOWN {
        let more = lines.len() - LINES_SHOWN;
        lines.truncate(LINES_SHOWN);
        lines.push(format!("... and {more} more lines"));
    }
    lines
}

/// The line in parts of at most `width` characters, broken at spaces.
fn fold(line: &str, width: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match parts.last_mut() {
            Some(part) if part.chars().count() + 1 + word.chars().count() <= width => {
                part.push(' ');
                part.push_str(word);
            }
            _ => parts.push(word.to_owned()),
        }
    }
    parts
}

/// Why the ladder could not be climbed.
#[derive(Debug, Error)]
pub enum Error {
    /// A clone was refused.
    #[error(transparent)]
    Clone(#[from] crate::clone::Error),
    /// A child was lost.
    #[error("cannot wait for a process made to measure its cost: {}", why(.0))]
    Wait(Errno),
    /// There is nothing for the IPC namespace to hide.
    #[error("cannot make the segment of shared memory that shows the IPC namespace: {}. See the limits kernel.shmmni and kernel.shmall", why(.0))]
    SharedMemory(Errno),
    /// The container was not started.
    #[error("cannot start {what}: {source}")]
    Start {
        /// The program.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The whole container does not run, so that there is nothing to take away from.
    #[error("{0}")]
    Whole(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_as_a_set() {
        assert_eq!(changed_lines("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        let many: String = (0..40).map(|i| format!("{i}\n")).collect();
        assert_eq!(changed_lines("", &many).last().unwrap(), "... and 28 more lines");
    }
}
