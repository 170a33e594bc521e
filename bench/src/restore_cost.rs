//! `lab restore-cost`: what a restored VM pays at once, and what it pays later.
//!
//! Restoring maps the snapshot and copies nothing: the guest starts soon, and pays page by page when it first touches its
//! memory. A figure that names only the first half flatters. So the same snapshot is restored in two ways, by turns: as it
//! is, and with every page copied beforehand. The time until the vCPU is ready is the restore latency; what the second
//! way takes longer, divided by the pages, is the price of one first touch; and page faults tell how many touches the guest
//! really made.

pub mod clones;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use protocol::phase::Phase;
use serde::Serialize;

use crate::conditions::{Conditions, Reading};
use crate::image::{self, Image, PROGRAM};
use crate::interrupt::Interrupt;
use crate::launch::{self, MarksPipe, Outcome};
use crate::launchers::{self, Launchers};
use crate::stats::percentile::median as median_of;
use crate::{host, schedule, words};

/// Restores that fill caches before anything counts.
const WARMUPS: usize = 3;
/// Longest a launch may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What keeps the figures from being measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No launchers.
    #[error(transparent)]
    Launchers(#[from] launchers::Error),
    /// No image.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The harness could not launch.
    #[error(transparent)]
    Launch(#[from] launch::Error),
    /// No snapshot.
    #[error("cannot take the snapshot: {0}")]
    Snapshot(String),
    /// Clones cannot be weighed.
    #[error("cannot weigh clones: {0}. Run as root, or where a cgroup with the memory controller is delegated")]
    Clones(String),
    /// A restore failed, or did not say what it was asked for.
    #[error("a restored VM {0}")]
    Restore(String),
}

/// What to restore, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Restores of each kind.
    pub runs: usize,
    /// The workload's arguments.
    pub workload: Vec<String>,
    /// The mark the snapshot is taken at.
    pub at: Phase,
    /// Idle time before each launch.
    pub gap: Duration,
}

/// What was found. Times are medians, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Restores of each kind.
    pub n: u64,
    /// What is beneath KVM.
    pub kvm_backend: String,
    /// The mark the snapshot was taken at.
    pub mark: String,
    /// Bytes of guest memory in the snapshot.
    pub snapshot_bytes: u64,
    /// From the start of the process until the vCPU is ready, memory mapped and not copied.
    pub restore_ns: f64,
    /// The same with every page copied beforehand.
    pub restore_prefaulted_ns: f64,
    /// From there to the first output, pages copied when touched.
    pub run_ns: f64,
    /// The same after copying beforehand.
    pub run_prefaulted_ns: f64,
    /// Page faults while the guest ran.
    pub faults: f64,
    /// The same after copying beforehand.
    pub faults_prefaulted: f64,
    /// What else the machine did meanwhile.
    pub conditions: Conditions,
}

impl Cost {
    /// Pages in the snapshot.
    fn pages(&self) -> f64 {
        self.snapshot_bytes as f64 / vmm::layout::PAGE as f64
    }

    /// What it takes to copy one page, in nanoseconds.
    fn first_touch_ns(&self) -> f64 {
        (self.restore_prefaulted_ns - self.restore_ns) / self.pages()
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |ns: f64| words::duration(ns.max(0.0) as u64);
        writeln!(
            f,
            "A snapshot at \"{}\" ({} of memory), restored {} times each way, medians (KVM backend {}):",
            self.mark,
            words::bytes(self.snapshot_bytes),
            self.n,
            self.kvm_backend
        )?;
        writeln!(
            f,
            "                    restore latency   then to first output   page faults"
        )?;
        for (name, restore, run, faults) in [
            ("copied on touch", self.restore_ns, self.run_ns, self.faults),
            (
                "copied beforehand",
                self.restore_prefaulted_ns,
                self.run_prefaulted_ns,
                self.faults_prefaulted,
            ),
        ] {
            writeln!(
                f,
                "{name:<17}   {:>15}   {:>20}   {faults:>11}",
                time(restore),
                time(run)
            )?;
        }
        let touched = self.faults - self.faults_prefaulted;
        match self.first_touch_ns() {
            cost if cost > 0.0 => write!(
                f,
                "Copying costs {} a page. The guest touched {touched} of {} pages: {} paid later instead of {} at once.",
                time(cost),
                self.pages(),
                time(cost * touched),
                time(cost * self.pages())
            ),
            _ => write!(
                f,
                "The machine is too noisy to tell what copying costs: raise --runs, or quieten it."
            ),
        }?;
        self.conditions.note().map_or(Ok(()), |note| write!(f, "\n{note}"))
    }
}

/// Takes a snapshot and restores it in both ways, by turns.
///
/// # Errors
/// See [`Error`].
pub fn measure(options: &Options, interrupt: &Interrupt) -> Result<Cost, Error> {
    let launchers = Launchers::find(None, None)?;
    let image = Image::build()?;
    let snapshot = image.folder().join("snapshot");
    take(&launchers.vmm, &image, options, &snapshot)?;
    let snapshot_bytes = std::fs::metadata(&snapshot)
        .map_err(|error| Error::Snapshot(error.to_string()))?
        .len();

    let before = Reading::now();
    let mut found = [Vec::new(), Vec::new()];
    for (round, order) in schedule::rounds(2, WARMUPS + options.runs).into_iter().enumerate() {
        for way in order {
            if interrupt.pause(options.gap) {
                return Err(Error::Launch(launch::Error::Interrupted));
            }
            let one = restore(&launchers.vmm, &snapshot, way == 1, interrupt)?;
            if round >= WARMUPS {
                found[way].push(one);
            }
        }
    }
    let median = |way: usize, figure: fn(&Restored) -> u64| {
        let mut values: Vec<u64> = found[way].iter().map(figure).collect();
        median_of(&mut values).unwrap_or(0.0)
    };
    Ok(Cost {
        n: options.runs as u64,
        kvm_backend: host::kvm_backend().into(),
        mark: options.at.name().into(),
        snapshot_bytes,
        restore_ns: median(0, |one| one.restore_ns),
        restore_prefaulted_ns: median(1, |one| one.restore_ns),
        run_ns: median(0, |one| one.run_ns),
        run_prefaulted_ns: median(1, |one| one.run_ns),
        faults: median(0, |one| one.faults),
        faults_prefaulted: median(1, |one| one.faults),
        conditions: before.until_now(&[]),
    })
}

/// Takes a snapshot of a machine that will idle and weighs this many clones of it.
///
/// # Errors
/// See [`Error`].
pub fn weigh_clones(options: &Options, clones: usize, interrupt: &Interrupt) -> Result<clones::Weight, Error> {
    let launchers = Launchers::find(None, None)?;
    let image = Image::build()?;
    let snapshot = image.folder().join("snapshot");
    let idle = Options {
        workload: vec!["idle".into()],
        ..options.clone()
    };
    take(&launchers.vmm, &image, &idle, &snapshot)?;
    clones::weigh(&launchers.vmm, &snapshot, clones, interrupt)
}

fn take(vmm: &Path, image: &Image, options: &Options, file: &PathBuf) -> Result<(), Error> {
    let mut command = Command::new(vmm);
    command.args(["snapshot", "--at", options.at.name(), "--out"]).arg(file);
    command
        .arg("--initrd")
        .arg(image.initrd())
        .arg("--")
        .arg(PROGRAM)
        .args(&options.workload);
    let output = command.output().map_err(|error| Error::Snapshot(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Snapshot(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// One restore.
struct Restored {
    restore_ns: u64,
    run_ns: u64,
    faults: u64,
}

fn restore(vmm: &Path, snapshot: &Path, prefault: bool, interrupt: &Interrupt) -> Result<Restored, Error> {
    let pipe = MarksPipe::new()?;
    let mut command = Command::new(vmm);
    command.args(["restore", "--count-faults", "--marks-fd", &pipe.number().to_string()]);
    if prefault {
        command.arg("--prefault");
    }
    command.arg(snapshot);
    let outcome = launch::launch(&mut command, Some(pipe), LIMIT, interrupt)?;
    read(&outcome).ok_or_else(|| Error::Restore(outcome.complaint(LIMIT)))
}

fn read(outcome: &Outcome) -> Option<Restored> {
    let at = |phase: Phase| {
        outcome
            .marks
            .iter()
            .find(|mark| mark.name == phase.name())
            .map(|mark| mark.ns)
    };
    let ready = at(Phase::VcpuReady)?;
    let faults = outcome.stderr.lines().find_map(|line| {
        let (count, _) = line.strip_prefix("vmm: ")?.split_once(" page faults")?;
        count.parse().ok()
    })?;
    Some(Restored {
        restore_ns: ready - at(Phase::ProcessStart)?,
        run_ns: at(Phase::FirstOutput)? - ready,
        faults,
    })
}
