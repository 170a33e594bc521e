//! The same Dockerfiles, built here and by buildah: both images must have the same files and say the same about programs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use builds::{Found, Workshop, files_of};
use container::image::{Access, Store};
use serde_json::{Value, json};

/// What both are compared by: of files everything but times, which buildah takes from the clock.
type Files = BTreeMap<String, (char, u32, (u32, u32), String)>;

fn comparable(files: BTreeMap<String, Found>) -> Files {
    let all = files.into_iter();
    all.map(|(name, found)| (name, (found.kind, found.mode, found.owner, found.content)))
        .collect()
}

fn dockerfiles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles")
}

fn must(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Builds with buildah and returns what its image has.
fn by_buildah(workshop: &Workshop, dockerfile: &Path) -> (Files, Value) {
    let buildah = || {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(workshop.beside("buildah"));
        command.arg("--runroot").arg(workshop.beside("buildah-run"));
        // Neither overlay nor namespaces are needed for what is asked of it.
        command.args(["--storage-driver", "vfs"]);
        command
    };
    must(
        buildah()
            .args([
                "bud",
                "--isolation",
                "chroot",
                "--format",
                "docker",
                "-t",
                "oracle",
                "-f",
            ])
            .arg(dockerfile)
            .arg(workshop.context()),
    );
    let archive = workshop.beside("oracle.tar");
    must(
        buildah()
            .args(["push", "-q", "oracle"])
            .arg(format!("docker-archive:{}:oracle", archive.display())),
    );
    let store = workshop.beside("oracle-store");
    must(
        Command::new(common::LAUNCHER)
            .args(["image", "import"])
            .arg(&archive)
            .arg("oracle")
            .env("CONTAINER_STORE", &store),
    );
    let store = Store::open(&store, Access::Shared).unwrap();
    let image = store.image("oracle").unwrap();
    (
        comparable(files_of(&store, &image)),
        image.config_json["config"].clone(),
    )
}

/// Without what is buildah's own: its label, the PATH it gives every image, and fields that say nothing.
fn without_its_own(config: Value) -> Value {
    let mut config = config.as_object().unwrap().clone();
    if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove("io.buildah.version");
    }
    if let Some(env) = config.get_mut("Env").and_then(Value::as_array_mut) {
        env.retain(|variable| !variable.as_str().unwrap().starts_with("PATH="));
    }
    config.remove("Hostname");
    let nothing = [json!(null), json!(false), json!(""), json!([]), json!({})];
    config.retain(|_, value| !nothing.contains(value));
    config.into()
}

/// What buildah mounts on in the container of a command, and leaves in the image.
const MOUNT_POINTS: [&str; 8] = [
    "dev",
    "proc",
    "sys",
    "run",
    "etc",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
];

fn compare(name: &str) {
    let dockerfile = dockerfiles().join(format!("{name}.Dockerfile"));
    let workshop = match Workshop::with_busybox("") {
        Ok(workshop) => workshop,
        Err(reason) => skip!("{reason}"),
    };
    must(
        Command::new("cp")
            .arg("-a")
            .arg(dockerfiles().join("context/."))
            .arg(workshop.context()),
    );
    // Git keeps no owners and few permissions.
    must(Command::new("chown").args(["-R", "0:0"]).arg(workshop.context()));
    workshop.mode("tree/sub", 0o750);
    workshop.mode("tree/b.txt", 0o711);
    must(
        Command::new("tar")
            .args(["--owner=11", "--group=12", "-czf"])
            .arg(workshop.context().join("archive.tar.gz"))
            .arg("-C")
            .arg(workshop.context())
            .args(["tree/a.txt", "tree/sub"]),
    );
    fs::remove_file(workshop.context().join("Dockerfile")).unwrap();
    workshop.build(&["-f", dockerfile.to_str().unwrap()]);
    let (files, config) = by_buildah(&workshop, &dockerfile);
    let ours = comparable(workshop.files());
    for (path, found) in files.iter().filter(|(path, _)| !MOUNT_POINTS.contains(&path.as_str())) {
        assert_eq!(ours.get(path), Some(found), "{name}: {path}");
    }
    let more: Vec<_> = ours.keys().filter(|path| !files.contains_key(*path)).collect();
    assert!(more.is_empty(), "{name}: buildah has no {more:?}");
    assert_eq!(without_its_own(workshop.config()), without_its_own(config), "{name}");
}

fn has_buildah() -> bool {
    Command::new("buildah")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

macro_rules! same_as_buildah {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            root_or_skip!();
            if !has_buildah() {
                skip!("no buildah to compare with (apt-get install buildah)");
            }
            compare(stringify!($name));
        }
    )*};
}

same_as_buildah!(config copy ignore run stages);
