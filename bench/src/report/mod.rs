//! The report: one HTML file that holds the verdict, every chart with its table, how it was measured and on what.
//!
//! It opens from a disk without a network: style, charts and a little script are inside, and nothing refers to another
//! file. Without the script it is whole; with it tables can be sorted, the start-up chart switched, and charts read. All text that comes from data goes through [`html::escape`](crate::charts::escape).

mod html;
mod others;
mod sections;
mod studies;

use std::io;
use std::path::{Path, PathBuf};

use crate::charts;
use crate::results::{Sample, Summary};
use crate::study;
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
    /// A study of it could not be read.
    #[error("cannot read what is to be reported: {0}")]
    Study(#[from] study::Error),
    /// There is nothing to report.
    #[error(
        "there is nothing to report in {folder}: neither a race (summary.json) nor a chart of a study (charts/density.svg, ...). \
         `lab compare --out {folder}` makes the one, `lab memory`, `lab density`, `lab cost`, `lab inspect`, `lab surface` and \
         `lab ladder` the others", folder = .0.display()
    )]
    Nothing(PathBuf),
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
    keep(&page(summary, samples, &others::find(folder))?, folder)
}

/// Writes `report.html` into a results folder in which studies were made and nothing was raced.
pub fn write_of_studies(folder: &Path) -> Result<PathBuf, Error> {
    let others = others::find(folder);
    if others.is_empty() {
        return Err(Error::Nothing(folder.to_owned()));
    }
    let mut page = head("Isolation Lab: what it costs and what it buys");
    page.push_str("<h1>Isolation Lab: what does it cost, and what does it buy, to isolate a program?</h1>\n");
    for other in &others {
        page.push_str(&other.section());
    }
    page.push_str(&studies::skipped(folder)?);
    page.push_str(&paragraph(
        "No race is in this folder, so there is no verdict. What each chart is drawn from lies beside this file: NAME.json \
         for the figures, NAME.jsonl for every reading behind them.",
    ));
    page.push_str(FOOT);
    keep(&page, folder)
}

fn keep(page: &str, folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(FILE);
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
        "ladder" => "What each step adds",
        "modes" => "Starts under other conditions",
        _ => "What an instance holds in memory",
    }
}

/// The whole page.
fn page(summary: &Summary, samples: &[Sample], others: &[Other]) -> Result<String, Error> {
    let mut page = head("Isolation Lab: VM against container");
    page.push_str("<h1>Isolation Lab: what does it cost to start a VM rather than a container?</h1>\n");
    page.push_str(&format!(
        "<p class=\"verdict\">{}</p>\n",
        escape(&verdict::sentence(summary))
    ));
    page.push_str(&format!(
        "<p class=\"second\">{}</p>\n",
        escape(&charts::origin(&summary.provenance))
    ));
    let mut drawn = Vec::new();
    for chart in charts::draw_all(summary, samples)? {
        drawn.push(chart.name);
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
            page.push_str(&html::readable(&chart.svg, &chart.hints));
        }
        page.push_str(&match chart.name {
            "startup" => sections::startup(summary),
            "phases" => sections::phases(summary),
            "memory" => sections::memory(summary),
            // Its figures stand in the chart, and in the table of start-ups.
            _ => sections::startup(summary),
        });
        page.push_str("</section>\n");
    }
    // A ladder's own chart lies in the folder too.
    for other in others.iter().filter(|other| !drawn.contains(&other.name())) {
        page.push_str(&other.section());
    }
    page.push_str(&sections::skipped(summary));
    page.push_str(&sections::method(summary));
    page.push_str(&sections::machine(summary));
    page.push_str(&paragraph(
        "Every sample behind these figures is in samples.jsonl beside this file; none was trimmed. The figures computed \
         from them are in summary.json.",
    ));
    page.push_str(FOOT);
    Ok(page)
}

/// The page up to its first heading.
fn head(title: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        include_str!("page.css")
    )
}

/// The end of the page.
const FOOT: &str = concat!("<script>\n", include_str!("page.js"), "</script>\n</body>\n</html>\n");

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
    fn charts_tell_about_their_parts() {
        let (summary, samples) = examples::typical_run();
        let page = page(&summary, &samples, &[]).unwrap();
        assert_eq!(
            page.matches(" data-hints=").count(),
            2,
            "phases and memory; the start-up chart has its curves"
        );
        assert!(page.contains("vm, until “") && page.contains("container: private "));
    }

    #[test]
    fn studies_without_a_race_have_a_report_and_an_empty_folder_is_told_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let said = write_of_studies(folder.path()).unwrap_err().to_string();
        assert!(said.contains("summary.json") && said.contains("lab density"), "{said}");
        let (summary, samples) = examples::typical_run();
        let charts = folder.path().join("charts");
        charts::write_all(&summary, &samples, &charts).unwrap();
        std::fs::rename(charts.join("phases.svg"), charts.join("density.svg")).unwrap();
        let skipped =
            r#"{"contenders":[{"name":"runc","reason":"<none>","fix":"install it"},{"name":"vm","found":{}}]}"#;
        std::fs::write(folder.path().join("density.json"), skipped).unwrap();
        let page = std::fs::read_to_string(write_of_studies(folder.path()).unwrap()).unwrap();
        assert!(
            page.contains("<svg") && page.contains("no verdict") && page.contains("&lt;none&gt;"),
            "{page}"
        );
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
