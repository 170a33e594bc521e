//! What changed between two results folders.

use super::{Paper, lines, paragraph, table};
use crate::baseline::{Change, Changes, Row};
use crate::results::Comparison;
use crate::words;

const HOW_TO_READ: &str = "New over old, with the 95% interval. The last column divides both by the plain process of \
                           their own run: what the machine did to everybody alike is taken out of it.";

pub(super) fn on(changes: &Changes, paper: Paper) -> String {
    let header = [
        "contender",
        "figure",
        "old",
        "new",
        "new / old (95%)",
        "",
        "against process",
    ];
    let mut table = table(paper, &header, |index| matches!(index, 2..=4 | 6));
    for row in &changes.rows {
        table.add_row(cells(row));
    }
    let mut text = format!("Changes from {} to {}:\n\n", changes.old_date, changes.new_date);
    if changes.rows.is_empty() {
        text.push_str(&paragraph("The two folders have no figure in common.", 0, paper));
    } else {
        text.push_str(&lines(&table));
        text.push('\n');
        text.push_str(&paragraph(HOW_TO_READ, 2, paper));
    }
    for difference in &changes.differences {
        text.push('\n');
        text.push_str(&paragraph(&format!("The two runs differ in {difference}."), 2, paper));
    }
    for name in &changes.only_one {
        text.push('\n');
        text.push_str(&paragraph(&format!("{name}."), 2, paper));
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let amount = |value: f64| match row.unit {
        "ns" => words::duration(value.round() as u64),
        _ => words::bytes(value.round() as u64),
    };
    let ratio = |ratio: f64, ci95: [f64; 2]| {
        words::ratio_with_interval(&Comparison {
            a: String::new(),
            b: String::new(),
            ratio,
            ci95,
        })
    };
    let more = if row.unit == "ns" { "slower" } else { "more" };
    let less = if row.unit == "ns" { "faster" } else { "less" };
    vec![
        row.contender.clone(),
        row.figure.to_owned(),
        amount(row.old),
        amount(row.new),
        ratio(row.ratio, row.ci95),
        match row.change {
            Change::More => more,
            Change::Less => less,
            Change::NoneShown => "none shown",
            Change::TooFew => "too few runs",
        }
        .to_owned(),
        row.against_process
            .map_or_else(|| "-".to_owned(), |(value, ci95)| ratio(value, ci95)),
    ]
}
