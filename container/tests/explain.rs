//! `--explain`: the story is true, complete, and nowhere near the program.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use common::{container, shell, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The story of `container run --explain=json OPTIONS workload hello`.
fn story(options: &[&str]) -> Value {
    let mut command = container(["--explain=json"]);
    let output = command.args(options).args(["workload", "hello"]).output().unwrap();
    assert_eq!(text(&output), "hello from the workload");
    json(&output)
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    serde_json::from_str(stderr.lines().find(|line| line.starts_with('{')).unwrap()).unwrap()
}

/// Every call as `process: name(arguments)`.
fn calls(story: &Value) -> Vec<String> {
    let groups = story["groups"].as_array().unwrap().iter();
    let line = |group: &Value, call: &Value| {
        let arguments = call["arguments"].as_array().unwrap().iter();
        let arguments: Vec<_> = arguments.map(|argument| argument.as_str().unwrap()).collect();
        format!(
            "{}: {}({})",
            group["process"].as_str().unwrap(),
            call["name"].as_str().unwrap(),
            arguments.join(", ")
        )
    };
    groups
        .flat_map(|group| {
            group["calls"]
                .as_array()
                .unwrap()
                .iter()
                .map(move |call| line(group, call))
        })
        .collect()
}

fn position(calls: &[String], needle: &str) -> usize {
    calls
        .iter()
        .position(|call| call.contains(needle))
        .unwrap_or_else(|| panic!("no {needle} in {calls:#?}"))
}

#[test]
fn the_story_has_every_step_in_order_and_ends_at_execve() {
    let _ = image_or_skip!();
    let calls = calls(&story(&["--hostname", "told"]));
    let order = [
        "launcher: socketpair(",
        "CLONE_NEWUSER",
        "inside: pivot_root(\".\", \".\")",
        "inside: mount(\"proc\", \"/proc\", \"proc\"",
        "inside: umount2(\".\", MNT_DETACH)",
        "inside: seccomp(SECCOMP_SET_MODE_FILTER",
        "program: capset(effective CAP_KILL|CAP_NET_BIND_SERVICE|CAP_AUDIT_WRITE",
        "program: execve(\"/bin/workload\", [\"workload\", \"hello\"])",
    ];
    let positions: Vec<_> = order.iter().map(|needle| position(&calls, needle)).collect();
    assert!(positions.is_sorted(), "{positions:?}");
    assert_eq!(positions.last(), Some(&(calls.len() - 1)), "nothing follows the execve");
    // Not a list kept by hand: what was asked for is what is told.
    position(&calls, "inside: sethostname(\"told\", 4)");
    position(&calls, "launcher: write(4 </proc/");
    let capabilities = calls.iter().filter(|call| call.contains("PR_CAPBSET_DROP")).count();
    assert!(capabilities > 30, "{capabilities}");
}

#[test]
fn what_is_left_out_is_not_told() {
    let _ = image_or_skip!();
    let with = calls(&story(&[]));
    let without = calls(&story(&["--without", "net,uts"]));
    for needle in ["CLONE_NEWNET", "SIOCSIFFLAGS", "sethostname"] {
        position(&with, needle);
        assert!(!without.iter().any(|call| call.contains(needle)), "{needle}");
    }
    root_or_skip!();
    let limited = story(&["--memory", "64M"]);
    position(&calls(&limited), "launcher: mkdir(\"");
    assert!(
        calls(&limited).iter().any(|call| call.contains("\"67108864\"")),
        "the limit, as written"
    );
    let terms: Vec<_> = limited["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| &group["term"])
        .collect();
    assert!(terms.contains(&&Value::from("control groups")), "{terms:?}");
}

#[test]
fn the_costs_say_what_they_are_made_of() {
    let _ = image_or_skip!();
    let story = story(&[]);
    assert!(story["watching_ns"]["median"].as_u64().unwrap() > 0);
    let phases = story["unwatched"]["phases"].as_array().unwrap();
    assert_eq!(phases.last().unwrap()["until"], "exec");
    let clone = story["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["verb"] == "clone into the namespaces");
    assert!(clone.unwrap()["cost_ns"].as_u64().unwrap() > 0);
}

#[test]
fn the_program_is_left_alone() {
    let image = image_or_skip!();
    // Neither traced nor confined to the tracer's processor, with the same descriptors, and its words are its own.
    let look = "grep -E 'TracerPid|Cpus_allowed_list|SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd; echo aside >&2; exit 7";
    let plain = shell(image, &[], look);
    let explained = shell(image, &["--explain"], look);
    assert_eq!(explained.status.code(), Some(7));
    assert_eq!(plain.stdout, explained.stdout);
    assert!(String::from_utf8(plain.stdout).unwrap().contains("TracerPid:\t0"));
    let said = String::from_utf8(explained.stderr).unwrap();
    let (told, aside) = said.rsplit_once("aside").unwrap();
    assert!(
        told.contains("isolated union file system") && aside.trim().is_empty(),
        "{said}"
    );
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
}

#[test]
fn a_failing_set_up_is_told_as_far_as_it_went() {
    let _ = image_or_skip!();
    let output = container(["--explain", "no-such-program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot find the program no-such-program"), "{said}");
    assert!(said.contains("no program was started"), "{said}");
    assert!(said.contains("/bin/no-such-program\", 0, 0xfff) = ENOENT"), "{said}");
}

#[test]
fn a_signal_to_the_teller_reaches_the_program() {
    let image = image_or_skip!();
    let mut command = container(["--explain", "--rootfs"]);
    command.arg(image).args([
        "--",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn an_unknown_format_is_refused() {
    let output = container(["--explain=verse", "workload", "hello"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}

#[test]
fn an_image_is_told_of_by_its_layers() {
    let lab = lab_or_skip!();
    let script = "echo from $(cat /etc/motd)";
    let output = lab.run(["run", "--explain", "busybox", "sh", "-c", script]);
    assert_eq!(common::text(&output), "from from the image");
    let said = String::from_utf8(output.stderr).unwrap();
    // The overlay, by the word the course has for it, with the image's layer below.
    assert!(said.contains("build the root") && said.contains("lowerdir=0"), "{said}");
    lab.assert_empty();
}
