//! The store: where images are kept, and what keeps it whole.
//!
//! ```text
//! STORE/                 closed to everybody else: an image's set-user-id programs are not for the host's users
//!   oci-layout           the store is an OCI image layout, which other programs can read as it is
//!   index.json           which names there are, and the manifest each stands for
//!   blobs/sha256/HEX     manifests, configurations and layers as they came, under the digest of their bytes
//!   layers/HEX/          layers unpacked, under their chain ID: shared by all images built on them
//!     diff/              the directory overlay takes
//!     layer.json         what is in it, and during which boot it was unpacked
//!   leases/NAME          what is in use by a container, or kept for a build
//!   tmp/                 what is not finished
//!   lock, index.lock     locks (flock(2))
//! ```
//!
//! Nothing has a name before it is whole: blobs, layers and the index are made in `tmp/` and moved to their place by
//! rename(2). A command that is killed at any point leaves a piece in `tmp/`, and the next command that finds itself
//! alone clears that away.
//!
//! Against a loss of power, blobs and index are written through to the disk (fsync) before they get their names; what
//! `layers/` has can be made again from the blobs, and is, unless it was unpacked since the machine started: only a
//! restart can lose what the kernel had not written yet.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use thiserror::Error;

use super::digest::Digest;
use super::layer::stream::Hashing;
use super::layer::tree;
use crate::errno::{of, why};

/// Where root's images are.
const ROOTS_STORE: &str = "/var/lib/isolation-lab";
/// The name of an ordinary user's store in the directory for his programs' data.
const USERS_STORE: &str = "isolation-lab";
/// The environment variable that names another store, as `--store` does.
pub const STORE_VARIABLE: &str = "CONTAINER_STORE";

/// The largest blob that is read into memory: manifests and configurations. Registries are to take manifests of 4 MiB
/// (OCI distribution specification, "Pushing Manifests").
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// What a command is going to do with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it or add to it: any number of commands at once.
    Shared,
    /// Take something away: alone, so that nobody's unfinished work loses what it relies on.
    Exclusive,
}

/// An open store.
pub struct Store {
    root: PathBuf,
    _lock: Flock<File>,
}

/// Where the store is, unless the command line or the environment says otherwise.
pub fn default_root() -> Result<PathBuf, Error> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(root) = variable(STORE_VARIABLE) {
        return Ok(root);
    }
    if geteuid().is_root() {
        return Ok(ROOTS_STORE.into());
    }
    // XDG base directory specification: data of a user's programs.
    variable("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .map(|data| data.join(USERS_STORE))
        .ok_or(Error::NoHome)
}

impl Store {
    /// Opens the store at `root`, and makes it if there is none.
    ///
    /// One process may have it open several times for shared access; for exclusive access it would wait for itself.
    pub fn open(root: &Path, access: Access) -> Result<Store, Error> {
        let root = std::path::absolute(root).map_err(Error::io("find", root))?;
        for directory in ["blobs/sha256", "layers", "leases", "tmp"] {
            let path = root.join(directory);
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(Error::io("create", &path))?;
        }
        let lock = open_lock(&root.join("lock"))?;
        let lock = settle(lock, access, &root)?;
        let store = Store { root, _lock: lock };
        let layout = store.root.join("oci-layout");
        if !layout.exists() {
            store.replace(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(store)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file a blob is in, if it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether a blob is there. Its bytes are checked when they are read.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// A blob to be read by somebody who checks its digest on the way, as [`super::layer::stream`] does.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoBlob(*digest),
            _ => Error::io("open", &path)(error),
        })
    }

    /// A manifest or configuration, checked.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let path = self.blob_path(digest);
        let file = self.open_blob(digest)?;
        file.take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", &path))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::TooLarge { digest: *digest });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Damaged {
                path,
                found,
                expected: *digest,
            });
        }
        Ok(bytes)
    }

    /// A blob of any size, which is checked while it is read: the last bytes come as an error if they are not those its
    /// name promises.
    pub fn verified_blob(&self, digest: &Digest) -> Result<VerifiedBlob, Error> {
        let path = self.blob_path(digest);
        let file = self.open_blob(digest)?;
        let size = file.metadata().map_err(Error::io("read", &path))?.len();
        Ok(VerifiedBlob {
            file: Hashing::new(file),
            size,
            digest: *digest,
            path,
        })
    }

    /// A blob to be written.
    pub fn new_blob(&self) -> Result<BlobWriter<'_>, Error> {
        let path = self.temporary_path();
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(BlobWriter {
            store: self,
            file: Hashing::new(file),
            path: Temporary(path),
        })
    }

    /// Stores these bytes as a blob.
    pub fn add_document(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let mut blob = self.new_blob()?;
        blob.write_all(bytes).map_err(Error::io("write", &blob.path.0))?;
        Ok(blob.finish(None)?.0)
    }

    /// A name in `tmp/` nobody else has.
    pub fn temporary_path(&self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A process's number can come back while a dead one's piece is still there; its start cannot.
        let start = protocol::marks::monotonic_ns();
        self.root
            .join("tmp")
            .join(format!("{}-{start}-{number}", std::process::id()))
    }

    /// A directory in `tmp/`, which is removed when it is let go of, unless it was moved to its place before.
    pub fn temporary_directory(&self) -> Result<Temporary, Error> {
        let path = self.temporary_path();
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Temporary(path))
    }

    /// Replaces a small file as a whole: whoever reads it gets the old one or the new one, a crash leaves either.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let temporary = Temporary(self.temporary_path());
        let write = || {
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary.0)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary.0, path)?;
            path.parent().map_or(Ok(()), sync_directory)
        };
        write().map_err(Error::io("replace", path))
    }

    /// Holds the index while it is read, changed and written.
    pub(super) fn lock_index(&self) -> Result<Flock<File>, Error> {
        let path = self.root.join("index.lock");
        Flock::lock(open_lock(&path)?, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Lock { path, errno })
    }
}

/// Takes the lock, and clears away what dead commands left if nobody else is there.
fn settle(lock: File, access: Access, root: &Path) -> Result<Flock<File>, Error> {
    let failed = |errno| Error::Lock {
        path: root.join("lock"),
        errno,
    };
    let alone = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(alone) => alone,
        Err((lock, Errno::EWOULDBLOCK)) if access == Access::Shared => {
            return Flock::lock(lock, FlockArg::LockShared).map_err(|(_, errno)| failed(errno));
        }
        Err((lock, Errno::EWOULDBLOCK)) => {
            eprintln!("container: waiting for other commands that use {}", root.display());
            Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno))?
        }
        Err((_, errno)) => return Err(failed(errno)),
    };
    let tmp = root.join("tmp");
    for entry in fs::read_dir(&tmp).map_err(Error::io("read", &tmp))? {
        let path = entry.map_err(Error::io("read", &tmp))?.path();
        tree::remove_path(&path).map_err(|errno| Error::Remove { path, errno })?;
    }
    if access == Access::Shared {
        // Not in one step (flock(2)): a command that takes things away may come in between, and finds nothing of ours.
        alone.relock(FlockArg::LockShared).map_err(failed)?;
    }
    Ok(alone)
}

fn open_lock(path: &Path) -> Result<File, Error> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open", path))
}

/// Writes a directory's names through to the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file or directory in `tmp/`. Removed when let go of; one that has been moved away is not there any more.
pub struct Temporary(pub PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // The next command tries again.
        let _ = tree::remove_path(&self.0);
    }
}

/// A blob being written: it gets its name when it is whole.
pub struct BlobWriter<'a> {
    store: &'a Store,
    file: Hashing<File>,
    path: Temporary,
}

impl BlobWriter<'_> {
    /// Digest and size, if the bytes are those that were `expected`.
    pub fn finish(self, expected: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let BlobWriter { store, file, path } = self;
        let (file, digest, size) = file.into_parts();
        if let Some(&expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::Damaged {
                path: "the incoming blob".into(),
                found: digest,
                expected,
            });
        }
        // One that is there is replaced by the same bytes; should it be damaged, that mends it.
        let target = store.blob_path(&digest);
        let settle = || {
            file.sync_all()?;
            fs::rename(&path.0, &target)?;
            sync_directory(&store.root.join("blobs/sha256"))
        };
        settle().map_err(Error::io("keep", &target))?;
        Ok((digest, size))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A blob being read.
pub struct VerifiedBlob {
    file: Hashing<File>,
    size: u64,
    digest: Digest,
    path: PathBuf,
}

impl VerifiedBlob {
    /// Its size.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for VerifiedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.file.read(buffer)?;
        let ended = size == 0 || self.file.size() >= self.size;
        if ended && !buffer.is_empty() && self.file.digest() != self.digest {
            return Err(io::Error::other(Error::Damaged {
                path: self.path.clone(),
                found: self.file.digest(),
                expected: self.digest,
            }));
        }
        Ok(size)
    }
}

impl AsFd for Store {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self._lock.as_fd()
    }
}

/// What can go wrong with the store.
#[derive(Debug, Error)]
pub enum Error {
    /// Nowhere to keep images.
    #[error(
        "there is no place for images: neither --store, {STORE_VARIABLE}, XDG_DATA_HOME nor HOME says where. Set one of them"
    )]
    NoHome,
    /// A file could not be used.
    #[error("cannot {verb} {}: {}", path.display(), text(error))]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Something would not go away.
    #[error("cannot remove {}: {}", path.display(), why(errno))]
    Remove {
        /// What.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A lock could not be had.
    #[error("cannot lock {}: {}. The store must be on a file system with flock(2)", path.display(), why(errno))]
    Lock {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A blob is missing.
    #[error("the store has no blob {0}. Get the image again (container image pull, import or build)")]
    NoBlob(Digest),
    /// A blob is not what its name says.
    #[error("{} has the digest {found}, not {expected}: damaged or tampered with. Remove the image and get it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: Digest,
        /// What it should be.
        expected: Digest,
    },
    /// A document beyond reason.
    #[error("the manifest or configuration {digest} has more than {MAX_DOCUMENT} bytes: refused")]
    TooLarge {
        /// Its digest.
        digest: Digest,
    },
}

impl Error {
    /// An error of the standard library, with what was tried on what.
    pub(super) fn io(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |error| Error::File {
            verb,
            path: path.clone(),
            error: match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::other(error.to_string()),
            },
        }
    }
}

fn text(error: &io::Error) -> String {
    let cure = match of(error) {
        Errno::EACCES | Errno::EPERM => ". The store must belong to the user; --store or CONTAINER_STORE names another",
        Errno::ENOSPC | Errno::EDQUOT => ". The file system is full; container image prune may help",
        _ => "",
    };
    match error.raw_os_error() {
        Some(number) => why(&Errno::from_raw(number)) + cure,
        None => error.to_string(),
    }
}
