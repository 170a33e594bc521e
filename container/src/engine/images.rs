//! Images, as an engine needs them: layers to mount, and what the image says about its program.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use thiserror::Error;

use super::place::Place;
use super::{Container, record::Settings};
use crate::image::layer::pack::Ids;
use crate::image::layer::stream::Compression;
use crate::image::layer::unpack::Limits;
use crate::image::{self, Access, Reference, Store, images, layers, leases::Lease, store};

/// The built-in image: the lab's program and nothing else.
pub const WORKLOAD: &str = "workload";

/// An image that is to become a container.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What its content is called by its hash.
    pub digest: String,
    /// Directories of its layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// The program, and arguments that stay.
    pub entrypoint: Vec<String>,
    /// Arguments that are replaced by those given.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// `USER[:GROUP]`.
    pub user: String,
    /// Working directory.
    pub workdir: String,
    /// Paths that are volumes.
    pub volumes: Vec<String>,
    /// The signal that asks its program to end.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Finds an image by name, and sees to it that its layers are unpacked.
pub fn find(place: &Place, name: &str) -> Result<Found, Error> {
    if name == WORKLOAD {
        return workload(place);
    }
    let store = open(place)?;
    let image = store.image(name)?;
    let layers = store.lower_directories(&image, Limits::default())?;
    let config = image.config.config().clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    Ok(Found {
        digest: image.id.to_string(),
        layers: layers.iter().map(|layer| store.root().join(layer)).collect(),
        entrypoint: list(config.entrypoint()),
        command: list(config.cmd()),
        environment: list(config.env()),
        user: config.user().clone().unwrap_or_default(),
        workdir: config.working_dir().clone().unwrap_or_default(),
        volumes: list(config.volumes()),
        stop_signal: config.stop_signal().clone(),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
    })
}

fn open(place: &Place) -> Result<Store, Error> {
    Ok(Store::open(&place.store, Access::Shared)?)
}

/// Keeps the image of a container from being removed for as long as the container is there.
pub fn keep(place: &Place, settings: &Settings) -> Result<(), Error> {
    if settings.image_digest == WORKLOAD {
        return Ok(());
    }
    let store = open(place)?;
    let image = store.image(&settings.image_digest)?;
    let lease = Lease::of(&image, format!("container {}", settings.name));
    Ok(store.lease(&lease_name(&settings.id), &lease)?)
}

/// The container is gone: its image may go.
pub fn let_go(place: &Place, settings: &Settings) -> Result<(), Error> {
    if settings.image_digest == WORKLOAD {
        return Ok(());
    }
    Ok(open(place)?.release(&lease_name(&settings.id))?)
}

fn lease_name(id: &str) -> String {
    format!("container-{id}")
}

/// The built-in image's only layer is written the first time somebody asks for it.
fn workload(place: &Place) -> Result<Found, Error> {
    let layer = place.state.join("workload");
    let binary = layer.join("bin/workload");
    if !fs::read(&binary).is_ok_and(|bytes| bytes == guest_images::WORKLOAD) {
        let directory = layer.join("bin");
        let beside = directory.join(format!(".new-{}", std::process::id()));
        let write = || {
            fs::create_dir_all(&directory)?;
            let mut file = fs::File::options();
            let mut file = file.write(true).create(true).truncate(true).mode(0o755).open(&beside)?;
            file.write_all(guest_images::WORKLOAD)?;
            fs::rename(&beside, &binary)
        };
        write().map_err(|error| Error::Workload {
            path: binary.clone(),
            error,
        })?;
    }
    Ok(Found {
        digest: WORKLOAD.into(),
        layers: vec![layer],
        entrypoint: vec!["/bin/workload".into()],
        workdir: "/".into(),
        ..Found::default()
    })
}

/// Makes an image of a container's own changes on top of its image; its digest.
///
/// The container's upper directory is one more layer: what overlay keeps there (changed files whole, whiteouts for what
/// was deleted) is what a layer's archive says in its own way.
pub fn commit(container: &Container, name: &str, author: Option<&str>, message: Option<&str>) -> Result<String, Error> {
    let settings = &container.settings;
    if settings.image_digest == WORKLOAD {
        return Err(Error::Refused(
            "the built-in image workload is no list of layers that another could be put on; commit a container of another image".into(),
        ));
    }
    let store = open(&container.place)?;
    let name: Reference = name.parse()?;
    let image = store.image(&settings.image_digest)?;
    let layer = store.pack_layer(&container.file("upper"), Ids::of_store(), Compression::None)?;
    let created = super::logs::now();
    let mut config = image.config_json.clone();
    config["created"] = json!(created);
    if let Some(author) = author {
        config["author"] = json!(author);
    }
    // What was asked for at `run` is part of what the container became.
    config["config"]["Env"] = json!(settings.environment);
    config["config"]["User"] = json!(settings.user);
    config["config"]["WorkingDir"] = json!(settings.workdir);
    append(&mut config["rootfs"]["diff_ids"], json!(layer.diff_id.to_string()));
    let said = message.map_or_else(|| format!("container commit {}", settings.name), str::to_owned);
    append(
        &mut config["history"],
        json!({ "created": created, "created_by": said }),
    );
    let layers = [image.layers(), &[layer]].concat();
    let bytes = serde_json::to_vec(&config).unwrap_or_default();
    Ok(store.add_image(&bytes, &layers, Some(&name))?.id.to_string())
}

/// Puts `item` at the end of a list, which is made if there is none.
fn append(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        _ => *list = json!([item]),
    }
}

/// What is wrong with an image.
#[derive(Debug, Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The image.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// A layer.
    #[error(transparent)]
    Layers(#[from] layers::Error),
    /// The name.
    #[error(transparent)]
    Reference(#[from] image::reference::Error),
    /// The built-in image.
    #[error("cannot write the built-in image {}: {error}", path.display())]
    Workload {
        /// Its program.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It cannot be had.
    #[error("{0}")]
    Refused(String),
}
