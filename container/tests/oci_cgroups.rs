//! Limits, their change, and what is accounted; pausing; devices.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::io::Write;
use std::process::Stdio;

use oci_common::text;
use serde_json::{Value, json};

#[test]
fn limits_are_set_and_changed() {
    let mut bundle = bundle_or_skip!("sleep 1000");
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "reservation": 32 << 20});
    bundle.config["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 50000, "period": 100_000});
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 50});
    bundle.start();
    let memory = || bundle.control("memory.limit_in_bytes", "memory.max");
    let pids = || bundle.control("pids.max", "pids.max");
    assert_eq!((memory(), pids()), ((64 << 20).to_string(), "50".into()));
    let quota = bundle.control("cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    bundle.command(&["update", "--memory", "33554432", "--pids-limit", "60"]);
    assert_eq!((memory(), pids()), ((32 << 20).to_string(), "60".into()));
    let mut update = bundle.runtime(&["update", "--resources", "-", &bundle.id]);
    let mut update = update.stdin(Stdio::piped()).spawn().unwrap();
    update
        .stdin
        .take()
        .unwrap()
        .write_all(br#"{"pids": {"limit": 70}, "memory": {"limit": 134217728}}"#)
        .unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!((memory(), pids()), ((128 << 20).to_string(), "70".into()));
}

#[test]
fn memory_beyond_the_limit_ends_the_program() {
    let mut bundle = bundle_or_skip!("tail -c 100m /dev/zero; echo $?");
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20});
    assert_eq!(bundle.run(), "137");
}

#[test]
fn a_paused_container_goes_on_where_it_was() {
    let bundle = bundle_or_skip!("while :; do echo x >> /tmp/beat; sleep 0.02; done");
    bundle.start();
    let beat = || std::fs::metadata(bundle.root("tmp/beat")).map_or(0, |metadata| metadata.len());
    oci_common::wait_until(|| beat() > 0);
    bundle.command(&["pause"]);
    assert_eq!(bundle.status(), "paused");
    let before = beat();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(beat(), before);
    let refused = bundle.runtime(&["exec", &bundle.id, "true"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("paused"),
        "{refused:?}"
    );
    bundle.command(&["resume"]);
    assert_eq!(bundle.status(), "running");
    oci_common::wait_until(|| beat() > before);
    // One that is frozen can be deleted all the same.
    bundle.command(&["pause"]);
    bundle.command(&["delete", "--force"]);
    assert!(bundle.is_gone());
}

#[test]
fn what_is_used_is_reported_in_runcs_shape() {
    let bundle = bundle_or_skip!("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000");
    bundle.start();
    let stats = || serde_json::from_str::<Value>(&bundle.command(&["events", "--stats"])).unwrap();
    oci_common::wait_until(|| stats()["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    let stats = stats();
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!(bundle.id)));
    let data = &stats["data"];
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{stats}");
    assert!(data["pids"]["current"].as_u64().unwrap() >= 1, "{stats}");
    assert!(
        data["cpu"]["throttling"]["periods"].is_u64() && data["blkio"]["ioServicedRecursive"].is_array(),
        "{stats}"
    );
    let mut events = bundle.runtime(&["events", "--interval", "50ms", &bundle.id]);
    let events = events.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    bundle.command(&["kill", "--all"]);
    oci_common::succeed(&mut bundle.runtime(&["kill", &bundle.id, "9"]));
    // It ends when the container does.
    let lines = text(&events.wait_with_output().unwrap());
    assert!(lines.lines().count() > 1, "{lines}");
}

#[test]
fn a_device_made_inside_is_refused_unless_there_is_a_rule_for_it() {
    // The kernel's log, 1:11, to be written to: it takes no capability, so that nothing but the rule keeps it shut.
    let mut bundle = bundle_or_skip!(
        "rm -f /tmp/log /tmp/null; mknod /tmp/log c 1 11; mknod /tmp/null c 1 3; for d in log null; do (: > /tmp/$d) 2>&1 && echo $d; done"
    );
    if std::fs::File::options().write(true).open("/dev/kmsg").is_err() {
        skip!("needs a host on which /dev/kmsg can be opened");
    }
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
    }
    assert_eq!(bundle.run(), "sh: can't create /tmp/log: Operation not permitted\nnull");
    bundle.config["linux"]["resources"]["devices"] =
        json!([{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]);
    assert_eq!(bundle.run(), "log\nnull");
}

#[test]
fn every_process_gets_the_signal_with_all() {
    let mut bundle = bundle_or_skip!("sleep 1000 & sleep 1000 & exec sleep 1000");
    // In the host's pid namespace nobody takes them along.
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|kind| kind["type"] != "pid");
    bundle.start();
    let pids = || serde_json::from_str::<Vec<i32>>(&bundle.command(&["ps", "--format", "json"])).unwrap();
    oci_common::wait_until(|| pids().len() == 3);
    bundle.command(&["kill", "--all"]);
    oci_common::wait_until(|| pids().is_empty());
}
