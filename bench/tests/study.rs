//! The studies of memory, density, identity, surface and a line's exits, short ones, by the program a user runs: real instances on
//! this machine.

// clippy.toml allows unwrap in test functions; their helpers are tests too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::study::results::{Density, Identity, Ledger, Line, Study, Surface};
use bench::study::surface::trials::Reach;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use support::{PATIENCE, contenders, lab, run, using};

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
