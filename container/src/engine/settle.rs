//! Clearing away: what a container holds while it runs, what a killed supervisor left, and the container itself.

use std::fs;

use nix::fcntl::{Flock, FlockArg};

use super::create::{anonymous_volumes, lock_names};
use super::place::Place;
use super::record::{Source, Status};
use super::{Container, Error, Locked, images, logs};
use crate::network::Mode;
use crate::network::bridge::Bridge;
use crate::volume::{self, Volumes};

/// Gives back the address on the bridge, and with the last one the bridge.
pub fn give_back(container: &Container) -> Result<(), Error> {
    if container.settings.network == Mode::Bridge {
        Bridge::configured(&container.place.networks())?.leave(container.id(), &container.place)?;
    }
    Ok(())
}

/// Sets right what a supervisor that was killed could not: its container's processes, cgroups and address, and what
/// its state says. Nothing happens while a supervisor lives or when there is nothing to set right.
pub fn settle(container: &Locked) -> Result<(), Error> {
    let mut state = container.state()?;
    let unsettled = matches!(state.status, Status::Running | Status::Restarting);
    if !unsettled || container.supervisor().is_some() {
        return Ok(());
    }
    super::launch::clear_away_the_abandoned(container)?;
    give_back(container)?;
    state.status = Status::Exited;
    state.init = None;
    state.finished = Some(logs::now());
    state.exit_code = Some(protocol::status::SIGNAL_BASE + libc::SIGKILL as u8);
    state.error = Some("its supervisor was killed, and the container with it".into());
    container.write_state(&state)
}

/// Settles whatever nobody is at work on; and removes what a killed command left half made or half removed.
pub fn settle_all(place: &Place) -> Result<(), Error> {
    for container in Container::all(place)? {
        let state = container.state()?;
        let unsettled = matches!(state.status, Status::Running | Status::Restarting);
        if unsettled
            && container.supervisor().is_none()
            && let Ok(Some(locked)) = container.try_lock()
        {
            settle(&locked)?;
            if locked.settings.remove {
                erase(&locked)?;
            }
        }
    }
    let directory = place.containers();
    for entry in fs::read_dir(&directory)
        .map_err(Error::io("list", &directory))?
        .flatten()
    {
        let path = entry.path();
        let half = path
            .extension()
            .is_some_and(|extension| extension == "new" || extension == "old");
        if !half {
            continue;
        }
        // Somebody may be at it right now; then its lock is held. One in the making gets its lock in its first moment, one
        // on its way out may have lost it.
        let is_going = path.extension().is_some_and(|extension| extension == "old");
        let abandoned = match fs::File::open(path.join("lock")) {
            Ok(lock) => Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok(),
            Err(_) => is_going,
        };
        if abandoned {
            volume::remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Removes the container's directory and gives up its name. It does not run any more.
///
/// The directory is renamed first, so that it goes at once for everybody who looks; what takes time comes after.
pub fn erase(container: &Container) -> Result<(), Error> {
    let directory = container.directory();
    let old = directory.with_extension("old");
    {
        let _names = lock_names(&container.place)?;
        match fs::rename(&directory, &old) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("remove", &directory))?,
        }
        let link = container.place.names().join(&container.settings.name);
        let is_ours = fs::read_link(&link).is_ok_and(|id| id.as_os_str() == container.id());
        if is_ours {
            fs::remove_file(&link).map_err(Error::io("give up the name", &link))?;
        }
    }
    if container.settings.remove {
        remove_anonymous_volumes(container)?;
    }
    volume::remove_tree(&old)?;
    Ok(images::let_go(&container.settings)?)
}

/// Removes the volumes that were made for this container alone.
pub fn remove_anonymous_volumes(container: &Container) -> Result<(), Error> {
    let volumes = Volumes::new(container.place.volumes());
    for name in anonymous_volumes(&container.settings) {
        match volumes.remove(name, |name| user_of_volume(&container.place, name, container.id())) {
            Ok(()) | Err(volume::Error::NoSuch(_) | volume::Error::InUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A container other than `but` that mounts the volume.
pub fn user_of_volume(place: &Place, volume: &str, but: &str) -> Option<String> {
    let mounts = |container: &Container| {
        container.id() != but
            && container
                .settings
                .mounts
                .iter()
                .any(|mount| matches!(&mount.source, Source::Volume { name, .. } if name == volume))
    };
    let all = Container::all(place).ok()?;
    all.into_iter().find(mounts).map(|container| container.settings.name)
}
