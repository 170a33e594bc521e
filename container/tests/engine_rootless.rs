//! Named containers of an ordinary user: what the kernel allows him, and what is said about the rest.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::Read;
use std::net::TcpStream;

use common::engine::Lab;
use common::{message, text, until};

/// Nobody's id: no account of a well-kept machine has it.
const SOMEBODY: u32 = 54_321;

macro_rules! user_lab_or_skip {
    () => {
        match Lab::of_user(SOMEBODY) {
            Ok(lab) => lab,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn an_ordinary_users_containers_run_log_and_leave_nothing() {
    let lab = user_lab_or_skip!();
    assert_eq!(
        text(&lab.shell(&[], "id -u; echo x > /file; cat /file /etc/motd")),
        "0\nx\nfrom the image"
    );
    lab.start(
        "web",
        &["-v", "vol:/vol"],
        "echo ready; touch /vol/x; rm /data/given; sleep 1000",
    );
    lab.wait_for_log("web", "ready");
    assert_eq!(lab.text(["exec", "web", "id", "-u"]), "0");
    assert!(lab.text(["top", "web"]).contains("54321"));
    assert!(lab.text(["diff", "web"]).contains("D /data/given"));
    for _ in ["running", "stopped"] {
        let copy = lab.path().join("motd");
        lab.text(["cp", "web:/etc/motd", copy.to_str().unwrap()]);
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "from the image\n");
        std::fs::remove_file(copy).unwrap();
        lab.text(["stop", "-t", "0", "web"]);
    }
    lab.text(["commit", "web", "made"]);
    assert_eq!(lab.text(["run", "--rm", "made", "ls", "/data"]), "");
    lab.text(["rm", "web"]);
    lab.text(["volume", "rm", "vol"]);
    lab.assert_empty();
}

/// Without the variables that name them: state and images are in his home, also for the supervisor, who is root in a user
/// namespace of his own.
#[test]
fn at_home_nothing_holds_an_image_whose_containers_are_gone() {
    let lab = user_lab_or_skip!();
    let home = lab.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let at_home = |arguments: &[&str]| {
        let mut command = lab.command(arguments.iter().copied());
        for name in ["CONTAINER_STATE", "CONTAINER_STORE", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command.env("HOME", &home).output().unwrap()
    };
    let archive = lab.path().join("busybox.tar");
    text(&at_home(&["image", "import", archive.to_str().unwrap(), "box"]));
    assert_eq!(text(&at_home(&["run", "--rm", "box", "echo", "once"])), "once");
    let failed = at_home(&["run", "--rm", "box", "/no/such/program"]);
    assert_eq!(failed.status.code(), Some(127), "{failed:?}");
    let leases = home.join(".local/share/isolation-lab/leases");
    assert_eq!(std::fs::read_dir(leases).unwrap().count(), 0);
    text(&at_home(&["image", "rm", "box"]));
}

#[test]
fn his_ports_are_published_without_a_bridge() {
    let lab = user_lab_or_skip!().with_network();
    lab.start(
        "web",
        &["-p", "8080:80"],
        "while true; do echo hello | nc -l -p 80; done",
    );
    let hear = || {
        let mut said = String::new();
        TcpStream::connect("127.0.0.1:8080")
            .ok()?
            .read_to_string(&mut said)
            .ok()?;
        Some(said).filter(|said| !said.is_empty())
    };
    assert_eq!(until("an answer", || lab.in_network(hear)), "hello\n");
}

#[test]
fn what_is_not_his_to_have_is_refused_with_what_would_do() {
    let lab = user_lab_or_skip!();
    let refused = |options: &[&str]| message(&lab.shell(options, "true"), 125);
    assert!(refused(&["--network", "bridge"]).contains("--network none"));
    assert!(refused(&["-u", "1000"]).contains("/etc/subuid"));
    // Unless a cgroup is delegated to him, which on the machines these tests know it is not.
    assert!(refused(&["--memory", "32M"]).contains("delegated"));
    lab.start("idle", &[], "sleep 1000");
    assert!(refused(&["--network", "container:idle"]).contains("needs root"));
    let stats: serde_json::Value = serde_json::from_str(&lab.text(["stats", "--no-stream", "--json", "idle"])).unwrap();
    // He has no cgroup of his own: no figure at all, and not that of whatever he is in.
    assert_eq!(stats["Statistics"]["memory_bytes"], serde_json::Value::Null);
}
