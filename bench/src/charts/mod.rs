//! Charts: what the samples look like, as SVG.
//!
//! Each says in its title what it shows, a sentence computed from the data, and in its caption where the data came
//! from. Labels stand at what they name, so that no reader has to match colours with a legend; the colours are those
//! Okabe and Ito chose so that every kind of colour vision tells them apart (<https://jfly.uni-koeln.de/color/>).

pub mod anew;
mod canvas;
pub mod density;
pub mod exits;
mod ladder;
mod layout;
pub mod ledger;
pub mod line;
pub mod matrix;
mod memory;
pub(crate) mod modes;
mod phases;
pub mod running_cost;
mod startup;
mod study;
pub mod surface;

use std::io;
use std::path::{Path, PathBuf};

use plotters::style::RGBColor;

use canvas::{Canvas, GREY, SMALL_SIZE};
pub use canvas::{Hint, escape};

use crate::results::{Provenance, Sample, Summary};
use crate::trace::Trace;
use crate::words;

/// Why a chart could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The drawing itself failed.
    #[error("cannot draw the chart: {why}. The data holds a figure no chart can show; look at samples.jsonl")]
    Draw {
        /// What plotters said.
        why: String,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}. Choose a folder you may write to, with space left", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The provenance could not be put into words.
    #[error("cannot write the provenance as JSON: {0}. A load average or ratio in the summary is not a number")]
    Metadata(#[from] serde_json::Error),
}

/// A chart in memory.
#[derive(Clone, Debug)]
pub struct Chart {
    /// `startup`, `phases`, `memory` or `exits`: the file's name without its ending.
    pub name: &'static str,
    /// The sentence it shows.
    pub title: String,
    /// The SVG.
    pub svg: String,
    /// What its parts say when they are pointed at.
    pub hints: Vec<Hint>,
}

/// Draws every chart: start-up, phases, memory.
pub fn draw_all(summary: &Summary, samples: &[Sample]) -> Result<Vec<Chart>, Error> {
    // A ladder has no memory and no phases: it is phases. So with series under other conditions.
    let sheets = match (ladder::sheet(summary, samples), modes::sheet(summary)) {
        (Some(ladder), _) => vec![("ladder", ladder)],
        (None, Some(modes)) => vec![("modes", modes)],
        (None, None) => vec![
            ("startup", startup::sheet(summary, samples)),
            ("phases", phases::sheet(summary)),
            ("memory", memory::sheet(summary)),
        ],
    };
    sheets
        .into_iter()
        .map(|(name, (title, mut canvas))| {
            caption(&mut canvas, summary);
            let metadata = serde_json::json!({ "chart": name, "title": title, "provenance": summary.provenance });
            let hints = canvas.take_hints();
            let svg = canvas.into_svg(&title, &serde_json::to_string(&metadata)?)?;
            Ok(Chart {
                name,
                title,
                svg,
                hints,
            })
        })
        .collect()
}

/// The start-up chart once more for a page that can switch: both axes, each with the values a script can read off it.
#[derive(Clone, Debug)]
pub struct Switchable {
    /// The SVG.
    pub svg: String,
    /// Place of the plot and percentiles of the curves, as JSON; None when nothing was timed.
    pub values: Option<String>,
}

/// Draws the start-up chart with a logarithmic and with a linear axis.
///
/// # Errors
/// See [`Error`].
pub fn startup_both_ways(summary: &Summary, samples: &[Sample]) -> Result<[Switchable; 2], Error> {
    let draw = |axis| -> Result<Switchable, Error> {
        let (title, mut canvas, place) = startup::sheet_on(summary, samples, axis);
        caption(&mut canvas, summary);
        let metadata = serde_json::json!({ "chart": "startup", "title": title, "provenance": summary.provenance });
        let values = place.map(|place| startup::values(summary, samples, axis, place).to_string());
        Ok(Switchable {
            svg: canvas.into_svg(&title, &serde_json::to_string(&metadata)?)?,
            values,
        })
    };
    Ok([draw(startup::Axis::Log)?, draw(startup::Axis::Linear)?])
}

/// Draws every chart into the folder `charts`, which is made when it is not there. Returns the files.
pub fn write_all(summary: &Summary, samples: &[Sample], charts: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        |source| Error::Write { path, source }
    };
    std::fs::create_dir_all(charts).map_err(failed(charts))?;
    draw_all(summary, samples)?
        .into_iter()
        .map(|chart| {
            let path = charts.join(format!("{}.svg", chart.name));
            std::fs::write(&path, chart.svg).map_err(failed(&path))?;
            Ok(path)
        })
        .collect()
}

/// Draws the charts of every study the results folder holds into its folder `charts`. Returns the files.
///
/// # Errors
/// When a study cannot be read, drawn or its chart written.
pub fn write_studies(folder: &Path) -> Result<Vec<PathBuf>, anew::Error> {
    let charts = anew::of_studies(folder)?;
    let place = folder.join("charts");
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        |source| Error::Write { path, source }
    };
    if !charts.is_empty() {
        std::fs::create_dir_all(&place).map_err(failed(&place))?;
    }
    let write = |chart: Chart| {
        let path = place.join(format!("{}.svg", chart.name));
        std::fs::write(&path, chart.svg).map_err(failed(&path))?;
        Ok(path)
    };
    charts.into_iter().map(write).collect()
}

/// Draws the exit timeline of a trace into `path`.
pub fn write_exits(trace: &Trace, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.into(),
        source,
    };
    std::fs::write(path, exits::draw(trace)?.svg).map_err(failed)
}

/// Colours of Okabe and Ito; their yellow, too faint for a line on white, gives way to a grey.
mod okabe_ito {
    use super::RGBColor;
    pub const BLACK: RGBColor = RGBColor(0, 0, 0);
    pub const ORANGE: RGBColor = RGBColor(230, 159, 0);
    pub const SKY_BLUE: RGBColor = RGBColor(86, 180, 233);
    pub const GREEN: RGBColor = RGBColor(0, 158, 115);
    pub const BLUE: RGBColor = RGBColor(0, 114, 178);
    pub const VERMILION: RGBColor = RGBColor(213, 94, 0);
    pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
    pub const GREY: RGBColor = RGBColor(153, 153, 153);
}

/// A contender's colour: the five the lab knows keep theirs in every chart; others share what is left.
fn color(summary: &Summary, name: &str) -> RGBColor {
    use okabe_ito::{BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY_BLUE, VERMILION};
    const KNOWN: [(&str, RGBColor); 5] = [
        ("process", BLACK),
        ("container", BLUE),
        ("vm", VERMILION),
        ("crun", GREEN),
        ("runc", PURPLE),
    ];
    const OTHERS: [RGBColor; 3] = [ORANGE, SKY_BLUE, GREY];
    let known = |name: &str| KNOWN.iter().find(|(known, _)| *known == name).map(|(_, color)| *color);
    known(name).unwrap_or_else(|| {
        let others = summary
            .contenders
            .iter()
            .filter(|contender| known(&contender.name).is_none());
        let place = others.take_while(|contender| contender.name != name).count();
        OTHERS[place % OTHERS.len()]
    })
}

/// Who is not in the chart and why, where the data came from, and what to know about it.
fn caption(canvas: &mut Canvas, summary: &Summary) {
    canvas.y += 8.0;
    let (_, skipped) = words::measured_and_skipped(summary);
    if !skipped.is_empty() {
        let each = skipped.iter().map(|contender| {
            format!(
                "{} ({})",
                contender.name,
                words::brief(contender.reason.as_deref().unwrap_or("no reason was recorded"))
            )
        });
        let line = format!("Not raced here: {}.", each.collect::<Vec<_>>().join("; "));
        canvas.paragraph(&line, SMALL_SIZE, GREY, false);
    }
    canvas.paragraph(&origin(&summary.provenance), SMALL_SIZE, GREY, false);
    let notes = summary
        .provenance
        .notes
        .iter()
        .map(|note| format!("{}.", note.trim_end_matches('.')));
    canvas.paragraph(&notes.collect::<Vec<_>>().join(" "), SMALL_SIZE, GREY, false);
}

/// Where a result came from, in one line.
pub fn origin(provenance: &Provenance) -> String {
    let under = match (provenance.emulated, provenance.nested) {
        (true, _) => ", emulated",
        (false, true) => ", itself a guest",
        (false, false) => "",
    };
    let mut parts = vec![
        format!("n = {} each", provenance.n),
        format!("{}, {} CPUs{under}", provenance.cpu, provenance.cpus),
        format!("Linux {}", provenance.kernel),
        format!("KVM backend {}", provenance.kvm_backend),
        format!("cgroup {}", provenance.cgroup_mode),
        format!("load {:.1}", provenance.load[0]),
        format!("governor {}", provenance.governor.as_deref().unwrap_or("none")),
        format!("THP {}", provenance.thp),
        format!("KSM {}", if provenance.ksm { "on" } else { "off" }),
        provenance.date.clone(),
    ];
    parts.extend(
        provenance
            .git_revision
            .iter()
            .map(|revision| format!("lab {}", words::short_revision(revision))),
    );
    parts.join(" · ") + "."
}

#[cfg(test)]
mod tests;
