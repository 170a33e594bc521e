//! `lab explain CHART.svg`: where a chart came from, and whether its samples still say the same.
//!
//! Every chart carries its provenance in its `<metadata>`. If the results folder is still around it, the chart is drawn
//! anew from the samples and compared byte for byte.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::results::Provenance;
use crate::{charts, store, words};

/// Why a chart cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("cannot read the chart {}: {source}", path.display())]
    Read {
        /// The chart.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no chart of this lab's.
    #[error(
        "{} carries no provenance of this lab's: {problem}. Either another program drew it, or one that saved it again \
         dropped its <metadata>",
        path.display()
    )]
    Foreign {
        /// The chart.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
}

/// What a chart's `<metadata>` holds.
#[derive(Debug, Deserialize)]
struct Metadata {
    chart: String,
    title: String,
    provenance: Provenance,
}

/// What became of the samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Redrawn {
    /// Drawn anew from its samples it is the same, byte for byte.
    Same {
        /// How many samples the folder holds.
        samples: usize,
    },
    /// It differs; the chart drawn anew lies beside it.
    Differs {
        /// How many samples the folder holds.
        samples: usize,
        /// The chart drawn anew.
        anew: PathBuf,
        /// What may have changed.
        why: String,
    },
    /// There is nothing to draw it from.
    Gone {
        /// What is missing.
        why: String,
    },
}

/// A chart, explained.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// `startup`, `phases`, ...
    pub chart: String,
    /// The sentence it shows.
    pub title: String,
    /// Where it came from.
    pub provenance: Provenance,
    /// Whether its samples still say so.
    pub redrawn: Redrawn,
}

/// Explains the chart at `path`; its results folder is `results`, or else the folder above the chart's own.
///
/// # Errors
/// [`Error::Read`] and [`Error::Foreign`]. Samples that are gone are no error but an answer.
pub fn explain(path: &Path, results: Option<&Path>) -> Result<Explained, Error> {
    let svg = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    let foreign = |problem: String| Error::Foreign {
        path: path.into(),
        problem,
    };
    let text = svg
        .split_once("<metadata>")
        .and_then(|(_, rest)| rest.split_once("</metadata>"))
        .ok_or_else(|| foreign("it has no <metadata>".into()))?
        .0;
    let found: Metadata = serde_json::from_str(&unescape(text)).map_err(|error| foreign(error.to_string()))?;
    let folder = results
        .map(Path::to_owned)
        .or_else(|| Some(path.canonicalize().ok()?.parent()?.parent()?.to_owned()));
    Ok(Explained {
        redrawn: redraw(path, &svg, &found, folder.as_deref()),
        chart: found.chart,
        title: found.title,
        provenance: found.provenance,
    })
}

fn redraw(path: &Path, svg: &str, found: &Metadata, folder: Option<&Path>) -> Redrawn {
    let gone = |why: String| Redrawn::Gone { why };
    let Some(folder) = folder else {
        return gone("the chart lies in no results folder; name one with --results".into());
    };
    let (summary, samples) = match (store::read_summary(folder), store::read_samples(folder)) {
        (Ok(summary), Ok(samples)) => (summary, samples),
        (Err(error), _) | (_, Err(error)) => return gone(error.to_string()),
    };
    if summary.provenance.date != found.provenance.date {
        return gone(format!(
            "{} holds the run of {}, the chart is of {}",
            folder.display(),
            summary.provenance.date,
            found.provenance.date
        ));
    }
    let charts = match charts::draw_all(&summary, &samples) {
        Ok(charts) => charts,
        Err(error) => return gone(error.to_string()),
    };
    let Some(anew) = charts.into_iter().find(|chart| chart.name == found.chart) else {
        return gone(format!(
            "the chart \"{}\" is not drawn from samples.jsonl by this lab",
            found.chart
        ));
    };
    let samples = samples.len();
    if anew.svg == svg {
        return Redrawn::Same { samples };
    }
    let beside = path.with_extension("anew.svg");
    match std::fs::write(&beside, anew.svg) {
        Ok(()) => Redrawn::Differs {
            samples,
            anew: beside,
            why: "the samples, the summary, the chart or the lab that draws it changed since".into(),
        },
        Err(error) => gone(format!("cannot write {}: {error}", beside.display())),
    }
}

/// Undoes [`charts::escape`].
fn unescape(text: &str) -> String {
    // The ampersand last: it is what the others are written with.
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

impl fmt::Display for Explained {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let from = &self.provenance;
        writeln!(out, "{}", self.title)?;
        writeln!(out, "  chart      {}", self.chart)?;
        writeln!(out, "  from       {}", charts::origin(from))?;
        writeln!(out, "  command    {}", from.command.join(" "))?;
        writeln!(
            out,
            "  workload   {} (sha256 {})",
            from.workload.join(" "),
            from.workload_sha256
        )?;
        if let Some(kernel) = &from.kernel_sha256 {
            writeln!(out, "  kernel     lab kernel (sha256 {kernel})")?;
        }
        if let Some(guess) = from.prediction {
            writeln!(out, "  guess      {} times, made before the race", words::ratio(guess))?;
        }
        for note in &from.notes {
            writeln!(out, "  note       {note}")?;
        }
        match &self.redrawn {
            Redrawn::Same { samples } => {
                writeln!(
                    out,
                    "  samples    {samples} are there; drawn anew from them the chart is the same, byte for byte"
                )
            }
            Redrawn::Differs { samples, anew, why } => writeln!(
                out,
                "  samples    {samples} are there, but drawn anew the chart differs: {why}. The new one is {}",
                anew.display()
            ),
            Redrawn::Gone { why } => writeln!(out, "  samples    gone, so nothing could be drawn anew: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use crate::store::Folder;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (summary, samples) = examples::typical_run();
        let mut folder = Folder::create(dir.path()).unwrap();
        for sample in &samples {
            folder.append(sample).unwrap();
        }
        folder.write_summary(&summary).unwrap();
        charts::write_all(&summary, &samples, &dir.path().join("charts")).unwrap();
        let chart = dir.path().join("charts/startup.svg");
        (dir, chart)
    }

    #[test]
    fn a_chart_is_drawn_anew_from_its_samples() {
        let (_dir, chart) = folder();
        let found = explain(&chart, None).unwrap();
        assert_eq!(found.chart, "startup");
        assert_eq!(found.provenance, examples::typical().provenance);
        assert!(
            matches!(found.redrawn, Redrawn::Same { samples } if samples > 100),
            "{:?}",
            found.redrawn
        );
        assert!(found.to_string().contains("byte for byte"), "{found}");
    }

    #[test]
    fn a_chart_that_was_changed_differs() {
        let (dir, chart) = folder();
        let svg = std::fs::read_to_string(&chart).unwrap();
        std::fs::write(&chart, svg.replace("2.3", "9.9")).unwrap();
        let found = explain(&chart, None).unwrap();
        assert!(matches!(found.redrawn, Redrawn::Differs { .. }), "{:?}", found.redrawn);
        assert!(dir.path().join("charts/startup.anew.svg").is_file());
    }

    #[test]
    fn samples_that_are_gone_are_said_to_be() {
        let (dir, chart) = folder();
        std::fs::remove_file(dir.path().join(store::SAMPLES)).unwrap();
        let found = explain(&chart, None).unwrap();
        let said = found.to_string();
        assert!(said.contains("gone") && said.contains("samples.jsonl"), "{said}");
        assert!(
            said.contains("Example Processor"),
            "the provenance is in the chart itself: {said}"
        );
    }

    #[test]
    fn another_programs_picture_is_no_chart() {
        let dir = tempfile::tempdir().unwrap();
        let picture = dir.path().join("picture.svg");
        std::fs::write(&picture, "<svg></svg>").unwrap();
        let said = explain(&picture, None).unwrap_err().to_string();
        assert!(said.contains("no provenance"), "{said}");
    }
}
