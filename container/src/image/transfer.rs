//! Images as files: reading whatever kind of archive or directory somebody has.
//!
//! | What | How it is known | Who writes it |
//! |---|---|---|
//! | OCI layout, as directory or archive | `oci-layout` in it | skopeo, podman, buildah, Docker since 25 |
//! | `docker save` archive | `manifest.json` in it | Docker, podman |
//! | root file system, as directory or archive | neither | debootstrap, `tar`, `docker export` |

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::{Descriptor, ImageIndex};
use thiserror::Error;

use super::digest::{self, Digest};
use super::docker_archive;
use super::images::{self, Image};
use super::layer::archive::{self, Archive, Kind};
use super::layer::pack::Ids;
use super::layer::stream::Compression;
use super::layer::unpack::{Limits, inside, shown};
use super::layer::zstd::Zstd;
use super::layers;
use super::layout;
use super::reference::Reference;
use super::store::{self, MAX_DOCUMENT, Store};

/// What a file is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Whatever it turns out to be.
    Detect,
    /// An OCI layout.
    Oci,
    /// What `docker save` writes.
    Docker,
    /// A root file system, which becomes an image of one layer.
    Rootfs,
}

/// What an archive held: documents in memory, blobs in the store already.
#[derive(Default)]
pub struct Contents {
    /// Small files by their path.
    pub documents: HashMap<String, Vec<u8>>,
    /// Large ones, and blobs, by their path.
    pub blobs: HashMap<String, Digest>,
    /// Links by their path: old `docker save` has the same layer under several names.
    pub links: HashMap<String, String>,
}

/// Adds the images in a file or directory to the store, unpacked. `name` is what to call it if there is but one; a root
/// file system has no name of its own.
pub fn import(
    store: &Store,
    path: &Path,
    format: Format,
    name: Option<&Reference>,
    limits: Limits,
) -> Result<Vec<Image>, Error> {
    let metadata = fs::metadata(path).map_err(store::Error::io("read", path))?;
    if metadata.is_dir() {
        return match format {
            Format::Rootfs => rootfs_directory(store, path, name, limits),
            Format::Docker => Err(Error::NotA(path.to_owned(), "docker save archive, which is a file")),
            Format::Detect if !path.join("oci-layout").exists() => rootfs_directory(store, path, name, limits),
            _ => layout::import_directory(store, path, name, limits),
        };
    }
    let file = File::open(path).map_err(store::Error::io("open", path))?;
    if format == Format::Rootfs {
        return rootfs_archive(store, file, name, limits);
    }
    let contents = match format {
        // Only a look at the names: a root file system's files do not belong in the store one by one.
        Format::Detect if !looks_like_image(path)? => {
            return rootfs_archive(store, file, name, limits);
        }
        _ => read_archive(store, file, path)?,
    };
    let is_docker = contents.documents.contains_key("manifest.json");
    let is_oci = contents.documents.contains_key("oci-layout") && contents.documents.contains_key("index.json");
    match format {
        Format::Docker if !is_docker => Err(Error::NotA(
            path.to_owned(),
            "docker save archive: no manifest.json in it",
        )),
        Format::Oci if !is_oci => Err(Error::NotA(
            path.to_owned(),
            "OCI layout: no oci-layout and index.json in it",
        )),
        Format::Docker => docker_archive::import(store, &contents, name, limits),
        // Docker writes both since version 25, and the names are in the older part.
        _ if is_docker => docker_archive::import(store, &contents, name, limits),
        _ => layout::import_archive(store, &contents, path, name, limits),
    }
}

/// The bytes of a file, decompressed if they are compressed.
fn open_archive(file: File) -> io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(1 << 18, file);
    Ok(match Compression::of(file.fill_buf()?)? {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file))),
        Compression::Zstd => Box::new(BufReader::with_capacity(1 << 18, Zstd::new(file))),
    })
}

/// Whether one of the names that mark an archive of images is in it.
fn looks_like_image(path: &Path) -> Result<bool, Error> {
    let read = store::Error::io("read", path);
    let file = File::open(path).map_err(&read)?;
    let mut archive = Archive::new(open_archive(file).map_err(&read)?);
    while let Some(member) = archive.next_member().map_err(|error| Error::archive(path, error))? {
        let name = inside(&member.path).unwrap_or_default();
        if name == b"oci-layout" || name == b"manifest.json" {
            return Ok(true);
        }
        // Nothing an archive of images has at its top: no need to read a whole distribution to the end.
        let top = name.split(|&byte| byte == b'/').next().unwrap_or_default();
        if [
            &b"bin"[..],
            b"dev",
            b"etc",
            b"home",
            b"proc",
            b"root",
            b"tmp",
            b"usr",
            b"var",
        ]
        .contains(&top)
        {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Takes an archive of images apart: what can be a blob goes into the store.
fn read_archive(store: &Store, file: File, path: &Path) -> Result<Contents, Error> {
    let read = store::Error::io("read", path);
    let mut archive = Archive::new(open_archive(file).map_err(&read)?);
    let mut contents = Contents::default();
    while let Some(member) = archive.next_member().map_err(|error| Error::archive(path, error))? {
        let clean = |path: &[u8]| {
            let clean = inside(path).map_err(|_| Error::Path(shown(path)))?;
            Ok::<_, Error>(String::from_utf8_lossy(&clean).into_owned())
        };
        let name = clean(&member.path)?;
        match member.kind {
            Kind::File if is_document(&name) && member.size <= MAX_DOCUMENT => {
                let mut text = Vec::new();
                archive.data().read_to_end(&mut text).map_err(&read)?;
                contents.documents.insert(name, text);
            }
            Kind::File => {
                let expected = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex);
                let mut blob = store.new_blob()?;
                io::copy(&mut archive.data(), &mut blob).map_err(&read)?;
                let (digest, _) = blob.finish(expected.as_ref())?;
                contents.blobs.insert(name, digest);
            }
            Kind::Symlink | Kind::HardLink => {
                // A symbolic link is relative to its directory: `../ID/layer.tar`.
                let target = match member.kind {
                    Kind::Symlink => relative(&name, &member.link),
                    _ => clean(&member.link)?,
                };
                contents.links.insert(name, target);
            }
            _ => {}
        }
    }
    Ok(contents)
}

fn is_document(name: &str) -> bool {
    !name.starts_with("blobs/")
        && (name.ends_with(".json") || name.ends_with("/json") || !name.contains('/') && !name.ends_with(".tar"))
}

/// Where a link leads, as a path in the archive.
fn relative(link: &str, target: &[u8]) -> String {
    let target = String::from_utf8_lossy(target);
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn rootfs_directory(store: &Store, path: &Path, name: Option<&Reference>, limits: Limits) -> Result<Vec<Image>, Error> {
    let name = name.ok_or(Error::NameNeeded)?;
    // The files are as they are outside: what belongs to root there belongs to root inside.
    let layer = store.pack_layer(path, Ids::Same, Compression::Gzip)?;
    rootfs_image(store, layer, path, name, limits)
}

fn rootfs_archive(store: &Store, file: File, name: Option<&Reference>, limits: Limits) -> Result<Vec<Image>, Error> {
    let name = name.ok_or(Error::NameNeeded)?;
    let layer = store.add_layer(file)?;
    rootfs_image(store, layer, Path::new("an archive"), name, limits)
}

fn rootfs_image(
    store: &Store,
    layer: layers::LayerBlob,
    from: &Path,
    name: &Reference,
    limits: Limits,
) -> Result<Vec<Image>, Error> {
    store.unpack_layer(&layer.digest, &[layer.diff_id], &layer.diff_id, limits)?;
    let created = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let config = serde_json::json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
        "history": [{ "created": created, "comment": format!("imported from {}", from.display()) }],
    });
    Ok(vec![store.add_image(
        config.to_string().as_bytes(),
        &[layer],
        Some(name),
    )?])
}

/// The manifest for this machine in a list of manifests for several.
pub fn for_this_platform(index: &ImageIndex) -> Option<&Descriptor> {
    index.manifests().iter().find(|manifest| match manifest.platform() {
        Some(platform) => platform.os().to_string() == "linux" && platform.architecture().to_string() == "amd64",
        // A list of one kind only has no need to say which.
        None => index.manifests().len() == 1,
    })
}

/// Why an image did not come in or go out.
#[derive(Debug, Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layers::Error),
    /// An image.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// A digest.
    #[error(transparent)]
    Digest(#[from] digest::Error),
    /// It is not what it was said to be.
    #[error("{path} is no {what}", path = .0.display(), what = .1)]
    NotA(PathBuf, &'static str),
    /// The archive is broken.
    #[error("cannot read {}: {error}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: archive::Error,
    },
    /// A path that leads out of the archive.
    #[error("the archive has a member {0:?}: refused")]
    Path(String),
    /// A root file system has no name.
    #[error("a root file system brings no name: say what to call the image (container image import FILE NAME)")]
    NameNeeded,
    /// One name for several images.
    #[error("there are {0} images in it, which cannot all be called the same: leave out the name")]
    SeveralImages(usize),
    /// There is none.
    #[error("there is no image in it for Linux on x86-64")]
    NoImage,
    /// A document is missing or not understood.
    #[error("{what} cannot be understood: {error}")]
    Document {
        /// Which.
        what: String,
        /// Why not.
        error: serde_json::Error,
    },
    /// A file the archive speaks of is not in it.
    #[error("{0:?} is not in the archive, which speaks of it")]
    Missing(String),
    /// Writing failed.
    #[error("cannot write the archive: {error}")]
    Write {
        /// Why.
        error: io::Error,
    },
}

impl Error {
    fn archive(path: &Path, error: archive::Error) -> Error {
        Error::Archive {
            path: path.to_owned(),
            error,
        }
    }
}
