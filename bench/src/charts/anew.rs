//! Any chart of a results folder, drawn anew from what the folder holds: the race's from its summary and samples, a study's
//! from its findings, the exit timeline from its trace.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Chart, density, draw_all, exits, ledger, line, matrix, running_cost, surface};
use crate::results::Provenance;
use crate::study::results::Study;
use crate::{store, study, trace};

/// The charts of studies: their names, and the names of the studies' files.
const STUDIES: [(&str, &str); 6] = [
    ("density", "density"),
    ("ledger", "memory"),
    ("cost", "cost"),
    ("isolation", "inspect"),
    ("surface", "surface"),
    ("line", "line"),
];
/// The chart of a trace.
const EXITS: &str = "exits";

/// Why a chart cannot be drawn anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The race cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The study cannot be read.
    #[error(transparent)]
    Study(#[from] study::Error),
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] trace::Error),
    /// It cannot be drawn.
    #[error(transparent)]
    Draw(#[from] super::Error),
    /// What it is drawn from is not there.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// This lab draws no such chart.
    #[error("the chart \"{0}\" is none this lab draws from a results folder")]
    Unknown(String),
}

/// A chart drawn anew, and what from.
#[derive(Debug)]
pub struct Anew {
    /// The chart.
    pub chart: Chart,
    /// Samples, readings or exits that lie in the folder.
    pub samples: usize,
    /// Where they came from. None for a trace, which knows the guest's kernel and nothing of the machine.
    pub provenance: Option<Provenance>,
}

/// The study whose chart this is.
pub fn study_of(chart: &str) -> Option<&'static str> {
    STUDIES.iter().find(|(name, _)| *name == chart).map(|(_, study)| *study)
}

/// Draws the chart called `name` from what lies in `folder`, or for the exit timeline from `trace` if that is there.
///
/// # Errors
/// See [`Error`].
pub fn draw(folder: &Path, name: &str, trace: Option<&Path>) -> Result<Anew, Error> {
    match study_of(name) {
        Some(study @ "density") => of_study(folder, study, density::draw),
        Some(study @ "memory") => of_study(folder, study, ledger::draw),
        Some(study @ "cost") => of_study(folder, study, running_cost::draw),
        Some(study @ "inspect") => of_study(folder, study, matrix::draw),
        Some(study @ "line") => of_study(folder, study, line::draw),
        Some(study) => of_study(folder, study, surface::draw),
        None if name == EXITS => of_trace(folder, trace),
        None => of_race(folder, name),
    }
}

/// Draws the chart of every study the folder holds.
///
/// # Errors
/// See [`Error`]. A study that was not made is none.
pub fn of_studies(folder: &Path) -> Result<Vec<Chart>, Error> {
    let made = STUDIES.iter().map(|(name, _)| draw(folder, name, None));
    let charts = made.filter(|drawn| !matches!(drawn, Err(Error::Missing(_))));
    charts.map(|drawn| Ok(drawn?.chart)).collect()
}

fn of_study<T: DeserializeOwned + Serialize>(
    folder: &Path,
    name: &str,
    draw: impl Fn(&Study<T>) -> Result<Chart, super::Error>,
) -> Result<Anew, Error> {
    let missing = || Error::Missing(folder.join(format!("{name}.json")));
    let found: Study<T> = Study::read(folder, name)?.ok_or_else(missing)?;
    // Its readings may have been left behind: the findings are what the chart shows.
    let readings = fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap_or_default();
    Ok(Anew {
        chart: draw(&found)?,
        samples: readings.lines().count(),
        provenance: Some(found.provenance),
    })
}

fn of_trace(folder: &Path, beside: Option<&Path>) -> Result<Anew, Error> {
    let kept = folder.join("trace.jsonl");
    let path = beside.filter(|path| path.is_file()).unwrap_or(&kept);
    if !path.is_file() {
        return Err(Error::Missing(path.to_owned()));
    }
    let trace = trace::read(path)?;
    Ok(Anew {
        chart: exits::draw(&trace)?,
        samples: trace.exits.len(),
        provenance: None,
    })
}

fn of_race(folder: &Path, name: &str) -> Result<Anew, Error> {
    let (summary, samples) = (store::read_summary(folder)?, store::read_samples(folder)?);
    let chart = draw_all(&summary, &samples)?
        .into_iter()
        .find(|chart| chart.name == name);
    Ok(Anew {
        chart: chart.ok_or_else(|| Error::Unknown(name.to_owned()))?,
        samples: samples.len(),
        provenance: Some(summary.provenance),
    })
}
