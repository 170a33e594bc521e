//! Images made by the tests, layer by layer, without the code under test deciding what is in them.

#![allow(dead_code, reason = "every test program uses a part of this")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use container::image::Digest;
use container::image::layer::archive::{Kind, Member};
use container::image::layer::write::ArchiveWriter;
use tempfile::TempDir;

use crate::common;

/// A store that goes with the test.
pub struct TestStore(pub TempDir);

impl TestStore {
    pub fn new() -> TestStore {
        TestStore(common::open_directory())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// `container image ARGUMENTS` on this store, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(common::LAUNCHER);
        command
            .arg("image")
            .args(arguments)
            .env("CONTAINER_STORE", self.path())
            .stdin(Stdio::null());
        common::end_with_the_test(&mut command);
        command
    }

    pub fn image(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a container of an image prints.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = common::container(["--rm"].iter().chain(arguments));
        command
            .env("CONTAINER_STORE", self.path())
            .env("CONTAINER_STATE", self.0.path().join("containers"))
            .output()
            .unwrap()
    }

    /// Everything below the store that is no lock and no index: what a removed image must not leave.
    pub fn contents(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in ["blobs/sha256", "layers", "tmp", "leases"] {
            if let Ok(entries) = fs::read_dir(self.path().join(directory)) {
                found.extend(entries.map(|entry| entry.unwrap().path()));
            }
        }
        found
    }

    /// Where the only layer of the store is.
    pub fn only_layer(&self) -> PathBuf {
        let mut layers = fs::read_dir(self.path().join("layers")).unwrap();
        let layer = layers.next().unwrap().unwrap().path();
        assert!(layers.next().is_none());
        layer.join("diff")
    }
}

/// A member with nothing special about it.
pub fn member(kind: Kind, path: &str, link: &str, size: u64) -> Member {
    Member {
        path: path.as_bytes().to_owned(),
        link: link.as_bytes().to_owned(),
        kind,
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: (1_700_000_000, 0),
        device: (0, 0),
        xattrs: Vec::new(),
        size,
        parts: None,
    }
}

/// An archive of these members, files full of their bytes.
pub fn archive(members: &[(Member, &[u8])]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    for (member, data) in members {
        archive.append(member, *data).unwrap();
    }
    archive.finish().unwrap()
}

/// A file with these bytes.
pub fn file<'a>(path: &str, data: &'a str) -> (Member, &'a [u8]) {
    (member(Kind::File, path, "", data.len() as u64), data.as_bytes())
}

pub fn symlink(path: &str, target: &str) -> (Member, &'static [u8]) {
    (member(Kind::Symlink, path, target, 0), b"")
}

pub fn directory(path: &str) -> (Member, &'static [u8]) {
    (member(Kind::Directory, path, "", 0), b"")
}

/// The image of the other tests as an archive, whose files belong to root.
pub fn busybox_layer(rootfs: &Path) -> Vec<u8> {
    let tar = Command::new("tar")
        .args([
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--exclude=./lib",
            "--exclude=./bin/probe",
            "-C",
        ])
        .arg(rootfs)
        .args(["-c", "."])
        .output()
        .unwrap();
    assert!(tar.status.success(), "{tar:?}");
    tar.stdout
}

/// Writes an OCI layout with one image of these layers; its directory.
pub fn layout(directory: &Path, name: &str, layers: &[Vec<u8>]) -> PathBuf {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    layout_with(directory, name, layers, &diff_ids)
}

/// The same with diff IDs that need not be right, and layers that may be compressed.
pub fn layout_with(directory: &Path, name: &str, layers: &[Vec<u8>], diff_ids: &[Digest]) -> PathBuf {
    let path = directory.join("layout");
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(path.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": layers,
    });
    let mut descriptor = blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    descriptor["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": name });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    path
}
