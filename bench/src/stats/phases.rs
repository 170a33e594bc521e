//! A typical run, laid together from many: where each mark lies in the median run.
//!
//! For each mark, the median of its distance from the start line; a phase is what lies between two neighbours. Taking
//! medians of the moments, not of the durations, makes the phases of a contender add up to its whole.

use std::collections::BTreeMap;

use super::percentile::median;
use crate::results::{self, Purpose, Sample};
use protocol::phase::Phase;

/// Name of the moment a run is over: the workload's first byte arrived in the harness.
pub const FINISH_LINE: &str = "finish line";
/// The emitter of what the harness itself saw.
pub const LAB: &str = "lab";

/// Share of the runs a mark must appear in to be part of the typical one. A mark most runs lack is an accident.
const COMMON: f64 = 0.5;

/// The phases of the typical run among `samples`, all of one contender, in the order of time: from the start line to
/// the finish line, without a gap.
///
/// Only [`Purpose::Phases`] samples that reached the finish line count, and of a run's marks only those between the two
/// lines; what a launcher does after the workload's first byte is no part of a start. Empty when no such sample has
/// any mark.
pub fn phases(samples: &[Sample]) -> Vec<results::Phase> {
    let mut moments: BTreeMap<&str, Moment> = BTreeMap::new();
    let mut finishes = Vec::new();
    for sample in samples.iter().filter(|sample| sample.purpose == Purpose::Phases) {
        let Some(finish) = sample.first_byte_ns.and_then(|ns| ns.checked_sub(sample.start_ns)) else {
            continue;
        };
        if sample.marks.is_empty() {
            continue;
        }
        finishes.push(finish);
        for (name, offset, emitter) in marks_within(sample, finish) {
            moments
                .entry(name)
                .or_insert_with(|| Moment {
                    emitter,
                    offsets: Vec::new(),
                })
                .offsets
                .push(offset);
        }
    }

    let fewest = finishes.len() as f64 * COMMON;
    let Some(finish) = median(&mut finishes) else {
        return Vec::new();
    };
    let mut ends: Vec<(f64, &str, &str)> = moments
        .into_iter()
        .filter(|(_, moment)| moment.offsets.len() as f64 >= fewest)
        .filter_map(|(name, mut moment)| Some((median(&mut moment.offsets)?.min(finish), name, moment.emitter)))
        .collect();
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    ends.push((finish, FINISH_LINE, LAB));

    let mut start_ns = 0;
    ends.into_iter()
        .map(|(end, name, emitter)| {
            let end_ns = end.round() as u64;
            let phase = results::Phase {
                name: name.to_string(),
                start_ns,
                duration_ns: end_ns - start_ns,
                emitter: emitter.to_string(),
            };
            start_ns = end_ns;
            phase
        })
        .collect()
}

/// One mark in all runs: its distances from the start line, in nanoseconds.
struct Moment<'a> {
    emitter: &'a str,
    offsets: Vec<u64>,
}

/// The marks between the two lines, each name once (the first time counts), without the lab's own marks of the lines.
///
/// Nor with the end: a workload as short as `hello` may be over before the harness is scheduled to read its first byte,
/// but ending is no part of a start, however early it comes.
fn marks_within(sample: &Sample, finish: u64) -> impl Iterator<Item = (&str, u64, &str)> {
    let mut seen: Vec<&str> = vec![FINISH_LINE, "start line", Phase::Exit.name()];
    sample.marks.iter().filter_map(move |mark| {
        let offset = mark
            .ns
            .checked_sub(sample.start_ns)
            .filter(|offset| *offset <= finish)?;
        if seen.contains(&mark.name.as_str()) {
            return None;
        }
        seen.push(&mark.name);
        Some((mark.name.as_str(), offset, mark.emitter.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Mark;

    /// A run that started at 1000 and finished at 1000 + `finish`, with marks at 1000 + offset.
    fn run(finish: Option<u64>, marks: &[(&str, u64)]) -> Sample {
        Sample {
            contender: "vm".into(),
            purpose: Purpose::Phases,
            sequence: 0,
            start_ns: 1000,
            first_byte_ns: finish.map(|ns| 1000 + ns),
            end_ns: 9000,
            exit_status: 0,
            marks: marks
                .iter()
                .map(|(name, ns)| Mark {
                    name: (*name).into(),
                    ns: 1000 + ns,
                    emitter: "vmm".into(),
                })
                .collect(),
            memory: None,
        }
    }

    fn seen(phases: &[results::Phase]) -> Vec<(&str, u64, u64)> {
        phases
            .iter()
            .map(|phase| (phase.name.as_str(), phase.start_ns, phase.duration_ns))
            .collect()
    }

    #[test]
    fn medians_of_moments_add_up_to_the_whole() {
        let samples = [
            run(Some(100), &[("process start", 10), ("VM created", 50), ("exit", 150)]),
            run(Some(120), &[("process start", 20), ("VM created", 40), ("exit", 160)]),
            run(Some(300), &[("process start", 30), ("VM created", 60), ("exit", 340)]),
        ];
        // Medians: process start 20, VM created 50, finish line 120. `exit` comes after the finish line.
        let found = phases(&samples);
        assert_eq!(
            seen(&found),
            [("process start", 0, 20), ("VM created", 20, 30), (FINISH_LINE, 50, 70)]
        );
        assert_eq!(found.last().unwrap().emitter, LAB);
        assert_eq!(found.iter().map(|phase| phase.duration_ns).sum::<u64>(), 120);
    }

    #[test]
    fn a_missing_mark_is_bridged_and_a_rare_one_left_out() {
        let samples = [
            run(Some(100), &[("process start", 10), ("KVM opened", 20)]),
            run(Some(100), &[("process start", 12), ("KVM opened", 24), ("odd", 50)]),
            run(Some(100), &[("process start", 14)]),
        ];
        // KVM opened in two runs of three, median 22; odd in one of three.
        let found = phases(&samples);
        assert_eq!(
            seen(&found),
            [("process start", 0, 12), ("KVM opened", 12, 10), (FINISH_LINE, 22, 78)]
        );
    }

    #[test]
    fn marks_out_of_order_doubled_or_outside_do_no_harm() {
        let mut sample = run(
            Some(100),
            &[("b", 60), ("a", 30), ("b", 90), ("start line", 0), ("late", 101)],
        );
        sample.marks.push(Mark {
            name: "early".into(),
            ns: 5,
            emitter: "vmm".into(),
        });
        assert_eq!(
            seen(&phases(&[sample])),
            [("a", 0, 30), ("b", 30, 30), (FINISH_LINE, 60, 40)]
        );
    }

    #[test]
    fn an_end_before_the_finish_line_is_no_phase() {
        let sample = run(Some(100), &[("exec", 40), ("first output", 90), ("exit", 95)]);
        assert_eq!(
            seen(&phases(&[sample])),
            [("exec", 0, 40), ("first output", 40, 50), (FINISH_LINE, 90, 10)]
        );
    }

    #[test]
    fn no_phases_without_marks_or_finish() {
        let mut timed = run(Some(100), &[("a", 1)]);
        timed.purpose = Purpose::Timed;
        assert_eq!(phases(&[]), []);
        assert_eq!(phases(&[timed, run(None, &[("a", 1)]), run(Some(100), &[])]), []);
    }
}
