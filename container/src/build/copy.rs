//! COPY and ADD: where files go in the image, and the layer that puts them there.
//!
//! The layer is written directly, without a copy in between; the image so far is only looked at. It must be looked at:
//! `COPY x /lib/` in an image whose `/lib` is a link to `usr/lib` means `usr/lib/x`, and a directory that is there keeps its
//! permissions.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::expand::Word;
use super::ignore::clean;
use super::layer::{LayerWriter, Meta};
use super::owner::Owner;
use super::source::Fault;
use super::sources::{Content, Entry, Exactly, Item, kept_xattrs};
use super::tree::{Kind, Tree};
use crate::image::layer::archive::{self, Archive};
use crate::image::layer::stream::{Compression, LayerStream};
use crate::image::layer::zstd::Zstd;

/// Permissions of directories that COPY makes on the way to its destination.
const ON_THE_WAY: u32 = 0o755;
/// Permissions of a here-document's file.
const TEXT_MODE: u32 = 0o644;
/// The size of a tar header, and where in it `ustar` is (POSIX, pax, "ustar Interchange Format").
const TAR_BLOCK: usize = 512;
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// Where to copy to.
pub struct Destination {
    /// The path in the image, cleaned, without the slash in front.
    pub path: PathBuf,
    /// Whether the Dockerfile says that it is a directory.
    pub is_directory: bool,
}

/// How to copy.
pub struct Rules {
    /// `--chown`, resolved.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<u32>,
    /// Whether files keep the owner they have: they come from an image.
    pub keep_owners: bool,
    /// Whether archives are unpacked: ADD.
    pub unpack: bool,
}

impl Destination {
    /// Reads the instruction's last word, as it is in a working directory.
    pub fn new(text: &str, workdir: &str) -> Destination {
        let whole = if text.starts_with('/') {
            text.to_owned()
        } else {
            format!("{workdir}/{text}")
        };
        let is_directory =
            text.is_empty() || text.ends_with('/') || matches!(text.rsplit('/').next(), Some("." | ".."));
        Destination {
            path: clean(&whole).into(),
            is_directory,
        }
    }
}

/// Refuses what cannot be meant, before anything is built.
pub fn check(items: &[Item<'_>], destination: &Destination, word: &Word) -> Result<(), Fault> {
    match items.len() > 1 && !destination.is_directory {
        true => Err(word.fault(format!(
            "{} files go to a directory, and that is said by a slash at the end: {}/",
            items.len(),
            word.text
        ))),
        false => Ok(()),
    }
}

/// Writes the layer. `root` is the image so far.
pub fn write<W: Write>(
    items: &[Item<'_>],
    destination: &Destination,
    rules: &Rules,
    root: &Tree,
    layer: &mut LayerWriter<'_, W>,
) -> Result<(), Fault> {
    let mut copier = Copier { rules, root, layer };
    for item in items {
        copier
            .item(item, destination)
            .map_err(|error| item.word.fault(error.to_string()))?;
    }
    Ok(())
}

/// Writes a directory, and those above it, if it is not there: WORKDIR.
pub fn directory<W: Write>(path: &Path, root: &Tree, layer: &mut LayerWriter<'_, W>) -> io::Result<()> {
    let rules = Rules {
        owner: None,
        mode: None,
        keep_owners: false,
        unpack: false,
    };
    let mut copier = Copier {
        rules: &rules,
        root,
        layer,
    };
    match copier.place(path)? {
        (_, Some(true)) => Ok(()),
        (place, None) if place.as_os_str().is_empty() => Ok(()),
        (place, Some(false)) => Err(io::Error::other(format!("/{} in the image is a file", place.display()))),
        (place, None) => copier.parents(&place.join(".").join("x")),
    }
}

struct Copier<'a, 'b, W: Write> {
    rules: &'a Rules,
    root: &'a Tree,
    layer: &'a mut LayerWriter<'b, W>,
}

impl<W: Write> Copier<'_, '_, W> {
    fn item(&mut self, item: &Item<'_>, destination: &Destination) -> io::Result<()> {
        let (place, there) = self.place(&destination.path)?;
        let (tree, entries) = match &item.content {
            Content::Files(tree, entries) => (tree, entries),
            Content::Text(text) => {
                let path = self.file_path(place, there, destination, &item.name);
                self.parents(&path)?;
                let meta = self.meta(TEXT_MODE, Owner::default(), Vec::new());
                return self.layer.file(&path, &meta, text.len() as u64, text.as_bytes());
            }
        };
        let Some(top) = entries.first() else { return Ok(()) };
        if top.node.kind == Kind::Directory {
            if there.is_some_and(|there| !there) {
                return Err(io::Error::other(format!(
                    "it is a directory, and /{} in the image is a file",
                    place.display()
                )));
            }
            // A directory's content is copied, and the directory itself only where there is none yet.
            self.parents(&place.join("."))?;
            if there.is_none() && !place.as_os_str().is_empty() {
                self.one(tree, top, &place, &place)?;
            }
            for entry in &entries[1..] {
                self.one(tree, entry, &place.join(&entry.node.below), &place)?;
            }
            return Ok(());
        }
        if self.rules.unpack
            && top.node.kind == Kind::File
            && let Some(archive) = archive(tree.read(&top.node).map_err(io::Error::other)?)?
        {
            return self.unpack(archive, &place, there);
        }
        let path = self.file_path(place, there, destination, &item.name);
        self.parents(&path)?;
        self.one(tree, top, &path, Path::new(""))
    }

    /// Where one file goes: into the destination if that is a directory or said to be one.
    fn file_path(&self, place: PathBuf, there: Option<bool>, destination: &Destination, name: &str) -> PathBuf {
        match destination.is_directory || there == Some(true) {
            true => place.join(name),
            false => place,
        }
    }

    /// Copies one file, link or directory. `base` is where the top of what is copied went.
    fn one(&mut self, tree: &Tree, entry: &Entry, path: &Path, base: &Path) -> io::Result<()> {
        let node = &entry.node;
        let is_directory = node.kind == Kind::Directory;
        if let Ok(there) = self.root.resolve(path, false) {
            let there_directory = fstat(&there)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
            if there_directory != is_directory {
                let kind = |directory: bool| if directory { "a directory" } else { "no directory" };
                return Err(io::Error::other(format!(
                    "{:?} is {}, and /{} in the image is {}",
                    node.path.display().to_string(),
                    kind(is_directory),
                    path.display(),
                    kind(there_directory)
                )));
            }
        }
        let owner = match self.rules.keep_owners {
            true => Owner {
                uid: node.stat.st_uid,
                gid: node.stat.st_gid,
            },
            false => Owner::default(),
        };
        let mut meta = self.meta(node.stat.st_mode, owner, entry.xattrs.clone());
        match &node.kind {
            Kind::Directory => self.layer.directory(path, &meta),
            Kind::Link(target) => {
                meta.mode = 0o777;
                self.layer.link(path, &meta, target)
            }
            Kind::Fifo => self.layer.fifo(path, &meta),
            Kind::File => match &entry.same_as {
                Some(first) => self.layer.hard_link(path, &meta, &base.join(first)),
                None => {
                    let size = node.stat.st_size as u64;
                    let mut content = Exactly::new(tree.read(node).map_err(io::Error::other)?, size);
                    self.layer.file(path, &meta, size, &mut content)?;
                    match entry.hash {
                        Some(hash) if hash != content.hash() => Err(io::Error::other(format!(
                            "{:?} changed while it was copied",
                            node.path.display().to_string()
                        ))),
                        _ => Ok(()),
                    }
                }
            },
            Kind::Other => Err(io::Error::other(format!(
                "{:?} is a socket or a device and cannot be copied: leave it out with .dockerignore",
                node.path.display().to_string()
            ))),
        }
    }

    fn meta(&self, mode: u32, owner: Owner, xattrs: Vec<(String, Vec<u8>)>) -> Meta {
        Meta {
            mode: self.rules.mode.unwrap_or(mode),
            owner: self.rules.owner.unwrap_or(owner),
            xattrs,
        }
    }

    /// Writes the directories above `path`: those that are there as they are, the others new. A layer without them would
    /// leave their permissions to whoever unpacks it.
    fn parents(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        for directory in above.into_iter().rev() {
            if directory.as_os_str().is_empty() || self.layer.has(&directory) {
                continue;
            }
            let meta = match self.root.open_file(&directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
                Ok(there) => existing(&there)?,
                Err(_) => self.meta_on_the_way(),
            };
            self.layer.directory(&directory, &meta)?;
        }
        Ok(())
    }

    fn meta_on_the_way(&self) -> Meta {
        Meta {
            mode: ON_THE_WAY,
            owner: self.rules.owner.unwrap_or_default(),
            xattrs: Vec::new(),
        }
    }

    /// The path with the links on its way followed, within the image, and whether a directory (or else a file) is there.
    fn place(&self, path: &Path) -> io::Result<(PathBuf, Option<bool>)> {
        place(self.root, path)
    }

    /// Unpacks an archive into the directory `place`.
    fn unpack(&mut self, archive: File, place: &Path, there: Option<bool>) -> io::Result<()> {
        if there == Some(false) {
            return Err(io::Error::other(format!(
                "it is an archive, and /{} in the image is a file",
                place.display()
            )));
        }
        self.parents(&place.join("."))?;
        // The file was given by whoever builds; how large it is unpacked is his affair.
        let mut stream = LayerStream::new(archive, u64::MAX)?;
        let mut archive = Archive::new(&mut stream);
        while let Some(member) = archive.next_member().map_err(io::Error::other)? {
            let path = place.join(confined(&member.path)?);
            if path == place {
                continue;
            }
            let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
            let owner = Owner {
                uid: id(member.uid)?,
                gid: id(member.gid)?,
            };
            let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            let xattrs = member.xattrs.iter().map(|(name, value)| (text(name), value.clone()));
            let meta = self.meta(member.mode, owner, xattrs.collect());
            self.parents(&path)?;
            match member.kind {
                archive::Kind::Directory => self.layer.directory(&path, &meta)?,
                archive::Kind::File => self.layer.file(&path, &meta, member.size, archive.data())?,
                archive::Kind::Symlink => self.layer.link(&path, &meta, OsStr::from_bytes(&member.link))?,
                archive::Kind::HardLink => {
                    self.layer
                        .hard_link(&path, &meta, &place.join(confined(&member.link)?))?;
                }
                archive::Kind::Fifo => self.layer.fifo(&path, &meta)?,
                archive::Kind::CharDevice | archive::Kind::BlockDevice => {
                    return Err(io::Error::other(format!(
                        "the archive's {:?} is a device, and devices are not unpacked",
                        text(&member.path)
                    )));
                }
            }
        }
        Ok(())
    }
}

/// See `Copier::place`.
pub fn place(root: &Tree, path: &Path) -> io::Result<(PathBuf, Option<bool>)> {
    if let Ok(there) = root.resolve(path, true) {
        let is_directory = fstat(&there)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let name = std::fs::read_link(format!("/proc/self/fd/{}", there.as_raw_fd()))?;
        let base = std::fs::read_link(root.root_link())?;
        let inside = name.strip_prefix(&base).map_err(io::Error::other)?;
        return Ok((inside.to_owned(), Some(is_directory)));
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let (parent, there) = place(root, parent)?;
            match there {
                Some(false) => Err(io::Error::other(format!(
                    "/{} in the image is no directory",
                    parent.display()
                ))),
                _ => Ok((parent.join(name), None)),
            }
        }
        _ => Ok((PathBuf::new(), None)),
    }
}

/// What a directory that is there has.
fn existing(directory: &File) -> io::Result<Meta> {
    let stat = fstat(directory)?;
    Ok(Meta {
        mode: stat.st_mode,
        owner: Owner {
            uid: stat.st_uid,
            gid: stat.st_gid,
        },
        xattrs: kept_xattrs(directory)?,
    })
}

/// An archive's path without what could lead out of where it is unpacked.
fn confined(path: &[u8]) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!(
                    "the archive's {:?} leads out of the directory it is unpacked in",
                    String::from_utf8_lossy(path)
                )));
            }
        }
    }
    Ok(inside)
}

/// The file, if it is an archive to unpack: by its first bytes, not by its name. What is compressed and no archive is a
/// file like any other.
fn archive(mut file: File) -> io::Result<Option<File>> {
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(TAR_BLOCK as u64).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    let mut block = Vec::new();
    let unpacked: Box<dyn Read + '_> = match Compression::of(&start) {
        Err(_) => {
            return Err(io::Error::other(
                "ADD unpacks tar, tar.gz and tar.zst here, not bzip2 or xz: unpack it first, or COPY it as it is",
            ));
        }
        Ok(Compression::None) => Box::new(&start[..]),
        Ok(Compression::Gzip) => Box::new(MultiGzDecoder::new(&file)),
        Ok(Compression::Zstd) => Box::new(Zstd::new(&file)),
    };
    let readable = unpacked.take(TAR_BLOCK as u64).read_to_end(&mut block);
    let is_archive = readable.is_ok() && block.get(TAR_MAGIC) == Some(b"ustar");
    file.seek(SeekFrom::Start(0))?;
    Ok(is_archive.then_some(file))
}
