//! Images: in, out, unpacked, shared, removed; by this program, and by skopeo and podman on the other side.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod layouts;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{message, text};
use container::image::leases::Lease;
use container::image::{Access, Store};
use layouts::{TestStore, archive, busybox_layer, directory, file, layout};

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Two layers over busybox: a file and a directory gone, a directory emptied, a directory replaced by another.
fn three_layers(rootfs: &Path) -> Vec<Vec<u8>> {
    let second = archive(&[
        directory("etc"),
        file("etc/gone", "gone"),
        directory("dir"),
        file("dir/old", "old"),
        directory("again"),
        file("again/old", "old"),
    ]);
    let third = archive(&[
        file("etc/.wh.gone", ""),
        directory("dir"),
        file("dir/.wh..wh..opq", ""),
        file("dir/new", "new"),
        file("again/new", "new"),
        file(".wh.again", ""),
        file("top", "third"),
    ]);
    vec![busybox_layer(rootfs), second, third]
}

#[test]
fn what_no_layer_may_be_compressed_with_is_named() {
    let store = TestStore::new();
    let tar = archive(&[file("a", "one")]);
    let path = store.0.path().join("tree.tar");
    for (tool, ending) in [("xz", "xz"), ("bzip2", "bz2")] {
        if !has(tool) {
            eprintln!("skipped: {tool} needs {tool} (Debian: apt install {tool}, xz-utils)");
            continue;
        }
        fs::write(&path, &tar).unwrap();
        assert!(
            Command::new(tool)
                .args(["-k", "-f"])
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let compressed = format!("{}.{ending}", path.display());
        let said = message(&store.image(&["import", &compressed, "app:1"]), 125);
        assert!(
            said.contains(&format!("compressed with {tool}, which is not unpacked here")),
            "{said}"
        );
    }
}

#[test]
fn gnu_tars_archives_unpack_as_they_were() {
    for format in ["pax", "gnu"] {
        let store = TestStore::new();
        let tree = store.0.path().join("tree");
        let long = "long".repeat(50);
        fs::create_dir_all(tree.join(&long).join(&long)).unwrap();
        fs::write(tree.join(&long).join(&long).join("file"), "deep").unwrap();
        fs::hard_link(tree.join(&long).join(&long).join("file"), tree.join("second-name")).unwrap();
        symlink(format!("/{long}/{long}"), tree.join("link")).unwrap();
        let sparse = fs::File::create(tree.join("sparse")).unwrap();
        for part in 0..9u64 {
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", part << 20).unwrap();
        }
        sparse.set_len(10 << 20).unwrap();
        fs::write(tree.join("setuid"), "x").unwrap();
        fs::set_permissions(tree.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(tree.join("pipe"))
                .status()
                .unwrap()
                .success()
        );
        // A value with a newline, which cuts short whoever reads PAX records line by line.
        xattr::set(tree.join("setuid"), "user.note", b"two\nlines").unwrap();
        if common::is_root() {
            std::os::unix::fs::chown(tree.join("sparse"), Some(1234), Some(5678)).unwrap();
        }
        let archive = store.0.path().join("tree.tar");
        let tar = Command::new("tar")
            .args(["--sparse", "--xattrs", "--numeric-owner"])
            .args(if format == "pax" {
                &["--format=posix"][..]
            } else {
                &["--format=gnu", "--mtime=@1700000000", "--no-xattrs"]
            })
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .status()
            .unwrap();
        assert!(tar.success());
        text(&store.image(&["import", archive.to_str().unwrap(), "tree:1"]));
        let layer = store.only_layer();
        let listing = |root: &Path| {
            let times = if format == "pax" { "%T@" } else { "" };
            let print = format!("%P %y %m %U:%G %s {times} %n %l\n");
            let find = Command::new("find")
                .arg(root)
                .args(["-mindepth", "1", "-printf", &print])
                .output()
                .unwrap();
            let mut lines: Vec<_> = String::from_utf8(find.stdout)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
            // A directory's size is the file system's business.
            lines
                .iter_mut()
                .filter(|line| line.contains(" d "))
                .for_each(|line| *line = line.replace(" 4096 ", " "));
            lines.sort();
            lines
        };
        assert_eq!(listing(&layer), listing(&tree), "{format}");
        let sparse = fs::metadata(layer.join("sparse")).unwrap();
        assert!(
            sparse.blocks() * 512 < 1 << 20,
            "holes stay holes: {} blocks",
            sparse.blocks()
        );
        assert_eq!(
            fs::read(layer.join("sparse")).unwrap(),
            fs::read(tree.join("sparse")).unwrap()
        );
        if format == "pax" {
            assert_eq!(
                xattr::get(layer.join("setuid"), "user.note").unwrap().unwrap(),
                b"two\nlines"
            );
        }
    }
}

#[test]
fn layers_hide_what_they_say_and_come_back_from_a_container_the_same() {
    let rootfs = image_or_skip!();
    let store = TestStore::new();
    let path = layout(store.0.path(), "layers:1", &three_layers(rootfs));
    text(&store.image(&["import", path.to_str().unwrap()]));
    // What every container gets in /etc is not the image's.
    let look = "cat /top; echo; ls /etc /dir /again | grep -v -e motd -e host -e resolv.conf -e '^$'";
    let said = text(&store.run(&["layers:1", "sh", "-c", look]));
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["third", "/again:", "new", "/dir:", "new", "/etc:"]
    );
    // Sharing, and what each file comes from.
    let more = [three_layers(rootfs), vec![archive(&[file("top", "fourth")])]].concat();
    let path = layout(store.0.path(), "layers:2", &more);
    text(&store.image(&["import", path.to_str().unwrap()]));
    assert_eq!(
        fs::read_dir(store.path().join("layers")).unwrap().count(),
        4,
        "three are shared"
    );
    let report = text(&store.image(&["inspect", "layers:2", "--layers", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let find = |layer: usize, path: &str| {
        let files = report["layers"][layer]["files"].as_array().unwrap();
        files.iter().find(|file| file["path"] == path).unwrap().clone()
    };
    assert_eq!(report["layers"][0]["shared_with"], serde_json::json!(["layers:1"]));
    assert_eq!(report["layers"][3]["shared_with"], serde_json::json!([]));
    assert_eq!(find(1, "/etc/gone")["hidden_by"], 3);
    assert_eq!(find(1, "/dir/old")["hidden_by"], 3);
    assert_eq!(find(1, "/again/old")["hidden_by"], 3);
    assert_eq!(find(2, "/etc/gone")["change"], "removed");
    assert_eq!(find(2, "/top")["hidden_by"], 4);
    assert_eq!(find(3, "/top")["change"], "replaced");
    assert!(report["shared_bytes"].as_u64().unwrap() > 100_000);
    // Removing one leaves what the other stands on.
    text(&store.image(&["rm", "layers:2"]));
    assert_eq!(text(&store.run(&["layers:1", "cat", "/top"])), "third");
    assert_eq!(fs::read_dir(store.path().join("layers")).unwrap().count(), 3);
}

#[test]
fn hundreds_of_layers_make_one_root() {
    let rootfs = image_or_skip!();
    let store = TestStore::new();
    let mut layers = vec![busybox_layer(rootfs)];
    // One less than overlay takes: a container adds one of its own, for the mount points its image lacks.
    for number in 1..499 {
        layers.push(archive(&[
            file("top", &number.to_string()),
            file(&format!("f{number}"), ""),
        ]));
    }
    let path = layout(store.0.path(), "many:500", &layers);
    text(&store.image(&["import", path.to_str().unwrap()]));
    assert_eq!(
        text(&store.run(&["many:500", "sh", "-c", "cat /top; ls / | grep -c '^f[0-9]'"])),
        "498498"
    );
    layers.push(archive(&[file("top", "the last that fits by itself")]));
    layers.push(archive(&[file("top", "one too many")]));
    let path = layout(store.0.path(), "many:501", &layers);
    text(&store.image(&["import", path.to_str().unwrap()]));
    let said = message(&store.run(&["many:501", "true"]), 125);
    assert!(said.contains("layers; overlay takes 500"), "{said}");
}

#[test]
fn a_damaged_blob_is_noticed_whenever_it_is_read() {
    let store = TestStore::new();
    let layer = archive(&[file("f", "contents")]);
    let path = layout(store.0.path(), "damaged:1", std::slice::from_ref(&layer));
    text(&store.image(&["import", path.to_str().unwrap()]));
    let blob = store
        .path()
        .join("blobs/sha256")
        .join(container::image::Digest::of(&layer).hex());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let output = store.0.path().join("out.tar");
    for arguments in [
        &["export", "damaged:1", "-o", output.to_str().unwrap()][..],
        &["inspect", "--layers", "damaged:1"],
    ] {
        let said = message(&store.image(arguments), 125);
        assert!(said.contains("damaged or tampered"), "{said}");
    }
    assert!(!output.exists(), "no half archive");
    // Getting it again mends it.
    text(&store.image(&["import", path.to_str().unwrap()]));
    text(&store.image(&["export", "damaged:1", "-o", output.to_str().unwrap()]));
}

#[test]
fn what_is_in_use_stays() {
    let test = TestStore::new();
    let path = layout(test.0.path(), "used:1", &[archive(&[file("f", "x")])]);
    text(&test.image(&["import", path.to_str().unwrap()]));
    let store = Store::open(&test.path(), Access::Shared).unwrap();
    let image = store.image("used:1").unwrap();
    store
        .lease("container-web", &Lease::of(&image, "container web"))
        .unwrap();
    let process = store.lease_for_process(Lease::of(&image, "a process")).unwrap();
    drop(store);
    let said = message(&test.image(&["rm", "used:1"]), 125);
    assert!(said.contains("in use by container web, a process"), "{said}");
    text(&test.image(&["prune", "--all"]));
    assert_eq!(text(&test.image(&["ls", "--quiet"])), image.id.short());
    // Without its name it still stays for the container; a process's lease ends with it.
    text(&test.image(&["rm", "--force", "used:1"]));
    assert!(test.only_layer().join("f").exists());
    drop(process);
    let store = Store::open(&test.path(), Access::Shared).unwrap();
    store.release("container-web").unwrap();
    drop(store);
    text(&test.image(&["prune"]));
    assert!(test.contents().is_empty(), "{:?}", test.contents());
}

#[test]
fn commands_at_once_do_not_harm_each_other() {
    let test = TestStore::new();
    let mut layouts = Vec::new();
    for number in 0..4 {
        let directory = test.0.path().join(number.to_string());
        fs::create_dir(&directory).unwrap();
        let layers = [
            archive(&[file("base", "shared by all")]),
            archive(&[file("own", &number.to_string())]),
        ];
        layouts.push(layout(&directory, &format!("image:{number}"), &layers));
    }
    let mut children = Vec::new();
    for _ in 0..3 {
        for path in &layouts {
            children.push(
                test.command(&["import", path.to_str().unwrap()])
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
        }
        children.push(
            test.command(&["prune"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for number in 0..4 {
        text(&test.image(&["inspect", "--layers", &format!("image:{number}")]));
    }
    assert_eq!(fs::read_dir(test.path().join("layers")).unwrap().count(), 5);
}

/// Every image that has a name is whole; whatever else is there goes with one prune.
fn check_whole(test: &TestStore, when: &str) {
    let list = text(&test.image(&["ls", "--json"]));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    for image in list.as_array().unwrap() {
        let name = image["name"].as_str().unwrap();
        let output = test.command(&["export", name]).stdout(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{when}: {output:?}");
    }
    assert_eq!(fs::read_dir(test.path().join("tmp")).unwrap().count(), 0, "{when}");
}

#[test]
fn killed_at_any_moment_an_import_leaves_the_store_whole() {
    let test = TestStore::new();
    let data = "0123456789abcdef".repeat(1 << 15);
    let layers: Vec<_> = (0..6)
        .map(|number| archive(&[file("data", &data), file(&format!("f{number}"), "x")]))
        .collect();
    let path = layout(test.0.path(), "killed:1", &layers);
    let start = std::time::Instant::now();
    text(&test.image(&["import", path.to_str().unwrap()]));
    let whole = start.elapsed();
    text(&test.image(&["rm", "killed:1"]));
    const POINTS: u32 = 24;
    for point in 0..POINTS {
        let mut child = test
            .command(&["import", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * point / POINTS);
        let _ = child.kill();
        child.wait().unwrap();
        check_whole(&test, &format!("killed after {point}/{POINTS}"));
    }
    text(&test.image(&["import", path.to_str().unwrap()]));
    text(&test.image(&["rm", "killed:1"]));
    assert!(test.contents().is_empty(), "{:?}", test.contents());
}

#[test]
fn killed_at_any_system_call_that_counts_an_import_leaves_the_store_whole() {
    if !has("strace") {
        skip!("needs strace (Debian: apt install strace)");
    }
    let test = TestStore::new();
    let layers = [archive(&[file("a", "one")]), archive(&[file("b", "two")])];
    let path = layout(test.0.path(), "killed:1", &layers);
    for call in ["rename", "fsync", "mkdir", "unlinkat", "flock"] {
        let mut finished = false;
        for number in 1..200 {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
            command.arg(format!("inject={call}:signal=KILL:when={number}"));
            command
                .arg(common::LAUNCHER)
                .args(["image", "import"])
                .arg(&path)
                .env("CONTAINER_STORE", test.path());
            let output = command.stdin(Stdio::null()).output().unwrap();
            check_whole(&test, &format!("killed at {call} {number}"));
            if output.status.success() {
                finished = true;
                break;
            }
            let _ = test.image(&["rm", "killed:1"]);
        }
        assert!(finished, "{call}");
        text(&test.image(&["rm", "killed:1"]));
        assert!(test.contents().is_empty(), "{call}: {:?}", test.contents());
    }
}

#[test]
fn skopeo_and_podman_take_our_images_and_give_theirs() {
    let rootfs = image_or_skip!();
    if !has("skopeo") || !has("podman") {
        skip!("needs skopeo and podman (Debian: apt install skopeo podman)");
    }
    let test = TestStore::new();
    let path = layout(test.0.path(), "interop:1", &three_layers(rootfs));
    text(&test.image(&["import", path.to_str().unwrap()]));
    let id = text(&test.image(&["ls", "--quiet"]));
    let file = |name: &str| test.0.path().join(name).to_str().unwrap().to_owned();
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("skopeo").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let remove = || text(&test.image(&["rm", "interop:1"]));
    // The store itself is a layout; and what skopeo makes of it comes back the same.
    let from_store = format!("oci:{}:docker.io/library/interop:1", test.path().display());
    skopeo(&[
        "copy",
        &from_store,
        &format!("docker-archive:{}:interop:1", file("theirs.tar")),
    ]);
    skopeo(&[
        "copy",
        &from_store,
        &format!("oci-archive:{}:interop:1", file("theirs-oci.tar")),
    ]);
    for archive in ["theirs.tar", "theirs-oci.tar"] {
        remove();
        text(&test.image(&["import", &file(archive)]));
        assert_eq!(text(&test.run(&["interop:1", "cat", "/top"])), "third", "{archive}");
    }
    remove();
    text(&test.image(&["import", path.to_str().unwrap()]));
    // Ours, read by them.
    text(&test.image(&["export", "interop:1", "-o", &file("ours.tar")]));
    text(&test.image(&["export", "interop:1", "--format", "oci", "-o", &file("ours/")]));
    skopeo(&[
        "copy",
        &format!("docker-archive:{}", file("ours.tar")),
        &format!("dir:{}", file("dir1")),
    ]);
    skopeo(&[
        "copy",
        &format!("oci:{}:docker.io/library/interop:1", file("ours")),
        &format!("dir:{}", file("dir2")),
    ]);
    if !common::is_root() {
        skip!("podman needs root here");
    }
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args([
            "--root",
            &file("podman"),
            "--runroot",
            &file("podman-run"),
            "--storage-driver",
            "vfs",
        ]);
        text(&command.args(arguments).output().unwrap())
    };
    podman(&["load", "-i", &file("ours.tar")]);
    assert!(podman(&["images", "--no-trunc", "--format", "{{.ID}}"]).contains(&id));
    podman(&["rmi", "--all", "--force"]);
}

#[test]
fn an_ordinary_user_has_a_store_of_his_own() {
    root_or_skip!();
    let rootfs = image_or_skip!();
    let test = TestStore::new();
    const NOBODY: u32 = 65534;
    fs::set_permissions(test.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = common::install(test.0.path());
    let mut layers = three_layers(rootfs);
    let mut owned = file("owned", "by somebody");
    (owned.0.uid, owned.0.gid) = (33, 33);
    let mut closed = directory("closed");
    closed.0.mode = 0;
    layers.push(archive(&[owned, closed, file("closed/file", "x")]));
    let path = layout(test.0.path(), "user:1", &layers);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("CONTAINER_STORE", test.path())
            .env("HOME", test.0.path());
        command.current_dir("/").stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        command.output().unwrap()
    };
    let import = run(&["image", "import", path.to_str().unwrap()]);
    assert!(import.status.success(), "{import:?}");
    let said = String::from_utf8(import.stderr).unwrap();
    assert!(said.contains("1 files belong to others than root"), "{said}");
    let look = "cat /top; stat -c ' %u' /owned; ls /dir /again; ls /etc | grep -c gone";
    let said = run(&["run", "--rm", "user:1", "sh", "-c", look]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["third", "0", "/again:", "new", "/dir:", "new", "0"]
    );
    let removed = run(&["image", "rm", "user:1"]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(
        test.contents().is_empty(),
        "closed directories go too: {:?}",
        test.contents()
    );
}
