//! `lab explain CHART.svg`: where a chart came from, and whether its samples still say the same.
//!
//! Every chart carries its provenance in its `<metadata>`. If what it was drawn from is still around it (a race's samples, a
//! study's findings, a trace), the chart is drawn anew from it and compared byte for byte.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::charts::anew;
use crate::results::Provenance;
use crate::{charts, words};

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
    /// A trace of exits has none.
    provenance: Option<Provenance>,
    /// The kernel whose exits it shows; only there.
    kernel: Option<String>,
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
    /// Where it came from. None for a chart of exits: a trace tells the guest's kernel and nothing of the machine.
    pub provenance: Option<Provenance>,
    /// The kernel whose exits it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
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
    if found.provenance.is_none() && found.kernel.is_none() {
        return Err(foreign("it tells neither a machine nor a guest's kernel".into()));
    }
    let folder = results
        .map(Path::to_owned)
        .or_else(|| Some(path.canonicalize().ok()?.parent()?.parent()?.to_owned()));
    Ok(Explained {
        redrawn: redraw(path, &svg, &found, folder.as_deref()),
        chart: found.chart,
        title: found.title,
        provenance: found.provenance,
        kernel: found.kernel,
    })
}

fn redraw(path: &Path, svg: &str, found: &Metadata, folder: Option<&Path>) -> Redrawn {
    let gone = |why: String| Redrawn::Gone { why };
    let Some(folder) = folder else {
        return gone("the chart lies in no results folder; name one with --results".into());
    };
    // `lab charts --trace FILE` puts the chart beside the trace, under its name.
    let trace = path.with_extension("jsonl");
    let drawn = match anew::draw(folder, &found.chart, Some(&trace)) {
        Ok(drawn) => drawn,
        Err(error) => return gone(error.to_string()),
    };
    if let (Some(there), Some(here)) = (&drawn.provenance, &found.provenance)
        && there.date != here.date
    {
        return gone(format!(
            "{} holds the run of {}, the chart is of {}",
            folder.display(),
            there.date,
            here.date
        ));
    }
    let samples = drawn.samples;
    if drawn.chart.svg == svg {
        return Redrawn::Same { samples };
    }
    let beside = path.with_extension("anew.svg");
    match std::fs::write(&beside, drawn.chart.svg) {
        Ok(()) => Redrawn::Differs {
            samples,
            anew: beside,
            why: "the samples, what was computed from them, the chart or the lab that draws it changed since".into(),
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
        writeln!(out, "{}", self.title)?;
        writeln!(out, "  chart      {}", self.chart)?;
        if let Some(from) = &self.provenance {
            machine(out, from)?;
        }
        if let Some(kernel) = &self.kernel {
            writeln!(
                out,
                "  from       a trace of {kernel}; a trace tells nothing of its machine"
            )?;
        }
        match &self.redrawn {
            Redrawn::Same { samples } => {
                writeln!(
                    out,
                    "  samples    {samples} are there; drawn anew the chart is the same, byte for byte"
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

fn machine(out: &mut fmt::Formatter, from: &Provenance) -> fmt::Result {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use crate::results::{Sample, Summary};
    use crate::store::{self, Folder};
    use crate::trace;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let (summary, samples) = examples::typical_run();
        folder_of(&summary, &samples)
    }

    /// The results in a folder, with their charts; and where its start-up chart would be.
    fn folder_of(summary: &Summary, samples: &[Sample]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::create(dir.path()).unwrap();
        for sample in samples {
            folder.append(sample).unwrap();
        }
        folder.write_summary(summary).unwrap();
        charts::write_all(summary, samples, &dir.path().join("charts")).unwrap();
        let chart = dir.path().join("charts/startup.svg");
        (dir, chart)
    }

    #[test]
    fn a_chart_is_drawn_anew_from_its_samples() {
        let (_dir, chart) = folder();
        let found = explain(&chart, None).unwrap();
        assert_eq!(found.chart, "startup");
        assert_eq!(found.provenance, Some(examples::typical().provenance));
        assert!(
            matches!(found.redrawn, Redrawn::Same { samples } if samples > 100),
            "{:?}",
            found.redrawn
        );
        assert!(found.to_string().contains("byte for byte"), "{found}");
    }

    #[test]
    fn every_chart_of_every_kind_of_race_is_drawn_anew() {
        let modes = charts::modes::example(&["process", "vm"], &[1, 2, 4]);
        let runs = [
            (examples::typical_run(), &["startup", "phases", "memory"][..]),
            (examples::without_kvm_run(), &["startup", "phases", "memory"]),
            (crate::ladder::example(), &["ladder"]),
            ((modes, Vec::new()), &["modes"]),
        ];
        for ((summary, samples), names) in runs {
            let (dir, _) = folder_of(&summary, &samples);
            let drawn = std::fs::read_dir(dir.path().join("charts")).unwrap().count();
            assert_eq!(drawn, names.len(), "{names:?}");
            for name in names {
                let found = explain(&dir.path().join(format!("charts/{name}.svg")), None).unwrap();
                let samples = samples.len();
                assert_eq!(
                    (found.redrawn, found.chart.as_str()),
                    (Redrawn::Same { samples }, *name)
                );
            }
        }
    }

    #[test]
    fn exits_are_drawn_anew_from_the_trace_beside_them_or_in_the_folder() {
        const TRACE: &str = concat!(
            r#"{"trace":1,"kernel":"the lab kernel","vcpus":1}"#,
            "\n",
            r#"{"vcpu":0,"left_ns":2000,"guest_ns":1000,"host_ns":500,"reason":"port write","device":"exit"}"#,
            "\n"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("charts")).unwrap();
        for (file, chart) in [("mine.jsonl", "mine.svg"), ("trace.jsonl", "charts/exits.svg")] {
            let (file, chart) = (dir.path().join(file), dir.path().join(chart));
            std::fs::write(&file, TRACE).unwrap();
            charts::write_exits(&trace::read(&file).unwrap(), &chart).unwrap();
            let found = explain(&chart, None).unwrap();
            assert_eq!(
                (&found.redrawn, &found.provenance),
                (&Redrawn::Same { samples: 1 }, &None)
            );
            assert!(found.to_string().contains("a trace of the lab kernel"), "{found}");
            std::fs::remove_file(&file).unwrap();
            let gone = explain(&chart, None).unwrap().redrawn;
            assert!(matches!(gone, Redrawn::Gone { .. }), "{gone:?}");
        }
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
