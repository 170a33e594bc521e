//! The testbed, as a user runs it: real QEMU, a real kernel, real commands inside.

// clippy.toml allows unwrap in test functions; their helpers are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::results::Status;
use bench::store;
use bench::testbed::{TIMED_OUT, find_machine};
use tempfile::TempDir;

/// Longer than any boot; who reaches it hangs.
const PATIENCE: &str = "300";

/// `lab testbed` in a folder of its own.
fn testbed(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .arg("testbed")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether this machine has what the testbed needs; says what it lacks.
fn ready() -> bool {
    match find_machine(None, None) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

#[test]
fn a_batch_runs_on_hardware_virtualization_and_brings_its_results_home() {
    if !ready() {
        return;
    }
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("given")).unwrap();
    fs::write(folder.path().join("given/file"), "from outside").unwrap();
    // On the command line and not in a file: a script could not be missed if it stayed outside.
    const BATCH: &str = r#"
        set -e
        echo "backend $(ls /sys/module | grep -x kvm_amd) cgroups $(awk '$2 == "/sys/fs/cgroup" { print $3 }' /proc/mounts)"
        echo "given $(cat given/file) here $PWD variable $GREETING"
        echo "to standard error" >&2
        printf 'raw\r\n\000bytes\n'
        vmm run workload hello
        container run --memory 64M --pids 16 workload hello
        lab compare --runs 6 --gap-ms 1 --contenders process,container,vm --out brought/race
        mkdir -p brought/deep/er && echo kept > brought/deep/er/file
        sleep 1000 &
        exit 7
    "#;
    let output = testbed(
        folder.path(),
        &[
            "--timeout",
            PATIENCE,
            "--include",
            "given",
            "--env",
            "GREETING=hi",
            "--results",
            "brought",
            "sh",
            "-c",
            BATCH,
        ],
    )
    .output()
    .unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{out}\n{err}");
    assert!(out.contains("backend kvm_amd cgroups cgroup2\n"), "{out}");
    let here = folder.path().canonicalize().unwrap();
    assert!(
        out.contains(&format!("given from outside here {} variable hi\n", here.display())),
        "{out}"
    );
    assert!(
        out.contains("raw\r\n\0bytes\n"),
        "bytes arrive as they were written: {out:?}"
    );
    assert_eq!(out.matches("hello from the workload").count(), 2, "{out}");
    assert!(
        err.contains("to standard error") && !out.contains("to standard error"),
        "{err}"
    );

    let brought = folder.path().join("brought");
    assert_eq!(fs::read_to_string(brought.join("deep/er/file")).unwrap(), "kept\n");
    let summary = store::read_summary(&brought.join("race")).unwrap();
    let from = &summary.provenance;
    assert!(from.emulated, "{from:?}");
    assert_eq!((from.kvm_backend.as_str(), from.cgroup_mode.as_str()), ("svm", "v2"));
    for contender in &summary.contenders {
        assert_eq!(contender.status, Status::Measured, "{contender:?}");
    }
    // The label goes wherever the figures go.
    let label = "Emulated CPU: ratios only";
    assert!(out.contains(label), "{out}");
    for file in ["summary.json", "report.html", "charts/startup.svg"] {
        assert!(
            fs::read_to_string(brought.join("race").join(file))
                .unwrap()
                .contains("mulated CPU"),
            "{file}"
        );
    }
}

#[test]
fn standard_input_goes_inside_when_asked_for_and_is_not_lost_silently() {
    if !ready() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let feed = |arguments: &[&str]| {
        let mut command = testbed(folder.path(), &[&["--timeout", PATIENCE], arguments].concat());
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"echo one; vmm run workload hello\nexit 5\n").unwrap();
        drop(writer);
        command.stdin(reader).output().unwrap()
    };
    let output = feed(&["--stdin", "sh"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "one\nhello from the workload\n");
    let output = feed(&["cat"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), ""));
    assert!(
        text(&output.stderr).contains("lab testbed --stdin"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_is_not_inside_is_not_found_and_says_so() {
    if !ready() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let output = testbed(folder.path(), &["--timeout", PATIENCE, "no-such-program"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("no-such-program"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no results, no folder");
}

#[test]
fn a_command_that_hangs_meets_the_time_limit() {
    if !ready() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let output = testbed(folder.path(), &["--timeout", "12", "sleep", "100000"])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(i32::from(TIMED_OUT)),
        "{}",
        text(&output.stderr)
    );
    assert!(
        text(&output.stderr).contains("did not end within 12 s"),
        "{}",
        text(&output.stderr)
    );
}

/// Needs neither QEMU nor KVM: a computer that never says a word is a program that sleeps.
#[test]
fn a_computer_without_a_sign_of_life_is_switched_off() {
    let folder = TempDir::new().unwrap();
    let tools = folder.path().join("tools");
    fs::create_dir(&tools).unwrap();
    fs::write(
        tools.join("qemu-system-x86_64"),
        "#!/bin/sh\necho the last words\nexec sleep 1000\n",
    )
    .unwrap();
    fs::set_permissions(
        tools.join("qemu-system-x86_64"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::write(folder.path().join("vmlinuz"), "never read").unwrap();
    let mark = format!("LAB_TESTBED_MARK={}", folder.path().display());
    let (name, value) = mark.split_once('=').unwrap();
    let output = testbed(folder.path(), &["--patience", "1", "--kernel", "vmlinuz", "true"])
        .env(
            "PATH",
            format!("{}:{}", tools.display(), std::env::var("PATH").unwrap()),
        )
        .env(name, value)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let err = text(&output.stderr);
    assert!(
        err.contains("no sign of life for 1 seconds") && err.ends_with("the last words\n"),
        "{err}"
    );
    assert!(marked(&mark).is_empty(), "it is switched off");
}

#[test]
fn a_kernel_that_is_none_is_shown_with_what_qemu_said() {
    if !ready() {
        return;
    }
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("vmlinuz"), "this is no kernel").unwrap();
    let output = testbed(folder.path(), &["--timeout", PATIENCE, "--kernel", "vmlinuz", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let err = text(&output.stderr);
    assert!(
        err.contains("stopped before its command had ended") && err.contains("qemu: "),
        "{err}"
    );
}

#[test]
fn everything_missing_is_named_in_one_message_with_the_command_that_installs_it() {
    let folder = TempDir::new().unwrap();
    let run = |path: &str| -> Output {
        testbed(folder.path(), &["true"])
            .env("PATH", path)
            .env("XDG_CACHE_HOME", folder.path())
            .output()
            .unwrap()
    };
    let output = run("/nowhere");
    assert_eq!(output.status.code(), Some(125));
    let err = text(&output.stderr);
    for part in [
        "QEMU",
        "a kernel with KVM",
        "apt-get install qemu-system-x86",
        "guest-images/testbed/fetch-kernel",
    ] {
        assert!(err.contains(part), "{part:?} is not in: {err}");
    }
    assert_eq!(err.lines().count(), 1, "{err}");
    // With QEMU there, only the kernel is asked for.
    let tools = folder.path().join("tools");
    fs::create_dir(&tools).unwrap();
    fs::write(tools.join("qemu-system-x86_64"), "").unwrap();
    fs::set_permissions(
        tools.join("qemu-system-x86_64"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let err = text(&run(tools.to_str().unwrap()).stderr);
    assert!(err.contains("fetch-kernel") && !err.contains("apt-get"), "{err}");
}

/// The processes that carry this mark in their environment.
fn marked(mark: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| text(&bytes).contains(mark)))
        .collect()
}

/// Waits for what must come about soon.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn no_end_of_the_lab_leaves_the_computer_running() {
    if !ready() {
        return;
    }
    for (signal, status) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let folder = TempDir::new().unwrap();
        let mark = format!("LAB_TESTBED_MARK={}", folder.path().display());
        let (name, value) = mark.split_once('=').unwrap();
        let mut lab: Child = testbed(folder.path(), &["sleep", "100000"])
            .env(name, value)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let is_qemu = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
        };
        wait_until("QEMU starts", || marked(&mark).iter().any(is_qemu));
        let sent = Command::new("kill")
            .args(["-s", signal, &lab.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        assert_eq!(lab.wait().unwrap().code(), status, "SIG{signal}");
        wait_until("QEMU ends with the lab", || marked(&mark).is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
