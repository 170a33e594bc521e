//! The Dockerfile of the lab's workload, as the book uses it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use std::fs;
use std::path::Path;

use builds::{Workshop, names};
use serde_json::json;

#[test]
fn the_workload_becomes_an_image_that_runs() {
    root_or_skip!();
    let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-images/workload/Dockerfile");
    let workshop =
        Workshop::new("FROM lab/workload\nRUN [\"/bin/workload\", \"hello\"]\nRUN [\"workload\", \"whoami\"]\n");
    fs::write(workshop.context().join("workload"), guest_images::WORKLOAD).unwrap();
    workshop.file("something-else", "");
    workshop.build(&["-t", "lab/workload", "-f", dockerfile.to_str().unwrap()]);
    let image = workshop.image();
    assert_eq!(image.layers().len(), 1);
    assert_eq!(workshop.files()["bin/workload"].mode, 0o755);
    assert!(names(&workshop.files()).is_empty());
    let config = workshop.config();
    assert_eq!(
        (&config["Entrypoint"], &config["Cmd"]),
        (&json!(["/bin/workload"]), &json!(["hello"]))
    );
    // It runs on nothing but itself.
    let said = workshop.build(&[]);
    assert!(said.contains("hello"), "{said}");
    assert_eq!(workshop.image().layers(), image.layers(), "it writes nothing");
}
