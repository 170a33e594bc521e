//! Writes a layer: a tar archive that is the same whenever its files are.
//!
//! A layer is known by the digest of its archive, so anything in it that differs between two builds of the same files makes
//! it another layer. What differs is order and time. Files are therefore written in the order of their names, and every
//! time in a layer is one fixed moment: the one `SOURCE_DATE_EPOCH` names (reproducible-builds.org), by default the first
//! second of 1970. A checkout's file times are those of the checkout and say nothing about the files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::owner::Owner;
use crate::image::layer::archive::{Kind, Member};
use crate::image::layer::write::ArchiveWriter;

/// What an entry has besides its name and content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Who owns it.
    pub owner: Owner,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// A layer being written. Paths are relative to the image's root.
pub struct LayerWriter<'a, W: Write> {
    archive: &'a mut ArchiveWriter<W>,
    epoch: i64,
    written: BTreeSet<PathBuf>,
}

impl<'a, W: Write> LayerWriter<'a, W> {
    /// A layer whose every time is `epoch`, in seconds since 1970.
    pub fn new(archive: &'a mut ArchiveWriter<W>, epoch: i64) -> LayerWriter<'a, W> {
        LayerWriter {
            archive,
            epoch,
            written: BTreeSet::new(),
        }
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Whether this path was written.
    pub fn has(&self, path: &Path) -> bool {
        self.written.contains(path)
    }

    /// A directory.
    pub fn directory(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        self.entry(path, Kind::Directory, meta, "".as_ref(), 0, io::empty())
    }

    /// A regular file of `size` bytes.
    pub fn file(&mut self, path: &Path, meta: &Meta, size: u64, content: impl Read) -> io::Result<()> {
        self.entry(path, Kind::File, meta, "".as_ref(), size, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, meta: &Meta, target: &OsStr) -> io::Result<()> {
        self.entry(path, Kind::Symlink, meta, target, 0, io::empty())
    }

    /// Another name for a file written before.
    pub fn hard_link(&mut self, path: &Path, meta: &Meta, first: &Path) -> io::Result<()> {
        self.entry(path, Kind::HardLink, meta, first.as_os_str(), 0, io::empty())
    }

    /// A named pipe.
    pub fn fifo(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        self.entry(path, Kind::Fifo, meta, "".as_ref(), 0, io::empty())
    }

    fn entry(
        &mut self,
        path: &Path,
        kind: Kind,
        meta: &Meta,
        link: &OsStr,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let member = Member {
            path: path.as_os_str().as_bytes().to_owned(),
            link: link.as_bytes().to_owned(),
            kind,
            mode: meta.mode & 0o7777,
            uid: meta.owner.uid.into(),
            gid: meta.owner.gid.into(),
            mtime: (self.epoch, 0),
            device: (0, 0),
            xattrs: meta
                .xattrs
                .iter()
                .map(|(name, value)| (name.as_bytes().to_owned(), value.clone()))
                .collect(),
            size,
            parts: None,
        };
        self.archive.append(&member, content)?;
        self.written.insert(path.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::archive::Archive;

    fn layer(epoch: i64) -> io::Result<Vec<u8>> {
        let mut archive = ArchiveWriter::new(Vec::new());
        let mut layer = LayerWriter::new(&mut archive, epoch);
        let meta = |mode| Meta {
            mode,
            owner: Owner {
                uid: 4_000_000_000,
                gid: 7,
            },
            xattrs: vec![("user.note".into(), b"binary \0 value".to_vec())],
        };
        let long = PathBuf::from("deep/".repeat(60) + "name");
        layer.directory(Path::new("deep"), &meta(0o1755))?;
        layer.file(&long, &meta(0o4755), 3, &b"abc"[..])?;
        layer.link(Path::new("link"), &meta(0o777), OsStr::new(&"t/".repeat(200)))?;
        layer.hard_link(Path::new("other"), &meta(0o4755), &long)?;
        archive.finish()
    }

    #[test]
    fn the_same_files_make_the_same_bytes_and_nothing_is_lost() -> io::Result<()> {
        assert_eq!(layer(5)?, layer(5)?);
        assert_ne!(layer(5)?, layer(6)?);
        let bytes = layer(5)?;
        let mut archive = Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        while let Some(member) = archive.next_member().map_err(io::Error::other)? {
            let mut content = String::new();
            archive.data().read_to_string(&mut content)?;
            assert_eq!((member.uid, member.gid, member.mtime), (4_000_000_000, 7, (5, 0)));
            assert_eq!(member.xattrs, [(b"user.note".to_vec(), b"binary \0 value".to_vec())]);
            seen.push((member.kind, member.path.len(), member.mode, content, member.link.len()));
        }
        let name = "deep/".len() * 60 + "name".len();
        assert_eq!(
            seen,
            [
                (Kind::Directory, 5, 0o1755, String::new(), 0),
                (Kind::File, name, 0o4755, "abc".into(), 0),
                (Kind::Symlink, 4, 0o777, String::new(), 400),
                (Kind::HardLink, 5, 0o4755, String::new(), name),
            ]
        );
        Ok(())
    }
}
