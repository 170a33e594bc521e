//! The race itself: launches, one after another, each written down before the next begins.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::accounting::Accounting;
use crate::contenders::{Contender, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::launch::{self, MarksPipe, Outcome};
use crate::memory;
use crate::results::{Memory, Purpose, Sample};
use crate::schedule;
use crate::store::{self, Folder};

/// What ends a race. A contender that fails does not: it is skipped from there on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The harness could not launch.
    #[error("cannot launch {contender}: {source}")]
    Launch {
        /// Which contender.
        contender: String,
        /// Why.
        source: launch::Error,
    },
    /// A file a contender needs could not be written.
    #[error("cannot prepare a launch of {contender}: {source}")]
    Prepare {
        /// Which contender.
        contender: String,
        /// Why.
        source: io::Error,
    },
    /// The samples could not be kept.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What a launch is measured with.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The workload's arguments.
    pub workload: Vec<String>,
    /// The status the workload ends with.
    pub expected_status: i32,
    /// Idle time before each launch: a loop without pauses hides what a first launch costs.
    pub gap: Duration,
    /// Longest a launch may take.
    pub limit: Duration,
}

/// The contenders under way, and what has become of them.
pub struct Race<'a> {
    rules: Rules,
    contenders: &'a [Box<dyn Contender>],
    folder: &'a mut Folder,
    interrupt: &'a Interrupt,
    progress: ProgressBar,
    sequence: u64,
    samples: Vec<Sample>,
    failed: BTreeMap<String, Skipped>,
}

impl<'a> Race<'a> {
    /// A race of `contenders`, its samples kept in `folder`.
    pub fn new(
        rules: Rules,
        contenders: &'a [Box<dyn Contender>],
        folder: &'a mut Folder,
        interrupt: &'a Interrupt,
        progress: ProgressBar,
    ) -> Race<'a> {
        Race {
            rules,
            contenders,
            folder,
            interrupt,
            progress,
            sequence: 0,
            samples: Vec::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Ends the race: every sample, and the contenders that failed on the way, by name.
    pub fn finish(self) -> (Vec<Sample>, BTreeMap<String, Skipped>) {
        self.progress.finish_and_clear();
        (self.samples, self.failed)
    }

    /// Launches every contender once per round for `purpose`.
    ///
    /// # Errors
    /// See [`Error`]; samples taken until then are kept.
    pub fn pass(&mut self, purpose: Purpose, rounds: usize) -> Result<(), Error> {
        let entries: Vec<(usize, Purpose)> = (0..self.contenders.len())
            .filter(|&index| purpose != Purpose::Phases || self.contenders[index].reports_phases())
            .map(|index| (index, purpose))
            .collect();
        self.run(&entries, rounds, |race, index, purpose| race.timed(index, purpose))
    }

    /// The timed rounds. The contender `null` starts twice in each; its second copy is for the null test.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn timed_pass(&mut self, rounds: usize, null: usize) -> Result<(), Error> {
        let timed = (0..self.contenders.len()).map(|index| (index, Purpose::Timed));
        let entries: Vec<_> = timed.chain([(null, Purpose::Null)]).collect();
        self.run(&entries, rounds, |race, index, purpose| race.timed(index, purpose))
    }

    /// The memory rounds: the workload idles while its memory is counted.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn memory_pass(&mut self, rounds: usize, accounting: Option<&Accounting>) -> Result<(), Error> {
        let entries: Vec<_> = (0..self.contenders.len())
            .filter(|&index| self.contenders[index].runs_the_workload())
            .map(|index| (index, Purpose::Memory))
            .collect();
        self.run(&entries, rounds, |race, index, _| race.weigh(index, accounting))
    }

    fn run(
        &mut self,
        entries: &[(usize, Purpose)],
        rounds: usize,
        launch: impl Fn(&mut Self, usize, Purpose) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for round in schedule::rounds(entries.len(), rounds) {
            for place in round {
                let (index, purpose) = entries[place];
                self.progress.inc(1);
                if self.failed.contains_key(self.contenders[index].name()) {
                    continue;
                }
                if self.interrupt.pause(self.rules.gap) {
                    return Err(Error::Interrupted);
                }
                launch(self, index, purpose)?;
            }
        }
        Ok(())
    }

    /// One launch from start line to end.
    fn timed(&mut self, index: usize, purpose: Purpose) -> Result<(), Error> {
        let contender = &*self.contenders[index];
        let id = self.next_id();
        let request = Request {
            id: &id,
            workload: &self.rules.workload,
            marks_fd: None,
        };
        let outcome = once(
            contender,
            &request,
            purpose == Purpose::Phases,
            self.rules.limit,
            self.interrupt,
        )?;
        let expected = match contender.runs_the_workload() {
            true => self.rules.expected_status,
            false => 0,
        };
        let by_another = by_another_than_the_workload(contender, &self.rules.workload, &outcome);
        let finished = outcome.reached_the_finish_line(expected) && by_another.is_none();
        let complaint = by_another.unwrap_or_else(|| outcome.complaint(self.rules.limit));
        let status = outcome.exit_status;
        self.keep(contender.name(), purpose, outcome, None)?;
        if !finished {
            self.give_up(contender, &complaint, status);
        }
        Ok(())
    }

    /// One launch of `idle` that is looked at, then ended.
    fn weigh(&mut self, index: usize, accounting: Option<&Accounting>) -> Result<(), Error> {
        let contender = &*self.contenders[index];
        let id = self.next_id();
        let weighed = memory::weigh(contender, &id, accounting, self.rules.limit, self.interrupt);
        match weighed {
            Ok((outcome, memory)) => self.keep(contender.name(), Purpose::Memory, outcome, Some(memory)),
            Err(memory::Error::NotIdle { complaint, status }) => {
                self.give_up(contender, &complaint, status);
                Ok(())
            }
            Err(memory::Error::Launch(error)) => Err(failed_launch(contender, error)),
            Err(memory::Error::Prepare(source)) => Err(Error::Prepare {
                contender: contender.name().into(),
                source,
            }),
        }
    }

    fn next_id(&mut self) -> String {
        self.sequence += 1;
        format!("isolation-lab-{}-{}", std::process::id(), self.sequence)
    }

    fn keep(&mut self, name: &str, purpose: Purpose, outcome: Outcome, memory: Option<Memory>) -> Result<(), Error> {
        let sample = Sample {
            contender: name.into(),
            purpose,
            sequence: self.sequence,
            start_ns: outcome.start_ns,
            first_byte_ns: outcome.first_byte_ns,
            end_ns: outcome.end_ns,
            exit_status: outcome.exit_status,
            marks: outcome.marks,
            memory,
        };
        self.folder.append(&sample)?;
        self.samples.push(sample);
        Ok(())
    }

    /// A contender that fails once is not raced on: its figures would be those of the launches that happened to work.
    fn give_up(&mut self, contender: &dyn Contender, complaint: &str, status: i32) {
        let skipped = Skipped {
            reason: format!("launch {} {complaint}", self.sequence),
            fix: contender.fix(status),
        };
        self.failed.insert(contender.name().into(), skipped);
    }
}

/// What was at the finish line before the workload, if anything was: a guest's console is its standard output, and what firmware
/// or kernel write there comes first. Known of `hello`, whose line is fixed; None where the first byte is the workload's.
fn by_another_than_the_workload(contender: &dyn Contender, workload: &[String], outcome: &Outcome) -> Option<String> {
    let asked = contender.runs_the_workload() && workload == ["hello"];
    let wrote = !outcome.stdout.is_empty() && !outcome.stdout.starts_with(b"hello");
    (asked && wrote).then(|| {
        let text = String::from_utf8_lossy(&outcome.stdout);
        format!(
            "had another's first byte at the finish line, not the workload's: {}",
            text.lines().next().unwrap_or_default()
        )
    })
}

/// Launches `contender` once; after a launch that had to be killed, has it clean up.
///
/// # Errors
/// [`Error::Launch`], [`Error::Prepare`] or [`Error::Interrupted`].
pub fn once(
    contender: &dyn Contender,
    request: &Request,
    marks: bool,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Outcome, Error> {
    let pipe = if marks { Some(MarksPipe::new()) } else { None };
    let pipe = pipe.transpose().map_err(|error| failed_launch(contender, error))?;
    let request = Request {
        marks_fd: pipe.as_ref().map(MarksPipe::number),
        ..*request
    };
    let mut command = contender.command(&request).map_err(|source| Error::Prepare {
        contender: contender.name().into(),
        source,
    })?;
    let outcome = launch::launch(&mut command, pipe, limit, interrupt);
    if outcome.as_ref().map_or(true, |outcome| outcome.timed_out) {
        contender.clean_up(request.id);
    }
    outcome.map_err(|error| failed_launch(contender, error))
}

fn failed_launch(contender: &dyn Contender, error: launch::Error) -> Error {
    match error {
        launch::Error::Interrupted => Error::Interrupted,
        source => Error::Launch {
            contender: contender.name().into(),
            source,
        },
    }
}
