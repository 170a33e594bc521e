//! `lab ladder`: from a plain process up to a container, and up to a VM, one step after the other; what each step costs.
//!
//! Every rung is a launcher of its own kind, raced as any contender is: the same start line, finish line and clock, the
//! rounds interleaved. A step's cost is the difference of two medians, with a bootstrap interval; where the interval holds
//! zero, the step is too cheap for this run to tell.

pub mod rungs;
mod steps;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use crate::compare;
use crate::conditions::Reading;
use crate::contenders::{Contender, Request, Setup, Skipped};
use crate::evaluate::{self, Known};
use crate::image::{self, Image};
use crate::interrupt::Interrupt;
use crate::launchers::{self, Launchers};
use crate::provenance;
use crate::race::{self, Race, Rules};
use crate::results::{Provenance, Purpose, Sample, Summary};
use crate::store::{self, Folder};

#[cfg(test)]
pub(crate) use steps::tests::example;
pub use steps::{Ladder, Step, ladders};
pub use table::text;

/// Rounds that fill caches before anything counts.
const WARMUPS: usize = 2;
/// Longest a launch may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Options of `lab ladder`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Timed launches of each rung.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Idle time before each launch, in milliseconds.
    #[arg(long, default_value_t = 30, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub gap_ms: u64,
    /// The results folder [default: lab-results/TIME].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What keeps the ladders from being measured. A rung that cannot run here is no error: it is listed with its reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No launchers.
    #[error(transparent)]
    Launchers(#[from] launchers::Error),
    /// No image.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The results could not be kept.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The race ended early.
    #[error(transparent)]
    Race(#[from] race::Error),
}

/// The measured ladders.
pub struct Done {
    /// The figures: every rung is a contender.
    pub summary: Summary,
    /// Every sample behind them.
    pub samples: Vec<Sample>,
    /// Where both lie.
    pub folder: Folder,
    /// The signal that ended the race early, if one did.
    pub interrupted: Option<i32>,
}

/// Climbs both ladders, and leaves samples and summary in the results folder.
///
/// # Errors
/// See [`Error`]. Samples taken before an error are in the folder.
pub fn climb(arguments: &Arguments, interrupt: &Interrupt) -> Result<Done, Error> {
    let launchers = Launchers::find(None, None)?;
    let image = Image::build()?;
    let setup = Setup {
        image: &image,
        launchers: &launchers,
        cgroup: None,
    };
    let workload = vec!["hello".to_owned()];
    let mut provenance = Provenance {
        n: u64::from(arguments.runs),
        gap_ms: arguments.gap_ms,
        workload: workload.clone(),
        ..provenance::collect()
    };
    let (mut known, ready) = try_out(rungs::all(&setup), &workload, interrupt)?;
    let mut folder = Folder::create(&arguments.out.clone().unwrap_or_else(compare::default_folder))?;
    let rules = Rules {
        workload,
        expected_status: 0,
        gap: Duration::from_millis(arguments.gap_ms),
        limit: LIMIT,
    };
    let reading = Reading::now();
    let mut race = Race::new(rules, &ready, &mut folder, interrupt, ProgressBar::hidden());
    let ran = match ready.is_empty() {
        true => Ok(()),
        // The floor comes first; it is also the rung raced against itself.
        false => race
            .pass(Purpose::Warmup, WARMUPS)
            .and_then(|()| race.timed_pass(arguments.runs as usize, 0)),
    };
    let (samples, failed) = race.finish();
    reading.close(&mut provenance, &[]);
    let interrupted = match ran {
        Ok(()) => None,
        Err(race::Error::Interrupted) => {
            provenance
                .notes
                .push("Interrupted: not every rung has the runs that were asked for.".into());
            interrupt.signal()
        }
        Err(error) => return Err(error.into()),
    };
    for (name, entry) in &mut known {
        entry.skipped = failed.get(name).cloned().or(entry.skipped.take());
    }
    let null = ready.first().map(|rung| rung.name());
    let summary = evaluate::summary_of(provenance, &known, &samples, null, neighbours);
    folder.write_summary(&summary)?;
    Ok(Done {
        summary,
        samples,
        folder,
        interrupted,
    })
}

/// Each rung with the one below it.
fn neighbours<'a>(measured: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let floor = measured.first().copied();
    let mut pairs = Vec::new();
    for side in rungs::SIDES {
        let own = measured.iter().copied().filter(|name| name.starts_with(side));
        let mut below = floor;
        for name in own {
            pairs.extend(below.map(|below| (name, below)));
            below = Some(name);
        }
    }
    pairs
}

/// Every rung with what is known of it, and those that proved that they can race.
type TriedOut = (Vec<(String, Known)>, Vec<Box<dyn Contender>>);

/// One launch of each: a rung that cannot run here is skipped with its launcher's own words.
fn try_out(rungs: Vec<Box<dyn Contender>>, workload: &[String], interrupt: &Interrupt) -> Result<TriedOut, Error> {
    let (mut known, mut ready) = (Vec::new(), Vec::new());
    for rung in rungs {
        let id = format!("isolation-lab-{}-ladder", std::process::id());
        let request = Request {
            id: &id,
            workload,
            marks_fd: None,
        };
        let outcome = race::once(&*rung, &request, false, LIMIT, interrupt)?;
        let skipped = (!outcome.reached_the_finish_line(0)).then(|| Skipped {
            reason: format!("its launcher {}", outcome.complaint(LIMIT)),
            fix: rung.fix(outcome.exit_status),
        });
        let entry = Known {
            details: rung.details(),
            skipped,
            ..Known::default()
        };
        let is_ready = entry.skipped.is_none();
        known.push((rung.name().to_owned(), entry));
        if is_ready {
            ready.push(rung);
        }
    }
    Ok((known, ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_is_compared_with_the_one_below_it() {
        let pairs = neighbours(&["process", "container launcher", "container +user", "vm launcher", "vm"]);
        let expected = [
            ("container launcher", "process"),
            ("container +user", "container launcher"),
            ("vm launcher", "process"),
            ("vm", "vm launcher"),
        ];
        assert_eq!(pairs, expected);
    }
}
