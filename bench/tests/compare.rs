//! Whole races, short ones, by the program a user runs.

// clippy.toml allows unwrap in test functions; their helpers are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bench::results::{Purpose, SCHEMA, Status, Summary};
use bench::store::{self, SAMPLES, SUMMARY};
use tempfile::TempDir;

/// `lab compare` with quick settings, its temporary files where the test can look.
fn lab(temporary: &Path, out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .args(["compare", "--gap-ms", "1", "--out"])
        .arg(out)
        .args(arguments);
    command.env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Place { dir }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn temporary(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        lab(&self.temporary(), &self.out(), arguments)
    }

    /// An executable script to race in place of one of our launchers.
    fn launcher(&self, text: &str) -> String {
        let path = self.dir.path().join("launcher");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn nothing_is_left(&self, lab: u32) {
        let left: Vec<_> = fs::read_dir(self.temporary())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "temporary files");
        for hierarchy in bench::cgroups::hierarchies() {
            let cgroup = hierarchy.mount_point.join(format!("isolation-lab-{lab}"));
            assert!(!cgroup.exists(), "{} is left", cgroup.display());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn run(command: &mut Command) -> (u32, Output) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    (pid, child.wait_with_output().unwrap())
}

fn contender<'a>(summary: &'a Summary, name: &str) -> &'a bench::results::Contender {
    summary
        .contenders
        .iter()
        .find(|contender| contender.name == name)
        .unwrap()
}

#[test]
fn every_contender_is_measured_or_says_why_not() {
    let place = Place::new();
    let (pid, output) = run(&mut place.lab(&["--runs", "8"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = store::read_summary(&place.out()).unwrap();
    let samples = store::read_samples(&place.out()).unwrap();
    assert_eq!(summary.schema, SCHEMA);
    assert_eq!(summary.provenance.n, 8);
    let names: Vec<&str> = summary
        .contenders
        .iter()
        .map(|contender| contender.name.as_str())
        .collect();
    assert_eq!(names, bench::contenders::DEFAULT);
    for contender in &summary.contenders {
        match contender.status {
            Status::Measured => {
                assert_eq!(contender.startup_ns.unwrap().n, 8, "{}", contender.name);
                assert_eq!(
                    contender.workload_sha256.as_ref(),
                    Some(&summary.provenance.workload_sha256)
                );
                assert_eq!(contender.checksum, summary.contenders[0].checksum);
                assert!(
                    contender.memory.as_ref().unwrap().unique_bytes.unwrap() > 0,
                    "{}",
                    contender.name
                );
            }
            Status::Skipped => {
                // Linux needs a kernel nobody has before he builds it, and more than a KVM without hardware can do: to be
                // listed with that reason is what this test asks for, not a lack of the machine.
                if contender.name != "vm-linux" {
                    eprintln!("skipped: {} did not run: {:?}", contender.name, contender.reason);
                }
                assert!(
                    contender.reason.is_some() && contender.fix.is_some(),
                    "{}",
                    contender.name
                );
            }
        }
    }
    assert_eq!(contender(&summary, "process").status, Status::Measured);
    assert!(summary.null_test.is_some());
    assert!(place.out().join("report.html").is_file());

    // Interleaved: between two launches of a contender there is never a whole round of others twice.
    let timed: Vec<_> = samples
        .iter()
        .filter(|s| s.purpose == Purpose::Timed && s.contender == "process")
        .collect();
    assert_eq!(timed.len(), 8);
    for sample in &samples {
        assert!(sample.end_ns > sample.start_ns);
        if let Some(first_byte) = sample.first_byte_ns {
            assert!(sample.start_ns < first_byte && first_byte <= sample.end_ns);
        }
    }
    assert!(samples.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert!(
        samples.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns),
        "one launch at a time"
    );
    place.nothing_is_left(pid);
}

#[test]
fn the_container_reports_its_phases_between_the_two_lines() {
    let place = Place::new();
    let (_, output) = run(&mut place.lab(&["--runs", "2", "--contenders", "container"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = store::read_summary(&place.out()).unwrap();
    let container = contender(&summary, "container");
    if container.status == Status::Skipped {
        eprintln!("skipped: container cannot run here: {:?}", container.reason);
        return;
    }
    let samples = store::read_samples(&place.out()).unwrap();
    let phases: Vec<_> = samples
        .iter()
        .filter(|sample| sample.purpose == Purpose::Phases)
        .collect();
    assert_eq!(phases.len(), 2);
    for sample in phases {
        let exec = sample.marks.iter().find(|mark| mark.name == "exec").unwrap();
        assert!(sample.start_ns < exec.ns && exec.ns < sample.first_byte_ns.unwrap());
    }
    assert!(container.phases.iter().any(|phase| phase.name == "mounts done"));
}

#[test]
fn a_launcher_that_fails_is_skipped_with_its_own_words() {
    let place = Place::new();
    let launcher = place.launcher("echo 'no cheese left' >&2; exit 3");
    let (_, output) = run(&mut place.lab(&["--runs", "1", "--contenders", "process,vm", "--vmm", &launcher]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = store::read_summary(&place.out()).unwrap();
    let vm = contender(&summary, "vm");
    assert_eq!(vm.status, Status::Skipped);
    let reason = vm.reason.as_ref().unwrap();
    assert!(
        reason.contains("status 3") && reason.contains("no cheese left"),
        "{reason}"
    );
}

#[test]
fn a_launcher_that_hangs_is_killed_with_its_children() {
    let place = Place::new();
    let pid_file = place.dir.path().join("pid");
    let launcher = place.launcher(&format!("sleep 1000 & echo $! > {}; wait", pid_file.display()));
    let arguments = [
        "--runs",
        "1",
        "--contenders",
        "process,vm",
        "--limit-s",
        "1",
        "--vmm",
        &launcher,
    ];
    let (_, output) = run(&mut place.lab(&arguments));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = store::read_summary(&place.out()).unwrap();
    let reason = contender(&summary, "vm").reason.clone().unwrap();
    assert!(reason.contains("did not end within 1 s"), "{reason}");
    let sleeper = fs::read_to_string(pid_file).unwrap();
    assert!(!is_running(sleeper.trim()), "the launcher's child still runs");
}

#[test]
fn a_launcher_that_fails_in_mid_race_has_no_figures() {
    let place = Place::new();
    let count = place.dir.path().join("count");
    // Works for the two first launches, the warm-ups and one timed run, with the right checksum; then breaks.
    let launcher = place.launcher(&format!(
        "echo x >> {0}; [ $(wc -l < {0}) -gt 6 ] && exit 9; exec {1} \"$(eval echo \\${{$#}})\"",
        count.display(),
        workload(&place).display()
    ));
    let (_, output) = run(&mut place.lab(&["--runs", "4", "--contenders", "process,vm", "--vmm", &launcher]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = store::read_summary(&place.out()).unwrap();
    let vm = contender(&summary, "vm");
    assert_eq!(vm.status, Status::Skipped);
    assert_eq!(vm.startup_ns, None);
    assert!(vm.reason.as_ref().unwrap().contains("status 9"), "{:?}", vm.reason);
    let samples = store::read_samples(&place.out()).unwrap();
    assert!(
        samples.iter().any(|s| s.contender == "vm" && s.exit_status == 9),
        "the failed launch is on record"
    );
    assert!(
        samples.iter().any(|s| s.contender == "vm" && s.exit_status == 0),
        "and so are those before"
    );
}

#[test]
fn another_checksum_ends_the_comparison() {
    let place = Place::new();
    let launcher = place.launcher(r#"echo '{"lesson":"cpu","checksum":"0000000000000000"}'"#);
    let (_, output) = run(&mut place.lab(&["--runs", "1", "--contenders", "process,vm", "--vmm", &launcher]));
    assert!(!output.status.success());
    let message = text(&output.stderr);
    assert!(
        message.contains("checksum 0000000000000000") && message.contains("vm"),
        "{message}"
    );
    assert!(!place.out().join(SUMMARY).exists());
}

#[test]
fn an_interrupted_race_keeps_its_samples_and_leaves_nothing_behind() {
    let place = Place::new();
    let mut command = place.lab(&["--runs", "5000", "--contenders", "process,container,crun"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let samples = place.out().join(SAMPLES);
    let deadline = Instant::now() + Duration::from_secs(60);
    // The warm-ups are over when this many are there.
    while fs::read_to_string(&samples).unwrap_or_default().lines().count() < 40 {
        assert!(Instant::now() < deadline, "the race does not get going");
        assert!(child.try_wait().unwrap().is_none(), "the race ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = child.id();
    // Twice at once, as timeout(1) and an impatient hand send it.
    for _ in 0..2 {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    }
    // And again while it cleans up.
    std::thread::sleep(Duration::from_millis(20));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(128 + 2), "{said}");
    assert!(
        said.contains("SIGINT interrupted the race after") && said.contains("of 5000 timed runs"),
        "{said}"
    );
    assert!(store::read_samples(&place.out()).unwrap().len() >= 40);
    let summary = store::read_summary(&place.out()).unwrap();
    assert!(summary.provenance.notes.iter().any(|note| note.contains("interrupted")));
    place.nothing_is_left(pid);
}

#[test]
fn a_full_disk_keeps_the_samples_that_fitted() {
    let place = Place::new();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can mount the small file system this test needs");
        return;
    }
    fs::create_dir(place.out()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8k", "tmpfs"])
        .arg(place.out())
        .status()
        .unwrap();
    assert!(mounted.success());
    let (_, output) = run(&mut place.lab(&["--runs", "200", "--contenders", "process"]));
    let samples = store::read_samples(&place.out());
    let unmounted = Command::new("umount").arg(place.out()).status().unwrap();
    assert!(unmounted.success());
    assert!(!output.status.success());
    let message = text(&output.stderr);
    assert!(
        message.contains("No space left") && message.contains("--out"),
        "{message}"
    );
    assert_eq!(
        message.matches("No space left").count(),
        1,
        "each cause once: {message}"
    );
    assert!(samples.unwrap().len() > 5);
}

#[test]
fn a_finished_race_shows_its_tables_even_if_they_cannot_be_kept() {
    let place = Place::new();
    fs::create_dir(place.out()).unwrap();
    fs::write(place.out().join(SAMPLES), "").unwrap();
    // A folder in the place of the file: nobody, root included, can write the summary there.
    fs::create_dir(place.out().join(".summary.json.new")).unwrap();
    let (_, output) = run(&mut place.lab(&["--runs", "1", "--contenders", "process"]));
    let message = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        message.contains("cannot write") && message.contains(SUMMARY),
        "{message}"
    );
    assert_eq!(message.matches("Is a directory").count(), 1, "{message}");
    let shown = text(&output.stdout);
    assert!(
        shown.contains("p50 ms") && shown.contains("1 run is too few"),
        "{shown}"
    );
}

#[test]
fn two_labs_never_share_a_folder() {
    let place = Place::new();
    let mut first = place.lab(&["--runs", "5000", "--contenders", "process"]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !place.out().join(SAMPLES).exists() {
        assert!(Instant::now() < deadline, "the race does not get going");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (_, second) = run(&mut place.lab(&["--runs", "1", "--contenders", "process"]));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(first.id() as i32),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    first.wait().unwrap();
    let message = text(&second.stderr);
    assert!(
        !second.status.success() && message.contains("another lab is writing"),
        "{message}"
    );
    store::read_samples(&place.out()).unwrap();
}

#[test]
fn charts_and_report_are_drawn_anew_from_the_folder_alone() {
    let place = Place::new();
    let (_, output) = run(&mut place.lab(&["--runs", "6", "--contenders", "process"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (report, charts) = (place.out().join("report.html"), place.out().join("charts"));
    let first = fs::read(&report).unwrap();
    fs::remove_file(&report).unwrap();
    fs::remove_dir_all(&charts).unwrap();
    for (command, expected) in [("charts", charts.join("startup.svg")), ("report", report.clone())] {
        let (_, output) = run(Command::new(env!("CARGO_BIN_EXE_lab")).arg(command).arg(place.out()));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(expected.is_file(), "{command}");
    }
    assert_eq!(
        fs::read(&report).unwrap(),
        first,
        "the same folder gives the same report"
    );

    // Half a line at the end, as a lab leaves that was killed.
    let samples = place.out().join(SAMPLES);
    let whole = fs::read(&samples).unwrap();
    fs::write(&samples, &whole[..whole.len() - 7]).unwrap();
    let (_, output) = run(Command::new(env!("CARGO_BIN_EXE_lab")).arg("report").arg(place.out()));
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("is cut off"), "{}", text(&output.stderr));
}

#[test]
fn a_folder_that_holds_something_else_is_refused() {
    let place = Place::new();
    fs::create_dir(place.out()).unwrap();
    fs::write(place.out().join("letter.txt"), "dear").unwrap();
    let (_, output) = run(&mut place.lab(&["--runs", "1", "--contenders", "process"]));
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("is no results folder"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(fs::read_to_string(place.out().join("letter.txt")).unwrap(), "dear");
}

#[test]
fn wrong_workloads_are_refused_before_the_race() {
    for (lesson, expected) in [
        ("idle", "never ends"),
        ("juggle", "no finish line"),
        ("crash", "no finish line"),
    ] {
        let place = Place::new();
        let (_, output) = run(&mut place.lab(&["--runs", "1", "--contenders", "process", "--workload", lesson]));
        assert!(!output.status.success(), "{lesson}");
        assert!(
            text(&output.stderr).contains(expected),
            "{lesson}: {}",
            text(&output.stderr)
        );
        assert!(!place.out().exists(), "{lesson}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let mut command = place.lab(&["--runs", "1", "--contenders", "process"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

/// The workload as a file, for launchers of our own making.
fn workload(place: &Place) -> PathBuf {
    let path = place.dir.path().join("workload");
    fs::write(&path, guest_images::WORKLOAD).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A killed process without a parent that reaps it may stay a zombie for a moment.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn what_a_restored_vm_pays_at_once_and_later_is_told_apart() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .args(["restore-cost", "--runs", "3", "--json"])
        .env("TMPDIR", place.temporary());
    let output = command.output().unwrap();
    let complaint = text(&output.stderr);
    if !output.status.success() && complaint.contains("/dev/kvm") {
        eprintln!("skipped: {complaint}");
        return;
    }
    assert!(output.status.success(), "{complaint}");
    let cost: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |name: &str| cost[name].as_f64().unwrap();
    assert_eq!(cost["n"], 3);
    for name in [
        "restore_ns",
        "restore_prefaulted_ns",
        "run_ns",
        "run_prefaulted_ns",
        "snapshot_bytes",
    ] {
        assert!(figure(name) > 0.0, "{name}: {cost}");
    }
    // Pages copied beforehand are not copied again: a count, not a time.
    assert!(figure("faults") > figure("faults_prefaulted"), "{cost}");
}
