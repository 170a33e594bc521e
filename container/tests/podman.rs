//! Debian's podman drives the runtime: a real engine that nobody here wrote.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use oci_common::{Bundle, RUNTIME, succeed, text};

/// An engine with storage of its own and an image made of a tar archive: as far from the machine's own containers as
/// podman lets one be.
struct Podman {
    bundle: Bundle,
}

/// Root in a container may not raise limits, so that podman's own defaults are not to be had everywhere.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];

fn podman() -> Result<&'static Podman, String> {
    static PODMAN: OnceLock<Result<Podman, String>> = OnceLock::new();
    PODMAN.get_or_init(Podman::new).as_ref().map_err(Clone::clone)
}

macro_rules! podman_or_skip {
    () => {
        match podman() {
            Ok(podman) => podman,
            Err(reason) => skip!("{reason}"),
        }
    };
}

impl Podman {
    fn new() -> Result<Podman, String> {
        if Command::new("podman").arg("--version").output().is_err() {
            return Err("needs podman (Debian: apt install podman)".into());
        }
        // The bundle's root file system becomes the image.
        let bundle = Bundle::new("")?;
        let archive = bundle.path("image.tar");
        succeed(
            Command::new("tar")
                .arg("-C")
                .arg(bundle.path("rootfs"))
                .arg("-cf")
                .args([&archive])
                .arg("."),
        );
        let podman = Podman { bundle };
        text(
            &podman
                .command(&["import", "--quiet"])
                .arg(&archive)
                .arg("box")
                .output()
                .unwrap(),
        );
        Ok(podman)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.bundle.path("storage"))
            .arg("--runroot")
            .arg(self.bundle.path("run"));
        command.arg("--tmpdir").arg(self.bundle.path("tmp"));
        command.args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            RUNTIME,
        ]);
        // conmon writes where it stands.
        command
            .args(arguments)
            .stdin(Stdio::null())
            .current_dir(self.bundle.path(""));
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `podman run OPTIONS box sh -c SCRIPT`.
    fn run(&self, options: &[&str], script: &str) -> Output {
        let mut command = self.command(&["run", "--rm", "--network", "none"]);
        command
            .args(LIMITS)
            .args(options)
            .args(["box", "sh", "-c", script])
            .output()
            .unwrap()
    }

    /// What a script wrote that ended well.
    fn says(&self, options: &[&str], script: &str) -> String {
        text(&self.run(options, script)).replace('\r', "")
    }
}

#[test]
fn run_has_the_programs_output_and_status() {
    let podman = podman_or_skip!();
    assert_eq!(podman.says(&[], "echo hello; echo $$"), "hello\n1");
    assert_eq!(podman.run(&[], "exit 5").status.code(), Some(5));
    let start = |program: &str| {
        let mut command = podman.command(&["run", "--rm", "--network", "none"]);
        command
            .args(LIMITS)
            .args(["box", program])
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(start("/no/such/program"), Some(127));
    assert_eq!(start("nosuchprogram"), Some(127));
    assert_eq!(start("/etc"), Some(126));
}

#[test]
fn options_about_the_process() {
    let podman = podman_or_skip!();
    assert_eq!(
        podman.says(&["-e", "GREETING=hello world"], "echo $GREETING"),
        "hello world"
    );
    assert_eq!(
        podman.says(&["-u", "1000:1000"], "id -u; id -g; echo $HOME"),
        "1000\n1000\n/home/user"
    );
    assert_eq!(podman.says(&["-w", "/etc"], "pwd"), "/etc");
    assert_eq!(podman.says(&["--hostname", "box"], "hostname"), "box");
    assert_eq!(podman.says(&["-t"], "tty"), "/dev/pts/0");
    let capabilities = |options: &[&str]| podman.says(options, "grep CapEff /proc/self/status");
    assert_eq!(capabilities(&["--cap-drop", "all"]), "CapEff:\t0000000000000000");
    assert_eq!(
        capabilities(&["--cap-drop", "all", "--cap-add", "kill"]),
        "CapEff:\t0000000000000020"
    );
    assert_eq!(
        podman.says(
            &["--security-opt", "no-new-privileges"],
            "grep NoNewPrivs /proc/self/status"
        ),
        "NoNewPrivs:\t1"
    );
    assert_eq!(podman.says(&[], "grep Seccomp: /proc/self/status"), "Seccomp:\t2");
    assert_eq!(
        podman.says(
            &["--security-opt", "seccomp=unconfined"],
            "grep Seccomp: /proc/self/status"
        ),
        "Seccomp:\t0"
    );
}

#[test]
fn options_about_files() {
    let podman = podman_or_skip!();
    let shared = podman.bundle.path("shared");
    fs::create_dir_all(&shared).unwrap();
    fs::write(shared.join("file"), "from the host").unwrap();
    let volume = format!("{}:/volume", shared.display());
    assert_eq!(
        podman.says(&["-v", &volume], "cat /volume/file; echo > /volume/made"),
        "from the host"
    );
    assert!(shared.join("made").exists());
    let read_only = podman.run(&["-v", &format!("{volume}:ro")], "echo > /volume/other");
    assert!(
        String::from_utf8_lossy(&read_only.stderr).contains("Read-only"),
        "{read_only:?}"
    );
    let root = podman.run(&["--read-only"], "echo > /file");
    assert!(String::from_utf8_lossy(&root.stderr).contains("Read-only"), "{root:?}");
    assert_eq!(podman.says(&["--read-only"], "echo x > /tmp/file; cat /tmp/file"), "x");
    assert_eq!(
        podman.says(
            &["--tmpfs", "/scratch:size=1m"],
            "df -m /scratch | tail -1 | awk '{print $2}'"
        ),
        "1"
    );
    assert!(
        podman
            .run(&["--device", "/dev/zero:/dev/other"], "head -c 3 /dev/other | wc -c")
            .stdout
            .starts_with(b"3")
    );
}

#[test]
fn limits_are_the_containers() {
    let podman = podman_or_skip!();
    let limit = |options: &[&str], v1: &str, v2: &str| {
        podman.says(
            options,
            &format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"),
        )
    };
    assert_eq!(
        limit(&["-m", "64m"], "memory/memory.limit_in_bytes", "memory.max"),
        "67108864"
    );
    assert_eq!(limit(&["--pids-limit", "33"], "pids/pids.max", "pids.max"), "33");
    let quota = limit(&["--cpus", "0.5"], "cpu/cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let killed = podman.run(&["-m", "16m"], "tail -c 100m /dev/zero");
    assert_eq!(killed.status.code(), Some(137), "{killed:?}");
    let forked = podman.run(&["--pids-limit", "5"], "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done");
    assert!(
        String::from_utf8_lossy(&forked.stderr).contains("can't fork"),
        "{forked:?}"
    );
}

#[test]
fn an_init_process_reaps_and_forwards() {
    let podman = podman_or_skip!();
    // Debian's podman only recommends catatonit, so that a machine may have another init or none.
    let inits = ["/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/bin/tini"];
    let Some(init) = inits.into_iter().find(|path| Path::new(path).exists()) else {
        skip!("needs an init for podman --init (Debian: apt install catatonit)")
    };
    let options = ["--init", "--init-path", init];
    assert_ne!(podman.says(&options, "cat /proc/1/comm"), "sh");
}

#[test]
fn a_container_in_the_background_is_looked_into_stopped_and_removed() {
    let podman = podman_or_skip!();
    let mut run = podman.command(&["run", "-d", "--name", "background", "--network", "none"]);
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    text(&run.args(LIMITS).args(["box", "sh", "-c", script]).output().unwrap());
    oci_common::wait_until(|| text(&podman.output(&["logs", "background"])).contains("ready"));
    let exec = |arguments: &[&str]| podman.output(&[&["exec"], arguments].concat());
    assert_eq!(
        text(&exec(&[
            "-u",
            "1000",
            "-w",
            "/etc",
            "-e",
            "A=b",
            "background",
            "sh",
            "-c",
            "id -u; pwd; echo $A"
        ])),
        "1000\n/etc\nb"
    );
    assert_eq!(exec(&["background", "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert_eq!(exec(&["background", "/no/such/program"]).status.code(), Some(127));
    assert_eq!(exec(&["background", "/etc"]).status.code(), Some(126));
    assert_eq!(text(&exec(&["-t", "background", "tty"])), "/dev/pts/0");
    for (verb, status) in [("pause", "paused"), ("unpause", "running")] {
        text(&podman.output(&[verb, "background"]));
        assert_eq!(
            text(&podman.output(&["inspect", "--format", "{{.State.Status}}", "background"])),
            status
        );
    }
    assert!(text(&podman.output(&["top", "background"])).contains("sleep"));
    text(&podman.output(&["stop", "background"]));
    assert!(text(&podman.output(&["logs", "background"])).contains("bye"));
    assert_eq!(
        text(&podman.output(&["inspect", "--format", "{{.State.ExitCode}}", "background"])),
        "3"
    );
    text(&podman.output(&["rm", "background"]));
    assert_eq!(text(&podman.output(&["ps", "-aq", "--filter", "name=background"])), "");
}
