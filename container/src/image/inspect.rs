//! Looking into images: what they are made of, which layer each file comes from, and what they share.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use thiserror::Error;

use super::digest::Digest;
use super::images::{self, Image};
use super::layer::archive::{self, Archive, Kind};
use super::layer::stream::LayerStream;
use super::layer::unpack::{OPAQUE, WHITEOUT, inside, shown, split};
use super::store::{self, Store};

/// A line of an image's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When.
    pub created: Option<String>,
    /// The instruction, or what else made it.
    pub by: String,
    /// Its layer, unless it changed no file.
    pub layer: Option<Digest>,
    /// Bytes of that layer as it is stored.
    pub stored_bytes: u64,
    /// What its maker had to say.
    pub comment: Option<String>,
}

/// One layer of an image, and what becomes of its files.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// From the bottom, 1 first.
    pub number: usize,
    /// Digest of the blob.
    pub digest: Digest,
    /// Digest of the archive inside.
    pub diff_id: Digest,
    /// Name of the layer with everything below it; the directory it is unpacked in.
    pub chain_id: Digest,
    /// Bytes as it is stored.
    pub stored_bytes: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Bytes of its files that are visible: no layer above replaces or removes them.
    pub visible_bytes: u64,
    /// What made it.
    pub by: Option<String>,
    /// Other images of the store that stand on the same unpacked layer.
    pub shared_with: Vec<String>,
    /// What is in it.
    pub files: Vec<FileReport>,
}

/// One file of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its path, from the root.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// What this layer does to the path.
    pub change: Change,
    /// The layer that hides it from the container, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_by: Option<usize>,
}

/// What a layer does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Added,
    /// It was there, and is another now.
    Replaced,
    /// It was there, and is gone.
    Removed,
    /// A directory whose former contents are gone.
    Emptied,
}

/// An image, layer by layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayersReport {
    /// What it is called.
    pub name: String,
    /// Its layers, bottom first.
    pub layers: Vec<LayerReport>,
    /// Bytes of all files of all layers.
    pub file_bytes: u64,
    /// Bytes a container sees.
    pub visible_bytes: u64,
    /// Bytes of files in layers other images stand on too: on the disk once, for all of them.
    pub shared_bytes: u64,
}

/// The instructions that made an image, oldest first, each with its layer.
pub fn history(image: &Image) -> Vec<Step> {
    let mut layers = image.layers().iter();
    let step = |entry: &serde_json::Value| {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        let is_empty = entry["empty_layer"].as_bool().unwrap_or(false);
        let layer = if is_empty { None } else { layers.next() };
        Step {
            created: text("created"),
            by: text("created_by").or_else(|| text("comment")).unwrap_or_default(),
            layer: layer.map(|layer| layer.digest),
            stored_bytes: layer.map_or(0, |layer| layer.size),
            comment: text("comment"),
        }
    };
    let mut steps: Vec<Step> = match image.config_json["history"].as_array() {
        Some(history) => history.iter().map(step).collect(),
        None => Vec::new(),
    };
    // A history may be short, or not there at all; the layers are.
    steps.extend(layers.map(|layer| Step {
        created: None,
        by: String::new(),
        layer: Some(layer.digest),
        stored_bytes: layer.size,
        comment: None,
    }));
    steps
}

/// Where each file of an image comes from. Reads all its layers, and checks them on the way.
pub fn layers(store: &Store, image: &Image) -> Result<LayersReport, Error> {
    let sharing = sharing(store, image)?;
    let made_by: HashMap<Digest, String> = history(image)
        .into_iter()
        .filter_map(|step| Some((step.layer?, step.by)))
        .collect();
    let mut merged = Merged::default();
    let mut reports: Vec<LayerReport> = Vec::new();
    for (index, (layer, chain_id)) in image.layers().iter().zip(image.chain_ids()).enumerate() {
        let changes = read(store, &layer.digest)?;
        let files = merged.add(index, changes, &mut reports);
        reports.push(LayerReport {
            number: index + 1,
            digest: layer.digest,
            diff_id: layer.diff_id,
            chain_id,
            stored_bytes: layer.size,
            file_bytes: files.iter().map(|file| file.bytes).sum(),
            visible_bytes: 0,
            by: made_by.get(&layer.digest).cloned().filter(|by| !by.is_empty()),
            shared_with: sharing.get(&chain_id).cloned().unwrap_or_default(),
            files,
        });
    }
    for report in &mut reports {
        let visible = report.files.iter().filter(|file| file.hidden_by.is_none());
        report.visible_bytes = visible.map(|file| file.bytes).sum();
    }
    let shared = reports.iter().filter(|report| !report.shared_with.is_empty());
    Ok(LayersReport {
        name: image.name(),
        file_bytes: reports.iter().map(|report| report.file_bytes).sum(),
        visible_bytes: reports.iter().map(|report| report.visible_bytes).sum(),
        shared_bytes: shared.map(|report| report.file_bytes).sum(),
        layers: reports,
    })
}

/// Which other images stand on each layer of this one.
fn sharing(store: &Store, image: &Image) -> Result<HashMap<Digest, Vec<String>>, Error> {
    let mut sharing: HashMap<Digest, Vec<String>> = HashMap::new();
    for entry in store.entries()?.iter().filter(|entry| entry.digest != image.digest) {
        // One that cannot be read shares nothing that could be told.
        let Ok(other) = store.load(entry) else { continue };
        for chain in other.chain_ids() {
            sharing.entry(chain).or_default().push(other.name());
        }
    }
    Ok(sharing)
}

/// A member of a layer, as far as it matters here.
enum Entry {
    File { bytes: u64, is_directory: bool },
    Whiteout,
    Opaque,
}

/// What a layer's archive says about each path.
fn read(store: &Store, blob: &Digest) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
    let failed = |error: std::io::Error| Error::Read { blob: *blob, error };
    let mut stream = LayerStream::new(store.open_blob(blob)?, u64::MAX).map_err(failed)?;
    let mut archive = Archive::new(&mut stream);
    let mut changes = Vec::new();
    while let Some(member) = archive
        .next_member()
        .map_err(|error| Error::Archive { blob: *blob, error })?
    {
        let Ok(path) = inside(&member.path) else { continue };
        let (parent, name) = split(&path);
        if name.is_empty() {
            continue;
        }
        changes.push(if name == OPAQUE {
            (parent.to_owned(), Entry::Opaque)
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let path = if parent.is_empty() {
                hidden.to_owned()
            } else {
                [parent, b"/", hidden].concat()
            };
            (path, Entry::Whiteout)
        } else {
            // Another name for a file takes no bytes of its own.
            let bytes = if member.kind == Kind::HardLink { 0 } else { member.size };
            let is_directory = member.kind == Kind::Directory;
            (path, Entry::File { bytes, is_directory })
        });
    }
    let seen = stream.finish().map_err(failed)?;
    if seen.blob != *blob {
        return Err(store::Error::Damaged {
            path: store.blob_path(blob),
            found: seen.blob,
            expected: *blob,
        }
        .into());
    }
    Ok(changes)
}

/// The layers so far, seen through: for each path the layer and the place in its list that show.
#[derive(Default)]
struct Merged {
    visible: BTreeMap<Vec<u8>, (usize, usize)>,
}

impl Merged {
    /// Puts a layer on top: what it hides below is noted there, what it has is listed.
    fn add(&mut self, layer: usize, changes: Vec<(Vec<u8>, Entry)>, below: &mut [LayerReport]) -> Vec<FileReport> {
        let mut files: Vec<FileReport> = Vec::new();
        // Whiteouts are about the layers below, whatever their place in the archive.
        for (path, change) in &changes {
            let kind = match change {
                Entry::Whiteout => Change::Removed,
                Entry::Opaque => Change::Emptied,
                Entry::File { .. } => continue,
            };
            if kind == Change::Removed {
                self.hide(path, layer, below);
            }
            self.hide_beneath(path, layer, below);
            files.push(report(path, 0, kind));
        }
        for (path, change) in changes {
            let Entry::File { bytes, is_directory } = change else {
                continue;
            };
            let was_there = self.visible.contains_key(&path);
            if was_there {
                self.hide(&path, layer, below);
            }
            if !is_directory {
                self.hide_beneath(&path, layer, below);
            }
            let kind = if was_there { Change::Replaced } else { Change::Added };
            self.visible.insert(path.clone(), (layer, files.len()));
            files.push(report(&path, bytes, kind));
        }
        files
    }

    fn hide(&mut self, path: &[u8], by: usize, below: &mut [LayerReport]) {
        if let Some((layer, file)) = self.visible.remove(path)
            && let Some(report) = below.get_mut(layer)
        {
            report.files[file].hidden_by = Some(by + 1);
        }
    }

    fn hide_beneath(&mut self, path: &[u8], by: usize, below: &mut [LayerReport]) {
        let start = [path, b"/"].concat();
        let beneath: Vec<Vec<u8>> = self
            .visible
            .range(start.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&start))
            .cloned()
            .collect();
        for path in beneath {
            self.hide(&path, by, below);
        }
    }
}

fn report(path: &[u8], bytes: u64, change: Change) -> FileReport {
    FileReport {
        path: format!("/{}", shown(path)),
        bytes,
        change,
        hidden_by: None,
    }
}

/// Why an image cannot be looked into.
#[derive(Debug, Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An image.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// A layer could not be read.
    #[error("cannot read the layer {blob}: {error}")]
    Read {
        /// Its blob.
        blob: Digest,
        /// Why not.
        error: std::io::Error,
    },
    /// A layer is broken.
    #[error("cannot read the archive in the layer {blob}: {error}")]
    Archive {
        /// Its blob.
        blob: Digest,
        /// What is wrong.
        error: archive::Error,
    },
}
