//! `lab ladder`, `lab overhead` and the conditions of `lab compare`, with real launches.

// clippy.toml allows unwrap in test functions; their helpers are tests too.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use bench::results::{Purpose, Sample, Status, Summary};
use bench::store;

fn lab(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "lab {arguments:?}: {said}");
    output
}

fn results(folder: &Path) -> (Summary, Vec<Sample>) {
    (
        store::read_summary(folder).unwrap(),
        store::read_samples(folder).unwrap(),
    )
}

#[test]
fn every_condition_is_a_series_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let folder = out.to_str().unwrap();
    let conditions = [
        "--concurrency",
        "1,3",
        "--rate",
        "20",
        "--running",
        "0,2",
        "--runs",
        "4",
    ];
    let mut words = vec!["compare", "--contenders", "process", "--gap-ms", "0", "--out", folder];
    words.extend(conditions);
    let output = lab(&words);
    let (summary, samples) = results(&out);
    // At least four starts each, in four blocks; each of three workers has its share of every block.
    let expected = [
        ("process, 1 worker", 4),
        ("process, 3 workers", 12),
        ("process, 20 per second", 4),
        ("process, 0 running", 4),
        ("process, 2 running", 4),
    ];
    assert_eq!(summary.contenders.len(), expected.len());
    for (contender, (name, n)) in summary.contenders.iter().zip(expected) {
        assert_eq!(contender.name, name);
        assert_eq!(contender.status, Status::Measured, "{name}: {:?}", contender.reason);
        assert_eq!(contender.startup_ns.unwrap().n, n, "{name}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(name));
    }
    // One contender, one null test for each condition; and too few starts for any verdict.
    let tested: Vec<&str> = summary.null_tests.iter().map(|test| &*test.contender).collect();
    assert_eq!(tested, expected.map(|(name, _)| name));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("4 runs are too few") && text.contains("no verdict"),
        "{text}"
    );
    workers_overlap(&samples);
    // An open-loop start counts from when it was due, which is before it was made.
    let due = samples.iter().filter(|sample| sample.contender.ends_with("per second"));
    for sample in due {
        assert!(sample.start_ns <= sample.marks[0].ns, "{sample:?}");
    }
    assert!(summary.provenance.conditions.is_some());
    assert!(out.join("charts/modes.svg").exists());
}

/// What counts of three workers was started while two others were under way.
fn workers_overlap(samples: &[Sample]) {
    let all: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.contender == "process, 3 workers")
        .collect();
    let counted = all.iter().filter(|sample| sample.purpose == Purpose::Timed);
    let mut alone = 0;
    for sample in counted {
        // A worker takes a moment from one end to the next start, so the neighbour may be between two: look at the whole
        // time of the start, in which the others must have been at work.
        let beside = all.iter().filter(|other| {
            other.sequence != sample.sequence && other.start_ns < sample.end_ns && sample.start_ns < other.end_ns
        });
        alone += usize::from(beside.count() == 0);
    }
    assert_eq!(alone, 0, "a worker was alone");
    assert!(all.iter().any(|sample| sample.purpose == Purpose::Warmup));
}

#[test]
fn the_ladders_have_every_rung_that_can_run_here() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let output = lab(&["ladder", "--runs", "2", "--gap-ms", "0", "--out", out.to_str().unwrap()]);
    let (summary, samples) = results(&out);
    for contender in &summary.contenders {
        match contender.status {
            Status::Skipped => eprintln!("skipped: {}: {}", contender.name, contender.reason.as_ref().unwrap()),
            Status::Measured => {
                let own = samples.iter().filter(|sample| sample.contender == contender.name);
                // Two warm-ups and two timed ones; the floor also runs against itself.
                assert!(own.count() >= 4, "{}", contender.name);
            }
        }
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("fork, exec, the program itself"), "{text}");
    assert!(out.join("charts/ladder.svg").exists());
}

#[test]
fn the_harness_tells_what_it_adds() {
    let output = lab(&["overhead", "--runs", "3", "--gap-ms", "0"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("The harness adds") && text.contains("per launch"),
        "{text}"
    );
    let output = lab(&["overhead", "--runs", "1", "--gap-ms", "0", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["n"] == 1 && found["whole_difference_ns"].is_f64(), "{found}");
}

#[test]
fn conditions_are_told_as_json_too() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let output = lab(&[
        "compare",
        "--contenders",
        "process",
        "--concurrency",
        "1,2",
        "--runs",
        "1",
        "--gap-ms",
        "0",
        "--json",
        "--out",
        out.to_str().unwrap(),
    ]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["summary"]["null_tests"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(told["doubts"][0]["a"], "process, 2 workers", "{told}");
}

#[test]
fn processors_that_are_not_there_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["compare", "--cpus", "1023", "--runs", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("[1023]"), "{said}");
}
