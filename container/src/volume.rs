//! Volumes: directories with a name, which outlive the containers they are mounted in.
//!
//! A container's own files are an overlay that goes when the container goes. A volume is a plain directory of the host,
//! bind-mounted. The first container that mounts an empty one over a directory of its image finds that directory's
//! content in it, owners included: an image can bring along what a volume starts with.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, chown};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::engine::naming;
use crate::errno::{of, why};

/// The directories of one user's volumes.
#[derive(Clone, Debug)]
pub struct Volumes {
    directory: PathBuf,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Whether it was made for one container, which did not name it.
    pub anonymous: bool,
    /// Whether a container has mounted it: only an unused one takes an image's content.
    pub used: bool,
}

impl Volumes {
    /// Those kept in `directory`.
    pub fn new(directory: PathBuf) -> Volumes {
        Volumes { directory }
    }

    /// Where a volume's files are.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("data")
    }

    /// Makes a volume, unless there is one with this name.
    pub fn create(&self, name: &str, anonymous: bool) -> Result<Volume, Error> {
        if !naming::is_valid(name) {
            return Err(Error::Name(name.to_owned()));
        }
        let _lock = self.lock()?;
        if let Some(volume) = self.read(name)? {
            return Ok(volume);
        }
        let volume = Volume {
            name: name.to_owned(),
            created: crate::engine::logs::now(),
            anonymous,
            used: false,
        };
        let directory = self.directory.join(name);
        // Left by a creation that was killed before it wrote volume.json.
        remove_tree(&directory)?;
        let make = |path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            made.map_err(Error::io("create", path))
        };
        make(&self.data(name))?;
        self.write(&volume)?;
        Ok(volume)
    }

    /// The volume with this name.
    pub fn find(&self, name: &str) -> Result<Volume, Error> {
        let volume = match naming::is_valid(name) {
            true => self.read(name)?,
            false => None,
        };
        volume.ok_or_else(|| Error::NoSuch(name.to_owned()))
    }

    /// Every volume, by name.
    pub fn all(&self) -> Result<Vec<Volume>, Error> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(Error::io("list", &self.directory))? {
            let entry = entry.map_err(Error::io("list", &self.directory))?;
            if let Some(name) = entry.file_name().to_str()
                && entry.path().is_dir()
            {
                all.extend(self.read(name)?);
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Removes a volume, with what is in it. `user` finds a container that mounts it.
    pub fn remove(&self, name: &str, user: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
        self.find(name)?;
        let _lock = self.lock()?;
        if let Some(container) = user(name) {
            return Err(Error::InUse {
                name: name.to_owned(),
                container,
            });
        }
        // Its description first: a removal that is interrupted leaves a directory that the next creation clears away.
        let description = self.description(name);
        fs::remove_file(&description).map_err(Error::io("remove", &description))?;
        remove_tree(&self.directory.join(name))
    }

    /// Before a container mounts it: fills it with what the image has at `image`, if it was never used. `ids_from` is what
    /// the owners there are shifted by: in a volume they are as in the image itself.
    pub fn first_use(&self, name: &str, image: Option<&Path>, ids_from: u32) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut volume = self.read(name)?.ok_or_else(|| Error::NoSuch(name.to_owned()))?;
        if volume.used {
            return Ok(());
        }
        let data = self.data(name);
        let is_empty = fs::read_dir(&data).map_err(Error::io("list", &data))?.next().is_none();
        if let Some(image) = image.filter(|image| is_empty && image.is_dir()) {
            copy_tree(image, &data, ids_from)?;
        }
        volume.used = true;
        self.write(&volume)
    }

    fn lock(&self) -> Result<Flock<File>, Error> {
        let path = self.directory.join("lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Io {
            action: "lock",
            path,
            errno,
        })
    }

    fn description(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("volume.json")
    }

    fn read(&self, name: &str) -> Result<Option<Volume>, Error> {
        let path = self.description(name);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| Error::Garbled {
                path,
                reason: error.to_string(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    fn write(&self, volume: &Volume) -> Result<(), Error> {
        let path = self.description(&volume.name);
        let beside = path.with_extension("new");
        // Strings and flags: cannot fail.
        let text = serde_json::to_vec(volume).unwrap_or_default();
        let write = || {
            File::create(&beside)?
                .write_all(&text)
                .and_then(|()| fs::rename(&beside, &path))
        };
        write().map_err(Error::io("write", &path))
    }
}

/// Copies what is in the directory `from` into `to`, with kinds, owners, permissions and times. Nothing is followed:
/// a symbolic link is copied as a link.
fn copy_tree(from: &Path, to: &Path, ids_from: u32) -> Result<(), Error> {
    copy_attributes(from, to, ids_from)?;
    for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
        let entry = entry.map_err(Error::io("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(Error::io("look at", &source))?;
        if kind.is_dir() {
            fs::create_dir(&target).map_err(Error::io("create", &target))?;
            copy_tree(&source, &target, ids_from)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(Error::io("read", &source))?;
            std::os::unix::fs::symlink(link, &target).map_err(Error::io("create", &target))?;
            let metadata = fs::symlink_metadata(&source).map_err(Error::io("look at", &source))?;
            let (uid, gid) = unshifted(&metadata, ids_from);
            std::os::unix::fs::lchown(&target, Some(uid), Some(gid)).map_err(Error::io("give away", &target))?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(Error::io("copy", &source))?;
            copy_attributes(&source, &target, ids_from)?;
        }
        // Devices, pipes and sockets of an image mean nothing in a volume.
    }
    Ok(())
}

/// Owner first: changing it takes set-user-id bits away.
fn copy_attributes(from: &Path, to: &Path, ids_from: u32) -> Result<(), Error> {
    let metadata = fs::metadata(from).map_err(Error::io("look at", from))?;
    let (uid, gid) = unshifted(&metadata, ids_from);
    chown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(|errno| Error::Io {
        action: "give away",
        path: to.to_owned(),
        errno,
    })?;
    fs::set_permissions(to, metadata.permissions()).map_err(Error::io("set the permissions of", to))
}

/// Owner and group as they were before they were shifted by `ids_from`. What was beyond the range is nobody's (65534).
fn unshifted(metadata: &fs::Metadata, ids_from: u32) -> (u32, u32) {
    let back = |id: u32| id.checked_sub(ids_from).unwrap_or(65534);
    (back(metadata.uid()), back(metadata.gid()))
}

/// Removes a directory and what is in it, whatever its permissions are; that there is none is as good.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            // An ordinary user's own directories may forbid him to read them: overlay makes such a one, and so may a
            // program in a container.
            open_up(path);
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
                _ => Ok(()),
            }
        }
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

fn open_up(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        // Of the entry itself: a symbolic link is not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// What is wrong with a volume.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody has this name.
    #[error("no volume {0}: container volume ls lists those there are")]
    NoSuch(String),
    /// Not a name.
    #[error(
        "{0:?} is no name for a volume: 1 to 63 letters, digits, _ . and -, the first a letter or a digit. A directory of the host is given by its absolute path"
    )]
    Name(String),
    /// A container mounts it.
    #[error("volume {name} is in use by container {container}: remove that one first (container rm {container})")]
    InUse {
        /// The volume.
        name: String,
        /// The container.
        container: String,
    },
    /// A file.
    #[error("cannot {action} {}: {}", path.display(), why(errno))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file's content.
    #[error("{} cannot be understood: {reason}", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Io {
            action,
            path: path.to_owned(),
            errno: of(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_use_fills_a_volume_and_no_later_one() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        fs::create_dir_all(image.join("sub")).unwrap();
        fs::write(image.join("sub/file"), "from the image").unwrap();
        fs::set_permissions(image.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", image.join("link")).unwrap();
        fs::create_dir(directory.path().join("volumes")).unwrap();
        let volumes = Volumes::new(directory.path().join("volumes"));
        volumes.create("data", false).unwrap();
        volumes.first_use("data", Some(&image), 0).unwrap();
        let file = volumes.data("data").join("sub/file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "from the image");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        let link = volumes.data("data").join("link");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("/etc/shadow"));

        fs::remove_dir_all(volumes.data("data").join("sub")).unwrap();
        volumes.first_use("data", Some(&image), 0).unwrap();
        assert!(!file.exists(), "only the first use");
    }

    #[test]
    fn a_volume_in_use_stays() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(directory.path().to_owned());
        volumes.create("data", false).unwrap();
        let refused = volumes.remove("data", |_| Some("web".into())).unwrap_err();
        assert!(refused.to_string().contains("in use by container web"));
        volumes.remove("data", |_| None).unwrap();
        assert!(matches!(volumes.find("data"), Err(Error::NoSuch(_))));
        assert!(volumes.create("../data", false).is_err());
        assert!(volumes.all().unwrap().is_empty());
    }
}
