//! The steps of a container's life, each a command of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use oci_common::{RUNTIME, succeed, text, wait_until};
use serde_json::Value;

#[test]
fn created_started_stopped_deleted() {
    let bundle = bundle_or_skip!("echo started > /tmp/file; exec sleep 1000");
    let pid_file = bundle.path("pid");
    succeed(
        bundle
            .on_bundle(&["create", "--pid-file", pid_file.to_str().unwrap()])
            .stdout(Stdio::null()),
    );
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id.as_str());
    assert_eq!(state["bundle"], bundle.path("").to_str().unwrap().trim_end_matches('/'));
    assert_eq!(state["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert!(!bundle.root("tmp/file").exists(), "create must not run the program");
    bundle.command(&["start"]);
    assert_eq!(bundle.status(), "running");
    wait_until(|| bundle.root("tmp/file").exists());
    bundle.command(&["kill", "--all"]);
    // Process 1 of a pid namespace has no default action for SIGTERM; SIGKILL works.
    succeed(&mut bundle.runtime(&["kill", &bundle.id, "KILL"]));
    bundle.wait_for("stopped");
    bundle.command(&["delete"]);
    assert!(bundle.is_gone());
}

#[test]
fn run_ends_with_the_programs_status_and_leaves_nothing() {
    let bundle = bundle_or_skip!("echo out; echo err >&2; exit 7");
    let output = bundle.on_bundle(&["run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert!(bundle.is_gone());
}

#[test]
fn commands_that_come_too_early_or_too_late_are_refused() {
    let bundle = bundle_or_skip!("sleep 1000");
    let refused = |arguments: &[&str], word: &str| {
        let output = bundle.runtime(arguments).arg(&bundle.id).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.contains(word),
            "{arguments:?}: {message}"
        );
    };
    for verb in ["state", "start", "kill", "delete", "pause", "ps"] {
        refused(&[verb], "does not exist");
    }
    succeed(bundle.on_bundle(&["create"]).stdout(Stdio::null()));
    let again = bundle.on_bundle(&["create"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("exists already"),
        "{again:?}"
    );
    refused(&["resume"], "it is created");
    bundle.command(&["start"]);
    refused(&["start"], "it is running");
    refused(&["delete"], "it is running");
    bundle.command(&["delete", "--force"]);
    bundle.command(&["delete", "--force"]);
    assert!(bundle.is_gone());
}

#[test]
fn a_program_that_is_missing_is_reported_by_create() {
    let mut bundle = bundle_or_skip!("");
    for (program, status, word) in [
        ("/no/such", 127, "no such file or directory"),
        ("nosuch", 127, "executable file not found in $PATH"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
    ] {
        bundle.config["process"]["args"] = serde_json::json!([program]);
        let output = bundle.on_bundle(&["create"]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{output:?}");
        assert!(bundle.is_gone());
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_reported_by_start() {
    let mut bundle = bundle_or_skip!("");
    fs::write(bundle.root("bin/script"), "no interpreter, no magic number").unwrap();
    succeed(
        std::process::Command::new("chmod")
            .arg("755")
            .arg(bundle.root("bin/script")),
    );
    bundle.config["process"]["args"] = serde_json::json!(["/bin/script"]);
    succeed(bundle.on_bundle(&["create"]).stdout(Stdio::null()));
    let output = bundle.runtime(&["start", &bundle.id]).output().unwrap();
    assert_eq!(output.status.code(), Some(126), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("ENOEXEC"),
        "{output:?}"
    );
    bundle.wait_for("stopped");
}

#[test]
fn of_many_that_create_the_same_container_one_does() {
    let bundle = bundle_or_skip!("sleep 1000");
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = bundle.on_bundle(&["create"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let created = children
        .into_iter()
        .map(|mut child| child.wait().unwrap())
        .filter(|status| status.success())
        .count();
    assert_eq!(created, 1);
    // And of many that start it.
    let children: Vec<_> = (0..8)
        .map(|_| {
            bundle
                .runtime(&["start", &bundle.id])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let started = children
        .into_iter()
        .map(|mut child| child.wait().unwrap())
        .filter(|status| status.success())
        .count();
    assert_eq!(started, 1);
    assert_eq!(bundle.status(), "running");
}

#[test]
fn lists_are_for_people_and_for_programs() {
    let bundle = bundle_or_skip!("sleep 1000");
    bundle.start();
    let list = |arguments: &[&str]| text(&bundle.runtime(arguments).output().unwrap());
    let table = list(&["list"]);
    assert!(
        table.starts_with("ID") && table.contains(&bundle.id) && table.contains("running"),
        "{table}"
    );
    assert_eq!(list(&["list", "--quiet"]), bundle.id);
    let json: Value = serde_json::from_str(&list(&["list", "--format", "json"])).unwrap();
    assert_eq!(
        (&json[0]["id"], &json[0]["owner"]),
        (&bundle.id.as_str().into(), &"root".into())
    );
    let pids: Vec<i64> = serde_json::from_str(&list(&["ps", "--format", "json", &bundle.id])).unwrap();
    assert!(pids.contains(&bundle.state()["pid"].as_i64().unwrap()), "{pids:?}");
    assert!(list(&["ps", &bundle.id]).contains("sleep 1000"));
}

#[test]
fn messages_go_where_engines_look_for_them() {
    let bundle = bundle_or_skip!("");
    let log = bundle.path("log");
    let mut command = bundle.runtime(&["--log-format", "json", "--log"]);
    let output = command.arg(&log).args(["start", "nobody"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().unwrap().contains("does not exist") && line["time"].is_string(),
        "{line}"
    );
    let refused = bundle.runtime(&["--systemd-cgroup", "list"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("cgroupfs"),
        "{refused:?}"
    );
}

#[test]
fn a_template_can_be_run_as_it_is() {
    let bundle = bundle_or_skip!("");
    succeed(bundle.runtime(&["spec", "--bundle"]).arg(bundle.path("")));
    let written: Value = serde_json::from_slice(&fs::read(bundle.path("config.json")).unwrap()).unwrap();
    assert_eq!(written["ociVersion"], container::oci::state::OCI_VERSION);
    let again = bundle
        .runtime(&["spec", "--bundle"])
        .arg(bundle.path(""))
        .output()
        .unwrap();
    assert!(!again.status.success(), "a config.json must not be overwritten");
    let features: Value = serde_json::from_str(&text(&bundle.runtime(&["features"]).output().unwrap())).unwrap();
    assert_eq!(features["ociVersionMax"], written["ociVersion"]);
}

/// A rootless engine (podman of an ordinary user) calls its runtime in a user namespace, where its user is root.
#[test]
fn the_root_of_a_user_namespace_alone_keeps_state_in_a_directory_of_his_own() {
    let bundle = bundle_or_skip!("");
    if !nix::unistd::geteuid().is_root() {
        skip!("needs root, to become an ordinary user");
    }
    // A temporary directory is its owner's alone.
    fs::set_permissions(bundle.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let own = bundle.path("of-nobody");
    fs::create_dir(&own).unwrap();
    let runtime = bundle.path("runtime-of-nobody");
    assert!(
        Command::new("cp")
            .arg(RUNTIME)
            .arg(&runtime)
            .status()
            .unwrap()
            .success()
    );
    let said = |user: Option<&str>| {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user"])
            .arg(&runtime)
            .args(["state", "nobody"]);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", &own);
        command
            .envs(user.map(|user| ("USER", user)))
            .current_dir("/")
            .uid(65534)
            .gid(65534);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let named = said(Some("nobody"));
    if named.contains("unshare") {
        skip!("needs user namespaces for ordinary users: {named}");
    }
    let beneath = format!("does not exist in {}/container-oci", own.display());
    assert!(named.contains(&beneath), "{named}");
    assert!(said(None).contains(&beneath));
    // The root of a container that runs an engine has a /run of its own.
    assert!(!said(Some("root")).contains(&beneath));
}
