//! Clearing away: what a container holds while it runs, what a killed supervisor left, and the container itself.

use std::fs;
use std::path::{Path, PathBuf};

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
    clear_away_halves(place)
}

/// Removes the directories of containers half made or half removed, and names whose container is gone, unless somebody
/// is at work on them right now.
fn clear_away_halves(place: &Place) -> Result<(), Error> {
    if halves(place)?.is_empty() && dangling_names(place)?.is_empty() {
        return Ok(());
    }
    let mut abandoned = Vec::new();
    {
        // Under this lock nobody is between making a directory and its lock file, or a name and its container: what looks
        // so now was left by a command that was killed there.
        let _names = lock_names(place)?;
        for name in dangling_names(place)? {
            fs::remove_file(&name).map_err(Error::io("give up the name", &name))?;
        }
        for path in halves(place)? {
            match fs::File::open(path.join("lock")) {
                // Whoever makes or removes a container holds its lock for as long.
                Ok(lock) => {
                    if let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
                        abandoned.push((path, Some(lock)));
                    }
                }
                // Its removal may still be going on, past this file; two can remove one tree together.
                Err(_) => abandoned.push((path, None)),
            }
        }
    }
    for (path, _lock) in abandoned {
        volume::remove_tree(&path)?;
    }
    Ok(())
}

/// Directories of containers in the making (`.new`) and on their way out (`.old`).
fn halves(place: &Place) -> Result<Vec<PathBuf>, Error> {
    let is_half = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "new" || extension == "old")
    };
    Ok(listed(&place.containers())?.filter(is_half).collect())
}

/// Names that stand for no container.
fn dangling_names(place: &Place) -> Result<Vec<PathBuf>, Error> {
    let dangles = |path: &PathBuf| {
        let id = fs::read_link(path).ok();
        id.is_some_and(|id| !place.containers().join(id).exists())
    };
    Ok(listed(&place.names())?.filter(dangles).collect())
}

fn listed(directory: &Path) -> Result<impl Iterator<Item = PathBuf>, Error> {
    let entries = fs::read_dir(directory).map_err(Error::io("list", directory))?;
    Ok(entries.flatten().map(|entry| entry.path()))
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
    Ok(images::let_go(&container.place, &container.settings)?)
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
