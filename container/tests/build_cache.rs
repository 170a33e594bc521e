//! The cache: what is not made twice, why something is made after all, and that the same input makes the same layer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use std::fs;
use std::process::Command;

use builds::{Workshop, outcome};

const DOCKERFILE: &str = "FROM scratch\n\
    COPY busybox /bin/\n\
    ARG LEVEL=1\n\
    RUN [\"/bin/busybox\", \"mkdir\", \"/made\"]\n\
    COPY src /src\n\
    WORKDIR /work\n\
    RUN [\"/bin/busybox\", \"touch\", \"there\"]\n\
    LABEL last=1\n";

fn workshop() -> Result<Workshop, String> {
    let workshop = Workshop::with_busybox(DOCKERFILE)?;
    workshop.file("src/one", "1");
    workshop.file("src/two", "2");
    Ok(workshop)
}

macro_rules! workshop_to_cache {
    () => {
        match workshop() {
            Ok(workshop) => workshop,
            Err(reason) => skip!("{reason}"),
        }
    };
}

/// The outcome of each step that makes a layer.
fn outcomes(progress: &str) -> [String; 5] {
    ["COPY busybox", "mkdir", "COPY src", "WORKDIR", "touch"].map(|step| outcome(progress, step).to_owned())
}

#[test]
fn nothing_is_made_twice_and_the_image_is_the_same() {
    root_or_skip!();
    let workshop = workshop_to_cache!();
    assert!(
        outcomes(&workshop.build(&[]))
            .iter()
            .all(|outcome| outcome == "made: first build")
    );
    let first = workshop.image();
    // Another time, another order of names in the directory: the same files.
    for name in ["src/two", "src/one", "src"] {
        assert!(
            Command::new("touch")
                .arg(workshop.context().join(name))
                .status()
                .unwrap()
                .success()
        );
    }
    assert!(outcomes(&workshop.build(&[])).iter().all(|outcome| outcome == "cached"));
    assert_eq!(workshop.image().digest, first.digest);
    let remade = workshop.build(&["--no-cache"]);
    assert!(outcomes(&remade).iter().all(|outcome| outcome == "made: --no-cache"));
    assert_eq!(
        workshop.image().layers(),
        first.layers(),
        "made anew, the layers are the same"
    );
}

#[test]
fn the_reason_is_told() {
    root_or_skip!();
    let workshop = workshop_to_cache!();
    workshop.build(&[]);
    workshop.file("src/two", "changed");
    let below = "made: layers below changed";
    assert_eq!(
        outcomes(&workshop.build(&[])),
        ["cached", "cached", "made: src/two changed", below, below]
    );
    workshop.file("src/three", "");
    fs::remove_file(workshop.context().join("src/one")).unwrap();
    assert_eq!(
        outcomes(&workshop.build(&[]))[2],
        "made: src/one is gone, src/three is new"
    );
    workshop.mode("src/two", 0o600);
    assert_eq!(outcomes(&workshop.build(&[]))[2], "made: src/two changed");
    // A step that makes the same layer as before leaves those after it cached.
    assert_eq!(
        outcomes(&workshop.build(&["--build-arg", "LEVEL=2"])),
        [
            "cached",
            "made: variable LEVEL changed",
            "cached",
            "cached",
            "made: variable LEVEL changed"
        ]
    );
    workshop.file("Dockerfile", &DOCKERFILE.replace("/work", "/elsewhere"));
    let outcomes = outcomes(&workshop.build(&["--build-arg", "LEVEL=2"]));
    assert_eq!(
        outcomes[3..],
        ["made: instruction changed", "made: the working directory changed"]
    );
    workshop.file(
        "Dockerfile",
        &DOCKERFILE.replace("touch", "mkdir").replace("there", "touch"),
    );
    assert_eq!(outcome(&workshop.build(&[]), "\"touch\""), "made: instruction changed");
    workshop.file("Dockerfile", &format!("{DOCKERFILE}WORKDIR /new\n"));
    assert_eq!(outcome(&workshop.build(&[]), "WORKDIR /new"), "made: new instruction");
    // What went back to what it was is cached still.
    workshop.file("Dockerfile", DOCKERFILE);
    assert_eq!(outcome(&workshop.build(&[]), "touch"), "cached");
}

#[test]
fn a_label_makes_nothing_anew() {
    root_or_skip!();
    let workshop = workshop_to_cache!();
    workshop.build(&[]);
    workshop.file("Dockerfile", &DOCKERFILE.replace("COPY src", "LABEL new=1\nCOPY src"));
    assert!(outcomes(&workshop.build(&[])).iter().all(|outcome| outcome == "cached"));
    assert_eq!(workshop.config()["Labels"]["new"], "1");
}

#[test]
fn a_layer_that_was_removed_is_made_again() {
    root_or_skip!();
    let workshop = workshop_to_cache!();
    workshop.build(&[]);
    let first = workshop.image();
    let removed = Command::new(common::LAUNCHER)
        .args(["image", "rm", "test"])
        .env("CONTAINER_STORE", workshop.store())
        .status();
    assert!(removed.unwrap().success());
    let again = workshop.build(&[]);
    assert!(
        outcomes(&again)
            .iter()
            .all(|outcome| outcome == "made: its layer was removed"),
        "{again}"
    );
    assert_eq!(workshop.image().layers(), first.layers());
}

#[test]
fn two_stores_agree_and_the_time_is_whoevers_asks() {
    root_or_skip!();
    let (one, other) = (workshop_to_cache!(), workshop_to_cache!());
    one.build(&[]);
    other.build(&[]);
    assert_eq!(one.image().layers(), other.image().layers());
    let timed = |workshop: &Workshop| {
        let output = workshop
            .command(&[])
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        workshop.image()
    };
    let (one_image, other_image) = (timed(&one), timed(&other));
    assert_eq!(one_image.digest, other_image.digest, "the whole image is the same");
    assert_eq!(one_image.config_json["created"], "2001-09-09T01:46:40.000000Z");
    assert!(one.files().values().all(|file| file.time == 1_000_000_000));
    let output = one.command(&[]).env("SOURCE_DATE_EPOCH", "yesterday").output().unwrap();
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("SOURCE_DATE_EPOCH is \"yesterday\"")
    );
}
