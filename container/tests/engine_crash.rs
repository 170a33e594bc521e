//! Whatever is killed, and whenever: what is said stays true, and `rm -f` leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::engine::Lab;
use common::until;

fn kill(pid: i64) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

/// Directories of cgroups with the container's id in their name.
fn cgroups(id: &str) -> Vec<String> {
    fn walk(directory: &Path, depth: u32, id: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(entry.path().display().to_string());
            } else if depth > 0 {
                walk(&entry.path(), depth - 1, id, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 3, id, &mut found);
    found
}

#[test]
fn a_killed_supervisor_takes_its_container_along_and_the_next_command_tidies_up() {
    let lab = lab_or_skip!().with_network();
    for tidy in [&["ps", "-a"][..], &["rm", "-f", "victim"]] {
        let script = "echo ready; sleep 1000";
        lab.start(
            "victim",
            &["--network", "bridge", "-p", "8080:80", "--memory", "64M"],
            script,
        );
        lab.wait_for_log("victim", "ready");
        let inspected = lab.inspect("victim");
        let (state, id) = (&inspected["State"], inspected["Id"].as_str().unwrap());
        assert!(!cgroups(id).is_empty());
        kill(state["SupervisorPid"].as_i64().unwrap());
        // The kernel ends the program; nobody has to notice first.
        let program = format!("/proc/{}/ns/pid", state["Pid"]);
        until("the program's end", || fs::read_link(&program).is_err().then_some(()));
        let said = lab.text(tidy.iter().copied());
        if tidy[0] == "ps" {
            assert!(said.contains("exited (137)"), "{said}");
            let error = lab.state_of("victim", "Error");
            assert!(error.as_str().unwrap().contains("supervisor was killed"), "{error}");
            // It can be started again, as if nothing had been.
            lab.text(["start", "victim"]);
            assert_eq!(lab.state_of("victim", "Status"), "running");
            lab.text(["rm", "-f", "victim"]);
        }
        assert_eq!(cgroups(id), [] as [String; 0]);
        let devices = lab.in_network(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        assert!(!devices.contains("lab0") && !devices.contains("ve-"), "{devices}");
        lab.assert_empty();
    }
}

#[test]
fn a_killed_command_leaves_its_container_running() {
    let lab = lab_or_skip!();
    let mut child = lab
        .command([
            "run",
            "--name",
            "goes-on",
            "busybox",
            "sh",
            "-c",
            "echo ready; sleep 1000",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    lab.wait_for_log("goes-on", "ready");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lab.state_of("goes-on", "Status"), "running");
    lab.text(["rm", "-f", "goes-on"]);
    lab.assert_empty();
}

/// Runs `arguments` and kills the command after so many microseconds.
fn killed_after(lab: &Lab, arguments: &[&str], microseconds: u64) {
    let mut child = lab
        .command(arguments.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_micros(microseconds));
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_command_killed_at_any_moment_leaves_nothing_that_rm_would_not_find() {
    let lab = lab_or_skip!();
    // Spread over the whole of a start and an end, which together take some tens of milliseconds.
    for step in 0..24 {
        let delay = 1000 + step * 2500;
        let name = format!("cut-{step}");
        killed_after(
            &lab,
            &["run", "-d", "--name", &name, "-v", "/srv", "busybox", "sleep", "1000"],
            delay,
        );
        // Whatever it is now, it is there as a whole or not at all, and the name can be had.
        let listed = lab.run(["ps", "-a"]);
        assert!(listed.status.success(), "{listed:?}");
        let _ = lab.run(["rm", "-f", "-v", &name]);
        lab.text(["run", "-d", "--name", &name, "busybox", "sleep", "1000"]);
        killed_after(&lab, &["rm", "-f", &name], delay / 2);
        let _ = lab.run(["rm", "-f", &name]);
        killed_after(&lab, &["run", "--rm", "busybox", "true"], delay);
    }
    // What was killed while it made or removed a directory is cleared away by whoever looks next.
    until("nothing left", || {
        let ids = lab.text(["ps", "-aq"]);
        for id in ids.lines() {
            lab.run(["rm", "-f", "-v", id]);
        }
        let left = fs::read_dir(lab.state().join("containers")).unwrap().count();
        (left == 0).then_some(())
    });
    lab.assert_empty();
}

#[test]
fn what_a_command_left_between_two_steps_goes_with_the_next_command() {
    let lab = lab_or_skip!();
    lab.text(["run", "-d", "--name", "kept", "busybox", "sleep", "1000"]);
    // Killed after the name was taken, before the container was there; after the directory, before its lock; and while
    // the directory was on its way out.
    let id = "0123456789abcdef".repeat(4);
    std::os::unix::fs::symlink(&id, lab.state().join("names/taken")).unwrap();
    fs::create_dir(lab.state().join(format!("containers/{id}.new"))).unwrap();
    fs::create_dir_all(lab.state().join(format!("containers/{id}.old/upper/etc"))).unwrap();
    let count = |directory: &str| fs::read_dir(lab.state().join(directory)).unwrap().count();
    assert_eq!((count("names"), count("containers")), (2, 3));
    assert_eq!(lab.text(["ps", "-aq"]).lines().count(), 1);
    assert_eq!((count("names"), count("containers")), (1, 1));
    lab.text(["rm", "-f", "kept"]);
    lab.assert_empty();
}

#[test]
fn commands_that_meet_at_one_container_take_turns() {
    let lab = lab_or_skip!();
    lab.text(["run", "-d", "--name", "shared", "busybox", "sleep", "1000"]);
    let lab = &lab;
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let commands = [
            &["stop", "-t", "0", "shared"][..],
            &["start", "shared"],
            &["restart", "-t", "0", "shared"],
            &["rm", "-f", "shared"],
        ];
        let threads: Vec<_> = commands
            .map(|arguments| scope.spawn(move || lab.run(arguments.iter().copied())))
            .into();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Each did its work, or says why not; the last word is rm's, whenever it came.
    for output in &outputs {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() || said.contains("no container shared") || said.contains("is running"),
            "{output:?}"
        );
    }
    assert!(outputs[3].status.success(), "{outputs:?}");
    lab.assert_empty();
}
