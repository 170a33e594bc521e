//! What is tried, each within bounds, and who lives on.
//!
//! On a kernel of its own the workload brings that kernel down for real. On the host's it only tries the doors, without
//! going through: if one were open, the host would fall, and everybody with it.

use std::time::Duration;

use nix::sys::signal::Signal;
use protocol::status::{KERNEL_PANIC, SIGNAL_BASE};
use serde_json::Value;

use crate::contenders::{Bounds, Contender, Request};
use crate::interrupt::Interrupt;
use crate::launch;
use crate::study::results::Trial;
use crate::study::{Error, books};

/// Longest a trial may take: an emulated guest starts hundreds of processes within it.
const LIMIT: Duration = Duration::from_secs(120);
/// What an instance is held to, where it can be told: as much memory as a guest of ours has.
pub const BOUNDS: Bounds = Bounds {
    memory_mib: 64,
    processes: 32,
};
/// More than the bounded ones may have and a guest has; no danger to a host where nothing bounds it.
pub const TOO_MUCH_MIB: u64 = 256;
/// Where nothing else stops forking, this does: few enough for any host.
pub const MOST_PROCESSES: u64 = 200;
/// On a kernel of its own: more than 128 MiB hold.
const MOST_IN_A_GUEST: u64 = 8000;
/// What [`Trial::what`] says, in the order of the trials.
pub const WHAT: [&str; 4] = ["crash", "panic", "memory", "forks"];
/// What the workload says to `hello`.
const GREETING: &[u8] = b"hello";

/// Who is asked after each trial whether he lives.
pub struct Witnesses<'a> {
    /// Processes of another instance of the same contender, which idles.
    pub sibling: &'a [u32],
    /// The plain process: the host itself.
    pub host: &'a dyn Contender,
}

/// Tries all of [`WHAT`].
///
/// # Errors
/// When the harness cannot launch.
pub fn all(contender: &dyn Contender, witnesses: &Witnesses, interrupt: &Interrupt) -> Result<Vec<Trial>, Error> {
    let own_kernel = contender.has_a_kernel_of_its_own();
    let most = if own_kernel { MOST_IN_A_GUEST } else { MOST_PROCESSES };
    let bounds = contender.takes_bounds().then_some(&BOUNDS);
    let bound = match (own_kernel, bounds) {
        (true, _) => "what its guest has".to_owned(),
        (false, Some(bounds)) => format!("{} MiB, {} processes", bounds.memory_mib, bounds.processes),
        (false, None) => format!("none but the lab's own: {TOO_MUCH_MIB} MiB, {MOST_PROCESSES} processes"),
    };
    let mut trials = Vec::new();
    for what in WHAT {
        let lesson = match what {
            "panic" if own_kernel => "panic".to_owned(),
            "panic" => "doors".to_owned(),
            "memory" => format!("memory {TOO_MUCH_MIB}"),
            "forks" => format!("forks {most}"),
            other => other.to_owned(),
        };
        let outcome = run(contender, &lesson, bounds, interrupt)?;
        // A guest's console is its standard output, its kernel's last words included.
        let output = String::from_utf8_lossy(&outcome.stdout);
        let mut said = vec![outcome.stderr.trim(), output.trim()];
        let late = format!("did not end within {} s and was killed", LIMIT.as_secs());
        if outcome.timed_out {
            said.insert(0, &late);
        }
        said.retain(|words| !words.is_empty());
        trials.push(Trial {
            what: what.into(),
            lesson,
            bound: bound.clone(),
            own_kernel,
            status: outcome.exit_status,
            said: said.join("\n"),
            sibling_survived: witnesses
                .sibling
                .iter()
                .all(|&pid| books::tables_and_threads(pid).is_some()),
            next_started: Some(answers(contender, interrupt)?),
            host_survived: Some(answers(witnesses.host, interrupt)?),
        });
    }
    Ok(trials)
}

/// Whether a new instance greets.
fn answers(contender: &dyn Contender, interrupt: &Interrupt) -> Result<bool, Error> {
    let outcome = run(contender, "hello", None, interrupt)?;
    Ok(outcome.stdout.starts_with(GREETING) && outcome.exit_status == 0)
}

fn run(
    contender: &dyn Contender,
    lesson: &str,
    bounds: Option<&Bounds>,
    interrupt: &Interrupt,
) -> Result<launch::Outcome, Error> {
    let words: Vec<String> = lesson.split(' ').map(str::to_owned).collect();
    let id = format!("isolation-lab-{}-surface-{}", std::process::id(), words[0]);
    let request = Request {
        id: &id,
        workload: &words,
        marks_fd: None,
    };
    let command = contender.command_beside(&request, bounds);
    let mut command = command.map_err(|source| Error::Prepare {
        contender: contender.name().into(),
        source,
    })?;
    let outcome = launch::launch(&mut command, None, LIMIT, interrupt);
    if outcome.as_ref().map_or(true, |outcome| outcome.timed_out) {
        contender.clean_up(&id);
    }
    Ok(outcome?)
}

/// Where a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At whoever did it, or at its own kernel.
    Contained,
    /// Nothing stood in its way but the lab.
    Unbounded,
    /// At others.
    Spread,
}

impl Trial {
    /// How it ended, in a few words.
    pub fn ending(&self) -> String {
        let told = self.told();
        match self.what.as_str() {
            "panic" if self.own_kernel && self.its_kernel_panicked() => "its kernel panicked".into(),
            "panic" if told["doors"].is_array() => match self.doors() {
                (answers, 0) => format!("refused: {answers}"),
                (_, open) => format!(
                    "could: {open} of {} ways are open",
                    told["doors"].as_array().map_or(0, Vec::len)
                ),
            },
            "forks" => match (&told["made"], &told["stopped_by"]) {
                (Value::Number(made), Value::String(by)) => format!("{by} after {made}"),
                (Value::Number(made), Value::Null) => format!("{made} made, none refused"),
                _ => self.status_in_words(),
            },
            "memory" if self.status == 0 => format!("got all {TOO_MUCH_MIB} MiB"),
            "memory" if self.status == 1 => "refused".into(),
            "memory" if self.status == i32::from(SIGNAL_BASE) + libc::SIGKILL => "killed: out of memory".into(),
            _ => self.status_in_words(),
        }
    }

    /// How far it went.
    pub fn reach(&self) -> Reach {
        let told = self.told();
        let lived = self.sibling_survived && self.next_started != Some(false) && self.host_survived != Some(false);
        let unbounded = match self.what.as_str() {
            "panic" => told["doors"].is_array() && self.doors().1 > 0,
            "memory" => self.status == 0,
            "forks" => told["made"].is_number() && told["stopped_by"].is_null(),
            _ => false,
        };
        match (lived, unbounded) {
            (false, _) => Reach::Spread,
            (true, true) => Reach::Unbounded,
            (true, false) => Reach::Contained,
        }
    }

    /// Who lived on, in a few words.
    pub fn others(&self) -> String {
        let dead = [
            (self.sibling_survived, "its sibling ended too"),
            (self.next_started != Some(false), "no other starts"),
            (self.host_survived != Some(false), "the host does not answer"),
        ];
        let dead: Vec<&str> = dead.iter().filter(|(lived, _)| !lived).map(|(_, what)| *what).collect();
        match dead.is_empty() {
            true => "all others live".into(),
            false => dead.join(", "),
        }
    }

    /// What was tried and what the kernel said to each, where the workload tells.
    pub fn answers(&self) -> Option<String> {
        let told = self.told();
        let each = told["doors"].as_array()?.iter();
        let each = each.filter_map(|door| Some(format!("{} {}", door["door"].as_str()?, door["answer"].as_str()?)));
        Some(each.collect::<Vec<_>>().join(", "))
    }

    /// The workload's report, null when it made none.
    fn told(&self) -> Value {
        let lines = self.said.lines().filter(|line| line.starts_with('{'));
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .next()
            .unwrap_or_default()
    }

    fn its_kernel_panicked(&self) -> bool {
        // Linux has no exit status to give; its last words are on the console.
        self.status == i32::from(KERNEL_PANIC) || self.said.contains("Kernel panic")
    }

    /// The different answers of shut doors, and how many doors are open.
    fn doors(&self) -> (String, usize) {
        let told = self.told();
        let doors = told["doors"].as_array().map_or(&[][..], Vec::as_slice);
        let answers = doors.iter().filter_map(|door| door["answer"].as_str());
        let (open, mut shut): (Vec<&str>, Vec<&str>) = answers.partition(|answer| *answer == "open");
        shut.sort_unstable();
        shut.dedup();
        (shut.join(", "), open.len())
    }

    fn status_in_words(&self) -> String {
        match Signal::try_from(self.status - i32::from(SIGNAL_BASE)) {
            Ok(signal) => signal.as_str().into(),
            Err(_) => format!("status {}", self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(what: &str, status: i32, said: &str) -> Trial {
        Trial {
            what: what.into(),
            lesson: what.into(),
            bound: "none".into(),
            own_kernel: false,
            status,
            said: said.into(),
            sibling_survived: true,
            next_started: Some(true),
            host_survived: Some(true),
        }
    }

    #[test]
    fn endings_are_told_and_judged_by_what_was_said() {
        let shut =
            r#"{"doors":[{"door":"a","answer":"EROFS"},{"door":"b","answer":"EPERM"},{"door":"c","answer":"EPERM"}]}"#;
        let open = r#"{"doors":[{"door":"a","answer":"open"},{"door":"b","answer":"EPERM"}]}"#;
        for (found, words, reach) in [
            (trial("crash", 139, ""), "SIGSEGV", Reach::Contained),
            (trial("panic", 0, shut), "refused: EPERM, EROFS", Reach::Contained),
            (trial("panic", 0, open), "could: 1 of 2 ways are open", Reach::Unbounded),
            (trial("memory", 137, ""), "killed: out of memory", Reach::Contained),
            (trial("memory", 0, "{}"), "got all 256 MiB", Reach::Unbounded),
            (
                trial("forks", 0, r#"{"made":31,"stopped_by":"EAGAIN"}"#),
                "EAGAIN after 31",
                Reach::Contained,
            ),
            (
                trial("forks", 0, r#"{"made":200,"stopped_by":null}"#),
                "200 made, none refused",
                Reach::Unbounded,
            ),
            (trial("forks", 125, "no"), "status 125", Reach::Contained),
        ] {
            assert_eq!((found.ending().as_str(), found.reach()), (words, reach), "{found:?}");
        }
        let mut panic = trial("panic", 116, "lab kernel: panic");
        panic.own_kernel = true;
        assert_eq!(panic.ending(), "its kernel panicked");
        panic.status = 1;
        assert_eq!(panic.ending(), "status 1");
        panic.said = "[    1.2] Kernel panic - not syncing: Out of memory".into();
        assert_eq!(panic.ending(), "its kernel panicked");
        panic.host_survived = Some(false);
        assert_eq!(panic.reach(), Reach::Spread);
        assert_eq!(panic.others(), "the host does not answer");
    }
}
