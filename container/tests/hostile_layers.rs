//! Layers from somebody who means harm: each is refused or confined, the message names the member, and nothing of it stays.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod layouts;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use common::message;
use container::image::Digest;
use container::image::layer::archive::{Kind, Member};
use layouts::{TestStore, archive, directory, file, layout, layout_with, member, symlink};

/// Imports an image of one layer with these members; the message, after checking that nothing came in.
fn refused(members: &[(Member, &[u8])], options: &[&str]) -> String {
    let store = TestStore::new();
    let layout = layout(store.0.path(), "hostile:1", &[archive(members)]);
    let mut arguments = vec!["import", layout.to_str().unwrap()];
    arguments.extend(options);
    let said = message(&store.image(&arguments), 125);
    assert!(said.contains("sha256:"), "the layer is named: {said}");
    assert_eq!(store.image(&["ls", "--quiet"]).stdout, b"", "no image came in");
    assert!(store.image(&["prune"]).status.success());
    assert_eq!(store.contents(), Vec::<std::path::PathBuf>::new(), "nothing stays");
    said
}

/// The same for a layer that is harmless here.
fn confined(members: &[(Member, &[u8])], options: &[&str]) -> TestStore {
    let store = TestStore::new();
    let layout = layout(store.0.path(), "hostile:1", &[archive(members)]);
    let mut arguments = vec!["import", layout.to_str().unwrap()];
    arguments.extend(options);
    let output = store.image(&arguments);
    assert!(output.status.success(), "{output:?}");
    store
}

#[test]
fn paths_that_climb_are_refused() {
    for path in ["../escape", "a/../../escape", "..", "a/.."] {
        let said = refused(&[file(path, "x")], &[]);
        assert!(said.contains("climbs") && said.contains(&format!("{path:?}")), "{said}");
    }
}

#[test]
fn absolute_paths_stay_inside() {
    let name = format!("/tmp/hostile-{}", std::process::id());
    let store = confined(&[file(&name, "x"), file("//etc//./passwd", "y")], &[]);
    let layer = store.only_layer();
    assert!(!fs::exists(&name).unwrap());
    assert_eq!(fs::read_to_string(layer.join(&name[1..])).unwrap(), "x");
    assert_eq!(fs::read_to_string(layer.join("etc/passwd")).unwrap(), "y");
}

#[test]
fn links_lead_nowhere_outside() {
    let outside = common::open_directory();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let to_outside = outside.path().to_str().unwrap();
    let up = format!("{}{to_outside}", "../".repeat(40));
    for target in [to_outside, &up] {
        // As a directory on the way: there is none of that name inside.
        let said = refused(&[symlink("out", target), file("out/victim", "owned")], &[]);
        assert!(said.contains("\"out/victim\""), "{said}");
    }
    // As a directory on the way that exists inside too.
    let inside = &to_outside[1..];
    let store = confined(
        &[
            directory(inside),
            symlink("out", to_outside),
            file("out/victim", "owned"),
        ],
        &[],
    );
    assert_eq!(
        fs::read_to_string(store.only_layer().join(inside).join("victim")).unwrap(),
        "owned"
    );
    // As the last component: the link is replaced, not followed.
    let path = victim.to_str().unwrap();
    let store = confined(&[symlink("f", path), file("f", "owned")], &[]);
    assert!(fs::symlink_metadata(store.only_layer().join("f")).unwrap().is_file());
    // A directory's mode and time are set at the end: not through a link that has taken its place.
    let mut closed = directory("d");
    closed.0.mode = 0o000;
    let before = fs::metadata(outside.path()).unwrap();
    confined(&[closed, symlink("d", to_outside)], &[]);
    let after = fs::metadata(outside.path()).unwrap();
    assert_eq!((before.mode(), before.mtime()), (after.mode(), after.mtime()));
    // /proc's links are no way out either.
    let said = refused(&[symlink("self", "/proc/self/root"), file("self/tmp/x", "owned")], &[]);
    assert!(said.contains("\"self/tmp/x\""), "{said}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn hard_links_reach_nothing_outside() {
    let link = |path: &str, target: &str| (member(Kind::HardLink, path, target, 0), &b""[..]);
    let said = refused(&[link("l", "../../../etc/passwd")], &[]);
    assert!(said.contains("climbs"), "{said}");
    for (members, target) in [
        (vec![link("l", "/etc/passwd")], "/etc/passwd"),
        (vec![symlink("s", "/etc"), link("l", "s/passwd")], "s/passwd"),
        (vec![directory("d"), link("l", "d")], "d"),
    ] {
        let said = refused(&members, &[]);
        assert!(
            said.contains("no file of this layer") && said.contains(target),
            "{said}"
        );
    }
}

#[test]
fn devices_are_refused_or_left_out() {
    for (kind, major, minor) in [
        (Kind::BlockDevice, 8, 0),
        (Kind::CharDevice, 1, 1),
        (Kind::CharDevice, 0, 0),
    ] {
        let mut device = member(kind, "dev/disk", "", 0);
        device.device = (major, minor);
        let members = [(device, &b""[..]), file("ordinary", "x")];
        let said = refused(&members, &[]);
        assert!(
            said.contains(&format!("device ({major}:{minor})")) && said.contains("dev/disk"),
            "{said}"
        );
        let store = confined(&members, &["--skip-devices"]);
        assert!(!store.only_layer().join("dev/disk").exists());
        assert!(store.only_layer().join("ordinary").exists());
    }
}

#[test]
fn overlays_own_attributes_are_refused() {
    for name in [
        "user.overlay.redirect",
        "trusted.overlay.opaque",
        "user.overlay.whiteout",
    ] {
        let mut member = directory("d");
        member.0.xattrs = vec![(name.into(), b"/etc".to_vec())];
        let said = refused(&[member], &[]);
        assert!(said.contains(name) && said.contains("\"d/\""), "{said}");
    }
}

#[test]
fn bombs_are_defused() {
    let large = vec![7; 3 << 20];
    let big = (member(Kind::File, "big", "", large.len() as u64), large.as_slice());
    let said = refused(&[big], &["--max-layer-bytes", "1M"]);
    assert!(said.contains("\"big\"") && said.contains("--max-layer-bytes"), "{said}");
    let many: Vec<_> = (0..20).map(|number| file(&format!("f{number}"), "x")).collect();
    let said = refused(&many, &["--max-layer-files", "10"]);
    assert!(said.contains("\"f10\"") && said.contains("--max-layer-files"), "{said}");
    // Names and attributes, which have to be kept in memory.
    let mut described = file("f", "x");
    described.0.xattrs = vec![(b"user.x".to_vec(), vec![b'x'; 2 << 20])];
    let said = refused(&[described], &[]);
    assert!(said.contains("bytes of names and attributes"), "{said}");
}

#[test]
fn a_gzip_bomb_is_defused() {
    let store = TestStore::new();
    // 16 MiB of zeros behind a file: some kilobytes.
    let zeros = vec![0; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let header = archive(&[file("f", "x")]);
    gzip.write_all(&header[..1024]).unwrap();
    for _ in 0..16 {
        gzip.write_all(&zeros).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 1 << 16);
    let layout = layout_with(store.0.path(), "bomb:1", &[bomb], &[Digest::of(b"never reached")]);
    let output = store.image(&[
        "import",
        layout.to_str().unwrap(),
        "--max-layer-bytes",
        "1M",
        "--max-layer-files",
        "100",
    ]);
    let said = message(&output, 125);
    assert!(said.contains("which is the limit"), "{said}");
}

#[test]
fn what_is_not_what_its_name_says_is_refused() {
    let store = TestStore::new();
    let layer = archive(&[file("f", "x")]);
    let other = Digest::of(b"another archive");
    let path = layout_with(store.0.path(), "liar:1", std::slice::from_ref(&layer), &[other]);
    let said = message(&store.image(&["import", path.to_str().unwrap()]), 125);
    assert!(
        said.contains(&other.to_string()) && said.contains("damaged or tampered"),
        "{said}"
    );
    // Bytes that are not those of the digest in the manifest.
    let path = layout(store.0.path(), "liar:2", std::slice::from_ref(&layer));
    fs::write(path.join("blobs/sha256").join(Digest::of(&layer).hex()), "other bytes").unwrap();
    let said = message(&store.image(&["import", path.to_str().unwrap()]), 125);
    assert!(said.contains("damaged or tampered"), "{said}");
    assert_eq!(store.image(&["ls", "--quiet"]).stdout, b"");
}

#[test]
fn broken_archives_are_errors_that_say_where() {
    let whole = archive(&[file("first", "x"), file("second", &"y".repeat(4000))]);
    let store = TestStore::new();
    let import = |bytes: Vec<u8>| {
        let path = layout(store.0.path(), "broken:1", &[bytes]);
        message(&store.image(&["import", path.to_str().unwrap()]), 125)
    };
    let said = import(whole[..2048].to_vec());
    assert!(said.contains("\"second\"") && said.contains("cannot be read"), "{said}");
    let mut damaged = whole.clone();
    damaged[1024 + 10] ^= 1;
    let said = import(damaged);
    assert!(said.contains("after first") && said.contains("checksum"), "{said}");
    let said = import(b"this is no archive at all".repeat(100));
    assert!(said.contains("checksum"), "{said}");
}
