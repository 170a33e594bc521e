//! The phase table.

use super::startup::why_skipped;
use super::{Paper, lines, paragraph, table};
use crate::results::{Contender, Phase, Status, Summary};
use crate::words;

/// The two sides, left and right.
const SIDES: [&str; 2] = ["container", "vm"];

pub(super) fn on(summary: &Summary, paper: Paper) -> String {
    let sides = SIDES.map(|name| summary.contenders.iter().find(|contender| contender.name == name));
    let phases = sides.map(|side| side.map_or(&[][..], |contender| &contender.phases));
    let [left, right] = SIDES.map(|name| format!("{}, until", words::label(name, &summary.provenance)));

    let mut table = table(paper, &[&left, "took", "share", &right, "took", "share"], |index| {
        index % 3 != 0
    });
    for row in 0..phases[0].len().max(phases[1].len()) {
        table.add_row(phases.iter().flat_map(|side| cells(side, row)));
    }
    table.add_row(phases.iter().flat_map(|side| sum(side)));

    let mut text = String::new();
    if phases.iter().any(|side| !side.is_empty()) {
        text.push_str(&lines(&table));
    }
    for (name, side) in SIDES.into_iter().zip(sides) {
        if let Some(why) = why_missing(name, side) {
            text.push_str(&paragraph(&why, 2, paper));
        }
    }
    text
}

fn cells(side: &[Phase], row: usize) -> [String; 3] {
    let whole = side.last().map_or(0, |last| last.start_ns + last.duration_ns);
    match side.get(row) {
        Some(phase) => [
            phase.name.clone(),
            words::duration(phase.duration_ns),
            words::share(phase.duration_ns, whole),
        ],
        None => [const { String::new() }; 3],
    }
}

fn sum(side: &[Phase]) -> [String; 3] {
    match side.last() {
        Some(last) => [
            "whole start".to_string(),
            words::duration(last.start_ns + last.duration_ns),
            String::new(),
        ],
        None => [const { String::new() }; 3],
    }
}

fn why_missing(name: &str, side: Option<&Contender>) -> Option<String> {
    match side {
        None => Some(format!("{name}: not asked for in this run.")),
        Some(contender) if contender.status == Status::Skipped => Some(why_skipped(contender)),
        Some(contender) if contender.phases.is_empty() => Some(format!("{name}: no run reported its phases.")),
        Some(_) => None,
    }
}
