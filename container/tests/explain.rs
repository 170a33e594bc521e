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
    let image = image_or_skip!();
    let mut command = container(["--explain", "--rootfs"]);
    let output = command.arg(image).args(["--", "no-such-program"]).output().unwrap();
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

/// A container with a name: the launcher's part, the supervisor's, the network's and the volume's, and the inside.
#[test]
fn a_container_with_a_name_is_told_of_with_its_supervisor_its_network_and_its_volume() {
    let lab = lab_or_skip!().with_network();
    let script = "echo from $(cat /etc/motd); cat /data/given; hostname";
    let output = lab.run([
        "run",
        "--explain=json",
        "--rm",
        "--name",
        "told",
        "--hostname",
        "box",
        "--network",
        "bridge",
        "-p",
        "127.0.0.1:8123:80",
        "-v",
        "kept:/data",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(text(&output), "from from the image\nby the image\nbox");
    let story = json(&output);
    assert_eq!(story["watched"], 1, "{story}");
    let calls = calls(&story);
    let order = [
        "supervisor: bind(",
        "supervisor: unshare(CLONE_NEWNS)",
        "supervisor: mount(\"overlay\"",
        "helper: unshare(CLONE_NEWNET)",
        "RTM_NEWLINK",
        "RTM_NEWADDR",
        "RTM_NEWROUTE to everywhere through",
        "bundle/config.json",
        "inside: sethostname(\"box\", 3)",
        "inside: pivot_root(\".\", \".\")",
        "inside: seccomp(SECCOMP_SET_MODE_FILTER",
        "inside: exec",
    ];
    let positions: Vec<_> = order.iter().map(|needle| position(&calls, needle)).collect();
    assert!(positions.is_sorted(), "{positions:?} {calls:#?}");
    assert_eq!(positions.last(), Some(&(calls.len() - 1)), "nothing follows the execve");
    for needle in [
        "127.0.0.1:8123",
        " veth, other end ",
        " bridge",
        "lowerdir=",
        "/volumes/kept",
    ] {
        position(&calls, needle);
    }
    let groups = story["groups"].as_array().unwrap();
    let of = |process: &str, term: &str| {
        groups
            .iter()
            .filter(|group| group["process"] == process && group["term"] == term)
            .map(|group| group["cost_ns"].as_u64().unwrap())
            .sum::<u64>()
    };
    for (process, term) in [
        ("launcher", "engine: an image becomes a container"),
        ("supervisor", "port forwarding"),
        ("supervisor", "union file system, copy-on-write"),
        ("supervisor", "volume"),
        ("helper", "namespace NET"),
        ("supervisor", "veth pair and bridge, addresses"),
        ("supervisor", "OCI bundle"),
        ("supervisor", "OCI runtime"),
        ("supervisor", "namespaces"),
        ("helper", "port forwarding"),
    ] {
        let titles = groups
            .iter()
            .map(|group| (&group["process"], &group["term"], &group["cost_ns"]));
        assert!(
            of(process, term) > 0,
            "{process}: {term} in {:?}",
            titles.collect::<Vec<_>>()
        );
    }
    lab.text(["volume", "rm", "kept"]);
    lab.assert_empty();
}

/// The story comes first, then the command goes on as without it.
#[test]
fn a_told_container_runs_on_in_the_background() {
    let lab = lab_or_skip!();
    let output = lab.run(["run", "--explain", "-d", "--name", "told", "busybox", "sleep", "1000"]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text(&output).len(), 64, "the id: {said}");
    assert!(
        said.contains("supervisor: build the root (union file system,"),
        "{said}"
    );
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert_eq!(lab.state_of("told", "Status"), "running");
    let pid = lab.state_of("told", "Pid").to_string();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("TracerPid:\t0"), "{status}");
    assert_eq!(text(&lab.run(["exec", "told", "echo", "still"])), "still");
    lab.text(["rm", "-f", "told"]);
    let output = lab.run(["run", "--explain", "--rm", "busybox", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("no program was started")
    );
    lab.assert_empty();
}
