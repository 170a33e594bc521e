//! Where things are kept.
//!
//! ```text
//! STATE/                      CONTAINER_STATE, or /var/lib/isolation-lab/state (root), or ~/.local/share/isolation-lab/state
//!   lock                      held for a moment while a name is taken or given up
//!   names/NAME -> ID          a symbolic link: making one is how a name is taken
//!   containers/ID/            settings.json state.json log.json attach.sock hosts hostname resolv.conf upper/ work/ ...
//!   volumes/NAME/             volume.json data/
//!   networks/BRIDGE.json      who has which address
//! ```

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{Error, images};
use crate::image::store;

/// The directories of one user's containers.
#[derive(Clone, Debug)]
pub struct Place {
    /// The root of them all.
    pub state: PathBuf,
    /// The store of images they are made from. Found once, by the command: an ordinary user's supervisor, in a user
    /// namespace of its own, would take itself for root and look in root's.
    pub store: PathBuf,
}

impl Place {
    /// The one the environment asks for, made if it is not there.
    pub fn configured() -> Result<Place, Error> {
        let state = match std::env::var_os("CONTAINER_STATE") {
            Some(path) => std::path::absolute(path).unwrap_or_default(),
            None => default_state()?,
        };
        let store = store::default_root().map_err(images::Error::Store)?;
        let store = std::path::absolute(store).unwrap_or_default();
        let place = Place { state, store };
        for directory in [place.containers(), place.names(), place.volumes()] {
            // Only for its owner: what containers write may be readable, set-user-id even.
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(Error::io("create", &directory))?;
        }
        Ok(place)
    }

    /// Where containers are.
    pub fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// Where one container is.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Where names are.
    pub fn names(&self) -> PathBuf {
        self.state.join("names")
    }

    /// Where volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// Where networks are.
    pub fn networks(&self) -> PathBuf {
        self.state.join("networks")
    }

    /// The lock on names.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }
}

fn default_state() -> Result<PathBuf, Error> {
    if geteuid().is_root() {
        return Ok("/var/lib/isolation-lab/state".into());
    }
    let data = match std::env::var_os("XDG_DATA_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(path) => PathBuf::from(path),
        None => std::env::var_os("HOME")
            .map(|home| Path::new(&home).join(".local/share"))
            .ok_or(Error::NoHome)?,
    };
    Ok(data.join("isolation-lab/state"))
}
