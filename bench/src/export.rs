//! `lab export`: a results folder in the formats other programs read.

use std::fmt::Write;

use clap::ValueEnum;

use crate::results::{Memory, Sample, Summary};
use crate::{charts, verdict, words};

/// What to export as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Every sample, one a row, for spreadsheets and R (RFC 4180).
    Csv,
    /// Summary and every sample in one object.
    Json,
    /// The figures as a table to paste into an issue or a wiki page.
    Markdown,
}

/// The results in the format asked for, ending in a new line.
///
/// # Errors
/// When a figure is no number, which JSON cannot say.
pub fn export(summary: &Summary, samples: &[Sample], format: Format) -> Result<String, serde_json::Error> {
    match format {
        Format::Csv => Ok(csv(samples)),
        Format::Json => {
            let all = serde_json::json!({ "summary": summary, "samples": samples });
            Ok(serde_json::to_string_pretty(&all)? + "\n")
        }
        Format::Markdown => Ok(markdown(summary)),
    }
}

/// Columns of the CSV; a cell is empty where nothing is known.
const COLUMNS: &str = "contender,purpose,sequence,start_ns,startup_ns,total_ns,exit_status,peak_bytes,idle_bytes,\
                       kernel_bytes,unique_bytes,shared_bytes,guest_configured_bytes,guest_touched_bytes";

fn csv(samples: &[Sample]) -> String {
    let mut text = format!("{COLUMNS}\r\n");
    let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let unknown = Memory::default();
    for sample in samples {
        let memory = sample.memory.as_ref().unwrap_or(&unknown);
        let purpose = serde_json::to_value(sample.purpose).unwrap_or_default();
        let mut cells = vec![
            quoted(&sample.contender),
            purpose.as_str().unwrap_or_default().to_owned(),
            sample.sequence.to_string(),
            sample.start_ns.to_string(),
            number(sample.startup_ns()),
            sample.total_ns().to_string(),
            sample.exit_status.to_string(),
        ];
        let bytes = [
            memory.peak_bytes,
            memory.idle_bytes,
            memory.kernel_bytes,
            memory.unique_bytes,
            memory.shared_bytes,
            memory.guest_configured_bytes,
            memory.guest_touched_bytes,
        ];
        cells.extend(bytes.map(number));
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A cell by the rules of RFC 4180: quotes around what holds a separator, and doubled inside.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn markdown(summary: &Summary) -> String {
    let (measured, skipped) = words::measured_and_skipped(summary);
    let mut text = format!("**{}**\n\n", verdict::sentence(summary));
    if !measured.is_empty() {
        text.push_str("| contender | p50 ms | p90 ms | min ms | n | × process (95%) | peak memory |\n");
        text.push_str("|---|---:|---:|---:|---:|---:|---:|\n");
    }
    for contender in measured {
        let unknown = || "-".to_owned();
        let shown = |ns: Option<u64>| ns.map_or_else(unknown, words::milliseconds);
        let found = contender.startup_ns;
        let against = words::comparison(summary, &contender.name, "process");
        let peak = contender.memory.as_ref().and_then(|memory| memory.peak_bytes);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            cell(&words::label(&contender.name, &summary.provenance)),
            shown(found.map(|found| found.p50)),
            shown(found.and_then(|found| found.p90)),
            shown(found.map(|found| found.min)),
            found.map_or_else(unknown, |found| found.n.to_string()),
            against.map_or_else(unknown, |found| words::ratio_with_interval(&found)),
            peak.map_or_else(unknown, words::bytes),
        );
    }
    for contender in skipped {
        let reason = contender.reason.as_deref().unwrap_or("no reason was recorded");
        let _ = writeln!(text, "\nNot raced: {} ({}).", contender.name, words::brief(reason));
    }
    let _ = writeln!(text, "\n{}", charts::origin(&summary.provenance));
    text
}

/// Text for a cell: a bar would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn csv_has_every_sample_and_as_many_cells_as_columns() {
        let (summary, mut samples) = examples::typical_run();
        samples[0].contender = "a \"quoted\", name".into();
        let text = export(&summary, &samples, Format::Csv).unwrap();
        assert_eq!(text.lines().count(), samples.len() + 1);
        assert!(text.contains("\"a \"\"quoted\"\", name\","), "{text}");
        let columns = COLUMNS.split(',').count();
        assert!(text.lines().skip(2).all(|line| line.split(',').count() == columns));
    }

    #[test]
    fn json_comes_back_as_the_results() {
        let (summary, samples) = examples::typical_run();
        let all: serde_json::Value = serde_json::from_str(&export(&summary, &samples, Format::Json).unwrap()).unwrap();
        let found: Summary = serde_json::from_value(all["summary"].clone()).unwrap();
        assert_eq!(
            (found.provenance, found.contenders),
            (summary.provenance, summary.contenders)
        );
        assert_eq!(all["samples"].as_array().unwrap().len(), samples.len());
    }

    #[test]
    fn markdown_has_verdict_table_and_origin() {
        let text = export(&examples::without_kvm(), &[], Format::Markdown).unwrap();
        assert!(
            text.contains("| container |") && text.contains("Not raced: vm"),
            "{text}"
        );
        assert!(text.contains("Example Processor"), "{text}");
        let rows = text.lines().filter(|line| line.starts_with('|'));
        assert!(rows.into_iter().all(|row| row.matches('|').count() == 8), "{text}");
    }
}
