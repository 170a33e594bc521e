//! COPY and ADD: what goes where, as whose, and what is left out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use builds::{Workshop, names, outcome};

#[test]
fn files_directories_and_patterns() {
    root_or_skip!();
    let workshop = Workshop::new(
        "FROM scratch\n\
         COPY a.txt /one\n\
         COPY a.txt /into/\n\
         COPY *.txt d?r/sub [x]y /many/\n\
         COPY dir /whole\n\
         COPY dir/ /into\n\
         WORKDIR /w\n\
         COPY a.txt b.txt ./\n\
         COPY [\"with space\", \"/with space\"]\n",
    );
    for name in ["a.txt", "b.txt", "c.md", "xy", "dir/x", "dir/sub/y", "with space"] {
        workshop.file(name, name);
    }
    workshop.mode("a.txt", 0o640);
    workshop.build(&[]);
    let files = workshop.files();
    let expected = [
        "into",
        "into/a.txt",
        "into/sub",
        "into/sub/y",
        "into/x",
        "many",
        "many/a.txt",
        "many/b.txt",
        "many/xy",
        "many/y",
        "one",
        "w",
        "w/a.txt",
        "w/b.txt",
        "whole",
        "whole/sub",
        "whole/sub/y",
        "whole/x",
        "with space",
    ];
    assert_eq!(names(&files), expected);
    assert_eq!(
        (files["one"].mode, files["one"].owner, files["one"].content.as_str()),
        (0o640, (0, 0), "a.txt")
    );
    assert_eq!((files["into"].kind, files["into"].mode), ('d', 0o755));
    assert!(files.values().all(|file| file.time == 0), "one time for all: {files:?}");
}

#[test]
fn owners_and_permissions() {
    root_or_skip!();
    let workshop = Workshop::new(
        "FROM scratch\n\
         COPY passwd group /etc/\n\
         COPY --chown=ada:staff dir /by/name\n\
         COPY --chown=7 --chmod=0604 dir/x /number\n\
         COPY --chown=ada dir/x /account\n",
    );
    workshop.file(
        "passwd",
        "root:x:0:0::/root:/bin/sh\nada:x:1000:100::/home/ada:/bin/sh\n",
    );
    workshop.file("group", "staff:x:50:\n");
    workshop.file("dir/x", "");
    workshop.mode("dir", 0o700);
    workshop.build(&[]);
    let files = workshop.files();
    let of = |name: &str| (files[name].owner, files[name].mode);
    assert_eq!(of("by"), ((1000, 50), 0o755), "made on the way, for the same user");
    assert_eq!(of("by/name"), ((1000, 50), 0o700));
    assert_eq!(of("by/name/x"), ((1000, 50), 0o644));
    assert_eq!(of("number"), ((7, 7), 0o604));
    assert_eq!(of("account"), ((1000, 100), 0o644));
    assert_eq!(of("etc"), ((0, 0), 0o755));
}

#[test]
fn what_is_there_keeps_its_permissions_and_links_are_followed_within_the_image() {
    root_or_skip!();
    let workshop = Workshop::new(
        "FROM scratch\n\
         COPY base /\n\
         COPY file /tmp/\n\
         COPY file /lib/\n\
         COPY file /outside/etc/\n",
    );
    workshop.file("file", "new");
    workshop.file("base/usr/lib/old", "old");
    fs::create_dir(workshop.context().join("base/tmp")).unwrap();
    workshop.mode("base/tmp", 0o1777);
    workshop.link("base/lib", "usr/lib");
    workshop.link("base/outside", "/../../..");
    workshop.build(&[]);
    let files = workshop.files();
    assert_eq!(files["tmp"].mode, 0o1777);
    assert_eq!(files["lib"].content, "usr/lib");
    assert_eq!(files["usr/lib/file"].content, "new");
    assert_eq!(files["etc/file"].content, "new");
    assert!(files.contains_key("usr/lib/old"));
}

#[test]
fn what_the_context_leaves_out() {
    root_or_skip!();
    let workshop = Workshop::new("FROM scratch\nCOPY . /\n");
    for name in [
        "keep.rs",
        "secret.key",
        "target/debug/x",
        "target/keep/me",
        "deep/er/secret.key",
    ] {
        workshop.file(name, "");
    }
    workshop.file(
        ".dockerignore",
        "# what nobody needs\n**/*.key\ntarget\n!target/keep\n.dockerignore\nDockerfile\n",
    );
    workshop.build(&[]);
    assert_eq!(
        names(&workshop.files()),
        ["deep", "deep/er", "keep.rs", "target", "target/keep", "target/keep/me"]
    );
    // A file for this Dockerfile alone comes first.
    workshop.file("Dockerfile.dockerignore", "*\n!keep.rs\n");
    let progress = workshop.build(&[]);
    assert_eq!(
        outcome(&progress, "COPY . /"),
        "made: deep is gone, deep/er is gone, target is gone and 2 more"
    );
    assert_eq!(names(&workshop.files()), ["keep.rs"]);
}

#[test]
fn links_pipes_and_names_of_one_file_are_copied_as_what_they_are() {
    root_or_skip!();
    let workshop = Workshop::new("FROM scratch\nCOPY dir /d\nCOPY link /followed\n");
    workshop.file("dir/file", "text");
    workshop.mode("dir/file", 0o4711);
    workshop.link("dir/dangling", "/nowhere/at/all");
    fs::hard_link(
        workshop.context().join("dir/file"),
        workshop.context().join("dir/other"),
    )
    .unwrap();
    let fifo = workshop.context().join("dir/fifo");
    assert!(
        Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    workshop.link("link", "dir/file");
    workshop.build(&[]);
    let files = workshop.files();
    assert_eq!(files["d/dangling"].content, "/nowhere/at/all");
    assert_eq!((files["d/fifo"].kind, files["d/fifo"].mode), ('p', 0o600));
    assert_eq!((files["d/file"].mode, files["followed"].kind), (0o4711, 'f'));
    let image = workshop.image();
    let layer = workshop.open().layer_path(&image.chain_ids()[0]).join("diff/d");
    let inode = |name: &str| fs::metadata(layer.join(name)).unwrap().ino();
    assert_eq!(inode("file"), inode("other"));
}

#[test]
fn a_link_out_of_the_context_is_not_followed() {
    for source in ["outside", "outside/passwd", "up/etc/passwd"] {
        let workshop = Workshop::new(&format!("FROM scratch\nCOPY {source} /x\n"));
        workshop.link("outside", "/etc");
        workshop.link("up", "../../../../../..");
        let (status, message) = workshop.fail(&[]);
        assert_eq!(status, 125);
        assert!(message.contains("Dockerfile:2:6: "), "{message}");
        assert!(message.contains("leads out of the context"), "{message}");
    }
    // Two dots stop at the context's root.
    let workshop = Workshop::new("FROM scratch\nCOPY ../../etc/passwd /x\n");
    assert!(workshop.fail(&[]).1.contains("is not in the context"));
}

#[test]
fn from_another_stage_and_from_an_image() {
    root_or_skip!();
    let workshop = Workshop::new("FROM scratch\nCOPY --chown=5:6 file /from-image/\nCOPY file /lower\n");
    workshop.file("file", "text");
    workshop.build(&["-t", "other:1"]);
    workshop.file(
        "Dockerfile",
        "FROM scratch AS one\nCOPY --chown=3:4 file /a/b/\nFROM scratch\n\
         COPY --from=one /a /from-name\nCOPY --from=0 a/b/fil? /from-number\nCOPY --from=other:1 / /from-image\n\
         COPY --from=one --chown=9:9 /a/b/file /changed\n",
    );
    workshop.build(&[]);
    let files = workshop.files();
    assert_eq!(files["from-name/b/file"].owner, (3, 4), "as it is in the stage");
    assert_eq!(files["from-number"].content, "text");
    assert_eq!(files["from-image/from-image/file"].owner, (5, 6));
    assert_eq!(files["changed"].owner, (9, 9));
    let progress = workshop.build(&[]);
    assert_eq!(outcome(&progress, "--from=other:1"), "cached");
}

#[test]
fn here_documents_become_files() {
    root_or_skip!();
    let workshop = Workshop::new(
        "FROM scratch\nENV NAME=world\nCOPY <<hello.txt <<'raw.txt' /etc/\nhello \"$NAME\"\nhello.txt\n$NAME\nraw.txt\nCOPY --chmod=755 <<EOF /bin/script\n#!/bin/sh\nEOF\n",
    );
    workshop.build(&[]);
    assert_eq!(workshop.text("etc/hello.txt"), "hello \"world\"\n");
    assert_eq!(workshop.text("etc/raw.txt"), "$NAME\n");
    assert_eq!(workshop.files()["bin/script"].mode, 0o755);
}

#[test]
fn add_unpacks_archives_and_copies_the_rest() {
    root_or_skip!();
    let workshop = Workshop::new(
        "FROM scratch\nADD plain.tar packed.tgz /into/\nADD note.gz /note.gz\nADD text /text\nCOPY plain.tar /plain.tar\n",
    );
    workshop.file("src/in/one", "1");
    workshop.file("src/in/two", "2");
    workshop.mode("src/in/two", 0o600);
    workshop.file("text", "not an archive");
    let context = workshop.context();
    let tar = |arguments: &[&str]| {
        let status = Command::new("tar")
            .args(["--owner=11", "--group=12", "-C"])
            .arg(context.join("src"))
            .args(arguments)
            .status();
        assert!(status.unwrap().success());
    };
    let path = |name: &str| context.join(name).display().to_string();
    tar(&["-cf", &path("plain.tar"), "in/one"]);
    tar(&["-czf", &path("packed.tgz"), "in/two"]);
    let out = File::create(context.join("note.gz")).unwrap();
    assert!(
        Command::new("gzip")
            .arg("-c")
            .arg(context.join("text"))
            .stdout(out)
            .status()
            .unwrap()
            .success()
    );
    workshop.build(&[]);
    let files = workshop.files();
    assert_eq!(files["into/in/one"].owner, (11, 12));
    assert_eq!(
        (files["into/in/two"].content.as_str(), files["into/in/two"].mode),
        ("2", 0o600)
    );
    assert_eq!(
        names(&files),
        [
            "into",
            "into/in",
            "into/in/one",
            "into/in/two",
            "note.gz",
            "plain.tar",
            "text"
        ]
    );
}

#[test]
fn what_cannot_be_meant_is_refused_at_its_place() {
    root_or_skip!();
    for (line, place, words) in [
        (
            "COPY a b /c",
            "2:10",
            "2 files go to a directory, and that is said by a slash at the end: /c/",
        ),
        ("COPY none /c", "2:6", "\"none\" is not in the context"),
        ("COPY *.none /c/", "2:6", "\"*.none\" is not in the context"),
        (
            "COPY left-out /c",
            "2:6",
            "\"left-out\" is not in the context: .dockerignore leaves it out",
        ),
        (
            "COPY --chown=nobody a /c",
            "2:14",
            "the image has no user \"nobody\" in its /etc/passwd",
        ),
        ("COPY --chmod=u+x a /c", "2:14", "permissions are octal digits here"),
        ("COPY --from=none a /c", "2:13", "no image \"none\" in the store"),
        ("ADD https://example.org/x /c", "2:5", "a build here reaches no network"),
        ("ADD a.tar.xz /c/", "2:5", "ADD unpacks tar, tar.gz and tar.zst here"),
        (
            "ADD evil.tar /c/",
            "2:5",
            "leads out of the directory it is unpacked in",
        ),
    ] {
        let workshop = Workshop::new(&format!("FROM scratch\n{line}\n"));
        for name in ["a", "b", "left-out"] {
            workshop.file(name, "");
        }
        workshop.file(".dockerignore", "left-out\n");
        fs::write(workshop.context().join("a.tar.xz"), b"\xfd7zXZ\0 and so on").unwrap();
        let evil = workshop.context().join("evil.tar");
        let tar = Command::new("tar")
            .args(["-P", "-C"])
            .arg(workshop.context())
            .arg("-cf")
            .arg(evil)
            .arg("../context/a")
            .status();
        assert!(tar.unwrap().success());
        let (status, message) = workshop.fail(&[]);
        assert_eq!(status, 125, "{message}");
        assert!(
            message.contains(&format!("container: Dockerfile:{place}: ")),
            "{line}: {message}"
        );
        assert!(message.contains(words), "{line}: {message}");
        assert!(message.contains(&format!("  2 | {line}\n")), "{line}: {message}");
    }
}

#[test]
fn kinds_that_do_not_fit_are_refused() {
    root_or_skip!();
    let workshop = Workshop::new("FROM scratch\nCOPY base /\nCOPY over /\n");
    workshop.file("base/x/y", "");
    workshop.file("over/x", "");
    let (_, message) = workshop.fail(&[]);
    assert!(
        message.contains("Dockerfile:3:6: \"over/x\" is no directory, and /x in the image is a directory"),
        "{message}"
    );
    let workshop = Workshop::new("FROM scratch\nCOPY file /x\nCOPY dir /x\n");
    workshop.file("file", "");
    workshop.file("dir/y", "");
    let (_, message) = workshop.fail(&[]);
    assert!(
        message.contains("Dockerfile:3:6: it is a directory, and /x in the image is a file"),
        "{message}"
    );
}
