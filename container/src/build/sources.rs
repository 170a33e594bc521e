//! What COPY and ADD copy: the files behind their words, and what they are known by.
//!
//! A step is cached by what it copies: names, kinds, permissions, bytes. Not by times, which a checkout makes up, and not by
//! owners, which the context's files lose anyway. The same list says later which file it was that changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use xattr::FileExt;

use super::expand::{Expander, Word};
use super::instruction::{Copy, Origin};
use super::source::Fault;
use super::tree::{Kind, Node, Tree};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// One word of COPY or ADD, or one match of its pattern, with everything below.
pub struct Item<'a> {
    /// The name it has if the destination is a directory.
    pub name: String,
    /// Its place in the Dockerfile.
    pub word: Word,
    /// What it is.
    pub content: Content<'a>,
}

/// What is copied.
pub enum Content<'a> {
    /// Files of a tree; the first is the item itself.
    Files(&'a Tree, Vec<Entry>),
    /// A here-document.
    Text(String),
}

/// A file or directory to copy.
pub struct Entry {
    /// What and where it is.
    pub node: Node,
    /// Its extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// The hash of its bytes, if it is a regular file that was read.
    pub hash: Option<Hash>,
    /// The entry before this one that is the same file under another name.
    pub same_as: Option<PathBuf>,
}

/// How the files' bytes are known before they are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// By reading them.
    Hash,
    /// They come from an image and cannot have changed.
    Skip,
}

/// Finds everything that the instruction copies.
pub fn gather<'a>(
    copy: &Copy,
    tree: &'a Tree,
    expander: &Expander<'_>,
    reading: Reading,
) -> Result<Vec<Item<'a>>, Fault> {
    let mut items = Vec::new();
    for origin in &copy.sources {
        match origin {
            Origin::Here(here) => {
                let word = Word::new(here.body.clone(), here.raw.start);
                let text = if here.expand {
                    expander.text(&word)?
                } else {
                    here.body.clone()
                };
                items.push(Item {
                    name: here.name.clone(),
                    word: Word::new(format!("<<{}", here.name), here.operator.start),
                    content: Content::Text(text),
                });
            }
            Origin::Path(word) => {
                let pattern = expander.word(word)?;
                refuse_address(copy, word, &pattern)?;
                let fault = |error: super::tree::Error| word.fault(error.to_string());
                for path in tree.find(&pattern).map_err(fault)? {
                    let nodes = tree.walk(&path).map_err(fault)?;
                    let entries = entries(tree, nodes, reading).map_err(|error| word.fault(error.to_string()))?;
                    items.push(Item {
                        name: path.rsplit('/').next().unwrap_or("").to_owned(),
                        word: word.clone(),
                        content: Content::Files(tree, entries),
                    });
                }
            }
        }
    }
    Ok(items)
}

fn refuse_address(copy: &Copy, word: &Word, text: &str) -> Result<(), Fault> {
    let is_address = ["http://", "https://", "ftp://", "git://", "git@"]
        .iter()
        .any(|start| text.starts_with(start));
    match is_address {
        false => Ok(()),
        true if copy.is_add => Err(word.fault(
            "a build here reaches no network, so ADD downloads nothing: fetch it beforehand, check its digest, and COPY it",
        )),
        true => Err(word.fault("COPY takes files of the context, no addresses")),
    }
}

fn entries(tree: &Tree, nodes: Vec<Node>, reading: Reading) -> io::Result<Vec<Entry>> {
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut entries = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut entry = Entry {
            xattrs: Vec::new(),
            hash: None,
            same_as: None,
            node,
        };
        let stat = &entry.node.stat;
        if entry.node.kind == Kind::File && stat.st_nlink > 1 {
            let first = first_names.entry((stat.st_dev, stat.st_ino));
            let first = first.or_insert_with(|| entry.node.below.clone());
            entry.same_as = (*first != entry.node.below).then(|| first.clone());
        }
        if matches!(entry.node.kind, Kind::File | Kind::Directory) {
            let mut file = tree.read(&entry.node).map_err(io::Error::other)?;
            entry.xattrs = kept_xattrs(&file)?;
            if entry.node.kind == Kind::File && entry.same_as.is_none() && reading == Reading::Hash {
                let mut hasher = Sha256::new();
                io::copy(&mut file, &mut hasher)?;
                entry.hash = Some(hasher.finalize().into());
            }
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The attributes that are the file's own: a program's capabilities and what users noted. The others are the file
/// system's or a security module's, and mean something on this host only.
pub fn kept_xattrs(file: &File) -> io::Result<Vec<(String, Vec<u8>)>> {
    let names = match file.list_xattr() {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut kept = Vec::new();
    for name in names {
        let Some(name) = name.to_str() else { continue };
        let own = name == "security.capability" || name.starts_with("user.");
        if own
            && !name.starts_with("user.overlay.")
            && let Some(value) = file.get_xattr(name)?
        {
            kept.push((name.to_owned(), value));
        }
    }
    kept.sort();
    Ok(kept)
}

impl Item<'_> {
    /// Each of the item's files and a hash of all that the layer takes from it.
    pub fn manifest(&self) -> Vec<(String, Hash)> {
        match &self.content {
            Content::Text(text) => vec![(format!("<<{}", self.name), Sha256::digest(text).into())],
            Content::Files(_, entries) => entries.iter().map(|entry| (name_of(entry), entry.digest())).collect(),
        }
    }
}

fn name_of(entry: &Entry) -> String {
    let path = entry.node.path.to_string_lossy();
    if path.is_empty() { ".".into() } else { path.into_owned() }
}

impl Entry {
    fn digest(&self) -> Hash {
        let mut hasher = Sha256::new();
        // Each part with its length in front: no two lists of parts make the same bytes.
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(self.node.below.as_os_str().as_bytes());
        let kind: &[u8] = match &self.node.kind {
            Kind::Directory => b"directory",
            Kind::File => b"file",
            Kind::Link(_) => b"link",
            Kind::Fifo => b"fifo",
            Kind::Other => b"other",
        };
        part(kind);
        part(&(self.node.stat.st_mode & 0o7777).to_le_bytes());
        if let Kind::Link(target) = &self.node.kind {
            part(target.as_bytes());
        }
        part(self.hash.as_ref().map_or(&[][..], |hash| &hash[..]));
        part(self.same_as.as_deref().unwrap_or(Path::new("")).as_os_str().as_bytes());
        for (name, value) in &self.xattrs {
            part(name.as_bytes());
            part(value);
        }
        hasher.finalize().into()
    }
}

/// Reads exactly as many bytes as were announced, and hashes them: a file that changes while it is copied is found out.
pub struct Exactly<R> {
    inner: R,
    left: u64,
    hasher: Sha256,
}

impl<R: Read> Exactly<R> {
    /// The first `size` bytes of `inner`.
    pub fn new(inner: R, size: u64) -> Exactly<R> {
        Exactly {
            inner,
            left: size,
            hasher: Sha256::new(),
        }
    }

    /// The hash of what was read.
    pub fn hash(self) -> Hash {
        self.hasher.finalize().into()
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it became shorter while it was copied",
            ));
        }
        self.left -= read as u64;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
