//! Studies: what isolation costs while it runs, and what it buys. Each has a file here, a file of results and a chart.
//!
//! [`memory`] weighs one idle instance, [`density`] many; [`cost`] times work inside; [`inspect`] asks where it is, [`surface`] how much of
//! the host it can reach; [`mod@line`] counts what a guest pays to print. A study writes `NAME.json` and `NAME.jsonl` (see [`results`])
//! into a results folder, which may hold a race already, and `charts/NAME.svg` beside them.

mod books;
pub mod cost;
pub mod density;
pub mod inspect;
mod instances;
pub mod line;
pub mod memory;
pub mod results;
pub mod surface;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::accounting::{self, Accounting};
use crate::conditions::{self, Reading, Resource};
use crate::contenders::{self, Contender, NAMES, Setup};
use crate::image::{self, Image};
use crate::interrupt::Interrupt;
use crate::launchers::{self, Launchers};
use crate::results::Provenance;
use crate::{charts, compare, launch, provenance, series_namespace};
use results::{Entry, SCHEMA, Study};

/// What keeps a study from its figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No launchers.
    #[error(transparent)]
    Launchers(#[from] launchers::Error),
    /// No image.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// No accounting cgroup.
    #[error("{0}. Run as root, or where cgroups are delegated")]
    Accounting(#[from] accounting::Error),
    /// The harness could not launch.
    #[error(transparent)]
    Launch(#[from] launch::Error),
    /// No chart.
    #[error(transparent)]
    Chart(#[from] charts::Error),
    /// A launch among others could not be made.
    #[error(transparent)]
    Race(#[from] crate::race::Error),
    /// A file a launch needs could not be written.
    #[error("cannot prepare a launch of {contender}: {source}")]
    Prepare {
        /// Which contender.
        contender: String,
        /// Why.
        source: io::Error,
    },
    /// A workload never idled.
    #[error("{contender}: its launcher {complaint}. {fix}")]
    NotIdle {
        /// Which contender.
        contender: String,
        /// What happened instead.
        complaint: String,
        /// What would change that.
        fix: String,
    },
    /// Not even a plain process can be run.
    #[error("cannot run a plain process to ask whether the host lives: {0}")]
    NoHost(String),
    /// A file could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel tells nothing to compare with.
    #[error("/proc/meminfo has no MemAvailable: this needs Linux 3.14 or later, and /proc mounted")]
    NoMemAvailable,
    /// So many instances need more descriptors than this process may have.
    #[error("cannot hold {needed} descriptors: {source}. Raise the limit (ulimit -Hn {needed}) or lower --up-to")]
    Descriptors {
        /// How many.
        needed: u64,
        /// Why not.
        source: io::Error,
    },
    /// Not what this lab writes.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A later lab wrote it.
    #[error("{} has schema {found}; this lab reads up to schema {SCHEMA}. Use the lab that wrote it, or a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// The findings could not be put into JSON.
    #[error("cannot write the findings as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// For `map_err`: what was tried on which file.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { what, path, source }
    }
}

/// The studies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Weigh one idle instance of each contender: everything it costs the host, against what the host lost.
    Memory(memory::Options),
    /// Memory against the number of idle instances, and its slope: what one more costs.
    Density(density::Options),
    /// What work costs inside: processor, memory, system calls, relative to a plain process.
    Cost(cost::Options),
    /// Ask the same program inside every contender where it is, and look from the host at who runs.
    Inspect(inspect::Options),
    /// How much of the host can be reached from inside each, and who survives what the workload does.
    Surface(surface::Options),
    /// What it costs a guest to print one line: by serial port, debug port and virtio console, exits and microseconds.
    Line(line::Options),
}

/// What every study takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The results folder, which may hold a race already [default: lab-results/TIME].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs a study; returns what to print.
///
/// # Errors
/// See [`Error`].
pub fn run(command: &Command, interrupt: &Interrupt) -> Result<String, Error> {
    match command {
        Command::Memory(options) => memory::run(options, interrupt),
        Command::Density(options) => density::run(options, interrupt),
        Command::Cost(options) => cost::run(options, interrupt),
        Command::Inspect(options) => inspect::run(options, interrupt),
        Command::Surface(options) => surface::run(options, interrupt),
        Command::Line(options) => line::run(options, interrupt),
    }
}

/// What a study stands on: launchers, image, accounting, a place for results.
struct Bench {
    name: &'static str,
    folder: PathBuf,
    readings: File,
    launchers: Launchers,
    image: Image,
    accounting: Option<Accounting>,
    provenance: Provenance,
    /// The machine before the study.
    before: Reading,
    /// What the study itself takes up.
    own: Vec<Resource>,
    notes: Vec<String>,
}

impl Bench {
    fn set_up(name: &'static str, common: &Common, contenders: &[String], n: u64) -> Result<Bench, Error> {
        let folder = common.out.clone().unwrap_or_else(compare::default_folder);
        let charts = folder.join("charts");
        fs::create_dir_all(&charts).map_err(Error::file("make the folder", &charts))?;
        let path = folder.join(format!("{name}.jsonl"));
        let readings = File::create(&path).map_err(Error::file("write", &path))?;
        let mut notes = Vec::new();
        let accounting = match Accounting::create() {
            Ok(accounting) => Some(accounting),
            Err(error) => {
                notes.push(format!(
                    "No accounting cgroup: {error}. Run as root to have its figures."
                ));
                None
            }
        };
        notes.extend(series_namespace::enter_if_crun_needs_it(contenders));
        Ok(Bench {
            name,
            folder,
            readings,
            launchers: Launchers::find(None, None)?,
            image: Image::build()?,
            accounting,
            provenance: Provenance {
                n,
                ..provenance::collect()
            },
            // Behind the image and the accounting, which are nobody's measurement.
            before: Reading::now(),
            own: conditions::daemons(contenders),
            notes,
        })
    }

    /// The contender of this name. Such as run no workload are refused: there is nothing of theirs that idles or works.
    fn contender(&self, name: &str) -> Result<Box<dyn Contender>, contenders::Skipped> {
        let setup = Setup {
            image: &self.image,
            launchers: &self.launchers,
            cgroup: self.accounting.as_ref().and_then(Accounting::path),
        };
        let contender = contenders::prepare(name, &setup)?;
        match contender.runs_the_workload() {
            true => Ok(contender),
            false => Err(contenders::Skipped {
                reason: "it runs no workload".into(),
                fix: format!("choose from {}", NAMES.join(", ")),
            }),
        }
    }

    /// Keeps one reading.
    fn note(&mut self, reading: &impl Serialize) -> Result<(), Error> {
        let line = serde_json::to_string(reading)? + "\n";
        let path = self.folder.join(format!("{}.jsonl", self.name));
        self.readings
            .write_all(line.as_bytes())
            .map_err(Error::file("write", &path))
    }

    /// Writes the findings, and with them whether others disturbed the study.
    fn finish<T: Serialize>(mut self, contenders: Vec<Entry<T>>) -> Result<(Study<T>, PathBuf), Error> {
        self.before.close(&mut self.provenance, &self.own);
        let study = Study {
            schema: SCHEMA,
            study: self.name.into(),
            provenance: self.provenance,
            contenders,
            notes: self.notes,
        };
        let path = self.folder.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(&study)? + "\n";
        fs::write(&path, text).map_err(Error::file("write", &path))?;
        Ok((study, self.folder))
    }
}

/// Writes a chart into a results folder.
fn keep(chart: &charts::Chart, folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(format!("charts/{}.svg", chart.name));
    fs::write(&path, &chart.svg).map_err(Error::file("write", &path))?;
    Ok(path)
}

/// The lines below a study's table: who was skipped, what to know, where the files are.
fn footer<T>(study: &Study<T>, folder: &Path, chart: Option<&Path>) -> String {
    let paper = crate::table::Paper::of_stdout();
    let mut text = String::new();
    for entry in &study.contenders {
        if let (Some(reason), Some(fix)) = (&entry.reason, &entry.fix) {
            text += &crate::table::paragraph(&format!("{}: {reason}. {fix}.", entry.name), 2, paper);
        }
    }
    for note in study.notes.iter().chain(&study.provenance.notes) {
        text += &crate::table::paragraph(note, 2, paper);
    }
    text += &format!(
        "\nresults: {}\n",
        folder.join(format!("{}.json", study.study)).display()
    );
    if let Some(chart) = chart {
        text += &format!("chart:   {}\n", chart.display());
    }
    text
}

/// Repeated names once.
fn once_each(names: &[String]) -> Vec<String> {
    let mut each: Vec<String> = Vec::new();
    for name in names {
        if !each.contains(name) {
            each.push(name.clone());
        }
    }
    each
}
