//! `docker save` archives: a file `manifest.json` that lists, for each image, its names, the file of its configuration
//! and the files of its layers.
//!
//! Since version 25 Docker writes an OCI layout and puts `manifest.json` beside it; so does [`export`]. Old and new
//! readers then find what they look for in the same blobs.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::images::Image;
use super::layer::archive::{Kind, Member};
use super::layer::stream::{Compression, LayerStream};
use super::layer::unpack::Limits;
use super::layer::write::ArchiveWriter;
use super::layers::{LayerBlob, MEDIA_GZIP, MEDIA_TAR};
use super::layout;
use super::reference::Reference;
use super::store::Store;
use super::transfer::{Contents, Error};

/// One image in `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Adds the images of an archive whose files have been read.
pub(super) fn import(
    store: &Store,
    contents: &Contents,
    name: Option<&Reference>,
    limits: Limits,
) -> Result<Vec<Image>, Error> {
    let text = contents.documents.get("manifest.json").map_or(&[][..], Vec::as_slice);
    let listed: Vec<Listed> = layout::parse("manifest.json", text)?;
    if name.is_some() && listed.len() > 1 {
        return Err(Error::SeveralImages(listed.len()));
    }
    let mut images = Vec::new();
    for listed in &listed {
        let config = document(store, contents, &listed.config)?;
        let layers = listed
            .layers
            .iter()
            .map(|path| {
                let blob = resolve(contents, path)
                    .and_then(|path| contents.blobs.get(path))
                    .ok_or_else(|| Error::Missing(path.clone()))?;
                layer(store, blob)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let tags = listed.repo_tags.iter().flatten().filter_map(|tag| tag.parse().ok());
        let names: Vec<Reference> = match name {
            Some(name) => vec![name.clone()],
            None => tags.collect(),
        };
        let manifest = store.manifest_for(&config, &layers)?;
        let image = store.add_unpacked(
            &manifest,
            "application/vnd.oci.image.manifest.v1+json",
            names.first(),
            limits,
        )?;
        for name in names.iter().skip(1) {
            store.tag(&image, name)?;
        }
        images.push(image);
    }
    match images.is_empty() {
        true => Err(Error::NoImage),
        false => Ok(images),
    }
}

/// Follows links, of which an honest archive has one at most.
fn resolve<'a>(contents: &'a Contents, path: &'a str) -> Option<&'a str> {
    let mut path = path;
    for _ in 0..8 {
        match contents.links.get(path) {
            Some(target) => path = target,
            None => return Some(path),
        }
    }
    None
}

fn document(store: &Store, contents: &Contents, path: &str) -> Result<Vec<u8>, Error> {
    match (contents.documents.get(path), contents.blobs.get(path)) {
        (Some(text), _) => Ok(text.clone()),
        (None, Some(digest)) => Ok(store.document(digest)?),
        (None, None) => Err(Error::Missing(path.to_owned())),
    }
}

/// A layer's digests and type. Docker's archives tell neither: they are in the bytes.
fn layer(store: &Store, digest: &Digest) -> Result<LayerBlob, Error> {
    let failed = |error: io::Error| Error::Layer(super::layers::Error::Read { blob: *digest, error });
    let mut start = [0; Compression::TELLING];
    let read = io::Read::read(&mut store.open_blob(digest)?, &mut start).map_err(failed)?;
    let compression = Compression::of(&start[..read]).map_err(failed)?;
    let size = std::fs::metadata(store.blob_path(digest)).map_err(failed)?.len();
    let diff_id = match compression {
        Compression::None => *digest,
        _ => {
            LayerStream::new(store.open_blob(digest)?, u64::MAX)
                .and_then(LayerStream::finish)
                .map_err(failed)?
                .diff_id
        }
    };
    Ok(LayerBlob {
        digest: *digest,
        size,
        media_type: match compression {
            Compression::None => MEDIA_TAR.to_owned(),
            Compression::Gzip => MEDIA_GZIP.to_owned(),
            Compression::Zstd => format!("{MEDIA_TAR}+zstd"),
        },
        diff_id,
    })
}

/// Writes images to an archive that `docker load` takes, of any version.
pub fn export(store: &Store, images: &[Image], output: &mut dyn Write) -> Result<(), Error> {
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let listed: Vec<_> = images
        .iter()
        .map(|image| Listed {
            config: blob(&image.id),
            repo_tags: image.reference.as_ref().map(|reference| vec![reference.familiar()]),
            layers: image.layers().iter().map(|layer| blob(&layer.digest)).collect(),
        })
        .collect();
    let manifest = serde_json::to_string(&listed).map_err(|error| Error::Document {
        what: "manifest.json".into(),
        error,
    })?;
    export_blobs(store, images, output, Some(&manifest))
}

/// An OCI layout as archive, with one more document in it if there is one.
pub(super) fn export_blobs(
    store: &Store,
    images: &[Image],
    output: &mut dyn Write,
    manifest_json: Option<&str>,
) -> Result<(), Error> {
    let mut archive = ArchiveWriter::new(output);
    let manifests = images
        .iter()
        .map(|image| layout::descriptor(store, image))
        .collect::<Result<Vec<_>, _>>()?;
    let mut documents = vec![
        ("oci-layout", layout::LAYOUT.to_owned()),
        ("index.json", layout::index(&manifests)),
    ];
    documents.extend(manifest_json.map(|text| ("manifest.json", text.to_owned())));
    for (path, text) in &documents {
        let member = file(path, text.len() as u64);
        archive
            .append(&member, text.as_bytes())
            .map_err(|error| Error::Write { error })?;
    }
    let mut blobs: Vec<Digest> = images.iter().flat_map(Image::blobs).collect();
    blobs.sort();
    blobs.dedup();
    for digest in blobs {
        let blob = store.verified_blob(&digest)?;
        let member = file(&format!("blobs/sha256/{}", digest.hex()), blob.size());
        archive.append(&member, blob).map_err(|error| Error::Write { error })?;
    }
    archive.finish().map_err(|error| Error::Write { error })?;
    Ok(())
}

/// A file anybody may read, from the beginning of time: the same images make the same archive.
fn file(path: &str, size: u64) -> Member {
    Member {
        path: path.as_bytes().to_owned(),
        link: Vec::new(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        device: (0, 0),
        xattrs: Vec::new(),
        size,
        parts: None,
    }
}
