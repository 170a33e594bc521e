//! The six hooks: when, where, with what, and what a failure does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;
use std::process::Stdio;

use oci_common::{Bundle, succeed};
use serde_json::{Value, json};

const MOMENTS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that appends its moment, its mount namespace and the state to a file.
fn hook(bundle: &Bundle, moment: &str, then: &str) -> Value {
    let file = if moment == "startContainer" {
        "/tmp/journal".into()
    } else {
        bundle.path("journal").display().to_string()
    };
    let script = format!("read -r state; echo {moment} $(readlink /proc/self/ns/mnt) \"$state\" >> {file}; {then}");
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 60}])
}

fn journal(bundle: &Bundle) -> Vec<(String, String, Value)> {
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap().to_owned();
        (word(), word(), serde_json::from_str(&word()).unwrap())
    };
    fs::read_to_string(bundle.path("journal"))
        .unwrap_or_default()
        .lines()
        .map(line)
        .collect()
}

#[test]
fn every_hook_runs_once_in_order_and_with_the_state() {
    let mut bundle = bundle_or_skip!("cat /tmp/journal > /tmp/seen; exec sleep 1000");
    bundle.config["annotations"] = json!({"org.example.key": "value"});
    for moment in MOMENTS {
        bundle.config["hooks"][moment] = hook(&bundle, moment, "");
    }
    succeed(bundle.on_bundle(&["create"]).stdout(Stdio::null()));
    let moments = |bundle: &Bundle| {
        journal(bundle)
            .into_iter()
            .map(|(moment, ..)| moment)
            .collect::<Vec<_>>()
    };
    assert_eq!(moments(&bundle), ["prestart", "createRuntime", "createContainer"]);
    bundle.command(&["start"]);
    assert_eq!(moments(&bundle).last().unwrap(), "poststart");
    oci_common::wait_until(|| bundle.root("tmp/seen").exists());
    assert!(
        fs::read_to_string(bundle.root("tmp/journal"))
            .unwrap()
            .starts_with("startContainer")
    );
    bundle.command(&["delete", "--force"]);
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    let entries = journal(&bundle);
    assert_eq!(entries.last().unwrap().0, "poststop");
    for (moment, namespace, state) in entries {
        assert_eq!(
            namespace == host.to_str().unwrap(),
            moment != "createContainer",
            "{moment}"
        );
        assert_eq!(state["id"], bundle.id.as_str());
        assert_eq!(state["annotations"]["org.example.key"], "value");
        let status = match &*moment {
            "poststart" => "running",
            "poststop" => "stopped",
            _ => "creating",
        };
        assert_eq!(state["status"], status, "{moment}");
        assert_eq!(state["pid"] == 0, moment == "poststop", "{moment}: {state}");
    }
}

#[test]
fn a_hook_before_the_program_that_fails_ends_it_all() {
    for moment in &MOMENTS[..4] {
        let mut bundle = bundle_or_skip!("echo ran > /tmp/ran");
        bundle.config["hooks"] = json!({});
        bundle.config["hooks"][moment] = hook(&bundle, moment, "echo no luck >&2; exit 3");
        let message = bundle.refusal();
        assert!(
            message.contains(moment) && message.contains("no luck") && message.contains("status 3"),
            "{message}"
        );
        assert!(bundle.is_gone() && !bundle.root("tmp/ran").exists());
    }
}
