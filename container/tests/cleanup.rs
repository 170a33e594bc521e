//! Nothing of a run stays behind, whatever ended it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{children, until};
use tempfile::TempDir;

/// A launcher file of this test's own, by which its processes are known among everybody else's.
struct Watched {
    directory: TempDir,
}

impl Watched {
    fn new() -> Watched {
        let directory = common::open_directory();
        common::copy(common::LAUNCHER, &directory.path().join("container"));
        Watched { directory }
    }

    fn launcher(&self) -> PathBuf {
        self.directory.path().join("container")
    }

    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(self.launcher());
        command.arg("run").args(arguments).stdin(Stdio::null());
        common::end_with_the_test(&mut command);
        command
    }

    /// Launchers, first processes and keepers that are alive, and programs with `marker` among their arguments.
    fn processes(&self, marker: &str) -> Vec<u32> {
        // By the arguments, which are copied at a clone: the first process hides its /proc/PID/exe from ordinary users.
        let launcher = self.launcher();
        let alive = |pid: &u32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments
                .split(|&byte| byte == 0)
                .any(|argument| argument == marker.as_bytes() || argument == launcher.as_os_str().as_encoded_bytes())
        };
        let names = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        names.filter(alive).collect()
    }
}

/// Directories of containers' cgroups that one of these launchers made, in every hierarchy.
fn cgroups_of(launchers: &BTreeSet<u32>) -> Vec<PathBuf> {
    fn walk(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            found.push(entry.path());
            if depth > 0 {
                walk(&entry.path(), depth - 1, found);
            }
        }
    }
    let mut all = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 6, &mut all);
    let made_by = |path: &PathBuf| {
        path.file_name()?
            .to_str()?
            .strip_prefix("container-")?
            .split('-')
            .next()?
            .parse()
            .ok()
    };
    all.into_iter()
        .filter(|path| made_by(path).is_some_and(|pid| launchers.contains(&pid)))
        .collect()
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn limits() -> &'static [&'static str] {
    if common::is_root() {
        &["--memory", "64M", "--pids", "30", "--cpus", "1"]
    } else {
        &[]
    }
}

#[test]
fn after_two_hundred_runs_nothing_is_left() {
    let _ = image_or_skip!();
    let watched = Watched::new();
    let (before, mut launchers) = (mounts(), BTreeSet::new());
    for number in 0..200 {
        let options = if number % 4 == 0 { limits() } else { &[] };
        let mut child = watched
            .run(options.iter().copied().chain(["workload", "exit", "3"]))
            .spawn()
            .unwrap();
        launchers.insert(child.id());
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
    assert_eq!(watched.processes("no marker"), [0; 0]);
    assert_eq!(cgroups_of(&launchers), Vec::<PathBuf>::new());
    assert_eq!(mounts(), before);
}

fn killed_launcher_leaves_nothing(options: &[&str], group: bool, number: u32, script: &str) {
    let marker = &common::marker(number);
    let script = &script.replace("LONG", marker);
    let image = match common::image() {
        Ok(image) => image.to_str().unwrap(),
        Err(reason) => crate::skip!("{reason}"),
    };
    let watched = Watched::new();
    let before = mounts();
    let arguments = options
        .iter()
        .copied()
        .chain(["--rootfs", image, "--", "sh", "-c", script]);
    let mut child = watched
        .run(arguments)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let launchers = BTreeSet::from([child.id()]);
    assert_eq!(cgroups_of(&launchers).is_empty(), !options.contains(&"--pids"));
    until("launcher, first process and both programs to run", || {
        (watched.processes(marker).len() >= 4).then_some(())
    });
    let target = if group { -(child.id() as i32) } else { child.id() as i32 };
    // SAFETY: the child has not been waited for, so neither its id nor its group's can be anybody else's.
    assert_eq!(unsafe { libc::kill(target, libc::SIGKILL) }, 0);
    child.wait().unwrap();
    until("processes to end", || {
        watched.processes(marker).is_empty().then_some(())
    });
    until("cgroups to go", || cgroups_of(&launchers).is_empty().then_some(()));
    assert_eq!(mounts(), before);
}

#[test]
fn a_killed_launcher_takes_the_container_along() {
    killed_launcher_leaves_nothing(&[], false, 1, "sleep LONG & echo ready; sleep LONG");
}

#[test]
fn a_killed_launcher_takes_the_cgroups_along() {
    root_or_skip!();
    let options = ["--memory", "64M", "--pids", "30", "--cpus", "1"];
    killed_launcher_leaves_nothing(&options, false, 2, "sleep LONG & echo ready; sleep LONG");
}

#[test]
fn so_does_a_killed_process_group() {
    root_or_skip!();
    let script = "setsid sleep LONG & echo ready; sleep LONG";
    killed_launcher_leaves_nothing(&["--pids", "30"], true, 3, script);
}

#[test]
fn and_one_without_a_pid_namespace() {
    let script = "setsid sh -c 'sleep LONG & sleep LONG' & echo ready; sleep LONG";
    killed_launcher_leaves_nothing(&["--without", "pid"], false, 4, script);
}

#[test]
fn a_kill_at_any_moment_of_the_start_leaves_nothing() {
    let _ = image_or_skip!();
    let watched = Watched::new();
    let (before, mut launchers) = (mounts(), BTreeSet::new());
    for number in 0..100 {
        let options = if number % 2 == 0 {
            limits()
        } else {
            &["--without", "pid"]
        };
        let mut child = watched
            .run(options.iter().copied().chain(["workload", "idle"]))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        launchers.insert(child.id());
        std::thread::sleep(Duration::from_micros(number * 100));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    until("processes to end", || {
        watched.processes("idle-of-nobody").is_empty().then_some(())
    });
    until("cgroups to go", || cgroups_of(&launchers).is_empty().then_some(()));
    assert_eq!(mounts(), before);
}

#[test]
fn a_killed_first_process_ends_the_run() {
    let image = image_or_skip!();
    let watched = Watched::new();
    let image = image.to_str().unwrap();
    let marker = &common::marker(5);
    let arguments = limits()
        .iter()
        .copied()
        .chain(["--rootfs", image, "--", "sleep", marker]);
    let mut child = watched.run(arguments).spawn().unwrap();
    let program_runs = || {
        children(child.id()).into_iter().find(|&first| {
            children(first).iter().any(|&pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.ends_with(format!("{marker}\0").as_bytes()))
            })
        })
    };
    let first = until("the program to run", program_runs);
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::kill(first as i32, libc::SIGKILL) }, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(watched.processes(marker), [0; 0]);
    assert_eq!(cgroups_of(&BTreeSet::from([child.id()])), Vec::<PathBuf>::new());
}

#[test]
fn a_run_that_fails_leaves_nothing_either() {
    let _ = image_or_skip!();
    let watched = Watched::new();
    let before = mounts();
    let mut launchers = BTreeSet::new();
    for bad in [
        &["--workdir", "/nowhere", "workload", "hello"][..],
        &["no-such-program"],
    ] {
        let mut child = watched
            .run(limits().iter().chain(bad).copied())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        launchers.insert(child.id());
        assert!(child.wait().unwrap().code() >= Some(125));
    }
    assert_eq!(watched.processes("no marker"), [0; 0]);
    assert_eq!(cgroups_of(&launchers), Vec::<PathBuf>::new());
    assert_eq!(mounts(), before);
}

#[test]
fn cleaning_up_ends_nobody_elses_container() {
    let _ = image_or_skip!();
    // Namespaces come and go here, and the kernel gives their numbers to the next.
    let run = || {
        for _ in 0..60 {
            for options in [&["--without", "pid"][..], &[]] {
                let mut command = common::container(options);
                assert_eq!(
                    command.args(["workload", "exit", "0"]).status().unwrap().code(),
                    Some(0)
                );
            }
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
}
