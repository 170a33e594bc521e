//! Another program in a container that runs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;

use oci_common::{succeed, text};
use serde_json::json;

#[test]
fn it_is_in_every_namespace_and_cgroup() {
    let bundle = bundle_or_skip!("sleep 1000");
    bundle.start();
    let pid = bundle.state()["pid"].to_string();
    let inside = bundle.exec("for n in pid net ipc uts mnt cgroup user; do readlink /proc/self/ns/$n; done");
    for (name, link) in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"]
        .iter()
        .zip(inside.lines())
    {
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/ns/{name}"))
                .unwrap()
                .to_str()
                .unwrap(),
            link
        );
    }
    let pids: Vec<i64> = serde_json::from_str(&{
        let mut sleeper = bundle.runtime(&["exec", "--detach", "--pid-file"]);
        succeed(
            sleeper
                .arg(bundle.path("pid"))
                .args([&bundle.id, "sleep", "1001"])
                .stdout(std::process::Stdio::null()),
        );
        bundle.command(&["ps", "--format", "json"])
    })
    .unwrap();
    let second: i64 = fs::read_to_string(bundle.path("pid")).unwrap().parse().unwrap();
    assert!(pids.len() == 2 && pids.contains(&second), "{pids:?}");
    assert_eq!(bundle.exec("ps | grep -c 'sleep 100[01]$'"), "2");
}

#[test]
fn arguments_change_what_the_container_has() {
    let mut bundle = bundle_or_skip!("sleep 1000");
    bundle.config["process"]["env"] = json!(["PATH=/bin", "FIRST=1"]);
    bundle.start();
    let script = "id -u; id -g; pwd; echo $FIRST $SECOND; grep CapEff /proc/self/status";
    let options = [
        "exec",
        "--user",
        "1000:1001",
        "--cwd",
        "/etc",
        "--env",
        "SECOND=2",
        &bundle.id,
        "sh",
        "-c",
        script,
    ];
    assert_eq!(
        text(&bundle.runtime(&options).output().unwrap()),
        "1000\n1001\n/etc\n1 2\nCapEff:\t0000000000000000"
    );
    let options = [
        "exec",
        "--cap",
        "CAP_CHOWN",
        &bundle.id,
        "sh",
        "-c",
        "grep CapEff /proc/self/status",
    ];
    assert_eq!(
        text(&bundle.runtime(&options).output().unwrap()),
        "CapEff:\t0000000020000421"
    );
}

#[test]
fn a_description_in_a_file_is_followed() {
    let bundle = bundle_or_skip!("sleep 1000");
    bundle.start();
    let process = json!({"user": {"uid": 7, "gid": 8}, "cwd": "/tmp", "args": ["sh", "-c", "id -u; pwd; echo $A"], "env": ["PATH=/bin", "A=b"]});
    fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    let mut exec = bundle.runtime(&["exec", "--process"]);
    assert_eq!(
        text(&exec.arg(bundle.path("process.json")).arg(&bundle.id).output().unwrap()),
        "7\n/tmp\nb"
    );
}

#[test]
fn status_and_failures_are_told_apart() {
    let bundle = bundle_or_skip!("sleep 1000");
    bundle.start();
    let status = |program: &[&str]| {
        let output = bundle.runtime(&["exec", &bundle.id]).args(program).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(status(&["sh", "-c", "exit 9"]).0, 9);
    assert_eq!(status(&["sh", "-c", "kill -9 $$"]).0, 137);
    let (code, message) = status(&["/no/such"]);
    assert!(
        code == 127 && message.contains("exec failed") && message.contains("no such file or directory"),
        "{message}"
    );
    let (code, message) = status(&["/etc/passwd"]);
    assert!(code == 126 && message.contains("Permission denied"), "{message}");
    bundle.command(&["kill", "--all"]);
    succeed(&mut bundle.runtime(&["kill", &bundle.id, "KILL"]));
    bundle.wait_for("stopped");
    assert!(status(&["true"]).1.contains("it is stopped"));
}

#[test]
fn it_has_a_terminal_when_it_asks_for_one() {
    let bundle = bundle_or_skip!("sleep 1000");
    bundle.start();
    let output = bundle.runtime(&["exec", "--tty", &bundle.id, "tty"]).output().unwrap();
    assert_eq!(text(&output), "/dev/pts/0");
}
