//! What the tests of builds share: a context to build, a store to build in, and a look at what came out.

#![allow(dead_code, reason = "every test program uses a part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use container::build::tree::{Kind, Links, Tree};
use container::build::view::{Layers, look};
use container::image::layer::unpack::Limits;
use container::image::{Access, Image, Store};
use tempfile::TempDir;

use super::common::{LAUNCHER, end_with_the_test};

/// A context and a store.
pub struct Workshop {
    directory: TempDir,
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `d`, `f`, `l` or `p`.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// A file's text, or where a link leads.
    pub content: String,
    /// Seconds since 1970.
    pub time: i64,
}

impl Workshop {
    /// One with this Dockerfile in its context.
    pub fn new(dockerfile: &str) -> Workshop {
        let directory = super::common::open_directory();
        fs::create_dir(directory.path().join("context")).unwrap();
        let workshop = Workshop { directory };
        workshop.file("Dockerfile", dockerfile);
        workshop
    }

    /// The same, with busybox in the context for `COPY busybox /bin/`.
    pub fn with_busybox(dockerfile: &str) -> Result<Workshop, String> {
        let workshop = Workshop::new(dockerfile);
        let image = super::common::image()?;
        // By a link: nobody writes to it, so that nobody finds it open for writing.
        let target = workshop.context().join("busybox");
        fs::hard_link(image.join("bin/busybox"), &target)
            .or_else(|_| fs::copy(image.join("bin/busybox"), &target).map(drop))
            .unwrap();
        Ok(workshop)
    }

    /// The context.
    pub fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    /// A path beside the context.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.beside("store")
    }

    /// Writes a file of the context, and the directories above it.
    pub fn file(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Sets permissions of a file of the context.
    pub fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.context().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a symbolic link in the context.
    pub fn link(&self, path: &str, target: &str) {
        symlink(target, self.context().join(path)).unwrap();
    }

    /// `container image build ARGUMENTS -t test CONTEXT`, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(LAUNCHER);
        command.args(["image", "build", "-t", "test"]).args(arguments);
        command.arg(self.context()).env("CONTAINER_STORE", self.store());
        command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
        end_with_the_test(&mut command);
        command
    }

    /// Builds, and returns what was said.
    pub fn build(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        text
    }

    /// Builds what cannot be built, and returns status and message.
    pub fn fail(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stderr, .. } = self.command(arguments).output().unwrap();
        let text = String::from_utf8(stderr).unwrap();
        assert!(!status.success(), "{text}");
        (status.code().unwrap(), text)
    }

    /// The image that was built.
    pub fn image(&self) -> Image {
        self.open().image("test").unwrap()
    }

    /// The store, opened.
    pub fn open(&self) -> Store {
        Store::open(&self.store(), Access::Shared).unwrap()
    }

    /// The built image's configuration: what containers start with.
    pub fn config(&self) -> serde_json::Value {
        self.image().config_json["config"].clone()
    }

    /// All files of the built image, by path.
    pub fn files(&self) -> BTreeMap<String, Found> {
        files_of(&self.open(), &self.image())
    }

    /// One file's text.
    pub fn text(&self, path: &str) -> String {
        let files = self.files();
        let found = files.get(path);
        found
            .unwrap_or_else(|| panic!("no {path} in {files:#?}"))
            .content
            .clone()
    }
}

/// All files of an image, by path.
pub fn files_of(store: &Store, image: &Image) -> BTreeMap<String, Found> {
    let lower = store.lower_directories(image, Limits::default()).unwrap();
    let lower: Vec<PathBuf> = lower.iter().map(|lower| store.root().join(lower)).collect();
    if lower.is_empty() {
        return BTreeMap::new();
    }
    let root = look(&Layers { lower, upper: None }).unwrap();
    let tree = Tree::of("the image", root, Links::Rooted);
    let mut files = BTreeMap::new();
    for node in tree.walk("").unwrap() {
        let mut content = String::new();
        let kind = match &node.kind {
            Kind::Directory => 'd',
            Kind::File => {
                let mut bytes = Vec::new();
                tree.read(&node).unwrap().read_to_end(&mut bytes).unwrap();
                // Programs are of no interest here, and long.
                bytes.truncate(4096);
                content = String::from_utf8_lossy(&bytes).into_owned();
                'f'
            }
            Kind::Link(target) => {
                content = target.to_string_lossy().into_owned();
                'l'
            }
            Kind::Fifo => 'p',
            Kind::Other => '?',
        };
        let found = Found {
            kind,
            mode: node.stat.st_mode & 0o7777,
            owner: (node.stat.st_uid, node.stat.st_gid),
            content,
            time: node.stat.st_mtime,
        };
        files.insert(node.below.display().to_string(), found);
    }
    files.remove("");
    files
}

/// Paths, without those of busybox and its links.
pub fn names(files: &BTreeMap<String, Found>) -> Vec<&str> {
    let names = files.keys().map(String::as_str);
    names
        .filter(|name| *name != "bin" && !name.starts_with("bin/"))
        .collect()
}

/// What progress says of a step: the text in parentheses at the end of its line.
pub fn outcome<'a>(progress: &'a str, step: &str) -> &'a str {
    let line = progress.lines().find(|line| line.contains(step));
    let line = line.unwrap_or_else(|| panic!("no {step} in {progress}"));
    line.rsplit_once(" (")
        .map_or("", |(_, outcome)| outcome.trim_end_matches(')'))
}

/// Whether a directory is there and empty.
pub fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).unwrap().next().is_none()
}

/// A context with busybox, or return from the test.
#[macro_export]
macro_rules! workshop_or_skip {
    ($dockerfile:expr) => {
        match $crate::builds::Workshop::with_busybox($dockerfile) {
            Ok(workshop) => workshop,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}
