//! The ladders in words.

use std::fmt::Write;

use super::steps::{Ladder, Step};
use crate::conditions::Conditions;
use crate::results::Summary;
use crate::words;

/// Both ladders, step by step, and whoever is missing with the reason.
pub fn text(summary: &Summary, ladders: &[Ladder]) -> String {
    let mut text = String::new();
    let ms = |ns: f64| words::significant(ns / 1e6, 3);
    for ladder in ladders {
        let top = words::label(&ladder.side, &summary.provenance);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<34}  {:>8}  {:>9}  95%",
            format!("{top}, step by step"),
            "p50 ms",
            "step ms"
        );
        for step in &ladder.steps {
            let _ = writeln!(
                text,
                "  {:<32}  {:>8}  {:>9}  {}",
                step.adds,
                ms(step.p50_ns),
                signed(step),
                bounds(step)
            );
        }
        text.push('\n');
    }
    if ladders
        .iter()
        .flat_map(|ladder| &ladder.steps)
        .any(|step| !step.is_told())
    {
        text.push_str("~0: too small for this run to tell from nothing.\n\n");
    }
    let (_, skipped) = words::measured_and_skipped(summary);
    for rung in skipped {
        let reason = rung.reason.as_deref().unwrap_or("no reason was recorded");
        let fix = rung.fix.as_deref().unwrap_or("");
        let _ = writeln!(text, "{}: {reason}. To change that: {fix}\n", rung.name);
    }
    if let Some(note) = summary.provenance.conditions.as_ref().and_then(Conditions::note) {
        for line in words::wrap(&note, 80.0, |line| line.chars().count() as f64) {
            let _ = writeln!(text, "{line}");
        }
        text.push('\n');
    }
    if let Some(test) = summary.null_test.as_ref().filter(|test| !test.passed) {
        let _ = writeln!(
            text,
            "The machine is too noisy: {} raced against itself came out at {:.3} times its own time (95% {:.3} to {:.3}).\n\
             Take no step for certain. Quieten the machine, or raise --runs.\n",
            test.contender, test.ratio, test.ci95[0], test.ci95[1]
        );
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn signed(step: &Step) -> String {
    let digits = words::significant(step.cost_ns / 1e6, 2);
    match step.ci95 {
        Some(_) if step.cost_ns > 0.0 => format!("+{digits}"),
        _ => digits,
    }
}

fn bounds(step: &Step) -> String {
    let Some([low, high]) = step.ci95 else {
        return String::new();
    };
    let doubt = if step.is_told() { "" } else { "  ~0" };
    format!("{:+.3} to {:+.3}{doubt}", low / 1e6, high / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::steps::{ladders, tests::example};

    #[test]
    fn every_step_has_its_line() {
        let (summary, samples) = example();
        let text = text(&summary, &ladders(&summary, &samples));
        for expected in [
            "container, step by step",
            "vm (pvm), step by step",
            "net namespace",
            "the workload",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
