//! The figures in words.

use std::path::Path;

use super::lessons::LESSONS;
use super::trust::doubt;
use crate::results::Comparison;
use crate::study::footer;
use crate::study::results::{Cost, LessonCost, SkippedLesson, Study};
use crate::table::{self, Paper};
use crate::words;

/// A table, what stands against a verdict, and who could not do what.
pub fn of(study: &Study<Cost>, folder: &Path, chart: &Path) -> String {
    let paper = Paper::of_stdout();
    let header = ["lesson", "contender", "each", "n", "× process (95%)", "exits each"];
    let mut table = table::table(paper, &header, |index| index > 1);
    let mut doubts = String::new();
    for lesson in &LESSONS {
        let found = |cost: &'_ Cost| {
            cost.lessons
                .iter()
                .find(|found| named(&found.lesson, lesson.name))
                .cloned()
        };
        let all: Vec<(&str, LessonCost)> = study
            .measured()
            .filter_map(|(name, cost)| Some((name, found(cost)?)))
            .collect();
        let Some((_, first)) = all.first() else { continue };
        let doubt = doubt(study, &first.lesson);
        for (name, found) in &all {
            let ratio = |found: &Comparison| match doubt {
                None => words::ratio_with_interval(found),
                Some(_) => "no verdict".into(),
            };
            table.add_row([
                lesson.name.to_owned(),
                words::label(name, &study.provenance),
                format!("{}/{}", each(found), lesson.unit),
                found.ns.n.to_string(),
                found.relative.as_ref().map_or("1".into(), ratio),
                found
                    .exits_per_operation
                    .map_or("-".into(), |exits| words::significant(exits, 3)),
            ]);
        }
        if let Some(doubt) = doubt {
            doubts += &table::paragraph(&format!("No verdict on {}: {doubt}", lesson.name), 2, paper);
        }
    }
    let skipped = not_done(study);
    let skipped = skipped.iter().map(|line| table::paragraph(line, 2, paper));
    table::lines(&table) + "\n" + &doubts + &skipped.collect::<String>() + &footer(study, folder, Some(chart))
}

fn named(full_name: &str, name: &str) -> bool {
    full_name.split(' ').next() == Some(name)
}

/// What one operation takes, in a unit of its size.
pub fn each(found: &LessonCost) -> String {
    let ns = found.ns.p50 as f64 / found.operations.max(1) as f64;
    let (figure, unit) = match ns {
        1e7.. => (ns / 1e6, "ms"),
        1e4.. => (ns / 1e3, "µs"),
        _ => (ns, "ns"),
    };
    format!("{} {unit}", words::significant(figure, 3))
}

/// Who could not do what: each reason once.
fn not_done(study: &Study<Cost>) -> Vec<String> {
    let mut reasons: Vec<(&SkippedLesson, Vec<&str>, Vec<&str>)> = Vec::new();
    for (name, cost) in study.measured() {
        for skipped in &cost.skipped {
            let lesson = skipped.lesson.split(' ').next().unwrap_or_default();
            let same = |(known, ..): &&mut (&SkippedLesson, Vec<&str>, Vec<&str>)| {
                known.reason == skipped.reason && known.fix == skipped.fix
            };
            match reasons.iter_mut().find(same) {
                None => reasons.push((skipped, vec![name], vec![lesson])),
                Some((_, names, lessons)) => {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                    if !lessons.contains(&lesson) {
                        lessons.push(lesson);
                    }
                }
            }
        }
    }
    let line = |(skipped, names, lessons): (&SkippedLesson, Vec<&str>, Vec<&str>)| {
        format!(
            "{} did not do {}: {}. {}.",
            names.join(", "),
            lessons.join(", "),
            skipped.reason,
            skipped.fix
        )
    };
    reasons.into_iter().map(line).collect()
}
