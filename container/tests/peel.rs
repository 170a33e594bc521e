//! `container peel`: what comes into view is what the host really has.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{end_with_the_test, text};
use serde_json::Value;

fn peel() -> Command {
    let mut command = Command::new(common::LAUNCHER);
    command.arg("peel").stdin(Stdio::null());
    end_with_the_test(&mut command);
    command
}

fn report(command: &mut Command) -> Value {
    serde_json::from_str(&text(&command.arg("--json").output().unwrap())).unwrap()
}

fn rung<'a>(report: &'a Value, taken: &str) -> &'a Value {
    let rungs = report["rungs"].as_array().unwrap();
    rungs
        .iter()
        .find(|rung| rung["taken_away"] == taken)
        .unwrap_or_else(|| panic!("no {taken}: {report}"))
}

fn changes(rung: &Value) -> String {
    let lines = rung["changes"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_rung_shows_what_its_namespace_hid() {
    let _ = image_or_skip!();
    root_or_skip!();
    let report = report(&mut peel());
    let whole = rung(&report, "nothing");
    assert_eq!(
        (&whole["saw"]["pid"], &whole["saw"]["visible_processes"]),
        (&2.into(), &2.into())
    );
    let interfaces =
        |rung: &Value| serde_json::from_value::<Vec<String>>(rung["saw"]["network_interfaces"].clone()).unwrap();
    let mut hosts: Vec<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    hosts.retain(|name| !name.starts_with("veth"));
    assert!(
        hosts.iter().all(|name| interfaces(rung(&report, "net")).contains(name)),
        "{hosts:?}"
    );
    assert_eq!(interfaces(whole), ["lo"]);
    let pid = rung(&report, "pid");
    assert!(
        changes(pid).contains("processes instead of 2 processes"),
        "{}",
        changes(pid)
    );
    assert!(pid["saw"]["pid"].as_u64().unwrap() > 2);
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let uts = changes(rung(&report, "uts"));
    assert_eq!(
        uts,
        format!("has the host name {} instead of lab-container", host_name.trim())
    );
    assert!(changes(rung(&report, "user")).contains("as root is uid 0 of the host"));
    // Its program runs on the host's own root.
    assert!(rung(&report, "mount")["saw"]["mounts"].as_array().unwrap().len() > 1);
    assert!(
        rung(&report, "ipc")["refused"]
            .as_str()
            .unwrap()
            .contains("nothing tells the container's processes")
    );
    let bottom = rung(&report, "all of them");
    let (inside, outside) = (&whole["saw"]["ipc_objects"], &bottom["saw"]["ipc_objects"]);
    assert_eq!(inside, 0);
    assert!(outside.as_u64().unwrap() >= 1, "at least peel's own segment: {outside}");
    assert_eq!(report["costs"]["n"], 31);
}

#[test]
fn an_ordinary_user_keeps_the_user_namespace_and_is_told_why() {
    let _ = image_or_skip!();
    let directory = common::open_directory();
    let launcher = directory.path().join("container");
    common::copy(common::LAUNCHER, &launcher);
    let mut command = Command::new(&launcher);
    command
        .args(["peel", "--order", "uts,user,net"])
        .stdin(Stdio::null())
        .current_dir("/");
    if common::is_root() {
        command.uid(65534).gid(65534);
    }
    end_with_the_test(&mut command);
    let report = report(&mut command);
    let refused = rung(&report, "user")["refused"].as_str().unwrap();
    assert!(refused.contains("needs root"), "{refused}");
    // What was refused stays: the next rung leaves out the others only.
    assert_eq!(rung(&report, "net")["without"], serde_json::json!(["uts", "net"]));
    assert!(rung(&report, "net")["saw"]["pid"].is_u64());
}

#[test]
fn a_program_of_ones_own_is_compared_line_by_line() {
    let image = image_or_skip!();
    let mut command = peel();
    command.args(["--order", "uts", "--rootfs"]).arg(image);
    command.args(["--", "sh", "-c", "hostname; echo the same"]);
    let said = text(&command.output().unwrap());
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let changes = format!("without uts:\n  - lab-container\n  + {}\n", host_name.trim());
    assert!(said.contains(&changes), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
}

#[test]
fn the_table_fits_a_terminal() {
    let _ = image_or_skip!();
    let said = text(&peel().output().unwrap());
    assert!(said.starts_with("taken away "), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(!fs::read_to_string("/proc/sysvipc/shm").unwrap().lines().any(|line| {
        // Owned by a process that is no more, and attached to by none: what would stay behind.
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&"4096") && fields.get(6) == Some(&"0") && fields.get(2) == Some(&"600")
    }));
}

#[test]
fn shells_open_one_after_the_other() {
    let image = image_or_skip!();
    let mut command = peel();
    command.args(["--shell", "--order", "uts", "--rootfs"]).arg(image);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A shell takes from the pipe what there is: the next one's line must not be there before this one has answered.
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ask = || {
        input.write_all(b"hostname; exit\n").unwrap();
        answers.next().unwrap().unwrap()
    };
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!((ask().as_str(), ask().as_str()), ("lab-container", host_name.trim()));
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("without uts:"));
}
