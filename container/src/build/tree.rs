//! A tree of files to copy from, which no path leads out of.
//!
//! Every path is resolved by the kernel with openat2(2), from a descriptor of the tree's root: `..`, an absolute name and a
//! symbolic link cannot reach beyond it, however the tree changes meanwhile. A check of the text first and an ordinary
//! open(2) after it could be outrun.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat};
use thiserror::Error;

use super::glob;
use super::ignore::{Ignore, clean};
use crate::errno::why;

/// A directory, and what may be seen of it.
pub struct Tree {
    /// What messages call it: `the context`, `the stage build`.
    name: String,
    /// `None`: there is nothing at all.
    root: Option<OwnedFd>,
    links: Links,
    ignore: Ignore,
}

/// What a symbolic link does that leads out of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is a mistake: the context is a folder of somebody's, and a link out of it means a file he did not give.
    Confined,
    /// Its target is looked for within the tree, as chroot(2) would: the tree is an image's root.
    Rooted,
}

/// Something in the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it is, relative to the tree's root.
    pub path: PathBuf,
    /// Where it is, relative to what was walked; empty for that itself.
    pub below: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its status.
    pub stat: FileStat,
}

/// The kinds of things that can be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link, and what it says.
    Link(OsString),
    /// A named pipe.
    Fifo,
    /// A socket or a device: nothing that can be copied.
    Other,
}

impl Tree {
    /// The tree below a directory.
    pub fn open(name: impl Into<String>, path: &Path, links: Links) -> Result<Tree, Error> {
        let name = name.into();
        let root = open(
            path,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let root = root.map_err(|errno| Error::Root {
            path: path.to_owned(),
            errno,
        })?;
        Ok(Tree::of(name, root, links))
    }

    /// The tree below an open directory.
    pub fn of(name: impl Into<String>, root: OwnedFd, links: Links) -> Tree {
        Tree {
            name: name.into(),
            root: Some(root),
            links,
            ignore: Ignore::default(),
        }
    }

    /// A tree without anything, not even a root: an image that has no layers.
    pub fn nothing(name: impl Into<String>) -> Tree {
        Tree {
            name: name.into(),
            root: None,
            links: Links::Rooted,
            ignore: Ignore::default(),
        }
    }

    /// The same without what these patterns leave out.
    pub fn ignoring(self, ignore: Ignore) -> Tree {
        Tree { ignore, ..self }
    }

    /// Every path that the pattern, relative to the root, stands for. Never none.
    pub fn find(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let cleaned = clean(pattern);
        let names: Vec<&str> = cleaned.split('/').filter(|name| !name.is_empty()).collect();
        let mut found = vec![String::new()];
        for name in names {
            let mut next = Vec::new();
            for directory in &found {
                if glob::is_pattern(name) {
                    for entry in self.entries(Path::new(directory))? {
                        let text = entry.to_string_lossy();
                        let matched = glob::matches_name(name, &text);
                        if matched.ok_or_else(|| Error::Pattern(pattern.to_owned()))? {
                            next.push(joined(directory, &text));
                        }
                    }
                } else {
                    next.push(joined(directory, name));
                }
            }
            found = next;
        }
        let wildcard = glob::is_pattern(&cleaned);
        let mut seen = Vec::new();
        let mut ignored = false;
        for path in found {
            if self.is_ignored(&path) && self.ignore.ignores_all_below(&path) {
                ignored = true;
            } else if !wildcard || self.resolve(Path::new(&path), false).is_ok() {
                seen.push(path);
            }
        }
        seen.sort();
        match seen.is_empty() {
            true => Err(Error::Absent {
                tree: self.name.clone(),
                path: pattern.to_owned(),
                ignored,
            }),
            false => Ok(seen),
        }
    }

    /// What is at `path` and everything below it, in the order of names. A symbolic link at `path` itself is followed,
    /// those below are not. Those of `find`'s results that are links lead somewhere, or this says where not.
    pub fn walk(&self, path: &str) -> Result<Vec<Node>, Error> {
        let mut nodes = Vec::new();
        let node = self.node(PathBuf::from(path), PathBuf::new(), true)?;
        self.descend(node, false, &mut nodes)?;
        Ok(nodes)
    }

    /// Opens a regular file for reading.
    pub fn read(&self, node: &Node) -> Result<File, Error> {
        let follow = node.below.as_os_str().is_empty();
        self.open_at(&node.path, OFlag::O_RDONLY, follow).map(File::from)
    }

    /// Opens anything at all as a place, to ask about it.
    pub fn resolve(&self, path: &Path, follow: bool) -> Result<OwnedFd, Error> {
        self.open_at(path, OFlag::O_PATH, follow)
    }

    /// Opens a file of the tree by its path.
    pub fn open_file(&self, path: &Path, flags: OFlag) -> Result<File, Error> {
        self.open_at(path, flags, true).map(File::from)
    }

    fn descend(&self, node: Node, ignored: bool, nodes: &mut Vec<Node>) -> Result<(), Error> {
        let (path, below) = (node.path.clone(), node.below.clone());
        let is_directory = node.kind == Kind::Directory;
        nodes.push(node);
        if !is_directory {
            return Ok(());
        }
        let with_it = nodes.len();
        let mut entries = self.entries(&path)?;
        entries.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        for name in entries {
            let (path, below) = (path.join(&name), below.join(&name));
            let ignored = self.is_ignored(&path.to_string_lossy());
            if ignored && self.ignore.ignores_all_below(&path.to_string_lossy()) {
                continue;
            }
            let node = self.node(path, below, false)?;
            if !ignored || node.kind == Kind::Directory {
                self.descend(node, ignored, nodes)?;
            }
        }
        // A directory that is left out is there only for what is taken back in below it.
        if ignored && nodes.len() == with_it {
            nodes.pop();
        }
        Ok(())
    }

    fn node(&self, path: PathBuf, below: PathBuf, follow: bool) -> Result<Node, Error> {
        let place = self.resolve(&path, follow)?;
        let failed = |errno| self.failed("look at", &path, errno);
        let stat = fstat(&place).map_err(failed)?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFREG => Kind::File,
            libc::S_IFLNK => Kind::Link(readlinkat(&place, "").map_err(failed)?),
            libc::S_IFIFO => Kind::Fifo,
            _ => Kind::Other,
        };
        Ok(Node {
            path,
            below,
            kind,
            stat,
        })
    }

    fn entries(&self, path: &Path) -> Result<Vec<OsString>, Error> {
        let failed = |errno| self.failed("read", path, errno);
        let directory = self.open_at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, true)?;
        let mut directory = Dir::from_fd(directory).map_err(failed)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(std::ffi::OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    fn open_at(&self, path: &Path, flags: OFlag, follow: bool) -> Result<OwnedFd, Error> {
        let confinement = match self.links {
            Links::Confined => ResolveFlag::RESOLVE_BENEATH,
            Links::Rooted => ResolveFlag::RESOLVE_IN_ROOT,
        };
        let no_follow = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        // A pipe without a writer would keep open(2) waiting.
        let flags = flags | no_follow | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let flags = if flags.contains(OFlag::O_PATH) {
            flags.difference(OFlag::O_NONBLOCK)
        } else {
            flags
        };
        let how = OpenHow::new()
            .flags(flags)
            .resolve(confinement | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let root = self.root.as_ref().ok_or_else(|| Error::Absent {
            tree: self.name.clone(),
            path: path.display().to_string(),
            ignored: false,
        })?;
        openat2(root.as_fd(), path, how).map_err(|errno| match errno {
            Errno::EXDEV => Error::LeadsOut {
                tree: self.name.clone(),
                path: path.display().to_string(),
            },
            Errno::ENOENT | Errno::ENOTDIR => Error::Absent {
                tree: self.name.clone(),
                path: path.display().to_string(),
                ignored: false,
            },
            errno => self.failed("open", path, errno),
        })
    }

    fn is_ignored(&self, path: &str) -> bool {
        !path.is_empty() && self.ignore.ignores(path)
    }

    fn failed(&self, verb: &'static str, path: &Path, errno: Errno) -> Error {
        Error::Step {
            verb,
            path: path.display().to_string(),
            tree: self.name.clone(),
            errno,
        }
    }

    /// The path of the tree's root as this process alone can use it.
    pub fn root_link(&self) -> PathBuf {
        let root = self.root.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        PathBuf::from(format!("/proc/self/fd/{root}"))
    }
}

fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

/// Why there is nothing to copy.
#[derive(Debug, Error)]
pub enum Error {
    /// The root is not there.
    #[error("cannot use {} as context: {}. It must be a directory that this user may read", path.display(), why(errno))]
    Root {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Nothing is there.
    #[error("{path:?} is not in {tree}{}", if *ignored { ": .dockerignore leaves it out" } else { "" })]
    Absent {
        /// Which tree.
        tree: String,
        /// As it was asked for.
        path: String,
        /// Whether it is there for others.
        ignored: bool,
    },
    /// A way out.
    #[error(
        "{path:?} leads out of {tree} through a symbolic link; only what is inside can be copied. Copy the file there, or build with a directory above both as context"
    )]
    LeadsOut {
        /// Which tree.
        tree: String,
        /// As it was asked for.
        path: String,
    },
    /// A pattern that is none.
    #[error("{0:?} is no pattern: '[' needs its ']', and '\\' needs something after it")]
    Pattern(String),
    /// A step failed.
    #[error("cannot {verb} {path:?} in {tree}: {}", why(errno))]
    Step {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: String,
        /// Where.
        tree: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn context() -> (tempfile::TempDir, Tree) {
        let make = || -> std::io::Result<tempfile::TempDir> {
            let directory = tempfile::tempdir()?;
            let path = directory.path();
            fs::create_dir_all(path.join("src/deep"))?;
            for file in ["a.txt", "b.txt", "c.md", "src/x.rs", "src/deep/y.rs", "we[ird"] {
                fs::write(path.join(file), file)?;
            }
            symlink("src", path.join("inside"))?;
            symlink("/etc/passwd", path.join("absolute"))?;
            symlink("../../../../../../etc", path.join("upwards"))?;
            Ok(directory)
        };
        let directory = make().unwrap_or_else(|error| panic!("{error}"));
        let tree = Tree::open("the context", directory.path(), Links::Confined);
        (directory, tree.unwrap_or_else(|error| panic!("{error}")))
    }

    fn paths(nodes: Result<Vec<Node>, Error>) -> Vec<String> {
        let nodes = nodes.unwrap_or_else(|error| panic!("{error}"));
        nodes.iter().map(|node| node.below.display().to_string()).collect()
    }

    #[test]
    fn patterns_stand_for_what_is_there() {
        let (_directory, tree) = context();
        let find = |pattern: &str| tree.find(pattern).map_err(|error| error.to_string());
        assert_eq!(find("*.txt"), Ok(vec!["a.txt".into(), "b.txt".into()]));
        assert_eq!(find("s*/*.rs"), Ok(vec!["src/x.rs".into()]));
        assert_eq!(find("/../src/./deep"), Ok(vec!["src/deep".into()]));
        assert_eq!(find("we[[]ird"), Ok(vec!["we[ird".into()]));
        assert_eq!(find("."), Ok(vec![String::new()]));
        assert_eq!(find("*.none"), Err("\"*.none\" is not in the context".into()));
        assert!(find("[").is_err_and(|error| error.contains("is no pattern")));
    }

    #[test]
    fn no_path_leads_out() {
        let (_directory, tree) = context();
        for path in ["absolute", "upwards", "upwards/passwd"] {
            assert!(matches!(tree.walk(path), Err(Error::LeadsOut { .. })), "{path}");
        }
        assert_eq!(paths(tree.walk("inside")), ["", "deep", "deep/y.rs", "x.rs"]);
        // What is not followed can be copied as the link it is.
        let whole = paths(tree.walk(""));
        assert!(
            whole.contains(&"absolute".to_owned()) && whole.contains(&"inside".to_owned()),
            "{whole:?}"
        );
    }

    #[test]
    fn a_rooted_tree_is_its_own_world() {
        let (directory, _) = context();
        fs::create_dir(directory.path().join("etc")).unwrap_or_else(|error| panic!("{error}"));
        fs::write(directory.path().join("etc/passwd"), "inner").unwrap_or_else(|error| panic!("{error}"));
        let tree = Tree::open("the image", directory.path(), Links::Rooted).unwrap_or_else(|error| panic!("{error}"));
        for path in ["absolute", "upwards/passwd"] {
            let nodes = tree.walk(path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(nodes[0].stat.st_size, 5);
        }
    }

    #[test]
    fn what_is_ignored_is_not_there() {
        let (_directory, tree) = context();
        let ignore = Ignore::parse("x", "src\n!src/deep\n*.md").unwrap_or_else(|error| panic!("{error}"));
        let tree = tree.ignoring(ignore);
        assert_eq!(paths(tree.walk("src")), ["", "deep", "deep/y.rs"]);
        assert!(matches!(tree.find("c.md"), Err(Error::Absent { ignored: true, .. })));
    }
}
