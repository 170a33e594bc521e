//! The start-up table.

use super::{Paper, lines, paragraph, table};
use crate::conditions::Conditions;
use crate::results::{Contender, Summary};
use crate::words;

/// What the column `peak memory` counts, and why the memory chart, which shows what an instance holds, may show more.
const PEAK_MEMORY: &str = "Peak memory: the most ever charged to its cgroup. A file page is charged to whoever read it \
                           first, so what was cached before is not in it.";

pub(super) fn on(summary: &Summary, paper: Paper) -> String {
    let header = [
        "contender",
        "p50 ms",
        "p90 ms",
        "min ms",
        "n",
        "× process (95%)",
        "peak memory",
    ];
    let mut table = table(paper, &header, |index| index > 0);
    let (measured, skipped) = words::measured_and_skipped(summary);
    for contender in &measured {
        table.add_row(row(summary, contender));
    }

    let mut text = if measured.is_empty() {
        paragraph("No contender could run here.", 0, paper)
    } else {
        lines(&table)
    };
    if measured.iter().any(|contender| peak(contender).is_some()) {
        text.push('\n');
        text.push_str(&paragraph(PEAK_MEMORY, 2, paper));
    }
    if measured
        .iter()
        .any(|contender| contender.startup_ns.is_some_and(|found| found.n >= 100))
    {
        text.push('\n');
        text.push_str(&paragraph(&p99(&measured), 2, paper));
    }
    if let Some(note) = summary.provenance.conditions.as_ref().and_then(Conditions::note) {
        text.push('\n');
        text.push_str(&paragraph(&note, 2, paper));
    }
    if summary.provenance.emulated {
        text.push('\n');
        text.push_str(&paragraph(words::EMULATED, 2, paper));
    }
    for contender in skipped {
        text.push('\n');
        text.push_str(&paragraph(&why_skipped(contender), 2, paper));
    }
    text
}

/// The 99th percentiles, which need a hundred runs.
fn p99(measured: &[&Contender]) -> String {
    let each = measured.iter().filter_map(|contender| {
        let p99 = contender.startup_ns?.p99?;
        Some(format!("{} {}", contender.name, words::duration(p99)))
    });
    format!("p99: {}.", each.collect::<Vec<_>>().join(", "))
}

fn row(summary: &Summary, contender: &Contender) -> Vec<String> {
    let unknown = || "-".to_string();
    let startup = contender.startup_ns.as_ref();
    let shown = |ns: Option<u64>| ns.map_or_else(unknown, words::milliseconds);
    let against_process = words::comparison(summary, &contender.name, "process");
    vec![
        words::label(&contender.name, &summary.provenance),
        shown(startup.map(|found| found.p50)),
        shown(startup.and_then(|found| found.p90)),
        shown(startup.map(|found| found.min)),
        startup.map_or_else(unknown, |found| found.n.to_string()),
        match against_process {
            Some(found) => words::ratio_with_interval(&found),
            None if contender.name == "process" => "1".to_string(),
            None => unknown(),
        },
        peak(contender).map_or_else(unknown, words::bytes),
    ]
}

fn peak(contender: &Contender) -> Option<u64> {
    contender.memory.as_ref()?.peak_bytes
}

/// `vm: there is no /dev/kvm. To change that: load the module`.
fn why_skipped(contender: &Contender) -> String {
    let reason = contender
        .reason
        .as_deref()
        .unwrap_or("no reason was recorded")
        .trim_end_matches('.');
    match &contender.fix {
        Some(fix) => format!("{}: {reason}. To change that: {fix}", contender.name),
        None => format!("{}: {reason}.", contender.name),
    }
}
