//! The build cache: what a step made, under the name of everything that could change it.
//!
//! A step's key is a hash over the layers below it, the instruction as it is carried out (variables replaced, user, working
//! directory, environment, build arguments in sight) and, for COPY and ADD, every file's name, permissions and bytes.
//! Equal keys, equal layer; nothing else is looked at: not times, not the Dockerfile's name, not the steps after it.
//!
//! The layers below are named by their content too. A step that is carried out again and makes the same files leaves all
//! steps after it cached.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::sources::Hash;
use crate::image::digest::Digest;
use crate::image::layers::LayerBlob;
use crate::image::store::{self, Store};

/// Changes with the meaning of keys or of what is made from them.
const VERSION: &str = "build 1";

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its layer; `None` when it changed no file.
    pub layer: Option<LayerBlob>,
    /// When, as RFC 3339 has it.
    pub created: String,
}

/// A key in the making: fields, one after the other.
pub struct Key(Sha256);

impl Key {
    /// The key of a step of this kind, on top of these layers.
    pub fn new(kind: &str, below: &[Digest]) -> Key {
        let mut key = Key(Sha256::new()).text(VERSION).text(kind).number(below.len());
        for diff_id in below {
            key = key.text(&diff_id.to_string());
        }
        key
    }

    /// Adds a text.
    pub fn text(self, text: &str) -> Key {
        self.bytes(text.as_bytes())
    }

    /// Adds several texts.
    pub fn texts<'a>(self, texts: impl ExactSizeIterator<Item = &'a str>) -> Key {
        let key = self.number(texts.len());
        texts.fold(key, Key::text)
    }

    /// Adds files.
    pub fn manifest(self, files: &[(String, Hash)]) -> Key {
        let key = self.number(files.len());
        files.iter().fold(key, |key, (name, hash)| key.text(name).bytes(hash))
    }

    /// The finished key.
    pub fn finish(self) -> Digest {
        Digest::from_hasher(self.0)
    }

    fn number(self, number: usize) -> Key {
        self.bytes(&(number as u64).to_le_bytes())
    }

    // ANCHOR: bytes
    fn bytes(mut self, bytes: &[u8]) -> Key {
        // The length in front keeps "ab", "c" from being "a", "bc".
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
    // ANCHOR_END: bytes
}

/// Where a store has the cache's records. What they name are blobs of the store like any other.
pub fn directory(store: &Store) -> PathBuf {
    store.root().join("build")
}

/// The cache of a store.
pub struct Cache<'a> {
    store: &'a Store,
}

impl<'a> Cache<'a> {
    /// The cache that goes with this store.
    pub fn of(store: &'a Store) -> Result<Cache<'a>, store::Error> {
        let path = directory(store);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(store::Error::File {
                verb: "create",
                path,
                error,
            }),
            _ => Ok(Cache { store }),
        }
    }

    /// What was made under this key, if its layer is still there.
    pub fn find(&self, key: &Digest) -> Option<Made> {
        let text = fs::read(self.path(key)).ok()?;
        // A record that cannot be read is none: it is written again.
        let made: Made = serde_json::from_slice(&text).ok()?;
        match &made.layer {
            Some(layer) if !self.store.has_blob(&layer.digest) => None,
            _ => Some(made),
        }
    }

    /// Whether there is a record, even of a layer that is gone.
    pub fn knows(&self, key: &Digest) -> bool {
        self.path(key).exists()
    }

    /// Keeps what was made. Called when its layer is whole and in the store.
    pub fn keep(&self, key: &Digest, made: &Made) -> Result<(), store::Error> {
        let path = self.path(key);
        let text = serde_json::to_vec(made).unwrap_or_default();
        self.store.replace(&path, &text)
    }

    fn path(&self, key: &Digest) -> PathBuf {
        directory(self.store).join(key.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_and_none_runs_into_the_next() {
        let layer = Digest::of(b"layer");
        let key = |below: &[Digest], texts: &[&str]| Key::new("run", below).texts(texts.iter().copied()).finish();
        assert_eq!(key(&[layer], &["a", "b"]), key(&[layer], &["a", "b"]));
        for other in [
            key(&[], &["a", "b"]),
            key(&[layer, layer], &["a", "b"]),
            key(&[layer], &["ab"]),
            key(&[layer], &["a", "b", ""]),
            key(&[layer], &["b", "a"]),
            Key::new("copy", &[layer]).texts(["a", "b"].into_iter()).finish(),
        ] {
            assert_ne!(other, key(&[layer], &["a", "b"]));
        }
    }
}
