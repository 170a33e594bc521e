//! Commands that are killed at any point leave something `delete --force` cleans up.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use oci_common::{succeed, wait_until};

/// More and more time until the kill, well past the end of what is killed on a quiet machine.
fn delays() -> impl Iterator<Item = Duration> {
    (0..40).map(|step| Duration::from_micros(200 * step))
}

/// Processes whose command line has `word` in it.
fn processes_with(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        })
        .filter_map(|entry| {
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            line.contains(word).then(|| line.replace('\0', " "))
        })
        .collect()
}

#[test]
fn create_can_be_killed_anywhere() {
    let bundle = bundle_or_skip!("sleep 1000");
    for delay in delays() {
        let mut create = bundle.on_bundle(&["create"]);
        let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        create.kill().unwrap();
        create.wait().unwrap();
        bundle.command(&["delete", "--force"]);
        assert!(bundle.is_gone(), "after {delay:?}");
        // Whatever was cloned by then has ended: its command line is that of `create`, with the bundle's path in it.
        let path = bundle.path("state");
        wait_until(|| processes_with(path.to_str().unwrap()).is_empty());
    }
}

#[test]
fn start_and_delete_can_be_killed_anywhere() {
    let bundle = bundle_or_skip!("sleep 1000");
    for delay in delays().step_by(2) {
        for verb in ["start", "delete"] {
            succeed(bundle.on_bundle(&["create"]).stdout(Stdio::null()));
            let arguments: &[&str] = if verb == "start" {
                &["start"]
            } else {
                &["delete", "--force"]
            };
            let mut command = bundle.runtime(arguments);
            let mut command = command.arg(&bundle.id).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(delay);
            command.kill().unwrap();
            command.wait().unwrap();
            bundle.command(&["delete", "--force"]);
            assert!(bundle.is_gone(), "{verb} after {delay:?}");
        }
    }
}

#[test]
fn a_start_that_dies_between_its_two_words_leaves_no_container_that_waits_for_ever() {
    let bundle = bundle_or_skip!("sleep 1000");
    succeed(bundle.on_bundle(&["create"]).stdout(Stdio::null()));
    // Connects as `start` does, and goes away without a word.
    let door = bundle.path("state").join(&bundle.id).join("start");
    drop(std::os::unix::net::UnixStream::connect(&door).unwrap());
    bundle.command(&["start"]);
    assert_eq!(bundle.status(), "running");
}
