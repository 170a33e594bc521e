//! create + start of a container from podman's default configuration, `container-oci` against crun:
//! `cargo bench -p container --bench oci_start [-- ROUNDS [RUNTIME]]`.
//!
//! Podman itself writes the configuration: it is run once with a runtime that keeps the bundle's config.json and refuses
//! the container. Then both runtimes create and start containers from that same file, in turn, with an idle gap before
//! each: a pair of commands, timed from the start of the first to the end of the second. Deleting is not timed. crun
//! does not accept this lab's usual hosts, with both versions of cgroups mounted: all of it runs in a mount namespace
//! without the v2 mount, so that neither side pays for a wrapper.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// Idle time before each measurement: in a tight loop the kernel's deferred work (RCU) is hidden.
const GAP: Duration = Duration::from_millis(30);

/// Pairs of measurements, unless another number is given.
const ROUNDS: usize = 60;

/// Where hybrid hosts have the v2 hierarchy.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

fn main() {
    // Cargo gives `--bench` too.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let testing = std::env::args().any(|argument| argument == "--test");
    let rounds = match arguments.first() {
        Some(number) => number.parse().expect("the first argument is the number of rounds"),
        None if testing => 1,
        None => ROUNDS,
    };
    let ours = arguments
        .get(1)
        .map_or(env!("CARGO_BIN_EXE_container-oci"), String::as_str);
    match Bench::new() {
        Ok(bench) => bench.race(Path::new(ours), rounds),
        Err(reason) => println!("skipped: {reason}"),
    }
}

struct Bench {
    directory: tempfile::TempDir,
    crun: PathBuf,
}

impl Bench {
    fn new() -> Result<Bench, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root".into());
        }
        let find = |name: &str| {
            let directories = ["/usr/bin", "/usr/sbin", "/bin"];
            let found = directories
                .iter()
                .map(|directory| Path::new(directory).join(name))
                .find(|path| path.exists());
            found.ok_or(format!("needs {name} (Debian: apt install crun podman busybox-static)"))
        };
        let (crun, podman, busybox) = (find("crun")?, find("podman")?, find("busybox")?);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let bench = Bench { directory, crun };
        bench.make_root(&busybox);
        bench.capture(&podman)?;
        hide_unified()?;
        Ok(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make_root(&self, busybox: &Path) {
        let bin = self.path("bundle/rootfs/bin");
        fs::create_dir_all(&bin).expect("a root file system");
        fs::copy(busybox, bin.join("true")).expect("a copy of busybox");
    }

    /// Has podman write its default configuration, and keeps it with this root and without the files podman binds.
    fn capture(&self, podman: &Path) -> Result<(), String> {
        let run = |command: &mut Command| {
            let output = command
                .stdin(Stdio::null())
                .output()
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((
                output.status.success(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ))
        };
        let archive = self.path("root.tar");
        let (packed, words) = run(Command::new("tar")
            .arg("-C")
            .arg(self.path("bundle/rootfs"))
            .arg("-cf")
            .args([&archive])
            .arg("."))?;
        assert!(packed, "{words}");
        let catcher = self.path("catcher");
        let kept = self.path("podman.json");
        let script = format!(
            "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --bundle ] && cp \"$2/config.json\" {}; shift; done\nexit 1\n",
            kept.display()
        );
        fs::write(&catcher, script).expect("a script");
        fs::set_permissions(&catcher, fs::Permissions::from_mode(0o755)).expect("an executable script");
        let podman = |arguments: &[&str]| {
            let mut command = Command::new(podman);
            command
                .arg("--root")
                .arg(self.path("storage"))
                .arg("--runroot")
                .arg(self.path("run"));
            command
                .args(["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--runtime"])
                .arg(&catcher)
                .args(arguments);
            command
        };
        let (imported, words) = run(podman(&["import", "--quiet"]).arg(&archive).arg("bench"))?;
        if !imported {
            return Err(format!("podman cannot import an image here: {words}"));
        }
        // Root of a container may not raise limits, so podman's own default is not always to be had.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        run(podman(&["run", "--rm", "--network", "none"])
            .args(limits)
            .args(["bench", "/bin/true"]))?;
        let config = fs::read(&kept).map_err(|error| format!("podman did not come to its runtime: {error}"))?;
        let mut config: Value = serde_json::from_slice(&config).expect("podman writes JSON");
        config["root"] = json!({ "path": "rootfs" });
        let mounts = config["mounts"].as_array_mut().expect("podman mounts something");
        mounts.retain(|mount| mount["type"] != "bind");
        config["linux"]["cgroupsPath"] = json!(format!("/container-oci-bench-{}", std::process::id()));
        fs::write(self.path("bundle/config.json"), config.to_string()).expect("the bundle");
        Ok(())
    }

    fn race(&self, ours: &Path, rounds: usize) {
        let mut samples = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // ABBA: who comes first gains nothing by it.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for side in order {
                let runtime = if side == 0 { ours } else { &self.crun };
                samples[side].push(self.create_and_start(runtime));
            }
        }
        let (low, high) = interval(&samples);
        let [ours, crun] = samples.map(|mut samples| {
            samples.sort();
            let at = |share: usize| samples[(samples.len() - 1) * share / 100].as_secs_f64() * 1000.0;
            (at(0), at(50), at(90))
        });
        for (name, (min, p50, p90)) in [("container-oci", ours), ("crun", crun)] {
            println!("{name:14} create+start: p50 {p50:.2} ms, p90 {p90:.2} ms, min {min:.2} ms, n={rounds}");
        }
        println!("ratio of p50: {:.3} (95% {low:.3} to {high:.3})", ours.1 / crun.1);
    }

    fn create_and_start(&self, runtime: &Path) -> Duration {
        let command = |arguments: &[&str]| {
            let mut command = Command::new(runtime);
            command
                .arg("--root")
                .arg(self.path("state"))
                .args(arguments)
                .current_dir(self.path("bundle"));
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let succeed = |arguments: &[&str]| {
            let status = command(arguments).status().expect("the runtime");
            assert!(status.success(), "{} {arguments:?}: {status}", runtime.display());
        };
        std::thread::sleep(GAP);
        let begin = Instant::now();
        succeed(&["create", "--bundle", ".", "bench"]);
        succeed(&["start", "bench"]);
        let took = begin.elapsed();
        succeed(&["delete", "--force", "bench"]);
        took
    }
}

/// Where the ratio of the medians lies in 95 of 100 bootstrap samples: pairs drawn again, so that what disturbed both
/// sides of a round stays together.
fn interval(samples: &[Vec<Duration>; 2]) -> (f64, f64) {
    const RESAMPLES: usize = 2000;
    let rounds = samples[0].len();
    let mut random = fastrand::Rng::with_seed(1);
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<usize> = (0..rounds).map(|_| random.usize(..rounds)).collect();
            let median = |side: usize| {
                let mut values: Vec<Duration> = drawn.iter().map(|&round| samples[side][round]).collect();
                values.sort();
                values[(rounds - 1) / 2].as_secs_f64()
            };
            median(0) / median(1)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    (ratios[RESAMPLES * 25 / 1000], ratios[RESAMPLES * 975 / 1000 - 1])
}

/// Takes the v2 mount away in a mount namespace of this process's own, where there is one beside v1.
fn hide_unified() -> Result<(), String> {
    if !Path::new(UNIFIED).join("cgroup.procs").exists() {
        return Ok(());
    }
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| umount2(UNIFIED, MntFlags::MNT_DETACH))
        .map_err(|errno| format!("cannot take the cgroup v2 mount away for crun: {errno}"))
}
