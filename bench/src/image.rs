//! The image both sides run: one root directory, and the same directory packed as the guest's initrd.
//!
//! The race means something only when the workload is the same on every side, byte for byte. So the bytes are hashed
//! where each contender will find them, in the directory and inside the archive, and a difference ends the comparison.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::launchers::sha256;
use crate::leftovers::Folder;

/// The workload's path inside every root.
pub const PROGRAM: &str = "/bin/workload";

/// Mount points and folders programs expect. A read-only root cannot grow them later.
const FOLDERS: [&str; 6] = ["bin", "dev", "etc", "proc", "sys", "tmp"];

/// Everybody may read it: a container's user may be anybody.
const READABLE: u32 = 0o755;

/// What keeps the image from being made, or from being one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of it could not be written or read.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The initrd is no newc archive with the workload in it.
    #[error("the initrd {} {problem}", path.display())]
    Archive {
        /// The initrd.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The sides would not run the same program.
    #[error(
        "the workload differs: {expected} is the lab's own, {found} is in {}. The race would compare two programs: \
         nothing was measured",
        place.display()
    )]
    Differs {
        /// SHA-256 of the workload the lab carries.
        expected: String,
        /// SHA-256 of what lies there.
        found: String,
        /// The file or archive.
        place: PathBuf,
    },
}

/// The prepared image. Its files go when the value goes.
#[derive(Debug)]
pub struct Image {
    folder: Folder,
}

impl Image {
    /// Writes the root directory and packs it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn build() -> Result<Image, Error> {
        let folder = Folder::new().map_err(|source| Error::File {
            what: "make a directory in",
            path: std::env::temp_dir(),
            source,
        })?;
        let image = Image { folder };
        let readable = |path: &Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(READABLE)).map_err(file("set the mode of", path))
        };
        readable(image.folder.path())?;
        for name in FOLDERS {
            let path = image.rootfs().join(name);
            fs::create_dir_all(&path).map_err(file("make", &path))?;
            readable(&path)?;
        }
        readable(&image.rootfs())?;
        let program = image.program();
        fs::write(&program, guest_images::WORKLOAD).map_err(file("write", &program))?;
        readable(&program)?;
        let archive = vmm::cpio::pack_directory(&image.rootfs()).map_err(|error| Error::Archive {
            path: image.initrd(),
            problem: format!("could not be made: {error}"),
        })?;
        fs::write(image.initrd(), archive).map_err(file("write", &image.initrd()))?;
        Ok(image)
    }

    /// A folder for whatever else a contender needs. It goes with the image.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root directory.
    pub fn rootfs(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// The workload as the host sees it.
    pub fn program(&self) -> PathBuf {
        self.rootfs().join(&PROGRAM[1..])
    }

    /// The root directory as a newc cpio archive.
    pub fn initrd(&self) -> PathBuf {
        self.folder.path().join("initrd.cpio")
    }

    /// Hashes the workload in the root directory and refuses any but the lab's own.
    ///
    /// # Errors
    /// [`Error::Differs`], or why it could not be read.
    pub fn verify_rootfs(&self) -> Result<String, Error> {
        let path = self.program();
        let bytes = fs::read(&path).map_err(file("read", &path))?;
        same(&bytes, path)
    }

    /// Hashes the workload inside the initrd and refuses any but the lab's own.
    ///
    /// # Errors
    /// [`Error::Differs`], [`Error::Archive`], or why it could not be read.
    pub fn verify_initrd(&self) -> Result<String, Error> {
        let path = self.initrd();
        let archive = fs::read(&path).map_err(file("read", &path))?;
        match vmm::cpio::find(&archive, &PROGRAM.as_bytes()[1..]) {
            Ok(bytes) => same(bytes, path),
            Err(problem) => Err(Error::Archive {
                path,
                problem: problem.to_string(),
            }),
        }
    }
}

fn same(bytes: &[u8], place: PathBuf) -> Result<String, Error> {
    let (expected, found) = (sha256(guest_images::WORKLOAD), sha256(bytes));
    if expected == found {
        return Ok(found);
    }
    Err(Error::Differs { expected, found, place })
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_hold_the_same_bytes() {
        let image = Image::build().unwrap();
        assert_eq!(image.verify_rootfs().unwrap(), image.verify_initrd().unwrap());
    }

    #[test]
    fn a_changed_file_is_refused() {
        let image = Image::build().unwrap();
        fs::write(image.program(), b"another program").unwrap();
        assert!(matches!(image.verify_rootfs(), Err(Error::Differs { .. })));
    }

    #[test]
    fn a_changed_byte_in_the_archive_is_refused() {
        let image = Image::build().unwrap();
        let mut archive = fs::read(image.initrd()).unwrap();
        let magic = archive.windows(4).position(|bytes| bytes == b"\x7fELF").unwrap();
        archive[magic + 100] ^= 1;
        fs::write(image.initrd(), archive).unwrap();
        assert!(matches!(image.verify_initrd(), Err(Error::Differs { .. })));
    }

    #[test]
    fn a_truncated_archive_says_where() {
        let image = Image::build().unwrap();
        let archive = fs::read(image.initrd()).unwrap();
        fs::write(image.initrd(), &archive[..archive.len() / 2]).unwrap();
        let error = image.verify_initrd().unwrap_err().to_string();
        assert!(error.contains("ends in the middle"), "{error}");
    }
}
