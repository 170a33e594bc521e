//! Pull: manifest, configuration, layers; each checked against the digest it is named by.

use std::io::Write;

use anyhow::{Context, bail};
use container::image::images::{DOCKER_LIST, DOCKER_MANIFEST};
use container::image::layer::unpack::Limits;
use container::image::store::MAX_DOCUMENT;
use container::image::transfer::for_this_platform;
use container::image::{Digest, Image, Reference, Store};
use futures_util::StreamExt;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use crate::{Registry, library_name};

/// Gets an image, and unpacks it before it has its name.
pub async fn pull(store: &Store, registry: &Registry, name: &Reference, limits: Limits) -> anyhow::Result<Image> {
    let (mut manifest, mut media_type) = manifest(registry, name).await?;
    if media_type == MediaType::ImageIndex.to_string() || media_type == DOCKER_LIST {
        let index: ImageIndex = serde_json::from_slice(&manifest).context("the registry's index is none")?;
        let ours = for_this_platform(&index);
        let ours = ours.with_context(|| format!("{name} is not there for Linux on x86-64"))?;
        let by_digest = Reference {
            digest: Some(Digest::try_from(ours.digest())?),
            ..name.clone()
        };
        (manifest, media_type) = self::manifest(registry, &by_digest).await?;
    }
    let parsed: ImageManifest = serde_json::from_slice(&manifest).context("the registry's manifest is none")?;
    fetch(store, registry, name, parsed.config(), MAX_DOCUMENT, "configuration").await?;
    for layer in parsed.layers() {
        fetch(store, registry, name, layer, limits.bytes, "layer").await?;
    }
    Ok(store.add_unpacked(&manifest, &media_type, Some(name), limits)?)
}

/// A manifest or list of manifests, and its media type.
async fn manifest(registry: &Registry, name: &Reference) -> anyhow::Result<(Vec<u8>, String)> {
    let (manifest, index) = (MediaType::ImageManifest.to_string(), MediaType::ImageIndex.to_string());
    let accepted = [manifest.as_str(), index.as_str(), DOCKER_MANIFEST, DOCKER_LIST];
    let (bytes, _) = registry
        .client
        .pull_manifest_raw(&library_name(name), &registry.auth, &accepted)
        .await
        .with_context(|| format!("cannot get the manifest of {name}"))?;
    if let Some(expected) = name.digest.filter(|expected| *expected != Digest::of(&bytes)) {
        bail!("the registry sent another manifest than {expected}");
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes).context("the registry's manifest is no JSON")?;
    // The field is optional in OCI's documents, which can be told apart by what they have.
    let media_type = match value["mediaType"].as_str() {
        Some(media_type) => media_type.to_owned(),
        None if value.get("manifests").is_some() => index,
        None => manifest,
    };
    Ok((bytes.to_vec(), media_type))
}

/// Gets a blob, unless it is there. It is written as it comes, and gets its name when its digest is right.
async fn fetch(
    store: &Store,
    registry: &Registry,
    name: &Reference,
    blob: &Descriptor,
    limit: u64,
    what: &str,
) -> anyhow::Result<()> {
    let digest = Digest::try_from(blob.digest())?;
    let there = std::fs::metadata(store.blob_path(&digest)).is_ok_and(|file| file.len() == blob.size());
    if there {
        eprintln!("{what} {}: there already", digest.short());
        return Ok(());
    }
    if blob.size() > limit {
        bail!(
            "the {what} {digest} has {} bytes; more than {limit} are refused",
            blob.size()
        );
    }
    let failed = || format!("cannot get the {what} {digest} of {name}");
    let text = digest.to_string();
    let mut stream = registry
        .client
        .pull_blob_stream(&library_name(name), text.as_str())
        .await
        .with_context(failed)?
        .stream;
    let mut writer = store.new_blob()?;
    let mut left = blob.size();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.with_context(failed)?;
        left = left.checked_sub(bytes.len() as u64).with_context(|| {
            format!(
                "the registry sends more of the {what} {digest} than its {} bytes",
                blob.size()
            )
        })?;
        writer.write_all(&bytes).with_context(failed)?;
    }
    writer.finish(Some(&digest)).with_context(failed)?;
    eprintln!("{what} {}: {} bytes", digest.short(), blob.size());
    Ok(())
}
