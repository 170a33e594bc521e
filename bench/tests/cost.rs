//! `lab cost`: lessons worked on every side, on a disk and by a network too, and what a lab that is interrupted leaves.

// clippy.toml allows unwrap in test functions; their helpers are tests too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bench::study::results::{Cost, Study};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use support::{PATIENCE, contenders, lab, run, using};

#[test]
fn work_is_timed_on_every_side() {
    let place = TempDir::new().unwrap();
    let names = contenders("container");
    let study: Study<Cost> = run(
        place.path(),
        &[
            "cost",
            "--runs",
            "2",
            "--gap-ms",
            "1",
            "--lessons",
            "cpu,memory,syscalls",
            "--contenders",
            &names,
        ],
    );
    assert_eq!(
        study.measured().count(),
        1 + names.split(',').count(),
        "{:?}",
        study.contenders
    );
    for (name, cost) in study.measured() {
        assert_eq!(cost.lessons.len(), 3, "{name}");
        for lesson in &cost.lessons {
            assert_eq!(
                (lesson.ns.n, lesson.relative.is_some()),
                (2, name != "process"),
                "{name}, {}",
                lesson.lesson
            );
            assert_eq!(
                lesson.exits_per_operation.is_some(),
                name == "vm",
                "{name}, {}",
                lesson.lesson
            );
            let waited = lesson.waited.unwrap();
            assert!((0.0..1.0).contains(&waited), "{name}, {}: {waited}", lesson.lesson);
        }
    }
    let conditions = study.provenance.conditions.unwrap();
    assert!(
        conditions.for_others.is_some() && conditions.load[1] > 0.0,
        "{conditions:?}"
    );
    let disturbed = study
        .provenance
        .notes
        .iter()
        .any(|note| note.starts_with("Disturbed run"));
    assert_eq!(disturbed, !conditions.disturbed.is_empty(), "{conditions:?}");
}

/// Times of the runs a study kept, of one contender.
fn readings(place: &Path, contender: &str) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(place.join("out/cost.jsonl")).unwrap();
    let readings = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    readings
        .filter(|reading| reading["contender"] == contender)
        .map(|reading| (reading["ns"].as_u64().unwrap(), reading["whole_ns"].as_u64().unwrap()))
        .collect()
}

#[test]
fn a_restored_vm_works_anew_in_every_run() {
    if !Path::new("/dev/kvm").exists() {
        return println!("skipped: no /dev/kvm, so nothing can be restored");
    }
    let place = TempDir::new().unwrap();
    let arguments = ["cost", "--runs", "3", "--gap-ms", "0", "--lessons", "cpu"];
    let study: Study<Cost> = run(
        place.path(),
        &[&arguments[..], &["--contenders", "vm-restored"]].concat(),
    );
    let entry = study
        .of("vm-restored")
        .unwrap_or_else(|| panic!("{:?}", study.contenders));
    assert_eq!(entry.lessons[0].ns.n, 3);
    let runs = readings(place.path(), "vm-restored");
    let different: BTreeSet<u64> = runs.iter().map(|(ns, _)| *ns).collect();
    assert_eq!(different.len(), 3, "one run, told three times: {runs:?}");
    assert!(runs.iter().all(|(ns, whole)| ns < whole), "{runs:?}");
}

#[test]
fn podman_works_on_the_same_disk_and_by_the_same_cable() {
    if !geteuid().is_root() {
        return println!("skipped: not root, so no network of the lab's own");
    }
    if !Path::new("/usr/bin/podman").exists() {
        return println!("skipped: podman is not installed");
    }
    let place = TempDir::new().unwrap();
    let before = traces_of_equipment();
    let lessons = "disk-read,disk-write,net-request,net-stream";
    let arguments = [
        "cost",
        "--runs",
        "1",
        "--gap-ms",
        "0",
        "--contenders",
        "podman",
        "--lessons",
        lessons,
    ];
    let study: Study<Cost> = run(place.path(), &arguments);
    let cost = study.of("podman").unwrap_or_else(|| panic!("{:?}", study.contenders));
    if cost.skipped.iter().any(|skipped| skipped.reason.contains("in memory")) {
        return println!("skipped: the temporary files lie in memory, and no disk can be made");
    }
    assert_eq!(cost.lessons.len(), 4, "{:?}", cost.skipped);
    assert_eq!(traces_of_equipment(), before);
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn qemus_guest_reads_the_same_disk_and_answers_on_the_same_tap() {
    if !geteuid().is_root() {
        return println!("skipped: not root, so no tap");
    }
    let place = TempDir::new().unwrap();
    let arguments = [
        "cost",
        "--runs",
        "1",
        "--gap-ms",
        "0",
        "--lessons",
        "disk-read,net-request",
    ];
    let study: Study<Cost> = run(
        place.path(),
        &[&arguments[..], &["--contenders", "qemu-tcg,qemu-q35-tcg"]].concat(),
    );
    let entry = |name: &str| study.contenders.iter().find(|entry| entry.name == name).unwrap();
    let reason = |name: &str| entry(name).reason.clone().unwrap_or_default();
    for missing in ["is not installed", "there is no"] {
        if reason("qemu-tcg").contains(missing) {
            return println!("skipped: {}", reason("qemu-tcg"));
        }
    }
    assert!(reason("qemu-q35-tcg").contains("PCI"), "{:?}", entry("qemu-q35-tcg"));
    // On a machine too busy to measure its processor's clock the guest has none worth reading. Then it says so; the lesson was done.
    let too_coarse = |reason: &str| reason.contains("too coarse");
    match study.of("qemu-tcg") {
        Some(cost) => assert!(
            cost.skipped.iter().all(|skipped| too_coarse(&skipped.reason)),
            "{:?}",
            cost.skipped
        ),
        None => assert!(too_coarse(&reason("qemu-tcg")), "{:?}", entry("qemu-tcg")),
    }
}

/// Interfaces of the host, mounts and loop devices: what a network or a disk could leave behind.
fn traces_of_equipment() -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = mounts.lines().filter(|line| line.contains("isolation-lab-"));
    found.extend(ours.map(str::to_owned));
    found.sort();
    found
}

#[test]
fn a_disk_and_a_network_are_worked_on_and_leave_nothing() {
    let place = TempDir::new().unwrap();
    let names = contenders("container");
    let arguments = [
        "cost",
        "--runs",
        "1",
        "--gap-ms",
        "0",
        "--lessons",
        "disk-read,disk-write,net-request,net-stream",
        "--contenders",
        &names,
    ];
    let before = traces_of_equipment();
    let study: Study<Cost> = run(place.path(), &arguments);
    let plain = study.of("process").unwrap();
    let in_memory = plain.skipped.iter().any(|skipped| skipped.reason.contains("in memory"));
    for (name, cost) in study.measured() {
        let mut done: Vec<&str> = Vec::new();
        for lesson in &cost.lessons {
            done.extend(lesson.lesson.split(' ').next());
            assert!(lesson.ns.p50 > 0 && lesson.ns.n == 1, "{name}: {lesson:?}");
        }
        match (geteuid().is_root(), in_memory) {
            (true, false) => {
                assert_eq!(
                    done,
                    ["disk-read", "disk-write", "net-request", "net-stream"],
                    "{name}: {:?}",
                    cost.skipped
                );
            }
            (false, _) => {
                println!("skipped: not root, so no network of the lab's own");
                assert!(
                    cost.skipped.iter().any(|skipped| skipped.fix.contains("as root")),
                    "{name}"
                );
            }
            (true, true) => println!("skipped: the temporary files lie in memory, and no disk can be made"),
        }
    }
    // The lab kernel drives neither: listed with the reason, not dropped.
    if names.contains("vm") {
        let entry = study.contenders.iter().find(|entry| entry.name == "vm").unwrap();
        assert!(entry.reason.as_ref().unwrap().contains("no driver"), "{entry:?}");
    }
    assert_eq!(traces_of_equipment(), before);
    assert_eq!(using(place.path()), [""; 0]);
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_lab_that_is_interrupted_at_the_disk_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let before = traces_of_equipment();
    let arguments = [
        "cost",
        "--runs",
        "100000",
        "--lessons",
        "disk-write,net-stream",
        "--contenders",
        "container",
    ];
    let mut command = lab(place.path(), &arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    let readings = place.path().join("out/cost.jsonl");
    while fs::read_to_string(&readings).map_or(0, |text| text.lines().count()) < 2 {
        assert!(begin.elapsed() < PATIENCE, "no reading in {PATIENCE:?}");
        assert_eq!(child.try_wait().unwrap(), None, "lab ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert_eq!(traces_of_equipment(), before);
    assert_eq!(using(place.path()), [""; 0]);
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}
