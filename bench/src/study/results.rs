//! What the studies find, as files: `memory.json`, `density.json`, `cost.json`, `inspect.json`, `surface.json`, `line.json` in a results
//! folder, each one [`Study`]; beside each, `*.jsonl` with every reading it was computed from.
//!
//! Sizes are bytes, times nanoseconds. A figure this host cannot tell is absent, never zero.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::contenders::Skipped;
use crate::results::Provenance;

/// Version of the layout of every study's file. A reader refuses a newer one.
pub const SCHEMA: u32 = 1;

/// One study of several contenders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Study<T> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `memory`, `density`, `cost`, `inspect`, `surface` or `line`: the file's name without its ending.
    pub study: String,
    /// Where, when and on what.
    pub provenance: Provenance,
    /// Every contender asked for, in that order; of `line`, every way to print.
    pub contenders: Vec<Entry<T>>,
    /// What a reader must know beside the figures.
    pub notes: Vec<String>,
}

/// What was found of one contender, or why nothing was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry<T> {
    /// The contender.
    pub name: String,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<T>,
    /// Why nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What would change that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl<T> Entry<T> {
    /// An entry with its finding.
    pub fn found(name: &str, found: T) -> Entry<T> {
        Entry {
            name: name.into(),
            found: Some(found),
            reason: None,
            fix: None,
        }
    }

    /// An entry without.
    pub fn skipped(name: &str, skipped: Skipped) -> Entry<T> {
        Entry {
            name: name.into(),
            found: None,
            reason: Some(skipped.reason),
            fix: Some(skipped.fix),
        }
    }
}

impl<T> Study<T> {
    /// The contenders with a finding.
    pub fn measured(&self) -> impl Iterator<Item = (&str, &T)> {
        let with = |entry: &'_ Entry<T>| entry.found.is_some();
        self.contenders
            .iter()
            .filter(move |entry| with(entry))
            .filter_map(|entry| Some((entry.name.as_str(), entry.found.as_ref()?)))
    }

    /// What one contender's finding is.
    pub fn of(&self, name: &str) -> Option<&T> {
        self.measured()
            .find(|(found, _)| *found == name)
            .map(|(_, found)| found)
    }
}

impl<T: for<'a> Deserialize<'a>> Study<T> {
    /// Reads the study called `name` from a results folder. None: it was not made there.
    ///
    /// # Errors
    /// When the file cannot be read, is of a newer schema, or is no such study.
    pub fn read(folder: &Path, name: &str) -> Result<Option<Study<T>>, Error> {
        let path = folder.join(format!("{name}.json"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::file("read", &path)(source)),
        };
        let malformed = |source| Error::Malformed {
            path: path.clone(),
            source,
        };
        let version: Version = serde_json::from_str(&text).map_err(malformed)?;
        if version.schema > SCHEMA {
            return Err(Error::Newer {
                path,
                found: version.schema,
            });
        }
        serde_json::from_str(&text).map(Some).map_err(malformed)
    }
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// A figure measured several times: its median, and the smallest and the largest reading.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// How many.
    pub n: u64,
}

impl Readings {
    /// None without readings.
    pub fn of(values: &[f64]) -> Option<Readings> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Readings {
            median,
            min: first,
            max: last,
            n: sorted.len() as u64,
        })
    }
}

/// `lab memory`: what one idle instance costs the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// The pieces, none counted twice.
    pub parts: Vec<Part>,
    /// Pieces already inside others, by difference to a launch without the thing.
    pub of_which: Vec<Part>,
    /// Sum of the parts that are taken from the memory the host can still give.
    pub sum_bytes: f64,
    /// What MemAvailable fell by, for one instance.
    pub available_bytes: Option<Readings>,
    /// `available_bytes` less `sum_bytes`: what the books do not explain. Negative: they claim more than went.
    pub residue_bytes: Option<f64>,
    /// Its processes on the host.
    pub processes: Vec<ProcessPages>,
    /// VM only: what the guest may use.
    pub guest_configured_bytes: Option<u64>,
    /// Instances the host-wide counters were read around, and divided by.
    pub instances: u64,
}

/// One piece of a ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// What it is: `private pages`, `guest pages`, `file pages`, `page tables`, `second-level tables`, `kernel stacks`,
    /// `other kernel memory`; `network namespace`, `cgroup`.
    pub what: String,
    /// Per instance. None: not known here.
    pub bytes: Option<f64>,
    /// Whether MemAvailable must fall by it. File pages lie in the page cache, which counts as available.
    pub taken: bool,
    /// Where the figure is from.
    pub source: String,
}

/// A process of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessPages {
    /// Its name on the host.
    pub name: String,
    /// Pages nobody else maps.
    pub unique_bytes: u64,
    /// Its share of the others.
    pub shared_bytes: u64,
    /// Its page tables.
    pub table_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// `lab density`: memory against the number of idle instances.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Density {
    /// The host as it is.
    pub apart: Series,
    /// The same with kernel same-page merging, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Series>,
}

/// One series of instances.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Readings by size, the empty host first.
    pub points: Vec<Point>,
    /// What the first instance was charged. None without an accounting cgroup.
    pub first_bytes: Option<f64>,
    /// Marginal memory by the accounting cgroup: user pages and kernel memory charged.
    pub charged: Option<Slope>,
    /// Marginal memory by the host's MemAvailable: also what nobody is charged for, and everybody else's noise.
    pub available: Option<Slope>,
    /// Why it ended before the size asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// A reading.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Idle instances.
    pub instances: u64,
    /// Charged to the accounting cgroup.
    pub charged_bytes: Option<u64>,
    /// Of it, kernel memory.
    pub kernel_bytes: Option<u64>,
    /// The host's MemAvailable.
    pub available_bytes: u64,
    /// Pages that merging saves, times their size; host-wide.
    pub merged_bytes: Option<u64>,
}

/// A least-squares line through the readings of one instance and more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Bytes per further instance.
    pub bytes: f64,
    /// Its 95% interval (Student's t).
    pub ci95: [f64; 2],
    /// Where the line meets no instance.
    pub intercept_bytes: f64,
    /// Readings it rests on.
    pub n: u64,
}

/// `lab inspect`: where a program finds itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// What it sees, and whether that is the host's.
    pub aspects: Vec<Aspect>,
    /// The workload's own words (`workload whoami`).
    pub whoami: serde_json::Value,
    /// What the host sees of it while it idles, the launcher first.
    pub host_processes: Vec<HostProcess>,
}

/// One thing a program can see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aspect {
    /// `kernel`, `boot`, `processes`, `users`, `mounts`, `network`, ...
    pub name: String,
    /// What it sees.
    pub inside: String,
    /// Whether it is what the host's programs see. None: nothing there tells.
    pub shared: Option<bool>,
}

/// A process on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProcess {
    /// Its name.
    pub name: String,
    /// Threads.
    pub threads: u64,
}

/// `lab cost`: what work costs inside a contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// One for each lesson.
    pub lessons: Vec<LessonCost>,
    /// Those it could not do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedLesson>,
}

/// A lesson a contender could not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedLesson {
    /// Its name and argument.
    pub lesson: String,
    /// Why.
    pub reason: String,
    /// What would change that.
    pub fix: String,
}

/// What one lesson takes, by the program's own clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LessonCost {
    /// Its name and argument: `cpu 20000000`, `disk-read 400`.
    pub lesson: String,
    /// Operations in it: rounds, pages, system calls, reads, exchanges.
    pub operations: u64,
    /// Nanoseconds of each run.
    pub ns: crate::results::Distribution,
    /// Against the plain process: ratio of medians with its interval. None for the plain process itself.
    pub relative: Option<crate::results::Comparison>,
    /// Exits from the guest for one operation, by the VMM's ledger: median of three pairs of runs. None for those that hold
    /// no guest.
    pub exits_per_operation: Option<f64>,
    /// Share of the time of all runs in which the program, or the VMM it runs in, had no processor at the least; None where a lesson
    /// waits for a disk or a peer, and in results of an older lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited: Option<f64>,
    /// The plain process against itself. Only with the plain process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_test: Option<crate::results::NullTest>,
}

/// `lab line`: what it costs a guest to print one line of text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Length of the line, its newline included.
    pub bytes: u64,
    /// Lines in each run. A run's figure is the median of theirs.
    pub lines: u64,
    /// Exits for one line, by the VMM's ledger.
    pub exits: f64,
    /// Nanoseconds for one line: its exits and the guest's time before each.
    pub ns: crate::results::Distribution,
    /// Of it, in the VMM's hands.
    pub host_ns: crate::results::Distribution,
    /// The serial port against this way: ratio of medians with its interval. None for the serial port itself.
    pub relative: Option<crate::results::Comparison>,
    /// The serial port against itself. Only with the serial port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_test: Option<crate::results::NullTest>,
}

/// `lab surface`: what of the host can be reached from inside, and who survives what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Surface {
    /// The host's process whose filter was read: the workload itself, or the VMM a guest would have to break out into.
    pub behind: String,
    /// Host system calls its filter lets through whatever their arguments.
    pub reachable: u64,
    /// Host system calls whose arguments decide.
    pub depending: u64,
    /// Host system calls there are.
    pub known: u64,
    /// Host system calls that were made over a run. None: nobody was seen who stands between workload and host.
    #[serde(default)]
    pub observed: Option<Observed>,
    /// What was tried.
    pub trials: Vec<Trial>,
}

/// The system calls of a run, by the process that stands between the workload and the host: the workload itself, from its
/// first instruction on, or all of the VMM's threads, from the guest's first instruction on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The workload's arguments.
    pub lesson: String,
    /// How often each was made, by name.
    pub calls: BTreeMap<String, u64>,
}

/// Something bad the workload did, or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// `crash`, `panic`, `memory` or `forks`.
    pub what: String,
    /// The workload's arguments.
    #[serde(default)]
    pub lesson: String,
    /// What bounded it.
    pub bound: String,
    /// Whether it ran on a kernel of its own.
    #[serde(default)]
    pub own_kernel: bool,
    /// Exit status of the launcher: 128 + n when signal n ended the workload.
    pub status: i32,
    /// What the workload and its launcher said.
    pub said: String,
    /// Whether another instance of the same contender idled on.
    pub sibling_survived: bool,
    /// Whether one more could be started afterwards. None: nobody tried, in results of an older lab.
    #[serde(default)]
    pub next_started: Option<bool>,
    /// Whether a plain process on the host answered afterwards. None: as above.
    #[serde(default)]
    pub host_survived: Option<bool>,
}
