//! `container shared`: what it says of a container is what the container is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{children, container, message, text, until};
use serde_json::Value;

/// A container that sleeps, and its program's process id on the host.
fn sleeping(options: &[&str]) -> Option<(Child, String)> {
    let image = common::image().map_err(|reason| eprintln!("skipped: {reason}")).ok()?;
    let mut command = container(options);
    command
        .arg("--rootfs")
        .arg(image)
        .args(["--", "sh", "-c", "echo up; exec sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    let program = until("the program", || {
        let first = children(child.id())
            .into_iter()
            .find_map(|pid| children(pid).first().copied());
        first.map(|pid| pid.to_string())
    });
    Some((child, program))
}

fn shared(arguments: &[&str]) -> std::process::Output {
    Command::new(common::LAUNCHER)
        .arg("shared")
        .args(arguments)
        .output()
        .unwrap()
}

fn fact<'a>(comparison: &'a Value, name: &str) -> &'a Value {
    let facts = comparison["facts"].as_array().unwrap();
    facts
        .iter()
        .find(|fact| fact["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {comparison}"))
}

#[test]
fn a_container_has_its_own_views_and_the_hosts_kernel() {
    root_or_skip!();
    let Some((mut launcher, program)) = sleeping(&["--without", "uts", "--memory", "64M"]) else {
        return;
    };
    let comparison: Value = serde_json::from_str(&text(&shared(&[&program, "--json"]))).unwrap();
    for name in ["user", "mount", "pid", "net", "ipc", "cgroup"] {
        assert_eq!(
            fact(&comparison, &format!("namespace {name}"))["shared"],
            false,
            "{name}"
        );
    }
    let uts = fact(&comparison, "namespace uts");
    let link = fs::read_link("/proc/self/ns/uts").unwrap().to_str().unwrap().to_owned();
    assert_eq!(
        (&uts["shared"], link),
        (&true.into(), format!("uts:[{}]", uts["own"].as_str().unwrap()))
    );
    for name in ["kernel release", "boot id"] {
        let fact = fact(&comparison, name);
        assert_eq!(fact["shared"], true, "{name}");
        assert!(
            fact["own"].is_string(),
            "read through the container's own /proc: {fact}"
        );
    }
    let cgroup = fact(&comparison, "cgroup");
    assert!(cgroup["own"].as_str().unwrap().contains("container-"), "{cgroup}");
    assert_eq!(
        fact(&comparison, "may have at most")["own"],
        "KILL NET_BIND_SERVICE AUDIT_WRITE"
    );
    assert_eq!(fact(&comparison, "seccomp")["own"], "filter, 1 of them");
    assert_eq!(fact(&comparison, "no_new_privs")["own"], "set");
    assert!(
        fact(&comparison, "root is on")["own"]
            .as_str()
            .unwrap()
            .starts_with("overlay, device 0:")
    );
    assert!(
        fact(&comparison, "user ids")["own"]
            .as_str()
            .unwrap()
            .ends_with(", and 65535 more")
    );
    let table = text(&shared(&[&program]));
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("namespace pid") && table.contains("  own"), "{table}");
    launcher.kill().unwrap();
    launcher.wait().unwrap();
}

#[test]
fn two_containers_share_no_namespace() {
    let (Some((mut one, first)), Some((mut other, second))) = (sleeping(&[]), sleeping(&[])) else {
        return;
    };
    let comparison: Value = serde_json::from_str(&text(&shared(&[&first, "--with", &second, "--json"]))).unwrap();
    for name in ["user", "mount", "pid", "net", "uts", "ipc", "cgroup"] {
        assert_eq!(
            fact(&comparison, &format!("namespace {name}"))["shared"],
            false,
            "{name}"
        );
    }
    assert_eq!(fact(&comparison, "boot id")["shared"], true);
    for launcher in [&mut one, &mut other] {
        launcher.kill().unwrap();
        launcher.wait().unwrap();
    }
}

#[test]
fn a_process_that_is_not_there_is_named() {
    // Beyond the kernel's highest process id.
    let said = message(&shared(&["2000000000"]), 125);
    assert!(
        said.contains("/proc/2000000000/status") && said.contains("No such process"),
        "{said}"
    );
}

#[test]
fn a_container_is_found_by_its_name() {
    let lab = lab_or_skip!();
    lab.start("compared", &[], "sleep 1000");
    let comparison: Value = serde_json::from_str(&lab.text(["shared", "compared", "--json"])).unwrap();
    assert_eq!(comparison["process"], lab.inspect("compared")["State"]["Pid"]);
    assert_eq!(fact(&comparison, "namespace pid")["shared"], false);
    let said = message(&lab.run(["shared", "nobody"]), 125);
    assert!(said.contains("nobody"), "{said}");
    lab.text(["rm", "-f", "compared"]);
}
