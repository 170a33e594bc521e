//! Leases: what must not be removed, and for whom.
//!
//! A container's root is made of layers that nobody may take away while it is there, even when the image has lost its
//! name. So whoever makes a container leaves a file in `leases/` that says what it stands on. A lease lasts until it is
//! given back; one that belongs to a process lasts no longer than the process, whatever ended it: the lock on its file
//! goes with it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::images::Image;
use super::store::{Error, Store};

/// What a lease keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// For whom, in words: `container web`.
    pub holder: String,
    /// Blobs, the manifest's among them.
    pub blobs: Vec<Digest>,
    /// Unpacked layers, by their chain IDs.
    pub layers: Vec<Digest>,
    /// Whether it ends with a process.
    #[serde(default)]
    pub while_locked: bool,
}

impl Lease {
    /// Keeps an image, whole and unpacked.
    pub fn of(image: &Image, holder: impl Into<String>) -> Lease {
        Lease {
            holder: holder.into(),
            blobs: image.blobs(),
            layers: image.chain_ids(),
            while_locked: false,
        }
    }
}

/// A lease that ends with this process, or when it is let go of.
pub struct ProcessLease {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for ProcessLease {
    fn drop(&mut self) {
        // Left behind, it is recognised by its lock, which nobody holds any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    fn lease_path(&self, name: &str) -> PathBuf {
        self.root().join("leases").join(name)
    }

    /// Leaves a lease until [`Store::release`]. The name is one file name; an older lease of the same name is replaced.
    pub fn lease(&self, name: &str, lease: &Lease) -> Result<(), Error> {
        let path = self.lease_path(name);
        let text = serde_json::to_vec(lease).map_err(|error| Error::io("write", &path)(error.into()))?;
        self.replace(&path, &text)
    }

    /// Gives a lease back; one that is not there is given back already.
    pub fn release(&self, name: &str) -> Result<(), Error> {
        let path = self.lease_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Leaves a lease for as long as the result, or this process, lasts.
    pub fn lease_for_process(&self, mut lease: Lease) -> Result<ProcessLease, Error> {
        lease.while_locked = true;
        let name = format!("process-{}-{}", std::process::id(), protocol::marks::monotonic_ns());
        let path = self.lease_path(&name);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        // Locked before there is anything in it: nobody takes it for a dead process's.
        let mut lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Lock {
            path: path.clone(),
            errno,
        })?;
        serde_json::to_writer(&mut *lock, &lease).map_err(|error| Error::io("write", &path)(error.into()))?;
        lock.flush().map_err(Error::io("write", &path))?;
        Ok(ProcessLease { path, _lock: lock })
    }

    /// All leases that hold, by name. Those of dead processes are removed; nobody else uses the store meanwhile if it
    /// was opened for exclusive access.
    pub fn leases(&self) -> Result<Vec<(String, Lease)>, Error> {
        let directory = self.root().join("leases");
        let read = Error::io("read", &directory);
        let mut leases = Vec::new();
        for entry in fs::read_dir(&directory).map_err(&read)? {
            let entry = entry.map_err(&read)?;
            let path = entry.path();
            let text = match fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::io("read", &path))?,
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            let of_process = name.starts_with("process-");
            if of_process && self.is_abandoned(&path)? {
                let _ = fs::remove_file(&path);
                continue;
            }
            match serde_json::from_slice(&text) {
                Ok(lease) => leases.push((name, lease)),
                // Being written at this moment, which exclusive access rules out: nothing to rely on then.
                Err(_) if of_process => {}
                Err(error) => return Err(Error::io("understand", &path)(error.into())),
            }
        }
        leases.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(leases)
    }

    fn is_abandoned(&self, path: &std::path::Path) -> Result<bool, Error> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            other => other.map_err(Error::io("open", path))?,
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(true),
            Err((_, Errno::EWOULDBLOCK)) => Ok(false),
            Err((_, errno)) => Err(Error::Lock {
                path: path.to_owned(),
                errno,
            }),
        }
    }
}
