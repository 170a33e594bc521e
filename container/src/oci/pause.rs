//! `pause` and `resume`: every process of a container stops where it is, and goes on as if nothing had been.

use thiserror::Error;

use super::state::{self, StateRoot, Status};
use crate::cgroup;

/// Freezes the processes of container `id`.
pub fn pause(root: &StateRoot, id: &str) -> Result<(), Error> {
    change(root, id, true)
}

/// Has the processes of container `id` go on.
pub fn resume(root: &StateRoot, id: &str) -> Result<(), Error> {
    change(root, id, false)
}

fn change(root: &StateRoot, id: &str, frozen: bool) -> Result<(), Error> {
    let container = root.lock(id)?;
    match (container.status(), frozen) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {
            Ok(container.state.cgroups.freeze(frozen)?)
        }
        (status, _) => Err(Error::Not {
            action: if frozen { "pause" } else { "resume" },
            id: id.to_owned(),
            status,
        }),
    }
}

/// Why nothing changed.
#[derive(Debug, Error)]
pub enum Error {
    /// It is not in the state for it.
    #[error("cannot {action} container {id}: it is {status}")]
    Not {
        /// What was asked for.
        action: &'static str,
        /// Its name.
        id: String,
        /// How far it has come.
        status: Status,
    },
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
}
