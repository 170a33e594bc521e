//! The series in words.

use std::fmt::Write;

use crate::results::Summary;
use crate::words;

/// One line per series, and whoever is missing with the reason.
pub fn text(summary: &Summary) -> String {
    let (measured, skipped) = words::measured_and_skipped(summary);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{:<28}  {:>7}  {:>7}  {:>7}  {:>4}  × the first of its kind (95%)",
        "start-up, ms", "p50", "p90", "p99", "n"
    );
    let mut too_few = false;
    for series in measured {
        let Some(found) = series.startup_ns else { continue };
        let shown = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), words::milliseconds);
        too_few |= found.p99.is_none();
        let ratio = summary.comparisons.iter().find(|ratio| ratio.a == series.name);
        let _ = writeln!(
            text,
            "{:<28}  {:>7}  {:>7}  {:>7}  {:>4}  {}",
            series.name,
            words::milliseconds(found.p50),
            shown(found.p90),
            shown(found.p99),
            found.n,
            ratio.map_or_else(String::new, words::ratio_with_interval)
        );
    }
    if too_few {
        text.push_str("\nA 90th percentile needs 10 starts, a 99th 100: - where there were fewer (--runs).\n");
    }
    for note in &summary.provenance.notes {
        for line in words::wrap(note, 80.0, |line| line.chars().count() as f64) {
            let _ = writeln!(text, "{line}");
        }
    }
    for series in skipped {
        let reason = series.reason.as_deref().unwrap_or("no reason was recorded");
        let _ = writeln!(
            text,
            "\n{}: {reason}. To change that: {}",
            series.name,
            series.fix.as_deref().unwrap_or("-")
        );
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
