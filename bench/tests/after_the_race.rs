//! What can be done with results once they are there, by the program a user runs.

// clippy.toml allows unwrap in test functions; their helpers are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bench::results::Purpose;
use bench::store;
use tempfile::TempDir;

fn lab(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A short race of `contenders` into a folder of its own.
fn race(contenders: &str, more: &[&str]) -> (TempDir, PathBuf, Output) {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let mut arguments = vec![
        "compare",
        "--gap-ms",
        "1",
        "--runs",
        "6",
        "--contenders",
        contenders,
        "--out",
    ];
    arguments.push(out.to_str().unwrap());
    arguments.extend(more);
    let output = lab(&arguments);
    (dir, out, output)
}

#[test]
fn results_can_be_exported_explained_and_compared() {
    let (_dir, out, output) = race("process,container", &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&said(&output)).unwrap();
    assert_eq!(told["summary"]["provenance"]["n"], 6);
    let folder = out.to_str().unwrap();

    let csv = said(&lab(&["export", folder]));
    assert_eq!(csv.lines().count(), 1 + store::read_samples(&out).unwrap().len());
    let json: serde_json::Value = serde_json::from_str(&said(&lab(&["export", folder, "--json"]))).unwrap();
    assert!(json["samples"].is_array());
    assert!(said(&lab(&["export", folder, "--format", "markdown"])).contains("| process |"));

    let chart = out.join("charts/startup.svg");
    let explained = said(&lab(&["explain", chart.to_str().unwrap()]));
    assert!(explained.contains("the same, byte for byte"), "{explained}");
    fs::rename(out.join(store::SAMPLES), out.join("elsewhere")).unwrap();
    let explained = said(&lab(&["explain", chart.to_str().unwrap()]));
    assert!(explained.contains("gone"), "{explained}");
    fs::rename(out.join("elsewhere"), out.join(store::SAMPLES)).unwrap();

    let changes = lab(&["compare", "--baseline", folder, "--results", folder, "--json"]);
    let changes: serde_json::Value = serde_json::from_str(&said(&changes)).unwrap();
    assert!(
        changes["rows"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["change"] == "none_shown"),
        "{changes}"
    );

    let files: serde_json::Value = serde_json::from_str(&said(&lab(&["charts", folder, "--json"]))).unwrap();
    assert!(files["files"].as_array().unwrap().len() >= 3);
}

#[test]
fn what_cannot_be_compared_is_refused_before_a_race() {
    let dir = TempDir::new().unwrap();
    let (out, older) = (dir.path().join("out"), dir.path().join("older"));
    let (out, older) = (out.to_str().unwrap(), older.to_str().unwrap());
    let without = lab(&["compare", "--runs", "6", "--out", out, "--baseline", older]);
    let words = text(&without.stderr);
    assert!(!without.status.success() && words.contains("holds no race"), "{words}");
    assert!(words.contains(&format!("lab compare --out {older}")), "{words}");
    for around in ["--mistake=rss", "--predict=3", &format!("--baseline={older}")] {
        let both = lab(&["compare", "--concurrency", "2", "--out", out, around]);
        let words = text(&both.stderr);
        assert!(words.contains("cannot be used with"), "{around}: {words}");
    }
    assert!(!Path::new(out).exists());
}

#[test]
fn claims_hold_fail_or_say_what_is_missing() {
    let (dir, out, output) = race("process,container", &[]);
    said(&output);
    let file = dir.path().join("claims");
    let claims = "claim: A start comes before the end.\nthat: startup(process) < total(process)\nrobust\n\
                  claim: Nobody raced runc.\nthat: startup(runc) < startup(process)\nrobust\n";
    fs::write(&file, claims).unwrap();
    let arguments = [
        "claims",
        out.to_str().unwrap(),
        "--file",
        file.to_str().unwrap(),
        "--json",
    ];
    let judged: serde_json::Value = serde_json::from_str(&said(&lab(&arguments))).unwrap();
    assert_ne!(judged[0]["outcome"], "fails", "{judged}");
    assert_eq!(judged[1]["outcome"], "not_measurable", "{judged}");
    // Turned round, it must not hold; a robust claim that fails fails the command, an open one does not.
    fs::write(&file, "claim: x\nthat: startup(process) > 3 * total(process)\nrobust\n").unwrap();
    let output = lab(&arguments);
    let judged: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), judged[0]["outcome"] != "fails", "{judged}");
    fs::write(&file, "nonsense\n").unwrap();
    let output = lab(&arguments);
    assert!(text(&output.stderr).contains("line 1"), "{}", text(&output.stderr));
}

#[test]
fn a_guess_is_asked_for_and_drawn() {
    let (_dir, out, output) = race("process,container", &["--predict", "3.5"]);
    said(&output);
    assert_eq!(store::read_summary(&out).unwrap().provenance.prediction, Some(3.5));
    let chart = fs::read_to_string(out.join("charts/startup.svg")).unwrap();
    assert!(chart.contains("The guess before the race"));
    let (_dir, out, output) = race("process", &["--predict"]);
    assert!(!output.status.success() && !out.exists());
    assert!(
        text(&output.stderr).contains("--predict 3.5"),
        "{}",
        text(&output.stderr)
    );
}

fn only_raced(folder: &Path) -> bool {
    let purposes = [
        Purpose::Warmup,
        Purpose::Timed,
        Purpose::Null,
        Purpose::Phases,
        Purpose::Memory,
    ];
    let samples = store::read_samples(folder).unwrap();
    samples.windows(2).all(|pair| pair[0].sequence < pair[1].sequence)
        && samples.iter().all(|sample| purposes.contains(&sample.purpose))
}

#[test]
fn every_mistake_is_shown_beside_the_honest_race_and_kept_apart() {
    for kind in ["block-order", "finish-line", "format", "rss", "closed-loop", "no-gaps"] {
        let (_dir, out, output) = race("container,vm", &["--mistake", kind]);
        let complaint = text(&output.stderr);
        if !output.status.success() && complaint.contains("/dev/kvm") {
            eprintln!("skipped: {complaint}");
            return;
        }
        let shown = said(&output);
        assert!(
            shown.contains("MISTAKE, made on purpose") && shown.contains("honest"),
            "{kind}: {shown}"
        );
        let kept = fs::read_to_string(out.join(format!("mistakes/{kind}.jsonl"))).unwrap();
        for side in ["container", "vm"] {
            assert!(kept.contains(&format!("\"side\":\"{side}\"")), "{kind}: {kept}");
        }
        assert!(only_raced(&out), "{kind}: the results hold the honest race alone");
        let report = fs::read_to_string(out.join("report.html")).unwrap();
        assert!(!report.contains("MISTAKE"), "{kind}");
    }
}

#[test]
fn shells_and_manuals_are_served() {
    for (shell, word) in [
        ("bash", "complete"),
        ("zsh", "#compdef lab"),
        ("fish", "complete -c lab"),
    ] {
        assert!(said(&lab(&["completions", shell])).contains(word), "{shell}");
    }
    let page = said(&lab(&["man"]));
    assert!(
        page.contains(".TH lab") && page.contains("LAB COMPARE") && page.contains("baseline"),
        "{page}"
    );
}

#[test]
fn a_peer_killed_in_mid_race_is_named_and_the_others_go_on() {
    let dir = TempDir::new().unwrap();
    let (workload, count, peer) = (
        dir.path().join("workload"),
        dir.path().join("count"),
        dir.path().join("peer"),
    );
    fs::write(&workload, guest_images::WORKLOAD).unwrap();
    // Works for its trial and the warm-ups; then somebody kills it.
    let script = format!(
        "#!/bin/sh\necho x >> {0}; [ $(wc -l < {0}) -gt 6 ] && kill -9 $$; exec {1} \"$(eval echo \\${{$#}})\"\n",
        count.display(),
        workload.display()
    );
    fs::write(&peer, script).unwrap();
    for file in [&workload, &peer] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (_dir, out, output) = race("process,vm", &["--vmm", peer.to_str().unwrap()]);
    said(&output);
    let summary = store::read_summary(&out).unwrap();
    let vm = summary
        .contenders
        .iter()
        .find(|contender| contender.name == "vm")
        .unwrap();
    let reason = vm.reason.as_ref().unwrap();
    assert!(reason.contains("SIGKILL") || reason.contains("137"), "{reason}");
    let process = summary
        .contenders
        .iter()
        .find(|contender| contender.name == "process")
        .unwrap();
    assert_eq!(process.startup_ns.unwrap().n, 6, "the others raced on");
    let samples = store::read_samples(&out).unwrap();
    assert!(
        samples
            .iter()
            .any(|sample| sample.contender == "vm" && sample.exit_status == 137)
    );
    assert!(
        samples
            .iter()
            .any(|sample| sample.contender == "vm" && sample.exit_status == 0)
    );
}

#[test]
fn a_corrupted_line_and_a_newer_schema_are_named() {
    let (_dir, out, output) = race("process", &[]);
    said(&output);
    let folder = out.to_str().unwrap();
    let samples = fs::read_to_string(out.join(store::SAMPLES)).unwrap();
    let mut lines: Vec<&str> = samples.lines().collect();
    lines[2] = "{\"contender\":\"proc";
    fs::write(out.join(store::SAMPLES), lines.join("\n") + "\n").unwrap();
    for command in ["report", "charts", "export", "claims"] {
        let output = lab(&[command, folder]);
        let complaint = text(&output.stderr);
        assert!(
            !output.status.success() && complaint.contains("samples.jsonl, line 3"),
            "{command}: {complaint}"
        );
        assert!(complaint.contains("the other lines"), "{command}: {complaint}");
    }
    let summary = fs::read_to_string(out.join(store::SUMMARY)).unwrap();
    fs::write(
        out.join(store::SUMMARY),
        summary.replace("\"schema\": 1,", "\"schema\": 99,"),
    )
    .unwrap();
    let output = lab(&["report", folder]);
    let complaint = text(&output.stderr);
    assert!(
        complaint.contains("has schema 99") && complaint.contains("newer"),
        "{complaint}"
    );
}
