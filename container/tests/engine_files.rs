//! `container cp`, `container diff`, `container commit`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::{message, text};

#[test]
fn files_are_copied_both_ways_whether_the_container_runs_or_not() {
    let lab = lab_or_skip!();
    let here = lab.path().join("here");
    fs::create_dir_all(here.join("tree/sub")).unwrap();
    fs::write(here.join("tree/sub/file"), "content\n").unwrap();
    fs::set_permissions(here.join("tree/sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("sub/file", here.join("tree/link")).unwrap();
    let path = |name: &str| here.join(name).to_str().unwrap().to_owned();
    lab.start("files", &["-v", "vol:/vol"], "sleep 1000");
    for state in ["running", "stopped"] {
        lab.text(["cp", &path("tree"), &format!("files:/{state}")]);
        lab.text(["cp", &path("tree/sub/file"), "files:/tmp/"]);
        lab.text(["cp", &format!("files:/{state}"), &path(&format!("back-{state}"))]);
        let back = here.join(format!("back-{state}"));
        assert_eq!(fs::read_to_string(back.join("sub/file")).unwrap(), "content\n");
        assert_eq!(
            fs::metadata(back.join("sub/file")).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(fs::read_link(back.join("link")).unwrap().to_str(), Some("sub/file"));
        lab.text(["cp", "files:/etc/motd", &path("motd")]);
        assert_eq!(fs::read_to_string(path("motd")).unwrap(), "from the image\n");
        lab.text(["stop", "-t", "0", "files"]);
    }
    lab.text(["start", "files"]);
    assert_eq!(
        lab.text([
            "exec",
            "files",
            "cat",
            "/running/link",
            "/stopped/sub/file",
            "/tmp/file"
        ]),
        "content\ncontent\ncontent"
    );
    // A volume is a part of the running container.
    lab.text(["cp", &path("motd"), "files:/vol/motd"]);
    assert!(lab.state().join("volumes/vol/data/motd").exists());
    let absent = lab.run(["cp", "files:/no/such", &path("x")]);
    assert!(message(&absent, 125).contains("/no/such"), "{absent:?}");
    assert!(message(&lab.run(["cp", &path("tree"), &path("x")]), 125).contains("CONTAINER:PATH"));
    lab.text(["rm", "-f", "files"]);
    lab.assert_empty();
}

#[test]
fn a_link_inside_leads_no_copy_to_the_hosts_files() {
    let lab = lab_or_skip!();
    let outside = lab.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "the host's\n").unwrap();
    let script = format!(
        "ln -s {0} /link; ln -s {0}/secret /file-link; sleep 1000",
        outside.display()
    );
    lab.start("hostile", &[], &script);
    common::until("the links", || {
        lab.run(["exec", "hostile", "test", "-L", "/file-link"])
            .status
            .success()
            .then_some(())
    });
    let given = lab.path().join("given");
    fs::write(&given, "x\n").unwrap();
    let into = lab.run(["cp", given.to_str().unwrap(), "hostile:/link/given"]);
    assert!(!into.status.success() || !outside.join("given").exists());
    let _ = lab.run(["cp", given.to_str().unwrap(), "hostile:/file-link"]);
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "the host's\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // Out comes the link, or an error: never what it would lead to outside.
    let got = lab.path().join("got");
    let _ = lab.run(["cp", "hostile:/link/secret", got.to_str().unwrap()]);
    assert!(!got.exists());
}

#[test]
fn diff_tells_what_was_copied_up_added_and_covered() {
    let lab = lab_or_skip!();
    let script = "echo more >> /etc/motd; echo new > /added; rm /data/given; rm -r /root; mkdir /root";
    lab.text(["run", "--name", "changed", "busybox", "sh", "-c", script]);
    let shown = lab.text(["diff", "changed"]);
    let lines: Vec<&str> = shown.lines().collect();
    let expected = ["C /data", "D /data/given", "A /added", "C /etc"];
    for line in expected {
        assert!(lines.contains(&line), "{line}: {shown}");
    }
    assert!(
        shown.contains("C /etc/motd  (copied up: 15 bytes of the image's, 20 of its own now)"),
        "{shown}"
    );
    // What is mounted in every container is no change of this one's.
    for line in ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/resolv.conf"] {
        assert!(!lines.iter().any(|shown| shown.ends_with(line)), "{line}: {shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&lab.text(["diff", "--json", "changed"])).unwrap();
    assert_eq!(json["own_bytes"], 24);
    let busybox = fs::metadata("/usr/bin/busybox")
        .or_else(|_| fs::metadata("/bin/busybox"))
        .unwrap()
        .len();
    assert!(json["shared_bytes"].as_u64().unwrap() > busybox, "{json}");
    lab.text(["run", "--name", "same", "busybox", "true"]);
    let same: serde_json::Value = serde_json::from_str(&lab.text(["diff", "--json", "same"])).unwrap();
    assert_eq!(same["differences"], serde_json::json!([]));
    lab.text(["rm", "changed", "same"]);
}

#[test]
fn commit_makes_an_image_that_shows_what_was_changed() {
    let lab = lab_or_skip!();
    let script = "echo changed > /etc/motd; rm /data/given; mkdir -p /opt/x; ln /etc/motd /opt/x/hard";
    lab.text([
        "run", "--name", "maker", "-e", "MADE=1", "-w", "/tmp", "busybox", "sh", "-c", script,
    ]);
    let digest = lab.text(["commit", "-m", "a change", "-a", "me", "maker", "made:1"]);
    assert!(digest.starts_with("sha256:"), "{digest}");
    lab.text(["rm", "maker"]);
    let look = "cat /etc/motd /opt/x/hard; ls /data; echo $MADE $(pwd)";
    assert_eq!(
        lab.text(["run", "--rm", "made:1", "sh", "-c", look]),
        "changed\nchanged\n1 /tmp"
    );
    // The image's container keeps it from being removed.
    lab.text(["run", "--name", "user", "made:1", "true"]);
    let kept = lab.run(["image", "rm", "made:1"]);
    assert!(!kept.status.success(), "{kept:?}");
    lab.text(["rm", "user"]);
    lab.text(["image", "rm", "made:1"]);
    lab.text(["run", "--name", "built-in", "-d", "workload", "idle"]);
    assert!(message(&lab.run(["commit", "built-in", "x"]), 125).contains("built-in image"));
    lab.text(["rm", "-f", "built-in"]);
    text(&lab.shell(&[], "test -e /data/given"));
}
