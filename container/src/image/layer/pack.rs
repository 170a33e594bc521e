//! Packing a layer: what an overlay's upper directory holds becomes an archive.
//!
//! The upper directory is exactly what changed, so this is all of `commit`: files as they are, overlay's whiteouts and
//! opaque directories translated into the archive's (see [`super::unpack`] for the way back). Members come in the order
//! of their names, so that equal directories make equal archives but for times.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, SFlag, major, minor};
use thiserror::Error;

use super::archive::{Kind, Member};
use super::tree;
use super::unpack::{OPAQUE, WHITEOUT, shown};
use super::write::ArchiveWriter;
use super::xattrs;
use crate::errno::why;

/// How ids on disk become ids in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// They are the same: root's store, whose layers containers see through shifted mounts.
    Same,
    /// What belongs to this user is root's in the image: a store of an ordinary user, who has but one id.
    Own,
    /// The container's ids begin here on disk.
    From(u32),
}

impl Ids {
    /// What this process's store uses.
    pub fn of_store() -> Ids {
        match nix::unistd::geteuid().is_root() {
            true => Ids::Same,
            false => Ids::Own,
        }
    }

    fn inside(self, id: u32) -> u64 {
        match self {
            Ids::Same => id.into(),
            Ids::Own => 0,
            Ids::From(first) => id.saturating_sub(first).into(),
        }
    }
}

/// Writes what is in `upper` to an archive.
pub fn pack<W: Write>(upper: &Path, ids: Ids, archive: &mut ArchiveWriter<W>) -> Result<(), Error> {
    let failed = |errno| Error::File {
        path: upper.to_owned(),
        errno,
    };
    let root = tree::Tree::open(upper).map_err(failed)?;
    let mut packer = Packer {
        archive,
        ids,
        links: HashMap::new(),
        path: Vec::new(),
    };
    packer.directory(root.root())
}

struct Packer<'a, W: Write> {
    archive: &'a mut ArchiveWriter<W>,
    ids: Ids,
    /// First name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Where the walk is.
    path: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, directory: BorrowedFd<'_>) -> Result<(), Error> {
        let names = tree::names(directory).map_err(self.failed())?;
        for name in names {
            let above = self.path.len();
            if above > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.entry(directory, name.to_bytes())?;
            self.path.truncate(above);
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
        let Some(status) = tree::look(parent, name).map_err(self.failed())? else {
            return Ok(());
        };
        if name.starts_with(WHITEOUT) {
            return Err(Error::ReservedName(shown(&self.path)));
        }
        let attributes = xattrs::all_at(parent, name).map_err(self.failed())?;
        if tree::is_whiteout(&status) || xattrs::is_whiteout(&attributes) {
            return self.whiteout(name);
        }
        let kind = match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Symlink,
            SFlag::S_IFIFO => Kind::Fifo,
            SFlag::S_IFCHR => Kind::CharDevice,
            SFlag::S_IFBLK => Kind::BlockDevice,
            // A socket is an address of a running program. No archive format has a way to write one.
            _ => return Ok(()),
        };
        let mut member = Member {
            path: self.path.clone(),
            link: Vec::new(),
            kind,
            mode: status.st_mode & 0o7777,
            uid: self.ids.inside(status.st_uid),
            gid: self.ids.inside(status.st_gid),
            mtime: (status.st_mtime, status.st_mtime_nsec as u32),
            device: (major(status.st_rdev) as u32, minor(status.st_rdev) as u32),
            xattrs: attributes
                .iter()
                .filter(|(name, _)| !xattrs::is_overlays(name.to_bytes()))
                .map(|(name, value)| (name.to_bytes().to_owned(), value.clone()))
                .collect(),
            size: 0,
            parts: None,
        };
        if kind != Kind::Directory && self.is_known(&status, &mut member) {
            return self.append(&member, io::empty());
        }
        match kind {
            Kind::File => {
                let file = File::from(tree::open_own(parent, name, tree::FILE).map_err(self.failed())?);
                member.size = u64::try_from(status.st_size).unwrap_or(0);
                self.append(&member, file)
            }
            Kind::Symlink => {
                member.link = readlinkat(parent, name).map_err(self.failed())?.into_encoded_bytes();
                self.append(&member, io::empty())
            }
            Kind::Directory => {
                self.append(&member, io::empty())?;
                if xattrs::is_opaque(&attributes) {
                    self.marker(&[self.path.as_slice(), b"/", OPAQUE].concat())?;
                }
                let directory = tree::open_own(parent, name, tree::DIRECTORY).map_err(self.failed())?;
                self.directory(directory.as_fd())
            }
            _ => self.append(&member, io::empty()),
        }
    }

    /// Turns the second name of a file into a link to the first.
    fn is_known(&mut self, status: &FileStat, member: &mut Member) -> bool {
        if status.st_nlink < 2 {
            return false;
        }
        match self.links.get(&(status.st_dev, status.st_ino)) {
            Some(first) => {
                member.kind = Kind::HardLink;
                member.link = first.clone();
                true
            }
            None => {
                self.links.insert((status.st_dev, status.st_ino), self.path.clone());
                false
            }
        }
    }

    fn whiteout(&mut self, name: &[u8]) -> Result<(), Error> {
        let parent = &self.path[..self.path.len() - name.len()];
        self.marker(&[parent, WHITEOUT, name].concat())
    }

    fn marker(&mut self, path: &[u8]) -> Result<(), Error> {
        let marker = Member {
            path: path.to_owned(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            size: 0,
            parts: None,
        };
        self.append(&marker, io::empty())
    }

    fn append(&mut self, member: &Member, data: impl io::Read) -> Result<(), Error> {
        self.archive.append(member, data).map_err(|error| Error::Write {
            name: shown(&member.path),
            error,
        })
    }

    fn failed(&self) -> impl Fn(Errno) -> Error + use<W> {
        let path = PathBuf::from(shown(&self.path));
        move |errno| Error::File {
            path: path.clone(),
            errno,
        }
    }
}

/// Why there is no archive.
#[derive(Debug, Error)]
pub enum Error {
    /// A changed file could not be read.
    #[error("cannot pack {}: {}", path.display(), why(errno))]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file whose name means something else in an archive.
    #[error(
        "cannot pack {0:?}: in a layer, a name that starts with \".wh.\" means that the rest of the name is gone. Give it another"
    )]
    ReservedName(String),
    /// The archive could not be written, or the file not be read to its end.
    #[error("cannot pack {name:?}: {error}")]
    Write {
        /// The member.
        name: String,
        /// What is wrong.
        error: io::Error,
    },
}
