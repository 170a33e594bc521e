//! RUN: commands in containers of the image so far.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use builds::{is_empty, names, outcome};

/// The beginning of a Dockerfile whose commands can use a shell.
const SHELL: &str = "FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

fn with_shell(rest: &str) -> String {
    format!("{SHELL}{rest}")
}

#[test]
fn both_forms_and_what_a_command_finds() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell(
        "ENV FROM_ENV=\"e n v\"\n\
         ARG FROM_ARG=default\n\
         ARG FROM_ENV=hidden\n\
         RUN echo \"$FROM_ENV,$FROM_ARG,$HOME,$PATH,$(id -u):$(id -g),$(pwd),$(hostname)\" > /shell\n\
         WORKDIR /a/b\n\
         WORKDIR c\n\
         RUN [\"touch\", \"here $FROM_ENV\"]\n\
         SHELL [\"/bin/sh\", \"-e\", \"-c\"]\n\
         RUN echo \"$-\" > /flags\n\
         RUN cat /proc/net/dev > /devices; test -z \"$(cat)\"\n"
    ));
    workshop.build(&["--build-arg", "FROM_ARG=given"]);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        workshop.text("shell"),
        format!("e n v,given,/root,{path},0:0,/,build\n")
    );
    let files = workshop.files();
    assert!(
        files.contains_key("a/b/c/here $FROM_ENV"),
        "no shell, no variables: {:?}",
        names(&files)
    );
    assert!(files["flags"].content.contains('e'));
    let devices = &files["devices"].content;
    assert!(
        devices.contains("lo:") && devices.lines().count() == 3,
        "a loopback interface alone: {devices}"
    );
    assert_eq!(workshop.config()["WorkingDir"], "/a/b/c");
    // What the container's own file systems are mounted on is not the image's.
    assert!(
        !files.keys().any(|name| ["proc", "sys", "dev"].contains(&name.as_str())),
        "{:?}",
        names(&files)
    );
}

#[test]
fn users_of_the_image_run_commands_and_own_files() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell(
        "RUN mkdir -m 1777 /tmp && mkdir /etc && echo ada:x:1000:100::/home/ada:/bin/sh > /etc/passwd && touch /roots && chown 7:8 /roots\n\
         USER ada\n\
         RUN id -u > /tmp/id; id -g >> /tmp/id; echo $HOME >> /tmp/id; echo x > /roots || echo refused >> /tmp/id\n\
         USER 33:44\n\
         RUN touch /tmp/numbers\n"
    ));
    workshop.build(&[]);
    let files = workshop.files();
    assert_eq!(files["tmp/id"].content, "1000\n100\n/home/ada\nrefused\n");
    assert_eq!(files["tmp/id"].owner, (1000, 100));
    assert_eq!(files["tmp/numbers"].owner, (33, 44));
    assert_eq!(files["roots"].owner, (7, 8));
    assert_eq!(files["tmp"].mode, 0o1777);
    assert_eq!(workshop.config()["User"], "33:44");
}

#[test]
fn each_layer_has_what_its_command_changed() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell(
        "RUN mkdir /d && echo 1 > /d/one && echo 2 > /d/two && ln /d/one /d/link\n\
         RUN rm /d/two\n\
         RUN rm -r /d && mkdir /d && echo 3 > /d/three\n\
         RUN true\n"
    ));
    let progress = workshop.build(&[]);
    let files = workshop.files();
    assert_eq!(names(&files), ["d", "d/three"]);
    assert!(files.values().all(|file| file.time == 0), "{files:?}");
    let image = workshop.image();
    assert_eq!(image.layers().len(), 5, "the last command changed nothing");
    assert!(progress.contains("no file changed"), "{progress}");
    let empty: Vec<_> = image.config_json["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["empty_layer"] == true)
        .collect();
    assert_eq!(empty, [false, false, false, false, false, true]);
}

#[test]
fn here_documents_are_scripts() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell(
        "RUN <<EOF\necho one > /a\necho two >> /a\nEOF\n\
         RUN cat <<-A >/b && cat <<'B' >>/b\n\tx $HOME\n\tA\n$HOME\nB\n\
         RUN <<EOF\n#!/bin/awk BEGIN { print \"from awk\" > \"/c\" }\nEOF\n"
    ));
    workshop.build(&[]);
    assert_eq!(workshop.text("a"), "one\ntwo\n");
    assert_eq!(workshop.text("b"), "x /root\n$HOME\n");
    assert_eq!(workshop.text("c"), "from awk\n");
    assert!(!workshop.files().keys().any(|name| name.contains("script")));
}

#[test]
fn a_command_that_fails_is_shown_with_its_line_and_status() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell(
        "ENV A=1\nRUN echo before; echo problem >&2; \\\n    exit 3\nRUN never\n"
    ));
    let (status, message) = workshop.fail(&[]);
    assert_eq!(status, 1);
    assert!(
        message.contains("before\n") && message.contains("problem\n"),
        "{message}"
    );
    assert!(
        message.contains(
            "container: Dockerfile:5:1: the command ended with status 3\n  5 | RUN echo before; echo problem >&2; \\\n"
        ),
        "{message}"
    );
    assert!(is_empty(&workshop.store().join("tmp")));
    // What was finished is kept.
    let (_, message) = workshop.fail(&[]);
    assert_eq!(outcome(&message, "COPY busybox"), "cached");
    // Said nothing of what goes well, all of what does not.
    let (_, message) = workshop.fail(&["-q"]);
    assert!(
        message.starts_with("before\nproblem\ncontainer: Dockerfile:5:1: "),
        "{message}"
    );

    let workshop = workshop_or_skip!(&with_shell("RUN kill -9 $$\n"));
    assert!(
        workshop
            .fail(&[])
            .1
            .contains("the command ended with status 137: SIGKILL")
    );
    let workshop = workshop_or_skip!(&with_shell("RUN [\"no-such-program\"]\n"));
    let (_, message) = workshop.fail(&[]);
    assert!(message.contains("cannot find the program no-such-program"), "{message}");
    assert!(
        message.contains("the command ended with status 127: a program was not found"),
        "{message}"
    );
    let workshop = workshop_or_skip!("FROM scratch\nRUN echo\n");
    assert!(
        workshop
            .fail(&[])
            .1
            .contains("cannot find the program /bin/sh in the container")
    );
    let workshop = workshop_or_skip!(&with_shell("USER nobody\nRUN id\n"));
    assert!(
        workshop
            .fail(&[])
            .1
            .contains("Dockerfile:5:1: the image has no user \"nobody\"")
    );
}

#[test]
fn the_network_is_the_hosts_only_when_both_say_so() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell("RUN --network=host readlink /proc/self/ns/net > /net\n"));
    let (_, message) = workshop.fail(&[]);
    assert!(
        message.contains("Dockerfile:4:15: commands of this Dockerfile get the host's network only if"),
        "{message}"
    );
    workshop.build(&["--network", "host"]);
    let hosts = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(workshop.text("net").trim(), hosts.to_str().unwrap());
    workshop.file(
        "Dockerfile",
        &with_shell("RUN --network=none readlink /proc/self/ns/net > /net\n"),
    );
    workshop.build(&["--network", "host"]);
    assert_ne!(workshop.text("net").trim(), hosts.to_str().unwrap());
}

#[test]
fn a_command_cannot_touch_the_host() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell(
        "RUN mkdir -p /tmp; mount -t tmpfs x /tmp 2>/dev/null && echo mounted > /bad; \
         mknod /disk b 8 0 2>/dev/null && echo node >> /bad; \
         echo 1 > /proc/sys/kernel/sysrq 2>/dev/null && echo sysctl >> /bad; \
         test -e /proc/1/root/etc/hostname && echo root >> /bad; \
         test \"$(ls /proc | grep -c '^[0-9]')\" -gt 6 && echo processes >> /bad; true\n"
    ));
    workshop.build(&[]);
    assert!(!workshop.files().contains_key("bad"), "{}", workshop.text("bad"));
}

#[test]
fn a_command_with_the_hosts_network_asks_the_hosts_name_servers() {
    root_or_skip!();
    let hosts = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    // Without a file of the image's, with one, and with a link to nowhere.
    for (before, left) in [
        ("", None),
        (
            "RUN --network=none mkdir -p /etc && echo own > /etc/resolv.conf\n",
            Some("own\n"),
        ),
        (
            "RUN --network=none mkdir -p /etc && ln -s ../run/none /etc/resolv.conf\n",
            None,
        ),
    ] {
        let workshop = workshop_or_skip!(&with_shell(&format!(
            "{before}RUN --network=host cat /etc/resolv.conf > /seen || true\n"
        )));
        workshop.build(&["--network", "host"]);
        let is_link = before.contains("ln -s");
        let expected = if is_link { "" } else { &hosts };
        assert_eq!(workshop.text("seen"), expected, "{before}");
        let files = workshop.files();
        let found = files.get("etc/resolv.conf").map(|file| file.content.as_str());
        if !is_link {
            assert_eq!(found, left, "{before}");
        }
        assert_eq!(files.contains_key("etc"), !before.is_empty(), "{:?}", names(&files));
    }
}

#[test]
fn a_command_has_the_groups_of_its_user() {
    root_or_skip!();
    let workshop = workshop_or_skip!(&with_shell(
        "RUN mkdir -p /etc && echo 'ann:x:1000:100::/:/bin/sh' > /etc/passwd && echo 'wheel:x:10:ann' > /etc/group && mkdir -m 777 /w\n\
         USER ann\n\
         RUN id -G > /w/alone\n\
         USER ann:100\n\
         RUN id -G > /w/with\n"
    ));
    workshop.build(&[]);
    assert_eq!(
        (workshop.text("w/alone"), workshop.text("w/with")),
        ("100 10\n".into(), "100\n".into())
    );
}

#[test]
fn mounts_of_a_command_are_refused_where_they_stand() {
    root_or_skip!();
    for kind in ["type=cache,target=/c", "type=bind,target=/b", "type=secret,id=s"] {
        let workshop = workshop_or_skip!(&with_shell(&format!("RUN --mount={kind} true\n")));
        let (_, message) = workshop.fail(&[]);
        assert!(
            message.contains("Dockerfile:4:5") && message.contains("mount"),
            "{message}"
        );
    }
}
