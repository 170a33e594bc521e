//! Every namespace is really another one inside, and is the host's when left out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;

use common::{container, message, shell, text};

const LINKS: [(&str, &str); 7] = [
    ("user", "user"),
    ("mount", "mnt"),
    ("pid", "pid"),
    ("net", "net"),
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("cgroup", "cgroup"),
];

const READ_LINKS: &str = "for n in user mnt pid net uts ipc cgroup; do readlink /proc/self/ns/$n; done";

fn host_link(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn every_namespace_is_another_one() {
    let image = image_or_skip!();
    for options in [&[][..], &["--pids", "50"]] {
        if !options.is_empty() && !common::is_root() {
            continue;
        }
        let inside = text(&shell(image, options, READ_LINKS));
        let inside: Vec<_> = inside.lines().collect();
        assert_eq!(inside.len(), LINKS.len());
        for ((_, link), inside) in LINKS.iter().zip(inside) {
            assert!(inside.starts_with(&format!("{link}:[")), "{inside}");
            assert_ne!(inside, host_link(link));
        }
    }
}

#[test]
fn a_namespace_left_out_is_the_hosts() {
    let image = image_or_skip!();
    root_or_skip!();
    for (left_out, _) in LINKS {
        let output = match left_out {
            // Without a mount namespace there is no image: the host's own shell runs.
            "mount" => container(["--without", "mount", "--", "/bin/sh", "-c", READ_LINKS])
                .output()
                .unwrap(),
            _ => shell(image, &["--without", left_out], READ_LINKS),
        };
        let inside = text(&output);
        for ((name, link), inside) in LINKS.iter().zip(inside.lines()) {
            assert_eq!(
                inside == host_link(link),
                *name == left_out,
                "without {left_out}: {name} is {inside}"
            );
        }
    }
}

#[test]
fn an_ordinary_user_may_leave_out_any_but_user() {
    let _ = image_or_skip!();
    for (left_out, _) in LINKS.iter().skip(1) {
        let mut command = container(["--without", left_out, "workload", "hello"]);
        assert_eq!(
            text(&command.output().unwrap()),
            "hello from the workload",
            "without {left_out}"
        );
    }
}

#[test]
fn the_workload_runs_without_a_mount_namespace_too() {
    let _ = image_or_skip!();
    let output = container(["--without", "mount,cgroup", "workload", "exit", "9"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9));
}

#[test]
fn combinations_that_cannot_work_are_refused_with_a_reason() {
    let image = image_or_skip!();
    let refused = |options: &[&str]| message(&shell(image, options, "true"), 125);
    assert!(refused(&["--without", "mount"]).contains("--rootfs needs the mount namespace"));
    assert!(refused(&["--without", "uts", "--hostname", "x"]).contains("it would rename the host"));
    assert!(refused(&["--without", "network"]).contains("no namespace"));
    if common::is_root() {
        let all = container(["--without", "user,mount,pid,net,uts,ipc,cgroup", "true"])
            .output()
            .unwrap();
        assert!(message(&all, 125).contains("pid namespace can only be left out while"));
    }
}

#[test]
fn only_the_containers_own_processes_are_visible() {
    let image = image_or_skip!();
    // The container's first process, the shell, and nothing else.
    let seen = text(&shell(image, &[], "echo $$; set -- /proc/[0-9]*; echo $*"));
    assert_eq!(seen, "2\n/proc/1 /proc/2");
}

#[test]
fn the_host_name_is_the_containers() {
    let image = image_or_skip!();
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(text(&shell(image, &["--hostname", "inside"], "hostname")), "inside");
    assert_eq!(text(&shell(image, &[], "hostname")), "lab-container");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    let long = "x".repeat(65);
    assert!(message(&shell(image, &["--hostname", &long], "true"), 125).contains("cannot set the host name"));
}

#[test]
fn the_network_is_a_loopback_that_works() {
    let image = image_or_skip!();
    assert_eq!(text(&shell(image, &[], "ls /sys/class/net")), "lo");
    let talk = "nc -l -p 7000 -e echo heard & until nc 127.0.0.1 7000 2>/dev/null; do :; done";
    assert_eq!(text(&shell(image, &[], talk)), "heard");
}

#[test]
fn the_ids_inside_are_nobodys_outside() {
    let image = image_or_skip!();
    let map = text(&shell(image, &[], "cat /proc/self/uid_map"));
    let map: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    if common::is_root() {
        assert_eq!((map[0], map[2]), (0, 65536));
        assert!(map[1] >= 0x8_0000, "{map:?}");
    } else {
        // SAFETY: takes nothing and cannot fail.
        assert_eq!(map, [0, unsafe { libc::geteuid() }, 1]);
    }
}

#[test]
fn the_own_cgroup_is_the_root_of_what_is_seen() {
    let image = image_or_skip!();
    let options: &[&str] = if common::is_root() {
        &["--memory", "64M", "--pids", "20"]
    } else {
        &[]
    };
    for line in text(&shell(image, options, "cat /proc/self/cgroup")).lines() {
        assert!(line.ends_with(":/"), "{line}");
    }
}
