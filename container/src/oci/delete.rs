//! `delete`: removes what `create` made, however far it came.

use std::time::{Duration, Instant};

use thiserror::Error;

use super::state::{self, Container, StateRoot, Status, send_signal};
use super::{hooks, start};
use crate::cgroup;

/// How long a process that was killed may take to end: it may be in the middle of a system call on a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Deletes container `id`. One that still has a process is only deleted with `force`, which kills it; with `force` it
/// is no error either that there is no such container.
pub fn delete(root: &StateRoot, id: &str, force: bool) -> Result<(), Error> {
    let container = match root.lock(id) {
        Err(state::Error::Missing { .. }) if force => return Ok(()),
        // Its `create` was killed before it wrote anything: the lock is free, so it is not at work any more.
        Err(state::Error::Unwritten(_)) if force => {
            root.remove_unwritten(id)?;
            return Ok(());
        }
        other => other?,
    };
    let status = container.status();
    // Under our lock, "creating" is a creation that was interrupted: its process ends by itself.
    let interrupted = container.state.status == Status::Creating;
    if status != Status::Stopped && !interrupted && !force {
        return Err(Error::NotStopped {
            id: id.to_owned(),
            status,
        });
    }
    clean_up(&container)?;
    let hooks = start::configuration(&container)
        .ok()
        .and_then(|spec| spec.hooks().clone());
    let state = container.oci_state_as(Status::Stopped);
    container.forget()?;
    // A hook that fails now changes nothing: the container is gone (runtime.md, "Lifecycle", step 13: "log a warning").
    if let Some(poststop) = hooks.as_ref().and_then(|hooks| hooks.poststop().as_ref()) {
        hooks::run("poststop", poststop, &state)?;
    }
    Ok(())
}

/// Ends the container's processes and removes its cgroups.
pub(super) fn clean_up(container: &Container) -> Result<(), Error> {
    let cgroups = &container.state.cgroups;
    let first = container.state.process;
    if let Some(process) = first.and_then(|process| process.open()) {
        // It may just have ended.
        let _ = send_signal(process, libc::SIGKILL);
    }
    // Without a pid namespace of its own the first process takes nobody along; and what is frozen cannot end.
    let begin = Instant::now();
    loop {
        let left = cgroups.processes()?;
        for &pid in &left {
            crate::signals::send(pid, libc::SIGKILL);
        }
        if cgroups.frozen() {
            cgroups.freeze(false)?;
        }
        if left.is_empty() && !first.is_some_and(|process| process.is_alive()) {
            break;
        }
        if begin.elapsed() > PATIENCE {
            return Err(Error::StillThere {
                id: container.state.id.clone(),
            });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(cgroups.remove()?)
}

/// Why a container is still there.
#[derive(Debug, Error)]
pub enum Error {
    /// It is in use.
    #[error("cannot delete container {id}: it is {status}. Kill it first, or use --force")]
    NotStopped {
        /// Its name.
        id: String,
        /// How far it has come.
        status: Status,
    },
    /// A process does not end.
    #[error("the processes of container {id} were killed and did not end within {} seconds: one may wait for a disk or a network file system", PATIENCE.as_secs())]
    StillThere {
        /// Its name.
        id: String,
    },
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] hooks::Error),
}
