//! `lab compare --baseline DIR`: what changed between two results folders.
//!
//! Two runs are two moments of one machine, or two machines. So every change is shown twice: as it is, and against the
//! plain process of its own run, which takes out what made everything slower or faster alike.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::results::{Provenance, Purpose, Sample, Summary};
use crate::stats::{self, FEWEST_FOR_AN_INTERVAL};
use crate::words;

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The interval of new over old lies above 1.
    More,
    /// It lies below 1.
    Less,
    /// It holds 1: no change is shown.
    NoneShown,
    /// Too few samples on one side for an interval.
    TooFew,
}

/// One figure of one contender in both folders.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The contender.
    pub contender: String,
    /// `start-up`, `whole run`, `private memory`, `peak memory`.
    pub figure: &'static str,
    /// `ns` or `bytes`.
    pub unit: &'static str,
    /// Median in the baseline.
    pub old: f64,
    /// Median now.
    pub new: f64,
    /// New over old.
    pub ratio: f64,
    /// 95% bootstrap interval of that ratio.
    pub ci95: [f64; 2],
    /// The same with both divided by the plain process of their own run. Times only.
    pub against_process: Option<(f64, [f64; 2])>,
    /// What that allows to be said of the ratio.
    pub change: Change,
}

/// The comparison of two folders.
#[derive(Clone, Debug, Serialize)]
pub struct Changes {
    /// When the baseline was made.
    pub old_date: String,
    /// When the other was.
    pub new_date: String,
    /// What differs between the two runs besides what was measured, and keeps a change from being the program's.
    pub differences: Vec<String>,
    /// The figures both have.
    pub rows: Vec<Row>,
    /// Contenders only one of them measured.
    pub only_one: Vec<String>,
}

type Results<'a> = (&'a Summary, &'a [Sample]);
type Figure = (&'static str, &'static str, Purpose, fn(&Sample) -> Option<u64>);

const FIGURES: [Figure; 4] = [
    ("start-up", "ns", Purpose::Timed, Sample::startup_ns),
    ("whole run", "ns", Purpose::Timed, |sample| Some(sample.total_ns())),
    ("private memory", "bytes", Purpose::Memory, |sample| {
        sample.memory.as_ref()?.unique_bytes
    }),
    ("peak memory", "bytes", Purpose::Memory, |sample| {
        sample.memory.as_ref()?.peak_bytes
    }),
];

/// Compares `new` with `old`.
pub fn changes(old: Results, new: Results) -> Changes {
    let names = |(summary, _): Results| -> BTreeSet<String> {
        let (measured, _) = words::measured_and_skipped(summary);
        measured.iter().map(|contender| contender.name.clone()).collect()
    };
    let (before, now) = (names(old), names(new));
    let both = new
        .0
        .contenders
        .iter()
        .filter(|c| before.contains(&c.name) && now.contains(&c.name));
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>, whose: &str| -> Vec<String> {
        these
            .difference(those)
            .map(|name| format!("{name} was measured in {whose} only"))
            .collect()
    };
    Changes {
        old_date: old.0.provenance.date.clone(),
        new_date: new.0.provenance.date.clone(),
        differences: differences(&old.0.provenance, &new.0.provenance),
        rows: both.flat_map(|c| rows(&c.name, old.1, new.1)).collect(),
        only_one: [only(&before, &now, "the baseline"), only(&now, &before, "the new run")].concat(),
    }
}

fn rows(name: &str, old: &[Sample], new: &[Sample]) -> Vec<Row> {
    let row = |(figure, unit, purpose, value): &Figure| {
        let of = |samples: &[Sample], name: &str| -> Vec<u64> {
            let own = samples.iter().filter(|s| s.contender == name && s.purpose == *purpose);
            own.filter_map(value).collect()
        };
        let (before, now) = (of(old, name), of(new, name));
        let (ratio, ci95) = stats::of_medians(&[&now, &before], |m| m[0] / m[1])?;
        let fewest = before.len().min(now.len()) as u64;
        let change = match ci95 {
            _ if fewest < FEWEST_FOR_AN_INTERVAL && *purpose == Purpose::Timed => Change::TooFew,
            [low, _] if low > 1.0 => Change::More,
            [_, high] if high < 1.0 => Change::Less,
            _ => Change::NoneShown,
        };
        let control = (of(new, "process"), of(old, "process"));
        let against_process = (*unit == "ns" && name != "process")
            .then(|| {
                stats::of_medians(&[&now, &control.0, &before, &control.1], |m| {
                    (m[0] / m[1]) / (m[2] / m[3])
                })
            })
            .flatten();
        let middle = |values: &[u64]| stats::distribution(values).map_or(f64::NAN, |found| found.p50 as f64);
        Some(Row {
            contender: name.to_owned(),
            figure,
            unit,
            old: middle(&before),
            new: middle(&now),
            ratio,
            ci95,
            against_process,
            change,
        })
    };
    FIGURES.iter().filter_map(row).collect()
}

/// In plain words, what the two runs do not have in common.
fn differences(old: &Provenance, new: &Provenance) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let facts = [
        ("the processor", old.cpu.clone(), new.cpu.clone()),
        ("the host's kernel", old.kernel.clone(), new.kernel.clone()),
        ("the KVM backend", old.kvm_backend.clone(), new.kvm_backend.clone()),
        ("the cgroup version", old.cgroup_mode.clone(), new.cgroup_mode.clone()),
        ("the workload", old.workload.join(" "), new.workload.join(" ")),
        (
            "the workload's bytes (SHA-256)",
            old.workload_sha256.clone(),
            new.workload_sha256.clone(),
        ),
        (
            "the guest kernel (SHA-256)",
            text(&old.kernel_sha256),
            text(&new.kernel_sha256),
        ),
        ("the idle gap in ms", old.gap_ms.to_string(), new.gap_ms.to_string()),
        ("the user id", old.uid.to_string(), new.uid.to_string()),
        ("the lab's revision", text(&old.git_revision), text(&new.git_revision)),
    ];
    let differ = facts.into_iter().filter(|(_, old, new)| old != new);
    differ
        .map(|(what, old, new)| format!("{what}: {} then, {} now", short(&old), short(&new)))
        .collect()
}

/// Hashes shortened, everything else as it is.
fn short(value: &str) -> String {
    let hash = value.split('-').next().unwrap_or(value);
    if hash.len() >= 40 && hash.chars().all(|digit| digit.is_ascii_hexdigit()) {
        words::short_revision(value)
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn a_folder_against_itself_shows_no_change() {
        let (summary, samples) = examples::typical_run();
        let found = changes((&summary, &samples), (&summary, &samples));
        assert!(found.differences.is_empty() && found.only_one.is_empty());
        assert!(found.rows.len() >= 10);
        assert!(
            found
                .rows
                .iter()
                .all(|row| row.change == Change::NoneShown && row.ratio == 1.0)
        );
    }

    #[test]
    fn a_slower_contender_is_told_from_a_slower_machine() {
        let (summary, old) = examples::typical_run();
        let slowed = |by: f64, whom: &str| -> Vec<Sample> {
            let mut samples = old.clone();
            for sample in samples.iter_mut().filter(|s| whom.is_empty() || s.contender == whom) {
                let took = sample.first_byte_ns.unwrap() - sample.start_ns;
                sample.first_byte_ns = Some(sample.start_ns + (took as f64 * by) as u64);
            }
            samples
        };
        let startup = |samples: &[Sample]| {
            let found = changes((&summary, &old), (&summary, samples));
            found
                .rows
                .into_iter()
                .find(|row| row.contender == "vm" && row.figure == "start-up")
                .unwrap()
        };
        let vm = startup(&slowed(2.0, "vm"));
        assert_eq!(vm.change, Change::More);
        assert!(vm.against_process.unwrap().1[0] > 1.5, "{vm:?}");
        let all = startup(&slowed(2.0, ""));
        assert_eq!(all.change, Change::More);
        let [low, high] = all.against_process.unwrap().1;
        assert!(
            low < 1.0 && 1.0 < high,
            "against its process the VM did not change: {all:?}"
        );
    }

    #[test]
    fn other_machines_and_lone_contenders_are_named() {
        let (mut summary, samples) = examples::typical_run();
        let old = examples::without_kvm_run();
        summary.provenance.kernel = "7.0".into();
        let found = changes((&old.0, &old.1), (&summary, &samples));
        assert_eq!(found.differences, ["the host's kernel: 6.18.0-example then, 7.0 now"]);
        assert!(
            found
                .only_one
                .contains(&"vm was measured in the new run only".to_owned()),
            "{found:?}"
        );
    }
}
