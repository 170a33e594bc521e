//! Copy-on-write for a disk: a second file that holds what was written, and a map that says which sectors those are.
//!
//! The union file system of a container image does the same with files; here the unit is the sector, and nothing knows
//! what is in it. A disk is only ever written in whole sectors, so nothing is copied before it is changed: a write goes to
//! the overlay and sets bits, a read asks the map for each stretch whose file has it.
//!
//! The overlay is as large as the disk and sparse: the host's file system keeps blocks for what was written and for nothing else. (The
//! holes themselves could serve as the map. But copying a file may fill holes or make new ones out of zeros, and then
//! the disk would change.) A scratch overlay is a file that never had a name, so that no way of ending can leave it
//! behind. A named one is a disk's second half, to be used again with the same disk:
//!
//! ```text
//!   0       | "labcow1\n", then the number of sectors (8 bytes, little-endian) |
//!   4096    | the map: one bit per sector                                      |
//!   ...     | at the next multiple of 4096: the sectors, each at its place     |
//! ```
//!
//! The map is written on the guest's flush, after the data it speaks of: cut off in between, the overlay shows the sector
//! as it was. A guest that wants to be sure flushes, as it must with any disk; the end of the VM is a flush, too.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::buffers::Buffers;
use super::disk::{self, SECTOR};

const MAGIC: &[u8; 8] = b"labcow1\n";
/// Magic and number of sectors.
const HEADER: usize = 16;
/// What the parts of the file are aligned to.
const BLOCK: u64 = 4096;

/// No byte of the map.
const NOTHING: (usize, usize) = (usize::MAX, 0);

/// An overlay could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot use the overlay {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No room for a scratch one.
    #[error("cannot make a scratch overlay in {folder}: {source}. TMPDIR names another folder")]
    Scratch {
        /// Where.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else.
    #[error("{0} is not an overlay of this lab, and is left alone. Name a file that does not exist, and it is made")]
    Foreign(PathBuf),
    /// Of another disk.
    #[error("the overlay {path} belongs to a disk of {found} sectors, and this one has {wanted}")]
    Size {
        /// Which.
        path: PathBuf,
        /// Its disk's.
        found: u64,
        /// This disk's.
        wanted: u64,
    },
    /// Somebody else has it.
    #[error("the overlay {0} is in use by another VM. Give each its own")]
    Busy(PathBuf),
}

/// An open overlay.
pub struct Overlay {
    file: File,
    /// One bit per sector: it is in `file`. Zeroed memory, so that only the parts in use are ever real.
    map: Vec<u8>,
    /// First sector of the data within the file.
    data: u64,
    /// It has a name, and the map is to be in the file.
    kept: bool,
    /// Bytes of the map that changed since it was last written: from, up to.
    unsaved: (usize, usize),
}

/// Sectors in a row that are all in the overlay, or all not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub sectors: u64,
    /// They are in the overlay.
    pub written: bool,
}

impl Overlay {
    /// A scratch overlay, gone when it is dropped.
    ///
    /// # Errors
    /// See [`Error::Scratch`].
    pub fn unnamed(sectors: u64) -> Result<Overlay, Error> {
        let failed = |source| Error::Scratch {
            folder: std::env::temp_dir(),
            source,
        };
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Overlay::over(file, sectors, false))
    }

    /// The overlay in the file `path`, made if there is none.
    ///
    /// # Errors
    /// When the file is something else, of another disk, or in use.
    pub fn named(path: &Path, sectors: u64) -> Result<Overlay, Error> {
        let failed = |source| Error::File {
            path: path.into(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(path.into())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut overlay = Overlay::over(file, sectors, true);
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..].copy_from_slice(&sectors.to_le_bytes());
        if overlay.file.metadata().map_err(failed)?.len() == 0 {
            overlay
                .file
                .set_len((overlay.data + sectors) * SECTOR)
                .map_err(failed)?;
            overlay.file.write_all_at(&header, 0).map_err(failed)?;
            return Ok(overlay);
        }
        let mut found = [0; HEADER];
        match overlay.file.read_exact_at(&mut found, 0) {
            Ok(()) if found[..8] == *MAGIC => {}
            Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => return Err(failed(source)),
            _ => return Err(Error::Foreign(path.into())),
        }
        if found != header {
            let mut number = [0; 8];
            number.copy_from_slice(&found[8..]);
            return Err(Error::Size {
                path: path.into(),
                found: u64::from_le_bytes(number),
                wanted: sectors,
            });
        }
        overlay.file.read_exact_at(&mut overlay.map, BLOCK).map_err(failed)?;
        Ok(overlay)
    }

    fn over(file: File, sectors: u64, kept: bool) -> Overlay {
        let map = sectors.div_ceil(8);
        Overlay {
            file,
            map: vec![0; map as usize],
            data: (BLOCK + map.next_multiple_of(BLOCK)) / SECTOR,
            kept,
            unsaved: NOTHING,
        }
    }

    /// How many of at most `most` sectors from `sector` on share the first one's fate.
    pub fn run(&self, sector: u64, most: u64) -> Run {
        let has = |sector: u64| self.map[(sector / 8) as usize] & (1 << (sector % 8)) != 0;
        let written = has(sector);
        let others = (1..most).take_while(|&next| has(sector + next) == written).count();
        Run {
            sectors: 1 + others as u64,
            written,
        }
    }

    /// Fills `buffers` from sectors that are in the overlay.
    ///
    /// # Errors
    /// The file's.
    pub fn read(&self, sector: u64, buffers: Buffers<'_>) -> io::Result<()> {
        disk::read_at(&self.file, self.data + sector, buffers)
    }

    /// Writes sectors, which are in the overlay from then on.
    ///
    /// # Errors
    /// The file's.
    pub fn write(&mut self, sector: u64, buffers: Buffers<'_>) -> io::Result<()> {
        let sectors = buffers.length() as u64 / SECTOR;
        disk::write_at(&self.file, self.data + sector, buffers)?;
        for sector in sector..sector + sectors {
            let byte = (sector / 8) as usize;
            self.map[byte] |= 1 << (sector % 8);
            let (from, to) = self.unsaved;
            self.unsaved = (from.min(byte), to.max(byte + 1));
        }
        Ok(())
    }

    /// Writes the map, if it is to be kept, once the data is safe.
    ///
    /// # Errors
    /// The file's.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.kept {
            return Ok(());
        }
        self.file.sync_data()?;
        let (from, to) = self.unsaved;
        if from < to {
            self.file.write_all_at(&self.map[from..to], BLOCK + from as u64)?;
            self.file.sync_data()?;
            self.unsaved = NOTHING;
        }
        Ok(())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            eprintln!("vmm: cannot save what was written to a disk's overlay: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::VolatileSlice;

    use super::*;

    fn write(overlay: &mut Overlay, sector: u64, byte: u8) {
        let mut bytes = [byte; SECTOR as usize];
        let mut buffers = Buffers::default();
        buffers.push(VolatileSlice::from(&mut bytes[..]));
        overlay.write(sector, buffers).unwrap();
    }

    #[test]
    fn runs_end_where_the_map_changes() {
        let mut overlay = Overlay::unnamed(100).unwrap();
        for sector in [7, 8, 9, 99] {
            write(&mut overlay, sector, 1);
        }
        let run = |sector, most| {
            let Run { sectors, written } = overlay.run(sector, most);
            (sectors, written)
        };
        assert_eq!(run(0, 100), (7, false));
        assert_eq!(run(7, 93), (3, true));
        assert_eq!(run(8, 1), (1, true));
        assert_eq!(run(10, 90), (89, false));
        assert_eq!(run(99, 1), (1, true));
    }

    #[test]
    fn what_was_flushed_is_there_after_a_crash_and_what_was_not_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay");
        let mut overlay = Overlay::named(&path, 64).unwrap();
        write(&mut overlay, 5, 1);
        overlay.flush().unwrap();
        write(&mut overlay, 40, 1);
        assert!(matches!(Overlay::named(&path, 64), Err(Error::Busy(_))));
        // A crash: the file as it is now, without the flush that dropping it makes.
        let copy = folder.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        drop(overlay);
        let [crashed, ended] = [copy, path].map(|path| Overlay::named(&path, 64).unwrap());
        assert_eq!((crashed.run(5, 1).written, crashed.run(40, 1).written), (true, false));
        assert_eq!((ended.run(5, 1).written, ended.run(40, 1).written), (true, true));
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in [&b"letter to a friend, longer than a header"[..], b"x"] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(Overlay::named(&path, 64), Err(Error::Foreign(_))));
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        drop(Overlay::named(&path, 64).unwrap());
        let error = Overlay::named(&path, 65).map(drop).unwrap_err().to_string();
        assert!(error.contains("64 sectors") && error.contains("65"), "{error}");
    }
}
