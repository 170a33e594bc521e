//! Many containers: side by side, and one after the other. None fails, nothing stays behind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::engine::Lab;

/// What a leak would add to.
#[derive(Debug, PartialEq)]
struct Traces {
    cgroups: BTreeSet<PathBuf>,
    mounts: usize,
    files: BTreeSet<PathBuf>,
    interfaces: String,
}

impl Traces {
    /// `ids` are the beginnings of the ids of the containers this test has started: other tests' come and go meanwhile.
    fn of(lab: &Lab, ids: &BTreeSet<String>) -> Traces {
        let interfaces = lab.in_network(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut cgroups = BTreeSet::new();
        walk(Path::new("/sys/fs/cgroup"), 3, &mut cgroups);
        cgroups.retain(|path| short_id(path).is_some_and(|id| ids.contains(&id)));
        let mut files = BTreeSet::new();
        walk(&lab.state(), 1, &mut files);
        Traces {
            cgroups,
            mounts: mounts
                .lines()
                .filter(|line| line.contains(lab.state().to_str().unwrap()))
                .count(),
            files,
            interfaces: interfaces.lines().map(name).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The beginning of the id in the name of a container's cgroup.
fn short_id(cgroup: &Path) -> Option<String> {
    let id = cgroup.file_name()?.to_str()?.strip_prefix("lab-")?;
    Some(id.get(..12)?.to_owned())
}

fn walk(directory: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(entry.path());
            if depth > 0 {
                walk(&entry.path(), depth - 1, found);
            }
        }
    }
}

/// How many commands run at a time: more than processors, so that they meet.
const WORKERS: usize = 20;

#[test]
fn a_hundred_side_by_side() {
    let lab = lab_or_skip!().with_network();
    lab.text(["run", "--rm", "--network", "bridge", "busybox", "true"]);
    let before = Traces::of(&lab, &BTreeSet::new());
    let start = |number: usize| {
        // Half of them on the bridge, which the first makes and the last takes away.
        let network = if number.is_multiple_of(2) { "bridge" } else { "none" };
        let name = format!("many-{number}");
        let script = "echo started; sleep 1000";
        let output = lab.run([
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            network,
            "--memory",
            "64M",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        assert!(output.status.success(), "{number}: {output:?}");
        String::from_utf8(output.stdout).unwrap()[..12].to_owned()
    };
    let ids: BTreeSet<String> = in_parallel(100, start).into_iter().collect();
    assert_eq!(lab.text(["ps", "-q"]).lines().count(), 100);
    // No address was given twice.
    let addresses: BTreeSet<String> = (0..100)
        .step_by(2)
        .map(|number| {
            lab.inspect(&format!("many-{number}"))["NetworkSettings"]["Addresses"][0]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), 50);
    for number in 0..100 {
        lab.wait_for_log(&format!("many-{number}"), "started");
    }
    in_parallel(100, |number| {
        let output = lab.run(["rm", "-f", &format!("many-{number}")]);
        assert!(output.status.success(), "{number}: {output:?}");
    });
    lab.assert_empty();
    assert_eq!(Traces::of(&lab, &ids), before);
}

fn in_parallel<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= count {
                    return done;
                }
                done.push(act(number));
            }
        };
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// A thousand takes a minute or more; CI runs it (`--include-ignored`), `cargo test` a tenth of it.
fn one_after_the_other(count: usize) {
    let lab = lab_or_skip!().with_network();
    lab.text(["run", "--rm", "busybox", "true"]);
    let before = Traces::of(&lab, &BTreeSet::new());
    let mut ids = BTreeSet::new();
    for number in 0..count {
        // A container that was given no host name has the beginning of its id for one.
        let output = lab.run(["run", "--rm", "--memory", "64M", "busybox", "hostname"]);
        assert!(output.status.success(), "{number}: {output:?}");
        ids.insert(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    assert_eq!(ids.len(), count);
    lab.assert_empty();
    assert_eq!(Traces::of(&lab, &ids), before);
}

#[test]
fn a_hundred_one_after_the_other() {
    one_after_the_other(100);
}

#[test]
#[ignore = "takes a minute or more"]
fn a_thousand_one_after_the_other() {
    one_after_the_other(1000);
}
