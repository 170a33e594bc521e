//! Start-up under other conditions than one warm start after another: cold, several workers at a time, arriving at a given
//! rate, with others running.
//!
//! `lab compare --cold`, `--concurrency`, `--rate`, `--running`. Each condition of each contender is a series of its own with
//! its own line in the summary (`container, 4 workers`); series are cut into blocks, and the blocks are interleaved as launches
//! are in a race. Under each condition one contender has a second series, for a null test: noise under load is not the noise
//! of a quiet machine ([`doubt`]).

mod blocks;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::compare::{self, Options};
use crate::conditions::{self, Reading, Resource};
use crate::contenders::{self, Contender as Launched, Request, Setup, Skipped};
use crate::evaluate::{self, Known};
use crate::image::{self, Image};
use crate::interrupt::Interrupt;
use crate::launchers::{self, Launchers};
use crate::provenance;
use crate::race;
use crate::results::{Comparison, Contender, NullTest, Provenance, Purpose, Sample, Summary};
use crate::schedule;
use crate::series_namespace;
use crate::store::{self, Folder};
use crate::verdict;

pub use table::{text, told};

/// Blocks each series is cut into.
const BLOCKS: usize = 4;

/// Keys of a contender's details by which a series is known in a summary.
pub const MODE: &str = "mode";
/// Of [`MODE`], how much.
pub const LEVEL: &str = "level";
/// Whose series it is.
pub const OF: &str = "contender";

/// Options of `lab compare` that ask for other conditions.
#[derive(Args, Clone, Debug, Default)]
pub struct Arguments {
    /// Start with the page cache dropped, and warm, by turns (needs root).
    #[arg(long, help_heading = "Conditions")]
    pub cold: bool,
    /// So many workers, each of which starts the next as soon as its last has ended (closed loop).
    #[arg(long, value_delimiter = ',', value_name = "N,...", help_heading = "Conditions", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub concurrency: Vec<u32>,
    /// Starts per second, whether or not those before are over; timed from when each was due.
    #[arg(long, value_delimiter = ',', value_name = "PER_S,...", help_heading = "Conditions", value_parser = rate)]
    pub rate: Vec<f64>,
    /// Start with this many of the same already running.
    #[arg(long, value_delimiter = ',', value_name = "N,...", help_heading = "Conditions", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub running: Vec<u32>,
    /// Run on these processors only: the lab, the launchers and what they start. 0,2-3
    #[arg(long, value_name = "LIST", help_heading = "Conditions", value_parser = cpu_list)]
    pub cpus: Option<Cpus>,
}

/// Processors by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(Vec<usize>);

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.01..=10_000.0).contains(&rate) {
        true => Ok(rate),
        false => Err("must be between 0.01 and 10000 starts per second".into()),
    }
}

fn cpu_list(text: &str) -> Result<Cpus, String> {
    let number = |text: &str| {
        let found = text.parse::<usize>().ok().filter(|&cpu| cpu < CpuSet::count());
        found.ok_or_else(|| format!("{text:?} is no processor's number"))
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(number(first)?..=number(last)?);
    }
    match cpus.is_empty() {
        true => Err("names no processor".into()),
        false => Ok(Cpus(cpus)),
    }
}

impl Arguments {
    /// Whether other conditions than a plain race's are asked for.
    pub fn asked(&self) -> bool {
        self.cold || !(self.concurrency.is_empty() && self.rate.is_empty() && self.running.is_empty())
    }

    /// Binds this process, and so all it starts, to the processors asked for.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub fn pin(&self) -> Result<(), Error> {
        let Some(Cpus(cpus)) = &self.cpus else { return Ok(()) };
        let mut set = CpuSet::new();
        let bound = cpus.iter().try_for_each(|&cpu| set.set(cpu));
        bound
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(|errno| Error::Pin {
                cpus: cpus.clone(),
                source: errno.into(),
            })
    }

    fn modes(&self) -> Vec<Mode> {
        let mut modes = Vec::new();
        if self.cold {
            modes.extend([Mode::Warm, Mode::Cold]);
        }
        modes.extend(self.concurrency.iter().map(|&n| Mode::Workers(n)));
        modes.extend(self.rate.iter().map(|&rate| Mode::Rate(rate)));
        modes.extend(self.running.iter().map(|&n| Mode::Running(n)));
        modes
    }
}

/// A condition to start under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// As a race does, beside cold starts.
    Warm,
    /// With the page cache, directory entries and inodes dropped before each start.
    Cold,
    /// With so many workers, each starting one after another without a pause.
    Workers(u32),
    /// So many a second, timed from when they were due.
    Rate(f64),
    /// With so many of the same running.
    Running(u32),
}

impl Mode {
    /// What is varied.
    pub fn kind(self) -> &'static str {
        match self {
            Mode::Warm | Mode::Cold => "page cache",
            Mode::Workers(_) => "number of workers",
            Mode::Rate(_) => "starts per second",
            Mode::Running(_) => "number already running",
        }
    }

    /// How much of it.
    pub fn level(self) -> String {
        match self {
            Mode::Warm => "warm".into(),
            Mode::Cold => "cold".into(),
            Mode::Workers(n) | Mode::Running(n) => n.to_string(),
            Mode::Rate(rate) => rate.to_string(),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Warm => f.write_str("warm"),
            Mode::Cold => f.write_str("cold"),
            Mode::Workers(1) => f.write_str("1 worker"),
            Mode::Workers(n) => write!(f, "{n} workers"),
            Mode::Rate(rate) => write!(f, "{rate} per second"),
            Mode::Running(n) => write!(f, "{n} running"),
        }
    }
}

/// What keeps the series from being measured. A contender that fails is no error: its series ends there.
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
    /// The harness could not launch.
    #[error(transparent)]
    Race(#[from] race::Error),
    /// The page cache stays.
    #[error(
        "cannot drop the page cache (/proc/sys/vm/drop_caches): {0}. Only root of the host may: run as root, or leave out \
         --cold. Nothing was measured: a start that is called cold and is not would be a wrong number"
    )]
    Cold(io::Error),
    /// The processors asked for are not to be had.
    #[error("cannot run on the processors {cpus:?} alone: {source}. `nproc` tells how many there are, from 0 on")]
    Pin {
        /// Which.
        cpus: Vec<usize>,
        /// Why.
        source: io::Error,
    },
}

/// The finished series.
pub struct Done {
    /// The figures: each series is a contender.
    pub summary: Summary,
    /// Every sample behind them.
    pub samples: Vec<Sample>,
    /// Where both lie.
    pub folder: Folder,
    /// The signal that ended them early, if one did.
    pub interrupted: Option<i32>,
}

/// One contender under one condition.
struct Series {
    contender: usize,
    mode: Mode,
    name: String,
    /// [`Purpose::Timed`], or [`Purpose::Null`] for the second series of the null test.
    purpose: Purpose,
}

/// Measures every series, and leaves samples and summary in the results folder.
///
/// # Errors
/// See [`Error`]. Samples taken before an error are in the folder.
pub fn measure(arguments: &Arguments, options: &Options, interrupt: &Interrupt) -> Result<Done, Error> {
    let modes = arguments.modes();
    if modes.contains(&Mode::Cold) {
        // What is not on the disk yet cannot be dropped.
        nix::unistd::sync();
        blocks::drop_caches().map_err(Error::Cold)?;
    }
    let launchers = Launchers::find(options.vmm.as_deref(), options.container.as_deref())?;
    let image = Image::build()?;
    let mut provenance = Provenance {
        n: options.runs as u64,
        gap_ms: u64::try_from(options.gap.as_millis()).unwrap_or(u64::MAX),
        workload: options.workload.clone(),
        ..provenance::collect()
    };
    if modes.contains(&Mode::Cold) && blocks::is_tmpfs(image.folder()) {
        provenance.notes.push(
            "The image lies in memory (tmpfs), which nothing drops: only the launchers and what they read were cold."
                .into(),
        );
    }
    provenance
        .notes
        .extend(series_namespace::enter_if_crun_needs_it(&options.contenders));
    let setup = Setup {
        image: &image,
        launchers: &launchers,
        cgroup: None,
    };
    let (mut known, ready, series) = prepare(options, &modes, &setup, interrupt)?;
    let mut folder = Folder::create(&options.out)?;
    let reading = Reading::now();
    let mut runner = blocks::Runner::new(options, &mut folder, interrupt);
    let mut ran = Ok(());
    'rounds: for round in schedule::rounds(series.len(), BLOCKS) {
        for index in round {
            let one = &series[index];
            ran = runner.block(&*ready[one.contender], one, options.runs.div_ceil(BLOCKS));
            if ran.is_err() {
                break 'rounds;
            }
        }
    }
    let (samples, failed) = runner.finish();
    let own = [waiting_of_its_own(&modes), conditions::daemons(&options.contenders)].concat();
    reading.close(&mut provenance, &own);
    let interrupted = match ran {
        Ok(()) => None,
        Err(race::Error::Interrupted) => {
            provenance
                .notes
                .push("Interrupted: not every series has the starts that were asked for.".into());
            interrupt.signal()
        }
        Err(error) => return Err(error.into()),
    };
    for (name, entry) in &mut known {
        entry.skipped = failed.get(name).cloned().or(entry.skipped.take());
    }
    let firsts = firsts(&series);
    let mut summary = evaluate::summary_of(provenance, &known, &samples, None, |measured| chosen(measured, &firsts));
    let twice = series.iter().filter(|one| one.purpose == Purpose::Null);
    summary.null_tests = twice
        .filter_map(|one| evaluate::null_test(&one.name, &samples))
        .collect();
    // For a reader who asks for one alone: the worst news there are.
    let failed = summary.null_tests.iter().find(|test| !test.passed);
    summary.null_test = failed.or(summary.null_tests.first()).cloned();
    folder.write_summary(&summary)?;
    Ok(Done {
        summary,
        samples,
        folder,
        interrupted,
    })
}

/// What starts under these conditions make each other, and anybody else, wait for.
fn waiting_of_its_own(modes: &[Mode]) -> Vec<Resource> {
    let any = |what: fn(&Mode) -> bool| modes.iter().any(what);
    let side_by_side = any(|mode| matches!(mode, Mode::Rate(_)) || matches!(mode, Mode::Workers(n) if *n > 1));
    let from_disk = any(|mode| *mode == Mode::Cold);
    let processor = side_by_side.then_some(Resource::Processor);
    processor
        .into_iter()
        .chain(from_disk.then_some(Resource::Disk))
        .collect()
}

/// The pairs of which both were measured.
fn chosen<'a>(measured: &[&'a str], pairs: &[(String, String)]) -> Vec<(&'a str, &'a str)> {
    let found = |name: &str| measured.iter().copied().find(|&own| own == name);
    let both = pairs.iter().filter_map(|(a, b)| Some((found(a)?, found(b)?)));
    both.collect()
}

/// Each series with the first of its contender and kind, which the others are compared with.
fn firsts(series: &[Series]) -> Vec<(String, String)> {
    let mut firsts: BTreeMap<(usize, &str), &str> = BTreeMap::new();
    let mut pairs = Vec::new();
    for one in series.iter().filter(|one| one.purpose == Purpose::Timed) {
        match firsts.entry((one.contender, one.mode.kind())) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(&one.name);
            }
            std::collections::btree_map::Entry::Occupied(first) => {
                pairs.push((one.name.clone(), (*first.get()).into()))
            }
        }
    }
    pairs
}

/// Every series with what is known of it, the contenders that can run here, and their series.
type Prepared = (Vec<(String, Known)>, Vec<Box<dyn Launched>>, Vec<Series>);

fn prepare(options: &Options, modes: &[Mode], setup: &Setup, interrupt: &Interrupt) -> Result<Prepared, Error> {
    let (mut known, mut ready, mut series) = (Vec::new(), Vec::new(), Vec::new());
    for name in &options.contenders {
        let found = match contenders::prepare(name, setup) {
            Ok(contender) => try_once(&*contender, options, interrupt)?.map_or(Ok(contender), Err),
            Err(skipped) => Err(skipped),
        };
        match found {
            Err(skipped) => known.push((
                name.clone(),
                Known {
                    skipped: Some(skipped),
                    ..Known::default()
                },
            )),
            Ok(contender) => {
                for &mode in modes {
                    let mut details = contender.details();
                    details.insert(MODE.into(), mode.kind().into());
                    details.insert(LEVEL.into(), mode.level());
                    details.insert(OF.into(), name.clone());
                    let one = Series {
                        contender: ready.len(),
                        mode,
                        name: format!("{name}, {mode}"),
                        purpose: Purpose::Timed,
                    };
                    known.push((
                        one.name.clone(),
                        Known {
                            details,
                            ..Known::default()
                        },
                    ));
                    series.push(one);
                }
                ready.push(contender);
            }
        }
    }
    if let Some(null) = compare::null_contender(&ready) {
        let again: Vec<Series> = series
            .iter()
            .filter(|one| one.contender == null)
            .map(|one| Series {
                name: one.name.clone(),
                purpose: Purpose::Null,
                ..*one
            })
            .collect();
        series.extend(again);
    }
    Ok((known, ready, series))
}

/// What stands against a verdict on the difference between two series: too few starts, or a null test under one of their
/// conditions that did not pass. None: nothing.
pub fn doubt(summary: &Summary, found: &Comparison) -> Option<String> {
    let of = |name: &str| summary.contenders.iter().find(|one| one.name == name);
    let pair = [of(&found.a)?, of(&found.b)?];
    let fewest = pair.iter().filter_map(|one| one.startup_ns).map(|found| found.n).min();
    verdict::too_few(fewest.unwrap_or(0)).or_else(|| {
        let condition = |one: &Contender| [MODE, LEVEL].map(|key| one.details.get(key).cloned());
        pair.iter().find_map(|one| {
            let under = |test: &&NullTest| of(&test.contender).is_some_and(|own| condition(own) == condition(one));
            match summary.null_tests.iter().find(under) {
                Some(test) => verdict::noise(test),
                None => Some("nobody raced against itself under the same condition.".into()),
            }
        })
    })
}

/// One start: None when it went well.
fn try_once(
    contender: &dyn Launched,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Option<Skipped>, race::Error> {
    let id = format!("isolation-lab-{}-try", std::process::id());
    let request = Request {
        id: &id,
        workload: &options.workload,
        marks_fd: None,
    };
    let outcome = match race::once(contender, &request, false, options.limit, interrupt) {
        Ok(outcome) => outcome,
        Err(error @ (race::Error::Launch { .. } | race::Error::Prepare { .. })) => {
            return Ok(Some(Skipped {
                reason: error.to_string(),
                fix: contender.fix(0),
            }));
        }
        Err(error) => return Err(error),
    };
    Ok((!outcome.reached_the_finish_line(0)).then(|| Skipped {
        reason: format!("its launcher {}", outcome.complaint(options.limit)),
        fix: contender.fix(outcome.exit_status),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(cpu_list("0,2-4"), Ok(Cpus(vec![0, 2, 3, 4])));
        for wrong in ["", "x", "3-1", "1-", "99999999"] {
            assert!(cpu_list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_level_is_compared_with_the_first_of_its_kind() {
        let one = |contender, mode: Mode| Series {
            contender,
            mode,
            name: format!("{contender}, {mode}"),
            purpose: Purpose::Timed,
        };
        let series = [
            one(0, Mode::Workers(1)),
            one(0, Mode::Workers(4)),
            one(0, Mode::Running(0)),
            one(1, Mode::Workers(1)),
            one(1, Mode::Workers(4)),
        ];
        let expected = [("0, 4 workers", "0, 1 worker"), ("1, 4 workers", "1, 1 worker")];
        assert_eq!(firsts(&series), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
