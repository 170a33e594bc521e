//! Stages, targets and build arguments.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use builds::{Workshop, names};
use serde_json::json;

#[test]
fn only_what_the_target_needs_is_built() {
    root_or_skip!();
    let workshop = Workshop::new(
        "FROM scratch AS tools\nCOPY file /tools\n\
         FROM scratch AS broken\nCOPY no-such-file /\n\
         FROM tools AS Final\nCOPY --from=tools /tools /copied\nENV STAGE=final\n",
    );
    workshop.file("file", "");
    let progress = workshop.build(&[]);
    assert!(!progress.contains("broken"), "{progress}");
    assert!(
        progress.contains("[final 1/3] FROM tools AS Final (stage tools)"),
        "{progress}"
    );
    assert_eq!(names(&workshop.files()), ["copied", "tools"]);
    workshop.build(&["--target", "TOOLS"]);
    assert_eq!(names(&workshop.files()), ["tools"]);
    workshop.build(&["--target", "0"]);
    let (_, message) = workshop.fail(&["--target", "broken"]);
    assert!(
        message.contains("Dockerfile:4:6: \"no-such-file\" is not in the context"),
        "{message}"
    );
    let (status, message) = workshop.fail(&["--target", "none"]);
    assert_eq!(
        (status, message.as_str()),
        (
            125,
            "container: --target none: there is no such stage; there are tools, broken, final\n"
        )
    );
}

#[test]
fn arguments_reach_what_declares_them() {
    let workshop = Workshop::new(
        "ARG BASE=scratch\nARG V=1\nFROM $BASE AS one\nENV BEFORE=[$V]\nARG V\nARG W=${V}w\nENV V1=$V W1=$W\nARG TARGETARCH\nENV ARCH=$TARGETARCH\n\
         FROM one\nENV AFTER=[$V]\n",
    );
    workshop.build(&["--build-arg", "V=2"]);
    assert_eq!(
        workshop.config()["Env"],
        json!(["BEFORE=[]", "V1=2", "W1=2w", "ARCH=amd64", "AFTER=[]"])
    );
    let (_, message) = workshop.fail(&["--build-arg", "BASE=none"]);
    assert!(
        message.contains("Dockerfile:3:6: no image \"none\" in the store"),
        "{message}"
    );
    // A name alone takes its value from the environment, and is not given at all without one.
    let output = workshop
        .command(&["--build-arg", "V", "--build-arg", "W"])
        .env("W", "from here")
        .env_remove("V")
        .output();
    assert!(output.unwrap().status.success());
    assert_eq!(workshop.config()["Env"][2], "W1=from here");
    assert_eq!(workshop.config()["Env"][1], "V1=1");
}

#[test]
fn an_image_is_built_upon() {
    root_or_skip!();
    let workshop = Workshop::new("FROM scratch\nCOPY file /low\nENV A=1\nCMD [\"x\"]\n");
    workshop.file("file", "");
    workshop.build(&["-t", "team/base:1"]);
    let base = workshop.image();
    workshop.file("Dockerfile", "FROM team/base:1\nCOPY file /high\nENV A=$A$A\n");
    workshop.build(&[]);
    let image = workshop.image();
    assert_eq!(image.layers()[0], base.layers()[0], "the layer is shared");
    assert_eq!(workshop.config(), json!({ "Env": ["A=11"], "Cmd": ["x"] }));
    assert_eq!(names(&workshop.files()), ["high", "low"]);
    let steps = image.config_json["history"].as_array().unwrap();
    assert_eq!(steps.len(), 5);
    assert_eq!(steps[0]["created_by"], "COPY file /low");
}
