//! The report: one HTML file that holds the verdict, every chart with its table, how it was measured and on what.
//!
//! It opens from a disk without a network: style, charts and a little script are inside, and nothing refers to another
//! file. Without the script it is whole; with it tables can be sorted and the start-up chart switched and read. All text that comes from data goes through [`html::escape`](crate::charts::escape).

mod html;
mod others;
mod sections;
mod studies;

use std::io;
use std::path::{Path, PathBuf};

use crate::charts;
use crate::results::{Sample, Summary};
use crate::verdict;
use html::{escape, paragraph};
use others::Other;

/// Name of the report in the results folder.
const FILE: &str = "report.html";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A chart of it could not be drawn.
    #[error("cannot draw the report's charts: {0}")]
    Charts(#[from] charts::Error),
    /// The file could not be written.
    #[error("cannot write the report {}: {source}. Choose a folder that exists, that you may write to, with space left", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes `report.html` into the results folder `folder`, which must exist. Returns the file.
pub fn write(summary: &Summary, samples: &[Sample], folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(FILE);
    let page = page(summary, samples, &others::find(folder))?;
    match std::fs::write(&path, page) {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::Write { path, source }),
    }
}

/// What a chart is about; what it shows is its own title.
fn topic(chart: &str) -> &'static str {
    match chart {
        "startup" => "How long a start takes",
        "phases" => "Where the time goes",
        _ => "What an instance holds in memory",
    }
}

/// The whole page.
fn page(summary: &Summary, samples: &[Sample], others: &[Other]) -> Result<String, Error> {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Isolation Lab: VM against container</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        include_str!("page.css")
    );
    page.push_str("<h1>Isolation Lab: what does it cost to start a VM rather than a container?</h1>\n");
    page.push_str(&format!(
        "<p class=\"verdict\">{}</p>\n",
        escape(&verdict::sentence(summary))
    ));
    page.push_str(&format!(
        "<p class=\"second\">{}</p>\n",
        escape(&charts::origin(&summary.provenance))
    ));
    for chart in charts::draw_all(summary, samples)? {
        page.push_str(&format!("<section>\n<h2>{}</h2>\n", topic(chart.name)));
        if chart.name == "startup" {
            let [log, linear] = charts::startup_both_ways(summary, samples)?;
            page.push_str(&html::switchable(&log.svg, "log", log.values.as_deref(), true));
            page.push_str(&html::switchable(
                &linear.svg,
                "linear",
                linear.values.as_deref(),
                false,
            ));
        } else {
            page.push_str(&html::figure(&chart.svg));
        }
        page.push_str(&match chart.name {
            "startup" => sections::startup(summary),
            "phases" => sections::phases(summary),
            _ => sections::memory(summary),
        });
        page.push_str("</section>\n");
    }
    for other in others {
        page.push_str(&other.section());
    }
    page.push_str(&sections::skipped(summary));
    page.push_str(&sections::method(summary));
    page.push_str(&sections::machine(summary));
    page.push_str(&paragraph(
        "Every sample behind these figures is in samples.jsonl beside this file; none was trimmed. The figures computed \
         from them are in summary.json.",
    ));
    page.push_str(&format!(
        "<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page.js")
    ));
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    fn runs() -> [(Summary, Vec<Sample>); 5] {
        [
            examples::typical_run(),
            examples::without_kvm_run(),
            examples::many_run(),
            examples::single_run(),
            examples::empty_run(),
        ]
    }

    #[test]
    fn every_contender_is_in_the_report_and_every_reason() {
        for (summary, samples) in runs() {
            let page = page(&summary, &samples, &[]).unwrap();
            for contender in &summary.contenders {
                assert!(
                    page.contains(&format!("<td>{}", contender.name)),
                    "{} is missing",
                    contender.name
                );
                for text in contender.reason.iter().chain(&contender.fix) {
                    assert!(page.contains(&escape(text)), "{text} is missing");
                }
            }
            assert!(page.contains(&escape(&verdict::sentence(&summary))));
            assert_eq!(
                page.matches("<svg").count(),
                4,
                "the start-up chart twice, one of them hidden"
            );
        }
    }

    #[test]
    fn nothing_is_fetched_and_only_our_script_runs() {
        for (summary, samples) in runs() {
            let page = page(&summary, &samples, &[]).unwrap();
            for reference in [
                "http:",
                "https:",
                "src=",
                "href=",
                "url(",
                "@import",
                "<link",
                "<iframe",
                "fetch(",
                "import(",
                "innerHTML",
                "eval(",
            ] {
                assert!(!page.contains(reference), "the report holds {reference}");
            }
            assert_eq!(page.matches("<script").count(), 1);
        }
    }

    #[test]
    fn data_cannot_become_markup() {
        let hostile = "</title></style></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&";
        let (mut summary, mut samples) = examples::typical_run();
        summary.provenance.cpu = hostile.into();
        summary.provenance.notes = vec![hostile.into()];
        summary.provenance.command = vec![hostile.into()];
        for contender in &mut summary.contenders {
            if contender.name == "runc" {
                contender.name = hostile.into();
                contender.reason = Some(hostile.into());
                contender.fix = Some(hostile.into());
                contender.status = crate::results::Status::Skipped;
            }
            contender.details.insert(hostile.into(), hostile.into());
            contender
                .phases
                .iter_mut()
                .for_each(|phase| phase.name = hostile.into());
        }
        samples
            .iter_mut()
            .for_each(|sample| sample.contender = sample.contender.replace("runc", hostile));
        let page = page(&summary, &samples, &[]).unwrap();
        for tag in ["<script>alert", "<img", "</svg><", "</style><"] {
            assert!(!page.contains(tag), "{tag}");
        }
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains(&escape(hostile)));
    }

    #[test]
    fn tags_are_balanced() {
        for (summary, samples) in runs() {
            let page = page(&summary, &samples, &[]).unwrap();
            for tag in [
                "table", "tr", "td", "th", "section", "figure", "div", "dl", "dt", "dd", "p", "svg", "text",
            ] {
                let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
                assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
            }
        }
    }

    #[test]
    fn it_is_one_file_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (summary, samples) = examples::typical_run();
        let file = write(&summary, &samples, folder.path()).unwrap();
        assert_eq!(file, folder.path().join("report.html"));
        assert!(std::fs::read_to_string(file).unwrap().ends_with("</html>\n"));
        let missing = folder.path().join("missing");
        let error = write(&summary, &samples, &missing).unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains("No such file"), "{error}");
    }
}
