//! Volumes, directories of the host, and images that point their mount targets elsewhere.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use common::{message, text};

#[test]
fn a_named_volume_outlives_its_containers() {
    let lab = lab_or_skip!();
    text(&lab.shell(&["-v", "kept:/srv"], "echo written > /srv/file"));
    assert_eq!(
        text(&lab.shell(&["-v", "kept:/srv:ro"], "cat /srv/file; touch /srv/x 2>&1 || true"))
            .lines()
            .next(),
        Some("written")
    );
    assert!(text(&lab.shell(&["-v", "kept:/srv:ro"], "touch /srv/x 2>&1 || true")).contains("Read-only"));
    lab.start("user", &["-v", "kept:/srv"], "sleep 1000");
    assert!(message(&lab.run(["volume", "rm", "kept"]), 1).contains("in use by container user"));
    assert!(lab.text(["volume", "ls"]).contains("user"));
    // Also one that does not run: it may be started again.
    lab.text(["stop", "-t", "0", "user"]);
    assert!(message(&lab.run(["volume", "rm", "kept"]), 1).contains("in use"));
    lab.text(["rm", "user"]);
    let inspected: serde_json::Value = serde_json::from_str(&lab.text(["volume", "inspect", "kept"])).unwrap();
    let mountpoint = inspected[0]["Mountpoint"].as_str().unwrap();
    assert_eq!(fs::read_to_string(format!("{mountpoint}/file")).unwrap(), "written\n");
    assert_eq!(lab.text(["volume", "rm", "kept"]), "kept");
    assert!(message(&lab.run(["volume", "inspect", "kept"]), 1).contains("no volume kept"));
    assert!(message(&lab.run(["volume", "create", "../out"]), 1).contains("is no name"));
}

#[test]
fn the_first_use_takes_the_images_content_with_its_owners() {
    let lab = lab_or_skip!();
    lab.text(["volume", "create", "filled"]);
    let said = text(&lab.shell(
        &["-v", "filled:/data"],
        "stat -c '%a %u' /data; stat -c %a /data/given; cat /data/given; chown 1000 /data/given",
    ));
    assert_eq!(said, "750 0\n640\nby the image");
    let data = lab.state().join("volumes/filled/data/given");
    assert_eq!(fs::metadata(&data).unwrap().uid(), 1000);
    fs::remove_file(data).unwrap();
    assert_eq!(
        text(&lab.shell(&["-v", "filled:/data"], "ls /data")),
        "",
        "only the first use"
    );
}

#[test]
fn anonymous_volumes_go_with_their_container_or_when_they_are_pruned() {
    let lab = lab_or_skip!();
    let count = || lab.text(["volume", "ls", "-q"]).lines().count();
    text(&lab.shell(&["-v", "/srv"], "touch /srv/x"));
    assert_eq!(count(), 0, "--rm takes them along");
    for options in [&["rm", "-v", "one"][..], &["rm", "one"]] {
        lab.text(["run", "--name", "one", "-v", "/srv", "busybox", "true"]);
        assert_eq!(count(), 1);
        lab.text(options.iter().copied());
    }
    assert_eq!(count(), 1);
    lab.text(["volume", "create", "named"]);
    lab.text(["volume", "prune"]);
    assert_eq!(lab.text(["volume", "ls", "-q"]), "named");
    lab.text(["volume", "prune", "-a"]);
    assert_eq!(count(), 0);
}

#[test]
fn a_directory_of_the_host_appears_inside() {
    let lab = lab_or_skip!();
    let shared = lab.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("from-host"), "host\n").unwrap();
    let writable = format!("{}:/shared", shared.display());
    assert_eq!(
        text(&lab.shell(&["-v", &writable], "cat /shared/from-host; echo inside > /shared/back")),
        "host"
    );
    assert_eq!(fs::read_to_string(shared.join("back")).unwrap(), "inside\n");
    let single = format!("{}:/etc/motd:ro", shared.join("back").display());
    assert_eq!(text(&lab.shell(&["-v", &single], "cat /etc/motd")), "inside");
    let absent = format!("{}:/x", shared.join("nothing").display());
    assert!(message(&lab.shell(&["-v", &absent], "true"), 125).contains("there is no"));
    assert!(!lab.shell(&["-v", "name:/"], "true").status.success());
    lab.assert_empty();
}

#[test]
fn a_link_in_the_image_leads_no_mount_out_of_it() {
    let lab = lab_or_skip!();
    let outside = lab.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "the host's\n").unwrap();
    // An image whose mount targets are links to a directory of the host, by absolute path and by `..`.
    let script = format!(
        "ln -s {0} /absolute; ln -s ../../../../../../..{0} /climbing",
        outside.display()
    );
    lab.text(["run", "--name", "maker", "busybox", "sh", "-c", &script]);
    lab.text(["commit", "maker", "hostile"]);
    for target in ["/absolute", "/climbing", "/absolute/below"] {
        let volume = format!("trap:{target}");
        let output = lab.run([
            "run",
            "--rm",
            "-v",
            &volume,
            "hostile",
            "sh",
            "-c",
            &format!("echo x > {target}/file; cat {target}/secret"),
        ]);
        assert!(
            !String::from_utf8_lossy(&output.stdout).contains("the host's"),
            "{output:?}"
        );
        let names: Vec<_> = fs::read_dir(&outside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"], "{target}: {output:?}");
        let volume = lab.state().join("volumes/trap/data");
        assert!(
            !volume.join("secret").exists(),
            "a volume is not filled from the host: {target}"
        );
        let _ = lab.run(["volume", "rm", "trap"]);
    }
    lab.text(["rm", "maker"]);
    lab.text(["image", "rm", "hostile"]);
}
