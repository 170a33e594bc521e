//! What is behind a disk: a file, used in one of three ways.
//!
//! `FILE` is written to. `FILE:ro` cannot be: the guest is told so, and the file is not even open for writing. `FILE:cow`
//! looks writable and never changes: what the guest writes goes into an [overlay].

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::buffers::Buffers;
use super::overlay::{self, Overlay};

/// The unit virtio counts a disk in, whatever the disk's own is (Virtio 1.2, section 5.2.4).
pub const SECTOR: u64 = 512;

/// A disk to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The file.
    pub file: PathBuf,
    /// How it is used.
    pub mode: Mode,
}

/// How a disk's file is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Read and written.
    Writable,
    /// Read.
    ReadOnly,
    /// Read; written to an overlay without a name, which is gone at the end.
    Scratch,
    /// Read; written to this overlay, which is kept.
    Overlay(PathBuf),
}

impl FromStr for Spec {
    type Err = String;

    /// `FILE`, `FILE:ro`, `FILE:cow` or `FILE:cow=OVERLAY`.
    fn from_str(text: &str) -> Result<Spec, String> {
        let (file, mode) = match text.rsplit_once(':') {
            Some((file, "ro")) => (file, Mode::ReadOnly),
            Some((file, "cow")) => (file, Mode::Scratch),
            _ => match text.rsplit_once(":cow=") {
                Some((file, overlay)) => (file, Mode::Overlay(overlay.into())),
                None => (text, Mode::Writable),
            },
        };
        if file.is_empty() {
            return Err("no file is named. FILE, FILE:ro (read-only), FILE:cow (changes are discarded) or FILE:cow=OVERLAY (changes are kept in the file OVERLAY)".into());
        }
        Ok(Spec {
            file: file.into(),
            mode,
        })
    }
}

/// A disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot open the disk {file}: {source}{cure}")]
    Open {
        /// Which.
        file: PathBuf,
        /// Why not.
        source: io::Error,
        /// What to do.
        cure: &'static str,
    },
    /// Not whole sectors.
    #[error(
        "the disk {file} has {bytes} bytes, which is not a number of {SECTOR}-byte sectors above 0. Make it one with: truncate -s %{SECTOR} {file}"
    )]
    Size {
        /// Which.
        file: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Somebody else has it.
    #[error(
        "the disk {file} is in use by another VM{how}. Two guests that write to one file system destroy it; give each its own view with {file}:cow"
    )]
    Busy {
        /// Which.
        file: PathBuf,
        /// In which way.
        how: &'static str,
    },
    /// The overlay.
    #[error(transparent)]
    Overlay(#[from] overlay::Error),
}

/// An open disk.
pub struct Disk {
    spec: Spec,
    file: File,
    sectors: u64,
    overlay: Option<Overlay>,
}

impl Disk {
    /// Opens it, and keeps other VMs from using it in a way that does not go together with ours.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(spec: &Spec) -> Result<Disk, Error> {
        let path = &spec.file;
        let writable = spec.mode == Mode::Writable;
        let failed = |source: io::Error| Error::Open {
            file: path.clone(),
            cure: match source.kind() {
                io::ErrorKind::PermissionDenied if writable => {
                    ". It is opened for writing; to read it only, add :ro, or :cow to discard what is written"
                }
                io::ErrorKind::NotFound => ". Make an empty one with: truncate -s 64M FILE",
                _ => "",
            },
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)
            .map_err(failed)?;
        // A block device has no length in its metadata, but an end.
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if bytes == 0 || !bytes.is_multiple_of(SECTOR) {
            return Err(Error::Size {
                file: path.clone(),
                bytes,
            });
        }
        // Released by the kernel when the file is closed, however we end.
        let locked = if writable {
            file.try_lock()
        } else {
            file.try_lock_shared()
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy {
                    file: path.clone(),
                    how: if writable { "" } else { " that writes to it" },
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let sectors = bytes / SECTOR;
        let overlay = match &spec.mode {
            Mode::Writable | Mode::ReadOnly => None,
            Mode::Scratch => Some(Overlay::unnamed(sectors)?),
            Mode::Overlay(path) => Some(Overlay::named(path, sectors)?),
        };
        Ok(Disk {
            spec: spec.clone(),
            file,
            sectors,
            overlay,
        })
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether the guest may write to it.
    pub fn writable(&self) -> bool {
        self.spec.mode != Mode::ReadOnly
    }

    /// Fills `buffers`, whole sectors of this disk, from `sector` on.
    ///
    /// # Errors
    /// The file's.
    pub fn read(&self, sector: u64, mut buffers: Buffers<'_>) -> io::Result<()> {
        let Some(overlay) = &self.overlay else {
            return read_at(&self.file, sector, buffers);
        };
        let mut at = sector;
        while !buffers.is_empty() {
            let run = overlay.run(at, buffers.length() as u64 / SECTOR);
            let part = buffers.split_off_front((run.sectors * SECTOR) as usize);
            match run.written {
                true => overlay.read(at, part)?,
                false => read_at(&self.file, at, part)?,
            }
            at += run.sectors;
        }
        Ok(())
    }

    /// Writes `buffers`, whole sectors of this disk, from `sector` on.
    ///
    /// # Errors
    /// The file's; EROFS where the guest was told not to write.
    pub fn write(&mut self, sector: u64, buffers: Buffers<'_>) -> io::Result<()> {
        match (&self.spec.mode, &mut self.overlay) {
            (Mode::ReadOnly, _) => Err(io::Error::from_raw_os_error(libc::EROFS)),
            (_, Some(overlay)) => overlay.write(sector, buffers),
            (_, None) => write_at(&self.file, sector, buffers),
        }
    }

    /// Waits until what was written is on the medium. A scratch overlay is on none.
    ///
    /// # Errors
    /// The file's.
    pub fn flush(&mut self) -> io::Result<()> {
        match (&self.spec.mode, &mut self.overlay) {
            (Mode::Writable, _) => self.file.sync_data(),
            (_, Some(overlay)) => overlay.flush(),
            (_, None) => Ok(()),
        }
    }
}

/// How messages call it.
impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk {}", self.spec.file.display())
    }
}

/// Fills `buffers` from this sector of `file` on.
pub(super) fn read_at(file: &File, sector: u64, buffers: Buffers<'_>) -> io::Result<()> {
    // SAFETY: the list is of memory that outlives the call.
    move_at(sector, buffers, |list, count, at| unsafe {
        libc::preadv(file.as_raw_fd(), list, count, at)
    })
}

/// Writes `buffers` from this sector of `file` on.
pub(super) fn write_at(file: &File, sector: u64, buffers: Buffers<'_>) -> io::Result<()> {
    // SAFETY: as above.
    move_at(sector, buffers, |list, count, at| unsafe {
        libc::pwritev(file.as_raw_fd(), list, count, at)
    })
}

fn move_at(
    sector: u64,
    mut buffers: Buffers<'_>,
    mut call: impl FnMut(*const libc::iovec, libc::c_int, libc::off_t) -> libc::ssize_t,
) -> io::Result<()> {
    let mut at = sector * SECTOR;
    while !buffers.is_empty() {
        match buffers.transfer(|list, count| call(list, count, at as libc::off_t))? {
            // Somebody has made the file shorter since it was opened.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            moved => at += moved as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_named_with_its_mode() {
        for (text, file, mode) in [
            ("a.img", "a.img", Mode::Writable),
            ("a.img:ro", "a.img", Mode::ReadOnly),
            ("a:b:cow", "a:b", Mode::Scratch),
            ("a.img:cow=b:c", "a.img", Mode::Overlay("b:c".into())),
            ("a:rw", "a:rw", Mode::Writable),
        ] {
            let file = file.into();
            assert_eq!(text.parse(), Ok(Spec { file, mode }), "{text}");
        }
        assert!(":ro".parse::<Spec>().unwrap_err().contains("no file is named"));
    }

    #[test]
    fn what_is_no_disk_is_refused_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, bytes: Option<usize>, mode| {
            let file = folder.path().join(name);
            if let Some(bytes) = bytes {
                std::fs::write(&file, vec![0; bytes]).unwrap();
            }
            Disk::open(&Spec { file, mode }).map_err(|error| error.to_string())
        };
        let refused = |opened: Result<Disk, String>, part: &str| {
            let error = opened.map(drop).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused(open("missing", None, Mode::Writable), "truncate -s 64M");
        refused(open("empty", Some(0), Mode::ReadOnly), "truncate -s %512");
        refused(open("odd", Some(1000), Mode::Scratch), "has 1000 bytes");
        // One writer alone, or any number of readers.
        let writer = open("disk", Some(512), Mode::Writable).unwrap();
        refused(
            open("disk", None, Mode::ReadOnly),
            "in use by another VM that writes to it",
        );
        refused(open("disk", None, Mode::Writable), "in use by another VM");
        drop(writer);
        let reader = open("disk", None, Mode::ReadOnly).unwrap();
        let _another = open("disk", None, Mode::Scratch).unwrap();
        refused(open("disk", None, Mode::Writable), ":cow");
        assert_eq!(reader.sectors(), 1);
    }
}
