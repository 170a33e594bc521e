//! Removing: names first, then what no name and no lease leads to any more.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde::Serialize;
use thiserror::Error;

use super::digest::Digest;
use super::images::{self, Entry};
use super::layers;
use super::reference::Reference;
use super::store::{self, Store};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Names, and IDs of images without one.
    pub images: Vec<String>,
    /// Number of blobs.
    pub blobs: u64,
    /// Number of unpacked layers.
    pub layers: u64,
    /// Bytes the disk has back.
    pub bytes: u64,
}

impl Store {
    /// Takes away what `name` names: a name, or an image with all its names when it is named by ID. An image whose last
    /// name goes is removed, unless a container uses it and `force` is not given. The store is open for exclusive access.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Removed, Error> {
        let entries = self.entries()?;
        let reference = name.parse::<Reference>().ok();
        // By its name even an image goes that cannot be read any more.
        let named = entries
            .iter()
            .find(|entry| entry.name.is_some() && entry.name == reference);
        let (digest, by_name) = match named {
            Some(entry) => (entry.digest, true),
            None => (self.image(name)?.digest, false),
        };
        let goes = |entry: &Entry| match by_name {
            true => entry.name == reference,
            false => entry.digest == digest,
        };
        let stays = entries.iter().any(|entry| entry.digest == digest && !goes(entry));
        if !stays && !force {
            self.check_unused(name, &digest)?;
        }
        let mut removed = Removed::default();
        self.change_index(|entries| {
            entries.retain(|entry| {
                let goes = goes(entry);
                if goes {
                    removed.images.push(shown(entry));
                }
                !goes
            });
        })?;
        self.collect(&mut removed)?;
        Ok(removed)
    }

    /// Removes images without a name, or with `all` every image no container uses; then what nothing leads to. The store
    /// is open for exclusive access.
    pub fn prune(&self, all: bool) -> Result<Removed, Error> {
        let used: HashSet<Digest> = self.leases()?.into_iter().flat_map(|(_, lease)| lease.blobs).collect();
        let mut removed = Removed::default();
        self.change_index(|entries| {
            entries.retain(|entry| {
                let stays = used.contains(&entry.digest) || entry.name.is_some() && !all;
                if !stays {
                    removed.images.push(shown(entry));
                }
                stays
            });
        })?;
        self.collect(&mut removed)?;
        Ok(removed)
    }

    fn check_unused(&self, name: &str, digest: &Digest) -> Result<(), Error> {
        let users: Vec<String> = self
            .leases()?
            .into_iter()
            .filter(|(_, lease)| lease.blobs.contains(digest))
            .map(|(_, lease)| lease.holder)
            .collect();
        match users.is_empty() {
            true => Ok(()),
            false => Err(Error::InUse {
                name: name.to_owned(),
                users: users.join(", "),
            }),
        }
    }

    /// Removes blobs and layers that neither an image of the index nor a lease leads to.
    fn collect(&self, removed: &mut Removed) -> Result<(), Error> {
        let mut blobs = HashSet::new();
        let mut layers = HashSet::new();
        for entry in self.entries()? {
            // An image that cannot be read must not keep everybody from making room; nor must its parts go for that.
            blobs.insert(entry.digest);
            match self.load(&entry) {
                Ok(image) => {
                    blobs.extend(image.blobs());
                    layers.extend(image.chain_ids());
                }
                Err(error) => {
                    return Err(Error::Unreadable {
                        name: shown(&entry),
                        error: Box::new(error),
                    });
                }
            }
        }
        for (_, lease) in self.leases()? {
            blobs.extend(lease.blobs);
            layers.extend(lease.layers);
        }
        for digest in named_by_digest(&self.root().join("blobs/sha256"))? {
            if !blobs.contains(&digest) {
                let path = self.blob_path(&digest);
                removed.bytes += disk_usage(&path);
                fs::remove_file(&path).map_err(store::Error::io("remove", &path))?;
                removed.blobs += 1;
            }
        }
        for chain in named_by_digest(&self.root().join("layers"))? {
            if !layers.contains(&chain) {
                removed.bytes += disk_usage(&self.layer_path(&chain));
                self.remove_layer(&chain)?;
                removed.layers += 1;
            }
        }
        Ok(())
    }
}

fn shown(entry: &Entry) -> String {
    match &entry.name {
        Some(name) => name.familiar(),
        None => entry.digest.to_string(),
    }
}

fn named_by_digest(directory: &Path) -> Result<Vec<Digest>, Error> {
    let read = store::Error::io("read", directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(&read)? {
        let entry = entry.map_err(&read)?;
        found.extend(entry.file_name().to_str().and_then(Digest::from_hex));
    }
    Ok(found)
}

/// Bytes a file, or a directory with all that is in it, takes on the disk. A file with several names counts once.
pub fn disk_usage(path: &Path) -> u64 {
    fn walk(path: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return 0;
        };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert((metadata.dev(), metadata.ino())) {
            return 0;
        }
        let below = match metadata.is_dir() {
            true => fs::read_dir(path)
                .map(|entries| entries.flatten().map(|entry| walk(&entry.path(), seen)).sum())
                .unwrap_or(0),
            false => 0,
        };
        metadata.blocks() * 512 + below
    }
    walk(path, &mut HashSet::new())
}

/// Why something was not removed.
#[derive(Debug, Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An image.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layers::Error),
    /// Somebody relies on it.
    #[error(
        "{name} is in use by {users}. Remove that first; --force takes the name away now and leaves the rest until then"
    )]
    InUse {
        /// The image.
        name: String,
        /// Who uses it.
        users: String,
    },
    /// Nobody can say what it is made of.
    #[error(
        "cannot tell what {name} is made of, so nothing more was removed: {error}. Remove that image by name, then prune again"
    )]
    Unreadable {
        /// The image.
        name: String,
        /// Why not.
        error: Box<images::Error>,
    },
}
