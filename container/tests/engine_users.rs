//! Whose ids a container of root's has: its own, which are nobody's on the host, or the host's.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use common::engine::Lab;
use common::{message, text};

/// The container's ids from inside, and the host's id of its first process.
fn ids(lab: &Lab, name: &str) -> (String, u32) {
    let map = lab.text(["exec", name, "cat", "/proc/self/uid_map"]);
    let status = fs::read_to_string(format!("/proc/{}/status", lab.state_of(name, "Pid"))).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    let map = map.split_whitespace().collect::<Vec<_>>().join(" ");
    (map, uid.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn root_inside_is_nobody_outside() {
    let lab = lab_or_skip!();
    lab.start("own", &[], "sleep 1000");
    let from = lab.inspect("own")["UserNamespace"]["IdsFrom"].as_u64().unwrap() as u32;
    assert!(from >= 0x8_0000, "{from:#x} belongs to users of the host's");
    assert_eq!(ids(&lab, "own"), (format!("0 {from} 65536"), from));
    // What root may do to the host's files by his id alone, he may not do here.
    let script = "echo 1 > /proc/sys/kernel/hostname; echo $?; cat /etc/motd; id -u";
    let output = lab.run(["exec", "own", "sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\nfrom the image\n0\n");
    lab.start("hosts", &["--userns", "host"], "sleep 1000");
    assert_eq!(ids(&lab, "hosts"), ("0 0 4294967295".into(), 0));
    lab.text(["rm", "-f", "own", "hosts"]);
    lab.assert_empty();
}

#[test]
fn what_is_written_has_the_ids_it_would_have_without() {
    let lab = lab_or_skip!();
    let shared = lab.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("anns"), "hers\n").unwrap();
    chown(shared.join("anns"), Some(1000), Some(100)).unwrap();
    let bind = format!("{}:/shared", shared.display());
    // A changed file is copied up with its owner; a removed one is covered by a whiteout; a directory made anew is opaque.
    let script = "set -e; stat -c %u:%g /shared/anns; touch /shared/roots /root/file; echo more >> /etc/motd; rm /data/given
        rmdir /data; mkdir /data; chown ann /root/file; mv /tmp /elsewhere; ls /data; echo on /dev/stdout > /dev/stdout";
    for users in ["private", "host"] {
        let options = ["--userns", users, "--name", "writer", "-v", &bind];
        let front = ["run"].into_iter().chain(options);
        let output = lab.run(front.chain(["busybox", "sh", "-c", script]));
        assert_eq!(text(&output), "1000:100\non /dev/stdout", "{users}: {output:?}");
        let upper = format!("{}/upper", lab.inspect("writer")["Directory"].as_str().unwrap());
        let owner = |path: String| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.uid(), metadata.gid())
        };
        assert_eq!(owner(format!("{upper}/root/file")), (1000, 0), "{users}");
        assert_eq!(owner(format!("{upper}/etc/motd")), (0, 0), "{users}");
        assert_eq!(owner(shared.join("roots").display().to_string()), (0, 0), "{users}");
        let changes = lab.text(["diff", "writer"]);
        for line in ["C /data", "C /etc/motd", "A /elsewhere", "A /root/file", "D /tmp"] {
            assert!(
                changes.lines().any(|found| found.starts_with(line)),
                "{users}: {line}: {changes}"
            );
        }
        // Its changes are an image as any other's, whichever way that is run.
        lab.text(["commit", "writer", "changed"]);
        for again in ["private", "host"] {
            let said = [
                "--userns",
                again,
                "changed",
                "sh",
                "-c",
                "stat -c %U /root/file; tail -n 1 /etc/motd; ls /data",
            ];
            assert_eq!(lab.text(["run", "--rm"].into_iter().chain(said)), "ann\nmore");
        }
        lab.text(["rm", "writer"]);
        lab.text(["image", "rm", "changed"]);
    }
    lab.assert_empty();
}

#[test]
fn files_are_copied_with_the_ids_they_have_inside() {
    let lab = lab_or_skip!();
    let (source, target) = (lab.path().join("source"), lab.path().join("target"));
    fs::write(&source, "from outside\n").unwrap();
    chown(&source, Some(1000), Some(100)).unwrap();
    lab.start("running", &[], "sleep 1000");
    lab.text(["cp", source.to_str().unwrap(), "running:/tmp/copy"]);
    assert_eq!(
        lab.text(["exec", "running", "stat", "-c", "%U:%g", "/tmp/copy"]),
        "ann:100"
    );
    lab.text(["cp", "running:/tmp/copy", target.to_str().unwrap()]);
    let metadata = fs::metadata(&target).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1000, 100));
    lab.text(["rm", "-f", "running"]);
    lab.assert_empty();
}

#[test]
fn a_shared_network_comes_with_its_user_namespace() {
    let lab = lab_or_skip!();
    lab.start("first", &[], "sleep 1000");
    lab.start(
        "second",
        &["--network", "container:first"],
        "ls /sys/class/net; nc -l -p 80",
    );
    assert_eq!(ids(&lab, "first"), ids(&lab, "second"));
    lab.wait_for_log("second", "lo");
    assert_eq!(lab.state_of("second", "Status"), "running");
    lab.text(["rm", "-f", "first", "second"]);
    lab.assert_empty();
}

#[test]
fn where_owners_cannot_be_shifted_it_is_said() {
    let lab = lab_or_skip!();
    let map = ["busybox", "cat", "/proc/self/uid_map"];
    let run = |options: &[&'static str]| lab.run(["run", "--rm"].into_iter().chain(options.iter().copied()).chain(map));
    // Of /proc there is no shifted mount.
    let output = run(&["-v", "/proc:/hosts"]);
    assert!(text(&output).contains("4294967295"), "{output:?}");
    let note = message(&output, 0);
    assert!(note.contains("no user namespace") && note.contains("/proc"), "{note}");
    let refused = run(&["-v", "/proc:/hosts", "--userns", "private"]);
    assert!(
        !refused.status.success() && message(&refused, 125).contains("cannot be shifted"),
        "{refused:?}"
    );
    // Who asked for it needs not be told; and the host's network is the host's root's.
    for options in [&["-v", "/proc:/hosts", "--userns", "host"][..], &["--network", "host"]] {
        let output = run(options);
        assert!(
            text(&output).contains("4294967295") && message(&output, 0).is_empty(),
            "{output:?}"
        );
    }
    let output = run(&["--network", "host", "--userns", "private"]);
    assert!(!text(&output).contains("4294967295"), "{output:?}");
    let beyond = run(&["-u", "70000"]);
    assert!(message(&beyond, 125).contains("beyond"), "{beyond:?}");
    lab.assert_empty();
}
