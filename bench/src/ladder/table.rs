//! The ladders in words.

use super::steps::{Ladder, Step};
use crate::conditions::Conditions;
use crate::results::Summary;
use crate::table::{self, Paper};
use crate::words;

/// Both ladders, step by step, and whoever is missing with the reason.
pub fn text(summary: &Summary, ladders: &[Ladder]) -> String {
    on(summary, ladders, Paper::of_stdout())
}

fn on(summary: &Summary, ladders: &[Ladder], paper: Paper) -> String {
    let mut text = String::new();
    let ms = |ns: f64| words::significant(ns / 1e6, 3);
    for ladder in ladders {
        let top = format!("{}, step by step", words::label(&ladder.side, &summary.provenance));
        let mut table = table::table(paper, &[&top, "p50 ms", "step ms", "95%"], |index| {
            [1, 2].contains(&index)
        });
        for step in &ladder.steps {
            table.add_row([step.adds.clone(), ms(step.p50_ns), signed(step), bounds(step)]);
        }
        text += &table::lines(&table);
        text.push('\n');
    }
    let mut paragraphs: Vec<String> = Vec::new();
    let steps = || ladders.iter().flat_map(|ladder| &ladder.steps);
    if steps().any(|step| !step.is_told()) {
        paragraphs.push("~0: too small for this run to tell from nothing.".into());
    }
    let (_, skipped) = words::measured_and_skipped(summary);
    for rung in skipped {
        let reason = rung.reason.as_deref().unwrap_or("no reason was recorded");
        let fix = rung.fix.as_deref().unwrap_or("");
        paragraphs.push(format!("{}: {reason}. To change that: {fix}", rung.name));
    }
    paragraphs.extend(summary.provenance.conditions.as_ref().and_then(Conditions::note));
    if let Some(test) = summary.null_test.as_ref().filter(|test| !test.passed) {
        paragraphs.push(format!(
            "The machine is too noisy: {} raced against itself came out at {:.3} times its own time (95% {:.3} to {:.3}). \
             Take no step for certain. Quieten the machine, or raise --runs.",
            test.contender, test.ratio, test.ci95[0], test.ci95[1]
        ));
    }
    for paragraph in paragraphs {
        text += &table::paragraph(&paragraph, 0, paper);
        text.push('\n');
    }
    text
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
        for width in [60, 80, 120] {
            let paper = Paper { width, styled: false };
            let text = on(&summary, &ladders(&summary, &samples), paper);
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(
                widest.is_some_and(|widest| widest <= usize::from(width)),
                "{width}:\n{text}"
            );
        }
    }
}
