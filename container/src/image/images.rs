//! Images: a manifest that names a configuration and layers, and the names people gave to manifests.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageIndexBuilder, ImageManifest, MediaType};
use thiserror::Error;

use super::digest::{self, Digest};
use super::layer::unpack::Limits;
use super::layers::{self, LayerBlob};
use super::reference::{self, Reference};
use super::store::{self, Store};

/// Where an index says what a manifest is called (OCI image specification, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Media types Docker used before there were OCI's; registries and archives are full of them.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's list of manifests for several platforms.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it was asked for by, or is called in the store.
    pub reference: Option<Reference>,
    /// Digest of its manifest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration: what to run, and what the layers unpack to.
    pub config: ImageConfiguration,
    /// Digest of the configuration, which Docker calls the image's ID.
    pub id: Digest,
    /// The configuration as it is stored. Fields that OCI does not have (Docker's `Healthcheck`) are only here.
    pub config_json: serde_json::Value,
    layers: Vec<LayerBlob>,
}

impl Image {
    /// Its layers, bottom first.
    pub fn layers(&self) -> &[LayerBlob] {
        &self.layers
    }

    /// The chain ID of each layer, bottom first.
    pub fn chain_ids(&self) -> Vec<Digest> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id).collect();
        digest::chain(&diff_ids)
    }

    /// Every blob it is made of: manifest, configuration, layers.
    pub fn blobs(&self) -> Vec<Digest> {
        let mut blobs = vec![self.digest, self.id];
        blobs.extend(self.layers.iter().map(|layer| layer.digest));
        blobs
    }

    /// Bytes of its layers as they are stored.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// What people call it, or its ID.
    pub fn name(&self) -> String {
        match &self.reference {
            Some(reference) => reference.familiar(),
            None => self.id.short(),
        }
    }
}

/// A line of the index: a manifest, and what it is called, if anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Option<Reference>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

impl Store {
    /// What the index lists.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let path = self.root().join("index.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(store::Error::io("read", &path))?,
        };
        let index: ImageIndex = serde_json::from_slice(&text).map_err(|error| Error::Index {
            path: path.display().to_string(),
            error,
        })?;
        index.manifests().iter().map(entry_of).collect()
    }

    /// The image called `name`: a reference, or the beginning of an ID or of a manifest's digest.
    pub fn image(&self, name: &str) -> Result<Image, Error> {
        let entries = self.entries()?;
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            let matches = |entry: &&Entry| match (&entry.name, reference.digest) {
                (Some(name), Some(digest)) => name.name() == reference.name() && entry.digest == digest,
                (Some(name), None) => name == reference,
                (None, _) => false,
            };
            if let Some(entry) = entries.iter().find(matches) {
                return self.load(entry);
            }
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.len() >= 4 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let mut found: BTreeMap<Digest, Image> = BTreeMap::new();
            for entry in &entries {
                let image = self.load(entry)?;
                if image.id.hex().starts_with(hex) || image.digest.hex().starts_with(hex) {
                    found.entry(image.digest).or_insert(image);
                }
            }
            match found.len() {
                0 => {}
                1 => {
                    return found
                        .into_values()
                        .next()
                        .ok_or_else(|| Error::Unknown(name.to_owned()));
                }
                _ => return Err(Error::Ambiguous(name.to_owned())),
            }
        }
        reference?;
        Err(Error::Unknown(name.to_owned()))
    }

    /// Reads an image's manifest and configuration, checked.
    pub fn load(&self, entry: &Entry) -> Result<Image, Error> {
        let manifest: ImageManifest = self.parse(&entry.digest, "manifest")?;
        let id = Digest::try_from(manifest.config().digest())?;
        let config_json: serde_json::Value = self.parse(&id, "configuration")?;
        let config: ImageConfiguration =
            serde_json::from_value(config_json.clone()).map_err(|error| Error::Document {
                what: "configuration",
                digest: id,
                error,
            })?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            return Err(Error::Layers {
                digest: entry.digest,
                layers: manifest.layers().len(),
                diff_ids: diff_ids.len(),
            });
        }
        let layers = manifest.layers().iter().zip(diff_ids).map(|(layer, diff_id)| {
            Ok::<_, Error>(LayerBlob {
                digest: Digest::try_from(layer.digest())?,
                size: layer.size(),
                media_type: layer.media_type().to_string(),
                diff_id: diff_id.parse()?,
            })
        });
        Ok(Image {
            reference: entry.name.clone(),
            digest: entry.digest,
            media_type: entry.media_type.clone(),
            layers: layers.collect::<Result<_, _>>()?,
            manifest,
            config,
            id,
            config_json,
        })
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, digest: &Digest, what: &'static str) -> Result<T, Error> {
        serde_json::from_slice(&self.document(digest)?).map_err(|error| Error::Document {
            what,
            digest: *digest,
            error,
        })
    }

    /// The manifest that makes an image of a configuration (JSON) and layers. Stores the configuration.
    pub fn manifest_for(&self, config: &[u8], layers: &[LayerBlob]) -> Result<Vec<u8>, Error> {
        let id = self.add_document(config)?;
        let descriptor = |media_type: &str, digest: &Digest, size: u64| serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size });
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| descriptor(&layer.media_type, &layer.digest, layer.size))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "config": descriptor(MediaType::ImageConfig.as_ref(), &id, config.len() as u64),
            "layers": layers,
        });
        Ok(manifest.to_string().into_bytes())
    }

    /// Makes an image of a configuration (JSON) and layers that are in the store, unpacked or not; if there is a name,
    /// it means this image from now on.
    pub fn add_image(&self, config: &[u8], layers: &[LayerBlob], name: Option<&Reference>) -> Result<Image, Error> {
        let manifest = self.manifest_for(config, layers)?;
        let (image, entry) = self.check_manifest(&manifest, MediaType::ImageManifest.as_ref(), name)?;
        self.enter(entry)?;
        Ok(image)
    }

    /// Adds an image whose blobs are in the store, by its manifest. Its layers are unpacked first: one that is hostile
    /// or not what it should be keeps the image from getting a name.
    pub fn add_unpacked(
        &self,
        manifest: &[u8],
        media_type: &str,
        name: Option<&Reference>,
        limits: Limits,
    ) -> Result<Image, Error> {
        let (image, entry) = self.check_manifest(manifest, media_type, name)?;
        self.lower_directories(&image, limits)?;
        self.enter(entry)?;
        Ok(image)
    }

    fn check_manifest(
        &self,
        manifest: &[u8],
        media_type: &str,
        name: Option<&Reference>,
    ) -> Result<(Image, Entry), Error> {
        let entry = Entry {
            name: name.cloned(),
            digest: self.add_document(manifest)?,
            size: manifest.len() as u64,
            media_type: media_type.to_owned(),
        };
        let image = self.load(&entry)?;
        match image.blobs().into_iter().find(|blob| !self.has_blob(blob)) {
            Some(missing) => Err(store::Error::NoBlob(missing).into()),
            None => Ok((image, entry)),
        }
    }

    /// Gives an image one more name.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<(), Error> {
        self.enter(Entry {
            name: Some(name.clone()),
            digest: image.digest,
            size: self.document(&image.digest)?.len() as u64,
            media_type: image.media_type.clone(),
        })
    }

    /// Takes the name from whatever had it, which stays in the index without one until it is pruned.
    fn enter(&self, entry: Entry) -> Result<(), Error> {
        self.change_index(|entries| {
            if entry.name.is_some() {
                entries
                    .iter_mut()
                    .filter(|other| other.name == entry.name)
                    .for_each(|other| other.name = None);
            }
            entries.push(entry);
        })
    }

    /// Changes the index while nobody else does.
    pub(super) fn change_index(&self, change: impl FnOnce(&mut Vec<Entry>)) -> Result<(), Error> {
        let _lock = self.lock_index()?;
        let mut entries = self.entries()?;
        change(&mut entries);
        tidy(&mut entries);
        let manifests = entries.iter().map(descriptor_of).collect::<Result<Vec<_>, _>>()?;
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(manifests)
            .build()
            .and_then(|index| index.to_string())
            .map_err(Error::Write)?;
        self.replace(&self.root().join("index.json"), index.as_bytes())?;
        Ok(())
    }
}

/// A manifest that has a name needs no line without; no line is there twice.
fn tidy(entries: &mut Vec<Entry>) {
    let named: Vec<Digest> = entries
        .iter()
        .filter(|entry| entry.name.is_some())
        .map(|entry| entry.digest)
        .collect();
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries.drain(..) {
        let superfluous = entry.name.is_none() && named.contains(&entry.digest);
        if !superfluous && !kept.contains(&entry) {
            kept.push(entry);
        }
    }
    *entries = kept;
}

fn entry_of(descriptor: &Descriptor) -> Result<Entry, Error> {
    let name = descriptor.annotations().as_ref().and_then(|all| all.get(REF_NAME));
    Ok(Entry {
        // Somebody else may have written names of another kind: they are not lost, but nothing is called by them here.
        name: name.and_then(|name| name.parse().ok()),
        digest: Digest::try_from(descriptor.digest())?,
        size: descriptor.size(),
        media_type: descriptor.media_type().to_string(),
    })
}

fn descriptor_of(entry: &Entry) -> Result<Descriptor, Error> {
    let digest = entry
        .digest
        .to_string()
        .parse::<oci_spec::image::Digest>()
        .map_err(Error::Write)?;
    let mut descriptor = Descriptor::new(MediaType::from(entry.media_type.as_str()), entry.size, digest);
    if let Some(name) = &entry.name {
        descriptor.set_annotations(Some(HashMap::from([(REF_NAME.to_owned(), name.to_string())])));
    }
    Ok(descriptor)
}

/// What is wrong with an image, or its name.
#[derive(Debug, Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// No image is called that.
    #[error(
        "no image {0:?} in the store; container image ls shows what there is, container image pull gets it from a registry"
    )]
    Unknown(String),
    /// Several are.
    #[error("several images begin with {0:?}; give more digits")]
    Ambiguous(String),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layers::Error),
    /// It cannot be a name.
    #[error(transparent)]
    Reference(#[from] reference::Error),
    /// A digest is none, or of another kind.
    #[error(transparent)]
    Digest(#[from] digest::Error),
    /// The index is no index.
    #[error("{path} is no OCI index: {error}")]
    Index {
        /// The file.
        path: String,
        /// Why not.
        error: serde_json::Error,
    },
    /// A document is not what it should be.
    #[error("the {what} {digest} cannot be understood: {error}")]
    Document {
        /// Which.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Why not.
        error: serde_json::Error,
    },
    /// Manifest and configuration do not belong together.
    #[error("the manifest {digest} has {layers} layers, its configuration speaks of {diff_ids}: refused")]
    Layers {
        /// The manifest.
        digest: Digest,
        /// Layers in it.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
    /// A document could not be made.
    #[error("cannot write an index: {0}")]
    Write(oci_spec::OciSpecError),
}
