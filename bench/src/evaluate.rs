//! From samples to the summary.

use std::collections::BTreeMap;

use crate::contenders::Skipped;
use crate::results::{Comparison, Contender, Memory, NullTest, Provenance, Purpose, SCHEMA, Sample, Status, Summary};
use crate::stats;

/// What was found out about a contender before the race.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Version, command, kind of isolation.
    pub details: BTreeMap<String, String>,
    /// SHA-256 of its workload.
    pub workload_sha256: Option<String>,
    /// What `cpu` printed.
    pub checksum: Option<String>,
    /// Why it does not race, or stopped racing.
    pub skipped: Option<Skipped>,
}

/// Sums up a race. `known` has every contender asked for, in order; `null` names the one that ran twice.
pub fn summary(provenance: Provenance, known: &[(String, Known)], samples: &[Sample], null: Option<&str>) -> Summary {
    summary_of(provenance, known, samples, null, every_pair)
}

/// [`summary`] with a choice of what is compared: `pairs` gets the names of those that were measured.
pub fn summary_of(
    provenance: Provenance,
    known: &[(String, Known)],
    samples: &[Sample],
    null: Option<&str>,
    pairs: impl for<'a> Fn(&[&'a str]) -> Vec<(&'a str, &'a str)>,
) -> Summary {
    let contenders: Vec<Contender> = known
        .iter()
        .map(|(name, known)| contender(name, known, samples))
        .collect();
    let measured: Vec<&str> = contenders
        .iter()
        .filter(|c| c.status == Status::Measured)
        .map(|c| c.name.as_str())
        .collect();
    let null_test = null
        .filter(|name| measured.contains(name))
        .and_then(|name| null_test(name, samples));
    Summary {
        schema: SCHEMA,
        comparisons: comparisons(pairs(&measured), samples),
        null_test,
        null_tests: Vec::new(),
        provenance,
        contenders,
    }
}

fn contender(name: &str, known: &Known, samples: &[Sample]) -> Contender {
    let own: Vec<Sample> = samples
        .iter()
        .filter(|sample| sample.contender == name)
        .cloned()
        .collect();
    let startup = stats::distribution(&startups(&own, Purpose::Timed));
    let timed = own.iter().filter(|sample| sample.purpose == Purpose::Timed);
    let totals: Vec<u64> = timed.map(|sample| sample.end_ns - sample.start_ns).collect();
    let measured = known.skipped.is_none() && startup.is_some();
    let skipped = known.skipped.clone().or_else(|| {
        // An interrupted race may end before a contender's first timed launch.
        let (reason, fix) = (
            "the race ended before its first timed launch",
            "let the race run to its end",
        );
        (!measured).then(|| Skipped {
            reason: reason.into(),
            fix: fix.into(),
        })
    });
    Contender {
        name: name.into(),
        status: if measured { Status::Measured } else { Status::Skipped },
        reason: skipped.as_ref().map(|skipped| skipped.reason.clone()),
        fix: skipped.map(|skipped| skipped.fix),
        details: known.details.clone(),
        startup_ns: startup.filter(|_| measured),
        total_ns: stats::distribution(&totals).filter(|_| measured),
        memory: memory(&own).filter(|_| measured),
        phases: if measured { stats::phases(&own) } else { Vec::new() },
        workload_sha256: known.workload_sha256.clone(),
        checksum: known.checksum.clone(),
    }
}

/// Every pair of contenders; those against `process` first.
fn every_pair<'a>(measured: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (index, &b) in measured.iter().enumerate() {
        pairs.extend(measured[index + 1..].iter().map(|&a| (a, b)));
    }
    pairs.sort_by_key(|&(_, b)| b != "process");
    pairs
}

fn comparisons(pairs: Vec<(&str, &str)>, samples: &[Sample]) -> Vec<Comparison> {
    let compare = |(a, b)| stats::compare(a, &of(samples, a, Purpose::Timed), b, &of(samples, b, Purpose::Timed));
    pairs.into_iter().map(compare).collect()
}

/// The null test of the contender `name`; None when it did not start twice.
pub(crate) fn null_test(name: &str, samples: &[Sample]) -> Option<NullTest> {
    let (first, second) = (of(samples, name, Purpose::Timed), of(samples, name, Purpose::Null));
    (!first.is_empty() && !second.is_empty()).then(|| stats::null_test(name, &first, &second))
}

fn of(samples: &[Sample], name: &str, purpose: Purpose) -> Vec<u64> {
    let own: Vec<Sample> = samples
        .iter()
        .filter(|sample| sample.contender == name)
        .cloned()
        .collect();
    startups(&own, purpose)
}

/// Start line to finish line, in nanoseconds.
fn startups(samples: &[Sample], purpose: Purpose) -> Vec<u64> {
    let wanted = samples.iter().filter(|sample| sample.purpose == purpose);
    wanted
        .filter_map(|sample| Some(sample.first_byte_ns? - sample.start_ns))
        .collect()
}

/// Field by field, the median over the memory launches that know it.
fn memory(own: &[Sample]) -> Option<Memory> {
    let weighed: Vec<&Memory> = own.iter().filter_map(|sample| sample.memory.as_ref()).collect();
    let median = |field: fn(&Memory) -> Option<u64>| {
        let values: Vec<u64> = weighed.iter().filter_map(|memory| field(memory)).collect();
        stats::distribution(&values).map(|distribution| distribution.p50)
    };
    (!weighed.is_empty()).then(|| Memory {
        peak_bytes: median(|memory| memory.peak_bytes),
        idle_bytes: median(|memory| memory.idle_bytes),
        kernel_bytes: median(|memory| memory.kernel_bytes),
        unique_bytes: median(|memory| memory.unique_bytes),
        shared_bytes: median(|memory| memory.shared_bytes),
        guest_configured_bytes: median(|memory| memory.guest_configured_bytes),
        guest_touched_bytes: median(|memory| memory.guest_touched_bytes),
        note: weighed.iter().find_map(|memory| memory.note.clone()),
    })
}
