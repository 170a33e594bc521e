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

use tar::{Builder, EntryType, Header};

use super::owner::Owner;

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
pub struct LayerWriter<W: Write> {
    tar: Builder<W>,
    epoch: u64,
    written: BTreeSet<PathBuf>,
}

impl<W: Write> LayerWriter<W> {
    /// A layer whose every time is `epoch`, in seconds since 1970.
    pub fn new(out: W, epoch: u64) -> LayerWriter<W> {
        LayerWriter {
            tar: Builder::new(out),
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
        self.entry(path, EntryType::Directory, meta, None, 0, io::empty())
    }

    /// A regular file of `size` bytes.
    pub fn file(&mut self, path: &Path, meta: &Meta, size: u64, content: impl Read) -> io::Result<()> {
        self.entry(path, EntryType::Regular, meta, None, size, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, meta: &Meta, target: &OsStr) -> io::Result<()> {
        self.entry(path, EntryType::Symlink, meta, Some(target), 0, io::empty())
    }

    /// Another name for a file written before.
    pub fn hard_link(&mut self, path: &Path, meta: &Meta, first: &Path) -> io::Result<()> {
        self.entry(path, EntryType::Link, meta, Some(first.as_os_str()), 0, io::empty())
    }

    /// A named pipe.
    pub fn fifo(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        self.entry(path, EntryType::Fifo, meta, None, 0, io::empty())
    }

    /// Ends the archive.
    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }

    fn entry(
        &mut self,
        path: &Path,
        kind: EntryType,
        meta: &Meta,
        target: Option<&OsStr>,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        if !meta.xattrs.is_empty() {
            // As Docker and every engine after it write them (PAX records of GNU tar's and star's making).
            let records = meta.xattrs.iter();
            let records: Vec<_> = records
                .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice()))
                .collect();
            self.tar
                .append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), *value)))?;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode & 0o7777);
        header.set_uid(meta.owner.uid.into());
        header.set_gid(meta.owner.gid.into());
        header.set_mtime(self.epoch);
        header.set_size(size);
        // A directory's name ends in a slash (POSIX ustar; Docker's layers too).
        let name = match kind {
            EntryType::Directory => [path.as_os_str().as_bytes(), b"/"].concat(),
            _ => path.as_os_str().as_bytes().to_vec(),
        };
        let name = Path::new(OsStr::from_bytes(&name));
        match target {
            Some(target) => self.tar.append_link(&mut header, name, target)?,
            None => self.tar.append_data(&mut header, name, content)?,
        }
        self.written.insert(path.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(epoch: u64) -> io::Result<Vec<u8>> {
        let mut layer = LayerWriter::new(Vec::new(), epoch);
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
        layer.finish()
    }

    #[test]
    fn the_same_files_make_the_same_bytes_and_nothing_is_lost() -> io::Result<()> {
        assert_eq!(layer(5)?, layer(5)?);
        assert_ne!(layer(5)?, layer(6)?);
        let bytes = layer(5)?;
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let mut content = String::new();
            entry.read_to_string(&mut content)?;
            let header = entry.header();
            assert_eq!((header.uid()?, header.gid()?, header.mtime()?), (4_000_000_000, 7, 5));
            let mode = header.mode()?;
            let path = entry.path()?.into_owned();
            let target = entry.link_name()?.map(|target| target.as_os_str().len());
            let xattrs: Vec<_> = entry
                .pax_extensions()?
                .into_iter()
                .flatten()
                .flatten()
                .map(|record| (record.key_bytes().to_vec(), record.value_bytes().to_vec()))
                .collect();
            assert_eq!(
                xattrs,
                [(b"SCHILY.xattr.user.note".to_vec(), b"binary \0 value".to_vec())]
            );
            seen.push((path.as_os_str().len(), mode, content, target));
        }
        assert_eq!(
            seen,
            [
                (5, 0o1755, String::new(), None),
                (304, 0o4755, "abc".into(), None),
                (4, 0o777, String::new(), Some(400)),
                (5, 0o4755, String::new(), Some(304)),
            ]
        );
        Ok(())
    }
}
