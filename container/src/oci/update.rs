//! `update`: other limits for a container that is there.

use oci_spec::runtime::LinuxResources;
use thiserror::Error;

use super::state::{self, StateRoot, Status};
use crate::cgroup::{self, resources};

/// Sets what `limits` says on the cgroups of container `id`; what it does not speak of stays as it is.
pub fn update(root: &StateRoot, id: &str, limits: &LinuxResources) -> Result<(), Error> {
    let container = root.lock(id)?;
    let status = container.status();
    if status == Status::Stopped {
        return Err(Error::Stopped(id.to_owned()));
    }
    let devices = limits.devices().as_ref().is_some_and(|rules| !rules.is_empty());
    Ok(resources::apply(&container.state.cgroups, limits, devices)?)
}

/// Why the limits are the old ones.
#[derive(Debug, Error)]
pub enum Error {
    /// Nothing to limit.
    #[error("cannot update container {0}: it is stopped")]
    Stopped(String),
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The cgroups. A controller that had no limit when the container was created may have no cgroup of it.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
}
