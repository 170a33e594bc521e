//! Builds without root: in a user namespace with one id.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Output;

use builds::Workshop;

/// Nobody's ids on a machine of ours.
const UID: u32 = 54_321;

fn build_as_user(workshop: &Workshop) -> Output {
    chown(workshop.beside(""), Some(UID), Some(UID)).unwrap();
    let launcher = workshop.beside("container");
    if !launcher.exists() {
        common::install(&workshop.beside(""));
    }
    let inner = workshop.command(&[]);
    let mut command = std::process::Command::new(launcher);
    command.args(inner.get_args()).env("CONTAINER_STORE", workshop.store());
    common::end_with_the_test(&mut command);
    command.uid(UID).gid(UID).output().unwrap()
}

#[test]
fn an_ordinary_user_builds_with_the_one_id_he_has() {
    root_or_skip!();
    let workshop = workshop_or_skip!(
        "FROM scratch\n\
         COPY busybox /bin/\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         COPY --chown=7:8 file /owned\n\
         RUN id -u > /id && rm /bin/yes && rm -r /bin/../gone 2>/dev/null; mkdir /new && test ! -e /bin/yes\n\
         WORKDIR /a/b\n\
         RUN test ! -e /bin/yes && echo here > file\n"
    );
    workshop.file("file", "text");
    let output = build_as_user(&workshop);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // As root: his store can be read by both.
    assert_eq!(workshop.text("id"), "0\n");
    assert_eq!(workshop.text("a/b/file"), "here\n");
    let layers = workshop.image().layers().to_vec();
    // The layers are those that root's build makes: ids in an archive are the image's.
    let roots = workshop_or_skip!(&std::fs::read_to_string(workshop.context().join("Dockerfile")).unwrap());
    roots.file("file", "text");
    roots.build(&[]);
    assert_eq!(layers[..3], roots.image().layers()[..3]);
    let again = build_as_user(&workshop);
    assert!(
        !String::from_utf8_lossy(&again.stderr).contains("made"),
        "all is cached"
    );
}

#[test]
fn what_takes_another_id_is_refused_with_the_reason() {
    root_or_skip!();
    let workshop = workshop_or_skip!("FROM scratch\nCOPY busybox /bin/\nUSER 33\nRUN [\"/bin/busybox\", \"id\"]\n");
    let output = build_as_user(&workshop);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("Dockerfile:4:1: "), "{said}");
    assert!(said.contains("an ordinary user has one id to give"), "{said}");
}
