//! The studies, short ones, by the program a user runs: real instances on this machine.

// clippy.toml allows unwrap in test functions; their helpers are tests too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::study::results::{Cost, Density, Identity, Ledger, Line, Study, Surface};
use bench::study::surface::trials::Reach;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

/// A condition that is waited for holds within this, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(120);

/// `lab` with these arguments, its temporary files where the test can look.
fn lab(place: &Path, arguments: &[&str]) -> Command {
    let temporary = place.join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .args(arguments)
        .arg("--json")
        .arg("--out")
        .arg(place.join("out"));
    command.env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

fn run<T: serde::de::DeserializeOwned>(place: &Path, arguments: &[&str]) -> Study<T> {
    let output = lab(place, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// With `vm` where there is KVM.
fn contenders(without: &str) -> String {
    if Path::new("/dev/kvm").exists() {
        return format!("{without},vm");
    }
    println!("skipped: no /dev/kvm, so the VM takes no part");
    without.to_owned()
}

/// Cgroups a container with limits made for itself.
fn containers_cgroups() -> BTreeSet<PathBuf> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let root = Path::new("/sys/fs/cgroup");
    let both = below(root).into_iter().flat_map(|path| {
        let mut own = below(&path);
        own.push(path);
        own
    });
    let named = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("container-"))
    };
    both.filter(named).collect()
}

/// Processes whose command line names a path below `place`.
fn using(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(place).then_some(line)
    });
    lines.collect()
}

#[test]
fn density_finds_a_slope_and_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let names = contenders("process,container");
    // A cgroup is charged ahead, up to 256 KiB for each processor, and who works when decides how far: as much as two plain
    // processes weigh. Of so many that is a small part.
    let study: Study<Density> = run(place.path(), &["density", "--up-to", "24", "--contenders", &names]);
    for (name, found) in study.measured() {
        let sizes: Vec<u64> = found.apart.points.iter().map(|point| point.instances).collect();
        assert_eq!(sizes, [0, 1, 3, 6, 9, 12, 15, 18, 21, 24], "{name}");
        assert!(found.apart.stopped.is_none(), "{name}");
        if geteuid().is_root() {
            let slope = found.apart.charged.unwrap();
            assert!(
                slope.bytes > 0.0 && slope.ci95[0] > 0.0,
                "{name}: an instance takes memory: {slope:?}, {:?}",
                found.apart.points
            );
        } else {
            println!("skipped: not root, so no accounting cgroup");
        }
    }
    assert_eq!(
        study.measured().count(),
        names.split(',').count(),
        "{:?}",
        study.contenders
    );
    let kept: Study<Density> = Study::read(&place.path().join("out"), "density").unwrap().unwrap();
    assert_eq!(kept.measured().count(), study.measured().count());
    let chart = fs::read_to_string(place.path().join("out/charts/density.svg")).unwrap();
    assert!(chart.contains(" each") || !geteuid().is_root());
    assert_eq!(using(place.path()), [""; 0]);
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn peers_are_multiplied_too_each_in_a_cgroup_of_its_own() {
    if !geteuid().is_root() {
        return println!("skipped: not root, so the peers have no cgroups of their own");
    }
    let installed =
        |name: &&str| Path::new("/usr/bin").join(name).exists() || Path::new("/usr/sbin").join(name).exists();
    let names: Vec<&str> = ["crun", "runc"].into_iter().filter(installed).collect();
    if names.is_empty() {
        return println!("skipped: neither crun nor runc is installed");
    }
    let place = TempDir::new().unwrap();
    let list = names.join(",");
    let study: Study<Density> = run(place.path(), &["density", "--up-to", "4", "--contenders", &list]);
    for name in names {
        let found = study
            .of(name)
            .unwrap_or_else(|| panic!("{name}: {:?}", study.contenders));
        assert_eq!(
            found.apart.points.last().unwrap().instances,
            4,
            "{name}: {:?}",
            found.apart.stopped
        );
        assert!(found.apart.charged.unwrap().bytes > 0.0, "{name}");
    }
    assert_eq!(using(place.path()), [""; 0]);
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_interrupted_density_ends_its_instances_and_keeps_its_readings() {
    let place = TempDir::new().unwrap();
    let mut command = lab(
        place.path(),
        &["density", "--up-to", "2000", "--contenders", "container"],
    );
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    // The launchers' command lines name the image's root below our temporary folder.
    while using(&place.path().join("tmp")).len() < 3 {
        assert!(begin.elapsed() < PATIENCE, "no instance in {PATIENCE:?}");
        assert_eq!(child.try_wait().unwrap(), None, "lab ended by itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let study: Study<Density> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        study.notes.iter().any(|note| note.contains("Interrupted")),
        "{:?}",
        study.notes
    );
    assert_eq!(using(&place.path().join("tmp")), [""; 0]);
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn memory_adds_up() {
    let place = TempDir::new().unwrap();
    let before = containers_cgroups();
    let names = contenders("process,container");
    let arguments = ["memory", "--rounds", "1", "--instances", "2", "--contenders", &names];
    let study: Study<Ledger> = run(place.path(), &arguments);
    assert_eq!(
        study.measured().count(),
        names.split(',').count(),
        "{:?}",
        study.contenders
    );
    for (name, ledger) in study.measured() {
        let taken: f64 = ledger
            .parts
            .iter()
            .filter(|part| part.taken)
            .filter_map(|part| part.bytes)
            .sum();
        assert!((taken - ledger.sum_bytes).abs() < 1.0 && taken > 0.0, "{name}");
        let lost = ledger.available_bytes.unwrap();
        assert!(
            (lost.median - ledger.sum_bytes - ledger.residue_bytes.unwrap()).abs() < 1.0,
            "{name}"
        );
        assert!(
            ledger
                .processes
                .iter()
                .all(|process| process.table_bytes > 0 && process.threads > 0),
            "{name}"
        );
        assert_eq!(ledger.guest_configured_bytes.is_some(), name == "vm");
    }
    assert_eq!(using(place.path()), [""; 0]);
    // One of the variants has cgroups of its own: its launcher's keeper must have been given the time to remove them.
    let left: Vec<_> = containers_cgroups().difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_container_shares_the_kernel_and_a_vm_does_not() {
    let place = TempDir::new().unwrap();
    let names = contenders("container");
    let study: Study<Identity> = run(place.path(), &["inspect", "--contenders", &names]);
    let shared = |name: &str, what: &str| {
        let aspects = &study.of(name).unwrap().aspects;
        aspects.iter().find(|aspect| aspect.name == what).unwrap().shared
    };
    assert_eq!(shared("process", "processes"), Some(true));
    assert_eq!(shared("container", "kernel"), Some(true));
    for view in ["processes", "users", "mounts", "network"] {
        assert_eq!(shared("container", view), Some(false), "{view}");
    }
    if names.contains("vm") {
        assert_eq!(shared("vm", "kernel"), Some(false));
        assert_eq!(study.of("vm").unwrap().host_processes[0].name, "vmm");
    }
}

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

#[test]
fn a_filter_narrows_what_is_reached_and_what_the_workload_does_ends_with_it() {
    if !geteuid().is_root() {
        return println!("skipped: reading another process's seccomp filter takes root");
    }
    let place = TempDir::new().unwrap();
    let before = containers_cgroups();
    let names = contenders("process,container");
    let study: Study<Surface> = run(place.path(), &["surface", "--contenders", &names]);
    assert_eq!(
        study.measured().count(),
        names.split(',').count(),
        "{:?}",
        study.contenders
    );
    let of = |name: &str| study.of(name).unwrap();
    assert!(of("container").reachable < of("process").reachable);
    for (name, surface) in study.measured() {
        let trial = |what: &str| surface.trials.iter().find(|trial| trial.what == what).unwrap();
        // 128 + SIGSEGV: by the host's kernel or by the guest's, the program's own end.
        assert_eq!(trial("crash").status, 139, "{name}");
        assert_eq!(
            trial("memory").status == 0,
            name == "process",
            "{name}: {:?}",
            trial("memory")
        );
        for trial in &surface.trials {
            let lived = trial.sibling_survived && trial.next_started == Some(true) && trial.host_survived == Some(true);
            assert!(lived, "{name}: {trial:?}");
            // Nothing holds a plain process back but the lab, whoever runs it.
            let contained = trial.reach() == Reach::Contained;
            assert!(contained || name == "process", "{name}: {trial:?}");
        }
        let observed = surface.observed.as_ref().unwrap();
        assert!(
            observed.distinct() > 0 && observed.made() >= observed.distinct(),
            "{name}: {observed:?}"
        );
    }
    // The same bytes on the same kernel make the same calls, but for what a restarted one adds.
    let made = |name: &str| of(name).observed.clone().unwrap().calls;
    assert_eq!(
        made("process").into_keys().collect::<Vec<_>>(),
        made("container").into_keys().collect::<Vec<_>>()
    );
    let ending = |name: &str, what: &str| {
        let trials = &of(name).trials;
        trials.iter().find(|trial| trial.what == what).unwrap().ending()
    };
    assert!(
        ending("container", "panic").starts_with("refused: "),
        "{}",
        ending("container", "panic")
    );
    assert!(
        ending("container", "forks").starts_with("EAGAIN after "),
        "{}",
        ending("container", "forks")
    );
    if names.contains("vm") {
        assert!(of("vm").reachable < of("container").reachable);
        assert_eq!(of("vm").behind, "vmm");
        // Its calls end at its own kernel: the host sees the VMM's.
        assert!(
            made("vm").contains_key("ioctl") && !made("vm").contains_key("uname"),
            "{:?}",
            made("vm")
        );
        assert_eq!(ending("vm", "panic"), "its kernel panicked");
        assert_eq!(ending("vm", "forks"), "ENOSYS after 0");
    }
    let chart = place.path().join("out/charts/surface.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("explain")
        .arg(&chart)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("the same, byte for byte"),
        "{output:?}"
    );
    assert_eq!(using(place.path()), [""; 0]);
    let left: Vec<_> = containers_cgroups().difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_line_leaves_the_guest_as_often_as_its_way_says() {
    if !Path::new("/dev/kvm").exists() {
        return println!("skipped: no /dev/kvm, so no guest prints");
    }
    let place = TempDir::new().unwrap();
    let study: Study<Line> = run(place.path(), &["line", "--runs", "6", "--bytes", "33", "--gap-ms", "0"]);
    // A byte each; the line; the notification and the two accesses an interrupt takes.
    for (way, exits) in [("serial port", 33.0), ("debug port", 1.0), ("virtio-console", 3.0)] {
        let line = study.of(way).unwrap_or_else(|| panic!("{:?}", study.contenders));
        assert_eq!((line.exits, line.bytes, line.ns.n), (exits, 33, 6), "{way}");
        assert!(
            line.host_ns.p50 > 0 && line.host_ns.p50 < line.ns.p50,
            "{way}: {line:?}"
        );
        assert_eq!(line.relative.is_none(), way == "serial port");
        assert_eq!(line.null_test.is_some(), way == "serial port");
    }
    // The serial port again in every round, but for the one that warms up.
    let readings = fs::read_to_string(place.path().join("out/line.jsonl")).unwrap();
    assert_eq!(readings.lines().count(), 6 * 4);
    let chart = place.path().join("out/charts/line.svg");
    let drawn = fs::read(&chart).unwrap();
    fs::remove_file(&chart).unwrap();
    let mut charts = Command::new(env!("CARGO_BIN_EXE_lab"));
    let output = charts.arg("charts").arg(place.path().join("out")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        fs::read(&chart).unwrap() == drawn,
        "drawn anew it is the same, byte for byte"
    );
    assert_eq!(using(place.path()), [""; 0]);
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_study_of_a_later_lab_is_refused() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("density.json"), "{\"schema\": 99}").unwrap();
    let error = Study::<Density>::read(place.path(), "density").unwrap_err().to_string();
    assert!(error.contains("schema 99"), "{error}");
    assert!(Study::<Density>::read(place.path(), "memory").unwrap().is_none());
}
