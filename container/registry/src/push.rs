//! Push: what the registry does not have yet, and the manifest last: no name there ever leads to something incomplete.

use std::io::Read;

use anyhow::Context;
use bytes::Bytes;
use container::image::store::VerifiedBlob;
use container::image::{Digest, Image, Reference, Store};
use futures_util::stream;
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;

use crate::{Registry, library_name};

/// How much is read at a time.
const CHUNK: usize = 1 << 18;

/// Puts an image into a registry.
pub async fn push(store: &Store, registry: &Registry, image: &Image, name: &Reference) -> anyhow::Result<()> {
    let target = library_name(name);
    let denied = || format!("{} does not let us push {name}", name.registry);
    registry
        .client
        .auth(&target, &registry.auth, RegistryOperation::Push)
        .await
        .with_context(denied)?;
    // The client signs its requests with what it was given here.
    registry
        .client
        .store_auth_if_needed(&name.registry, &registry.auth)
        .await;
    let layers = image.layers().iter().map(|layer| ("layer", layer.digest));
    for (what, digest) in layers.chain([("configuration", image.id)]) {
        put(store, registry, &target, what, &digest)
            .await
            .with_context(|| format!("cannot put the {what} {digest} into {name}"))?;
    }
    let manifest = store.document(&image.digest)?;
    let media_type = image
        .media_type
        .parse()
        .context("the manifest's media type cannot be sent")?;
    registry
        .client
        .push_manifest_raw(&target, manifest, media_type)
        .await
        .with_context(|| format!("cannot put the manifest of {name}"))?;
    Ok(())
}

async fn put(
    store: &Store,
    registry: &Registry,
    target: &oci_client::Reference,
    what: &str,
    digest: &Digest,
) -> anyhow::Result<()> {
    let name = digest.to_string();
    if registry.client.blob_exists(target, &name).await? {
        eprintln!("{what} {}: there already", digest.short());
        return Ok(());
    }
    let blob = store.verified_blob(digest)?;
    let size = blob.size();
    let stream = stream::unfold(Some(blob), next_chunk);
    registry
        .client
        .push_blob_stream(target, stream, &name, Some(size))
        .await?;
    eprintln!("{what} {}: {size} bytes", digest.short());
    Ok(())
}

/// The next piece of a blob. The last one of a damaged blob is an error, so that the registry never has the whole.
async fn next_chunk(blob: Option<VerifiedBlob>) -> Option<(Result<Bytes, OciDistributionError>, Option<VerifiedBlob>)> {
    let mut blob = blob?;
    let mut chunk = vec![0; CHUNK];
    match blob.read(&mut chunk) {
        Ok(0) => None,
        Ok(size) => {
            chunk.truncate(size);
            Some((Ok(chunk.into()), Some(blob)))
        }
        Err(error) => Some((Err(error.into()), None)),
    }
}
