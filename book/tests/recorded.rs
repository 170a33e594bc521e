//! What is recorded holds together: the verdicts on the claims follow from the recorded samples, every figure says where it is from, and
//! nothing tells whose machine it was.

// All of this file is test, its helpers too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use book::folder;
use serde_json::Value;

fn recorded() -> PathBuf {
    folder().join("recorded")
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `lab`, beside the folder this test was built into.
fn lab() -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("lab");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p bench",
        program.display()
    );
    Command::new(program)
}

#[test]
fn verdicts_follow_from_the_samples() {
    let machine = recorded().join("pvm");
    let told = lab()
        .arg("claims")
        .arg(&machine)
        .arg(machine.join("ladder"))
        .arg("--json")
        .output()
        .unwrap();
    let today: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let today = today.as_array().unwrap();
    let kept = read(&machine.join("claims.json"));
    let mut compared = 0;
    for claim in kept.as_array().unwrap() {
        // One that is claimed no more has no verdict either. The book may not quote it: the build fails then.
        let Some(again) = today.iter().find(|again| again["formula"] == claim["formula"]) else {
            continue;
        };
        assert_eq!(claim["outcome"], again["outcome"], "{}", claim["formula"]);
        assert_eq!(claim["found"], again["found"], "{}", claim["formula"]);
        compared += 1;
    }
    assert!(
        compared >= 10,
        "{compared} claims were compared: record them anew (bash book/record doctor)"
    );
}

#[test]
fn every_result_says_where_it_is_from() {
    for path in files(&recorded()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // These come from commands whose output is not a study; the race beside them has the machine.
        let bare = ["claims.json", "clones.json", "doctor.json", "peel.json", "restore.json"];
        if path.extension().is_none_or(|ending| ending != "json")
            || bare.contains(&name.as_str())
            || name.starts_with("exits-")
        {
            continue;
        }
        let provenance = &read(&path)["provenance"];
        for key in ["date", "cpu", "kernel", "kvm_backend", "workload_sha256"] {
            let said = provenance[key].as_str().unwrap_or_default();
            assert!(!said.is_empty() && said != "unknown", "{}: no {key}", path.display());
        }
        assert!(
            provenance["n"].as_u64().is_some_and(|n| n > 0),
            "{}: no n",
            path.display()
        );
    }
}

#[test]
fn nothing_tells_whose_machine_it_was() {
    for path in files(&recorded()) {
        let text = fs::read_to_string(&path).unwrap();
        for place in ["/home/", "/root/", "/tmp/"] {
            assert!(
                !text.contains(place),
                "{} has a path that begins with {place}",
                path.display()
            );
        }
    }
}
