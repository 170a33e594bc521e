//! Unpacked layers: directories for overlay, shared by every image that is built on them.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;
use super::images::Image;
use super::layer::pack::{self, Ids};
use super::layer::stream::{Compression, Hashing, LayerStream};
use super::layer::tree;
use super::layer::unpack::{self, Limits, Tally};
use super::layer::write::ArchiveWriter;
use super::store::{self, Store};
use crate::errno::why;

/// Changes with every start of the machine (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Media type of a layer as it is (OCI image specification, media-types.md).
pub const MEDIA_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer compressed with gzip.
pub const MEDIA_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What is known about an unpacked layer: `layer.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerInfo {
    /// The archive it was unpacked from.
    pub diff_id: Digest,
    /// The boot during which that was.
    pub boot_id: String,
    /// What is in it.
    pub tally: Tally,
}

/// A layer that is in the store as a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Digest of the archive inside.
    pub diff_id: Digest,
}

impl Store {
    /// Where the layer with this chain ID is, unpacked.
    pub fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.root().join("layers").join(chain.hex())
    }

    /// The same for overlay, relative to the store's root.
    pub fn lower_directory(chain: &Digest) -> PathBuf {
        Path::new("layers").join(chain.hex()).join("diff")
    }

    /// What is known about an unpacked layer, if it is there and can be relied on.
    pub fn layer_info(&self, chain: &Digest) -> Option<LayerInfo> {
        let text = fs::read(self.layer_path(chain).join("layer.json")).ok()?;
        let info: LayerInfo = serde_json::from_slice(&text).ok()?;
        (info.boot_id == boot_id().ok()?).then_some(info)
    }

    /// Makes sure that all layers of an image are there unpacked; their directories relative to the store's root,
    /// topmost first, as overlay wants its lower directories.
    pub fn lower_directories(&self, image: &Image, limits: Limits) -> Result<Vec<PathBuf>, Error> {
        let chain = image.chain_ids();
        for (index, layer) in image.layers().iter().enumerate() {
            self.unpack_layer(&layer.digest, &chain[..=index], &layer.diff_id, limits)?;
        }
        Ok(chain.iter().rev().map(Store::lower_directory).collect())
    }

    /// What could not be kept of an image when its layers were unpacked, in sentences for the user.
    pub fn what_was_lost(&self, image: &Image) -> Vec<String> {
        let mut lost = Tally::default();
        for info in image.chain_ids().iter().filter_map(|chain| self.layer_info(chain)) {
            lost.owners_squashed += info.tally.owners_squashed;
            lost.xattrs_dropped += info.tally.xattrs_dropped;
            lost.devices_skipped += info.tally.devices_skipped;
        }
        let name = image.name();
        let sentences = [
            (
                lost.owners_squashed,
                "files belong to others than root in the image; an ordinary user has one id to give, so inside they belong to root",
            ),
            (
                lost.xattrs_dropped,
                "extended attributes (such as file capabilities) could not be set by this user on this file system",
            ),
            (lost.devices_skipped, "devices were left out"),
        ];
        sentences
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, sentence)| format!("{name}: {number} {sentence}"))
            .collect()
    }

    /// Makes sure that one layer is there unpacked. `chain` ends with its own chain ID; those before are there already.
    pub fn unpack_layer(&self, blob: &Digest, chain: &[Digest], diff_id: &Digest, limits: Limits) -> Result<(), Error> {
        let Some((own, below)) = chain.split_last() else {
            return Ok(());
        };
        if self.layer_info(own).is_some() {
            return Ok(());
        }
        let failed = |error: io::Error| Error::Read { blob: *blob, error };
        // An archive has headers and padding beside its files; twice their bytes is more than it can need, with room
        // for the headers of the smallest.
        let archive_bytes = limits.bytes.saturating_add(limits.members.saturating_mul(2048));
        let mut stream = LayerStream::new(self.open_blob(blob)?, archive_bytes).map_err(failed)?;
        let directory = self.temporary_directory()?;
        let diff = directory.0.join("diff");
        make_root(&diff)?;
        let below: Vec<_> = below
            .iter()
            .rev()
            .map(|chain| self.layer_path(chain).join("diff"))
            .collect();
        let tally =
            unpack::unpack(&mut stream, &diff, &below, limits).map_err(|error| Error::Unpack { blob: *blob, error })?;
        // Only now is it known whose bytes these were: nothing has seen the directory yet.
        let seen = stream.finish().map_err(failed)?;
        for (found, expected) in [(seen.blob, *blob), (seen.diff_id, *diff_id)] {
            if found != expected {
                return Err(store::Error::Damaged {
                    path: self.blob_path(blob),
                    found,
                    expected,
                }
                .into());
            }
        }
        self.settle_layer(directory, own, diff_id, tally)
    }

    /// Makes the overlay upper directory `upper`, which is on the store's file system, the unpacked form of a layer that
    /// was packed from it: nothing is copied.
    pub fn adopt_layer(&self, upper: &Path, chain: &Digest, diff_id: &Digest) -> Result<(), Error> {
        let directory = self.temporary_directory()?;
        let diff = directory.0.join("diff");
        fs::rename(upper, &diff).map_err(store::Error::io("adopt", upper))?;
        self.settle_layer(directory, chain, diff_id, Tally::default())
    }

    fn settle_layer(
        &self,
        directory: store::Temporary,
        chain: &Digest,
        diff_id: &Digest,
        tally: Tally,
    ) -> Result<(), Error> {
        let info = LayerInfo {
            diff_id: *diff_id,
            boot_id: boot_id()?,
            tally,
        };
        let file = directory.0.join("layer.json");
        let text = serde_json::to_vec(&info).map_err(|error| Error::Read {
            blob: *diff_id,
            error: error.into(),
        })?;
        fs::write(&file, text).map_err(store::Error::io("write", &file))?;
        let target = self.layer_path(chain);
        let _lock = self.lock_index()?;
        if self.layer_info(chain).is_some() {
            // Another command was faster. Its directory may be mounted by now, ours is not.
            return Ok(());
        }
        // From before the machine started: it may be incomplete.
        let old = store::Temporary(self.temporary_path());
        match fs::rename(&target, &old.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(store::Error::io("replace", &target)(error).into());
            }
            _ => {}
        }
        fs::rename(&directory.0, &target).map_err(store::Error::io("keep", &target))?;
        Ok(())
    }

    /// Stores a layer: `fill` writes its archive. Compressed, it takes less of disk and network, and longer to write.
    pub fn write_layer<E: From<Error>>(
        &self,
        compression: Compression,
        fill: impl FnOnce(&mut ArchiveWriter<&mut dyn Write>) -> Result<(), E>,
    ) -> Result<LayerBlob, E> {
        let failed = |error: io::Error| Error::Write { error };
        let mut blob = self.new_blob().map_err(Error::from)?;
        let (media_type, diff_id) = match compression {
            Compression::None => {
                let mut archive = Hashing::new(&mut blob);
                write_archive(&mut archive, fill)?;
                (MEDIA_TAR, archive.finish().0)
            }
            _ => {
                let mut archive = Hashing::new(GzEncoder::new(&mut blob, flate2::Compression::new(GZIP_LEVEL)));
                write_archive(&mut archive, fill)?;
                let (encoder, diff_id, _) = archive.into_parts();
                encoder.finish().map_err(failed)?;
                (MEDIA_GZIP, diff_id)
            }
        };
        let (digest, size) = blob.finish(None).map_err(Error::from)?;
        Ok(LayerBlob {
            digest,
            size,
            media_type: media_type.to_owned(),
            diff_id,
        })
    }

    /// Stores what an overlay's upper directory holds as a layer.
    pub fn pack_layer(&self, upper: &Path, ids: Ids, compression: Compression) -> Result<LayerBlob, Error> {
        self.write_layer(compression, |archive| {
            pack::pack(upper, ids, archive).map_err(|error| Error::Pack { error })
        })
    }

    /// Stores a layer that comes as an archive, compressed or not; its digests are found on the way.
    pub fn add_layer(&self, mut archive: impl Read) -> Result<LayerBlob, Error> {
        let mut blob = self.new_blob()?;
        io::copy(&mut archive, &mut blob).map_err(|error| Error::Write { error })?;
        let (digest, size) = blob.finish(None)?;
        let failed = |error: io::Error| Error::Read { blob: digest, error };
        let mut start = Vec::new();
        self.open_blob(&digest)?
            .take(Compression::TELLING as u64)
            .read_to_end(&mut start)
            .map_err(failed)?;
        let stream = LayerStream::new(self.open_blob(&digest)?, u64::MAX).map_err(failed)?;
        let seen = stream.finish().map_err(failed)?;
        let media_type = match Compression::of(&start).map_err(failed)? {
            Compression::None => MEDIA_TAR.to_owned(),
            Compression::Gzip => MEDIA_GZIP.to_owned(),
            Compression::Zstd => format!("{MEDIA_TAR}+zstd"),
        };
        Ok(LayerBlob {
            digest,
            size,
            media_type,
            diff_id: seen.diff_id,
        })
    }

    /// Removes an unpacked layer; nobody may use it.
    pub(super) fn remove_layer(&self, chain: &Digest) -> Result<(), Error> {
        // Out of sight first: a crash in between leaves it among the pieces.
        let path = self.layer_path(chain);
        let going = store::Temporary(self.temporary_path());
        // A directory its owner may not write cannot be moved by him either: its entry `..` would change. When it cannot
        // be opened up, the move says why.
        let _ = fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700));
        fs::rename(&path, &going.0).map_err(store::Error::io("remove", &path))?;
        tree::remove_path(&going.0).map_err(|errno| store::Error::Remove { path, errno })?;
        Ok(())
    }
}

/// Gzip's middle: level 6 of 9, gzip's own default, takes three times as long for a tenth less.
const GZIP_LEVEL: u32 = 3;

fn write_archive<E: From<Error>>(
    output: &mut dyn Write,
    fill: impl FnOnce(&mut ArchiveWriter<&mut dyn Write>) -> Result<(), E>,
) -> Result<(), E> {
    // Headers of 512 bytes are written one by one.
    let mut output = io::BufWriter::with_capacity(1 << 16, output);
    let mut archive = ArchiveWriter::new(&mut output as &mut dyn Write);
    fill(&mut archive)?;
    archive.finish().map_err(|error| Error::Write { error })?;
    output.flush().map_err(|error| Error::Write { error })?;
    Ok(())
}

/// The root of a layer is that of the container: everybody may enter it.
fn make_root(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let make = || {
        fs::create_dir(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    make().map_err(store::Error::io("create", path))?;
    Ok(())
}

fn boot_id() -> Result<String, Error> {
    let text = fs::read_to_string(BOOT_ID).map_err(store::Error::io("read", Path::new(BOOT_ID)))?;
    Ok(text.trim().to_owned())
}

/// Why a layer is not there.
#[derive(Debug, Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The blob could not be read or decompressed.
    #[error("cannot read the layer {blob}: {error}")]
    Read {
        /// The layer's blob.
        blob: Digest,
        /// Why not.
        error: io::Error,
    },
    /// The layer could not be unpacked.
    #[error("cannot unpack the layer {blob}: {error}")]
    Unpack {
        /// The layer's blob.
        blob: Digest,
        /// Why not.
        error: unpack::Error,
    },
    /// The layer could not be packed.
    #[error(transparent)]
    Pack {
        /// Why not.
        #[from]
        error: pack::Error,
    },
    /// The layer could not be written.
    #[error("cannot write a layer: {}", text(error))]
    Write {
        /// Why not.
        error: io::Error,
    },
}

fn text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => why(&Errno::from_raw(number)),
        None => error.to_string(),
    }
}
