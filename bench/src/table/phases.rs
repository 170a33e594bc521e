//! The phase table.

use super::{Paper, lines, paragraph, table};
use crate::results::{Contender, Phase, Status, Summary};
use crate::words;

/// The two sides, left and right.
const SIDES: [&str; 2] = ["container", "vm"];

/// The reason why a side is missing stands under the start-up table, which is printed before this one.
pub(super) fn on(summary: &Summary, paper: Paper) -> String {
    let sides = SIDES.map(|name| (name, summary.contenders.iter().find(|contender| contender.name == name)));
    let reported: Vec<&Contender> = sides
        .iter()
        .filter_map(|(_, side)| *side)
        .filter(|side| !side.phases.is_empty())
        .collect();

    let mut text = String::new();
    if let Some(rows) = reported.iter().map(|side| side.phases.len()).max() {
        let until = reported
            .iter()
            .map(|side| format!("{}, until", words::label(&side.name, &summary.provenance)));
        let header: Vec<String> = until
            .flat_map(|until| [until, "took".to_string(), "share".to_string()])
            .collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut table = table(paper, &header, |index| index % 3 != 0);
        for row in 0..rows {
            table.add_row(reported.iter().flat_map(|side| cells(&side.phases, row)));
        }
        table.add_row(reported.iter().flat_map(|side| sum(&side.phases)));
        text.push_str(&lines(&table));
    }
    for (name, side) in sides {
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
        Some(contender) if contender.status == Status::Skipped => {
            Some(format!("{name}: not raced; the reason stands above."))
        }
        Some(contender) if contender.phases.is_empty() => Some(format!("{name}: no run reported its phases.")),
        Some(_) => None,
    }
}
