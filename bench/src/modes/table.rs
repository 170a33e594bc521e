//! The series in words.

use std::path::Path;

use serde::Serialize;

use super::doubt;
use crate::results::Summary;
use crate::stats;
use crate::table::{self, Paper};
use crate::words;

/// One line per series, what stands against a verdict, and whoever is missing with the reason.
pub fn text(summary: &Summary) -> String {
    on(summary, Paper::of_stdout())
}

/// The same for `--json`: the summary, and what stands against a verdict on each of its comparisons.
#[derive(Serialize)]
pub struct Told<'a> {
    results: &'a Path,
    summary: &'a Summary,
    doubts: Vec<Doubt<'a>>,
}

#[derive(Serialize)]
struct Doubt<'a> {
    a: &'a str,
    b: &'a str,
    why: String,
}

/// What there is to tell of a summary that lies in the folder `results`.
pub fn told<'a>(summary: &'a Summary, results: &'a Path) -> Told<'a> {
    let doubts = summary.comparisons.iter().filter_map(|found| {
        Some(Doubt {
            a: &found.a,
            b: &found.b,
            why: doubt(summary, found)?,
        })
    });
    Told {
        results,
        summary,
        doubts: doubts.collect(),
    }
}

fn on(summary: &Summary, paper: Paper) -> String {
    let (measured, skipped) = words::measured_and_skipped(summary);
    let header = [
        "start-up, ms",
        "p50",
        "p90",
        "p99",
        "n",
        "× the first of its kind (95%)",
    ];
    let mut table = table::table(paper, &header, |index| index > 0);
    let mut too_few = false;
    // Each reason with those it stands against.
    let mut doubts: Vec<(String, Vec<&str>)> = Vec::new();
    for series in measured {
        let Some(found) = series.startup_ns else { continue };
        let shown = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), words::milliseconds);
        too_few |= found.p99.is_none();
        let ratio = summary.comparisons.iter().find(|ratio| ratio.a == series.name);
        let doubt = ratio.and_then(|ratio| doubt(summary, ratio));
        table.add_row([
            series.name.clone(),
            words::milliseconds(found.p50),
            shown(found.p90),
            shown(found.p99),
            found.n.to_string(),
            match (ratio, &doubt) {
                (None, _) => String::new(),
                (Some(ratio), None) => words::ratio_with_interval(ratio),
                (Some(_), Some(_)) => "no verdict".into(),
            },
        ]);
        if let Some(doubt) = doubt {
            match doubts.iter_mut().find(|(known, _)| *known == doubt) {
                Some((_, names)) => names.push(&series.name),
                None => doubts.push((doubt, vec![&series.name])),
            }
        }
    }
    let mut paragraphs: Vec<String> = Vec::new();
    if too_few {
        paragraphs.push("A 90th percentile needs 10 starts, a 99th 100: - where there were fewer (--runs).".into());
    }
    for test in &summary.null_tests {
        let [low, high] = test.ci95;
        let verdict = match (test.passed, stats::shows_no_difference(test.ci95)) {
            (true, _) => "passed",
            (false, true) => "too wide to tell",
            (false, false) => "a difference where there is none",
        };
        paragraphs.push(format!(
            "Null test, {} against itself: {:.3} (95% {low:.3} to {high:.3}), {verdict}.",
            test.contender, test.ratio
        ));
    }
    let doubts = doubts.into_iter();
    paragraphs.extend(doubts.map(|(doubt, names)| format!("No verdict on {}: {doubt}", names.join("; "))));
    paragraphs.extend(summary.provenance.notes.iter().cloned());
    for series in skipped {
        let reason = series.reason.as_deref().unwrap_or("no reason was recorded");
        let fix = series.fix.as_deref().unwrap_or("-");
        paragraphs.push(format!("{}: {reason}. To change that: {fix}", series.name));
    }
    let paragraphs = paragraphs.iter().map(|text| table::paragraph(text, 2, paper));
    table::lines(&table) + "\n" + &paragraphs.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modes::{LEVEL, MODE};
    use crate::results::{Comparison, NullTest};

    const PAPER: Paper = Paper {
        width: 100,
        styled: false,
    };

    /// Two levels of one kind; the second 1.5 times as long as the first.
    fn example(n: u64, null_tests: &[(&str, bool)]) -> Summary {
        let mut summary = crate::examples::typical();
        summary.contenders.truncate(2);
        for (contender, level) in summary.contenders.iter_mut().zip(["1", "4"]) {
            contender.name = format!("vm, {level} workers");
            contender.details.insert(MODE.into(), "number of workers".into());
            contender.details.insert(LEVEL.into(), level.into());
            contender.startup_ns.as_mut().unwrap().n = n;
        }
        summary.comparisons = vec![Comparison {
            a: "vm, 4 workers".into(),
            b: "vm, 1 workers".into(),
            ratio: 1.5,
            ci95: [1.4, 1.6],
        }];
        let test = |&(name, passed): &(&str, bool)| NullTest {
            contender: name.into(),
            ratio: 1.0,
            ci95: if passed { [0.97, 1.04] } else { [0.4, 2.4] },
            passed,
        };
        summary.null_tests = null_tests.iter().map(test).collect();
        summary
    }

    #[test]
    fn a_ratio_is_told_only_where_both_conditions_passed_their_null_test() {
        let both = [("vm, 1 workers", true), ("vm, 4 workers", true)];
        let text = on(&example(20, &both), PAPER);
        assert!(
            text.contains("1.50 (1.40–1.60)") && text.contains("passed") && !text.contains("No verdict"),
            "{text}"
        );
        for (n, null_tests, why) in [
            (5, both.to_vec(), "5 runs are too few"),
            (20, vec![both[0], ("vm, 4 workers", false)], "too noisy"),
            (20, vec![("vm, 1 workers", false), both[1]], "too noisy"),
            (20, vec![both[0]], "nobody raced against itself"),
        ] {
            let text = on(&example(n, &null_tests), PAPER);
            assert!(
                text.contains("No verdict on vm, 4 workers") && text.contains(why),
                "{why}: {text}"
            );
            assert!(text.contains("no verdict") && !text.contains("1.50 (1.40"), "{text}");
        }
    }

    #[test]
    fn it_keeps_to_the_width() {
        for width in [60, 80, 120] {
            let text = on(&example(20, &[("vm, 4 workers", false)]), Paper { width, ..PAPER });
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width), "{width}: {text}");
        }
    }
}
