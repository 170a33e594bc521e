//! OCI image layouts: the specification's own way to put images into a directory (image-layout.md).
//!
//! The store is one itself, so that going in and out is copying blobs and telling names.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use super::digest::Digest;
use super::images::{DOCKER_LIST, Image, REF_NAME};
use super::layer::unpack::Limits;
use super::reference::Reference;
use super::store::{self, Store};
use super::transfer::{Contents, Error, for_this_platform};

/// Where containerd and Docker say an image's full name; what OCI has for it may be the tag alone.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Lists of lists of manifests: nobody nests deeper, and a circle would not end.
const MAX_DEPTH: usize = 4;

/// Adds the images of a layout in a directory.
pub(super) fn import_directory(
    store: &Store,
    path: &Path,
    name: Option<&Reference>,
    limits: Limits,
) -> Result<Vec<Image>, Error> {
    let file = path.join("index.json");
    let index = fs::read(&file).map_err(store::Error::io("read", &file))?;
    let fetch = |digest: &Digest| {
        let file = path.join("blobs/sha256").join(digest.hex());
        let read = store::Error::io("read", &file);
        let mut blob = store.new_blob()?;
        let mut input = fs::File::open(&file).map_err(&read)?;
        io::copy(&mut input, &mut blob).map_err(&read)?;
        blob.finish(Some(digest))?;
        Ok(())
    };
    import(store, &index, &stem(path), name, limits, &fetch)
}

/// Adds the images of a layout that came as an archive: its blobs are in the store already.
pub(super) fn import_archive(
    store: &Store,
    contents: &Contents,
    path: &Path,
    name: Option<&Reference>,
    limits: Limits,
) -> Result<Vec<Image>, Error> {
    let index = contents.documents.get("index.json").map_or(&[][..], Vec::as_slice);
    let there: std::collections::HashSet<_> = contents.blobs.values().collect();
    let fetch = |digest: &Digest| match there.contains(digest) {
        true => Ok(()),
        false => Err(Error::Missing(format!("blobs/sha256/{}", digest.hex()))),
    };
    import(store, index, &stem(path), name, limits, &fetch)
}

fn import(
    store: &Store,
    index: &[u8],
    stem: &str,
    name: Option<&Reference>,
    limits: Limits,
    fetch: &dyn Fn(&Digest) -> Result<(), Error>,
) -> Result<Vec<Image>, Error> {
    let index: ImageIndex = parse("index.json", index)?;
    let manifests = index.manifests();
    if name.is_some() && manifests.len() > 1 {
        return Err(Error::SeveralImages(manifests.len()));
    }
    let mut images = Vec::new();
    for descriptor in manifests {
        let own_name = name.cloned().or_else(|| name_of(descriptor, stem));
        if let Some((manifest, media_type)) = find_manifest(store, descriptor, fetch, 0)? {
            images.push(import_manifest(
                store,
                &manifest,
                &media_type,
                own_name.as_ref(),
                limits,
                fetch,
            )?);
        }
    }
    match images.is_empty() {
        true => Err(Error::NoImage),
        false => Ok(images),
    }
}

/// The manifest for this machine that a descriptor leads to, and its media type.
fn find_manifest(
    store: &Store,
    descriptor: &Descriptor,
    fetch: &dyn Fn(&Digest) -> Result<(), Error>,
    depth: usize,
) -> Result<Option<(Digest, String)>, Error> {
    let digest = Digest::try_from(descriptor.digest())?;
    let media_type = descriptor.media_type().to_string();
    if *descriptor.media_type() != MediaType::ImageIndex && media_type != DOCKER_LIST {
        return Ok(Some((digest, media_type)));
    }
    if depth == MAX_DEPTH {
        return Ok(None);
    }
    fetch(&digest)?;
    let index: ImageIndex = parse("a list of manifests", &store.document(&digest)?)?;
    match for_this_platform(&index) {
        Some(descriptor) => find_manifest(store, descriptor, fetch, depth + 1),
        None => Ok(None),
    }
}

/// Brings in an image's blobs, unpacks its layers, and only then gives it its name.
fn import_manifest(
    store: &Store,
    digest: &Digest,
    media_type: &str,
    name: Option<&Reference>,
    limits: Limits,
    fetch: &dyn Fn(&Digest) -> Result<(), Error>,
) -> Result<Image, Error> {
    fetch(digest)?;
    let text = store.document(digest)?;
    let manifest: oci_spec::image::ImageManifest = parse("a manifest", &text)?;
    fetch(&Digest::try_from(manifest.config().digest())?)?;
    for layer in manifest.layers() {
        fetch(&Digest::try_from(layer.digest())?)?;
    }
    Ok(store.add_unpacked(&text, media_type, name, limits)?)
}

/// What an index calls an image.
fn name_of(descriptor: &Descriptor, stem: &str) -> Option<Reference> {
    let annotations = descriptor.annotations().as_ref()?;
    if let Some(name) = annotations.get(CONTAINERD_NAME) {
        return name.parse().ok();
    }
    let name = annotations.get(REF_NAME)?;
    match name.contains(['/', ':', '@']) {
        true => name.parse().ok(),
        // The tag alone, as umoci and buildkit write it: the layout's own name is the image's.
        false => format!("{stem}:{name}").parse().ok(),
    }
}

fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.split('.').next().unwrap_or_default().to_owned()
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| Error::Document {
        what: what.to_owned(),
        error,
    })
}

/// Writes images to a directory that is no layout yet, or is one: then they are added.
pub fn export_directory(store: &Store, images: &[Image], path: &Path) -> Result<(), Error> {
    let write = store::Error::io("write", path);
    fs::create_dir_all(path.join("blobs/sha256")).map_err(&write)?;
    let mut manifests = Vec::new();
    let index_file = path.join("index.json");
    if index_file.exists() {
        let old: serde_json::Value = parse("index.json", &fs::read(&index_file).map_err(&write)?)?;
        manifests.extend(old["manifests"].as_array().cloned().unwrap_or_default());
    }
    for image in images {
        for digest in image.blobs() {
            let target = path.join("blobs/sha256").join(digest.hex());
            let mut file = fs::File::create(&target).map_err(store::Error::io("write", &target))?;
            io::copy(&mut store.verified_blob(&digest)?, &mut file).map_err(|error| Error::Write { error })?;
        }
        let new = descriptor(store, image)?;
        manifests.retain(|old| old["annotations"][REF_NAME] != new["annotations"][REF_NAME]);
        manifests.push(new);
    }
    fs::write(path.join("oci-layout"), LAYOUT).map_err(&write)?;
    fs::write(index_file, index(&manifests)).map_err(&write)?;
    Ok(())
}

/// The file that says which version of the layout this is.
pub(super) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes images to an archive.
pub fn export_archive(store: &Store, images: &[Image], output: &mut dyn Write) -> Result<(), Error> {
    super::docker_archive::export_blobs(store, images, output, None)
}

/// The index that lists these manifests.
pub(super) fn index(manifests: &[serde_json::Value]) -> String {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex.to_string(),
        "manifests": manifests,
    })
    .to_string()
}

/// An image's line in an index.
pub(super) fn descriptor(store: &Store, image: &Image) -> Result<serde_json::Value, Error> {
    let mut descriptor = serde_json::json!({
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": store.document(&image.digest)?.len(),
    });
    if let Some(reference) = &image.reference {
        descriptor["annotations"] = serde_json::json!({ REF_NAME: reference.to_string() });
    }
    Ok(descriptor)
}
