//! `container ps | logs | stop | start | restart | kill | wait | rm`, and the restart policy.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{message, text, until};

/// Ends with 3 when it is asked to.
const POLITE: &str = "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.1; done";

#[test]
fn a_container_is_stopped_started_and_waited_for() {
    let lab = lab_or_skip!();
    lab.start("web", &["--label", "role=front"], POLITE);
    lab.wait_for_log("web", "ready");
    let listed = lab.text(["ps"]);
    assert!(
        listed.contains("web") && listed.contains("up ") && listed.contains("busybox"),
        "{listed}"
    );
    let line: serde_json::Value = serde_json::from_str(&lab.text(["ps", "--json"])).unwrap();
    assert_eq!(
        (&line["Status"], &line["Labels"]["role"]),
        (&"running".into(), &"front".into())
    );
    assert!(message(&lab.run(["start", "web"]), 1).contains("is running"));
    assert!(message(&lab.run(["rm", "web"]), 1).contains("stop it first"));

    let waiting = lab.command(["wait", "web"]).stdout(Stdio::piped()).spawn().unwrap();
    lab.text(["stop", "web"]);
    assert_eq!(text(&waiting.wait_with_output().unwrap()), "3");
    assert_eq!(lab.text(["logs", "web"]), "ready\nbye");
    assert_eq!(lab.text(["ps", "-q"]), "");
    assert!(lab.text(["ps", "-a"]).contains("exited (3)"));
    assert_eq!(lab.text(["wait", "web"]), "3");
    assert!(message(&lab.run(["kill", "web"]), 1).contains("not running"));

    // Its files are those it left.
    lab.text(["start", "web"]);
    lab.text(["exec", "web", "touch", "/left"]);
    lab.text(["restart", "-t", "0", "web"]);
    lab.text(["exec", "web", "ls", "/left"]);
    lab.text(["kill", "-s", "KILL", "web"]);
    assert_eq!(lab.text(["wait", "web"]), "137");
    lab.text(["rm", "web"]);
    assert!(message(&lab.run(["logs", "web"]), 125).contains("no container web"));
    lab.assert_empty();
}

#[test]
fn a_reader_who_left_keeps_nothing_from_being_done() {
    let lab = lab_or_skip!();
    for name in ["one", "two"] {
        lab.start(name, &[], POLITE);
        lab.wait_for_log(name, "ready");
    }
    for arguments in [&["inspect", "one"][..], &["stop", "one", "two"], &["rm", "one", "two"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = lab.command(arguments.iter().copied()).stdout(writer).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    lab.assert_empty();
}

#[test]
fn who_does_not_listen_is_killed_when_his_time_is_up() {
    let lab = lab_or_skip!();
    lab.start("deaf", &[], "trap '' TERM; echo ready; while true; do sleep 0.1; done");
    lab.wait_for_log("deaf", "ready");
    lab.text(["stop", "-t", "1", "deaf"]);
    assert_eq!(lab.state_of("deaf", "ExitCode"), 137);
    // And the signal to ask with can be chosen.
    lab.start(
        "usr1",
        &["--stop-signal", "USR1"],
        "trap 'exit 4' USR1; echo ready; while true; do sleep 0.1; done",
    );
    lab.wait_for_log("usr1", "ready");
    lab.text(["stop", "usr1"]);
    assert_eq!(lab.state_of("usr1", "ExitCode"), 4);
}

#[test]
fn the_restart_policy_decides_and_stop_overrules_it() {
    let lab = lab_or_skip!();
    lab.start("fails", &["--restart", "on-failure:2"], "echo run; exit 5");
    until("the last restart", || {
        (lab.state_of("fails", "Status") == "exited").then_some(())
    });
    assert_eq!(lab.text(["logs", "fails"]), "run\nrun\nrun");
    assert_eq!(lab.state_of("fails", "RestartCount"), 2);
    assert_eq!(lab.state_of("fails", "ExitCode"), 5);
    lab.start("succeeds", &["--restart", "on-failure"], "echo once");
    assert_eq!(lab.text(["wait", "succeeds"]), "0");
    assert_eq!(lab.text(["logs", "succeeds"]), "once");

    lab.start("always", &["--restart", "always"], "echo again; sleep 0.05");
    until("a restart", || {
        (lab.state_of("always", "RestartCount").as_u64() > Some(1)).then_some(())
    });
    lab.text(["stop", "-t", "0", "always"]);
    assert_eq!(lab.state_of("always", "Status"), "exited");
    assert!(message(&lab.run(["run", "--rm", "--restart", "always", "busybox", "true"]), 125).contains("contradict"));
}

#[test]
fn logs_are_chosen_followed_and_dated() {
    let lab = lab_or_skip!();
    lab.start(
        "talks",
        &[],
        "for i in 1 2 3; do echo $i; done; echo oops >&2; sleep 0.5; echo last",
    );
    let mut follow = lab
        .command(["logs", "-f", "talks"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(follow.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    assert!(follow.wait().unwrap().success());
    assert_eq!(lines, ["1", "2", "3", "last"]);
    let output = lab.run(["logs", "talks"]);
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"1\n2\n3\nlast\n"[..], &b"oops\n"[..])
    );
    assert_eq!(lab.text(["logs", "--tail", "1", "talks"]), "last");
    assert_eq!(lab.text(["logs", "--since", "1h", "talks"]).lines().count(), 4);
    assert_eq!(lab.text(["logs", "--since", "2099-01-01T00:00:00Z", "talks"]), "");
    let dated = lab.text(["logs", "-t", "-n", "1", "talks"]);
    let (time, line) = dated.split_once(' ').unwrap();
    assert!(
        time.ends_with('Z') && time.starts_with("20") && line == "last",
        "{dated}"
    );
    // The format of docker's json-file driver.
    let path = lab.inspect("talks")["LogPath"].as_str().unwrap().to_owned();
    let first = std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["log"], &first["stream"]), (&"1\n".into(), &"stdout".into()));
}

#[test]
fn the_processes_and_what_they_use_are_shown() {
    let lab = lab_or_skip!();
    lab.start("busy", &["--memory", "64M"], "while true; do :; done");
    let top = lab.text(["top", "busy"]);
    assert!(top.lines().nth(1).unwrap().contains("while true"), "{top}");
    let line = lab.text(["stats", "--no-stream", "--json", "busy"]);
    let stats: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(stats["CpuPercent"].as_f64().unwrap() > 0.5, "{line}");
    let numbers = &stats["Statistics"];
    assert!(numbers["memory_bytes"].as_u64().unwrap() > 0, "{line}");
    assert_eq!(numbers["memory_limit_bytes"], 64 << 20);
    assert_eq!(numbers["pids"], 1);
    let table = lab.text(["stats", "--no-stream"]);
    assert!(table.contains("busy") && table.contains("64.0 MiB"), "{table}");
    lab.text(["rm", "-f", "busy"]);
    assert!(message(&lab.run(["stats", "--no-stream", "busy"]), 125).contains("no container"));
}

#[test]
fn exec_runs_one_more_program_as_asked() {
    let lab = lab_or_skip!();
    lab.start("host", &["-e", "A=1", "-w", "/tmp"], "sleep 1000");
    assert_eq!(
        lab.text(["exec", "host", "sh", "-c", "echo $A $(pwd) $(id -u)"]),
        "1 /tmp 0"
    );
    let options = [
        "exec",
        "-e",
        "A=2",
        "-u",
        "ann:wheel",
        "-w",
        "/",
        "host",
        "sh",
        "-c",
        "echo $A $(pwd) $(id -u):$(id -g)",
    ];
    assert_eq!(lab.text(options), "2 / 1000:10");
    assert_eq!(lab.run(["exec", "host", "sh", "-c", "exit 6"]).status.code(), Some(6));
    assert_eq!(lab.run(["exec", "host", "no-such"]).status.code(), Some(127));
    lab.text(["exec", "-d", "host", "sh", "-c", "echo done > /tmp/done"]);
    until("the detached program", || {
        lab.run(["exec", "host", "test", "-e", "/tmp/done"])
            .status
            .success()
            .then_some(())
    });
    let mut child = lab
        .command(["exec", "-i", "host", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through\n").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap()), "through");

    let outer = nix::pty::openpty(None, None).unwrap();
    let mut command = lab.command(["exec", "-it", "host", "tty"]);
    command
        .stdin(outer.slave.try_clone().unwrap())
        .stdout(outer.slave.try_clone().unwrap())
        .stderr(outer.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut shown = Vec::new();
    let _ = std::io::Read::read_to_end(&mut std::fs::File::from(outer.master), &mut shown);
    assert!(child.wait().unwrap().success());
    assert!(String::from_utf8_lossy(&shown).contains("/dev/pts/"), "{shown:?}");

    lab.text(["stop", "-t", "0", "host"]);
    assert!(message(&lab.run(["exec", "host", "true"]), 125).contains("not running"));
}
