//! `start`: has the first process become the program.
//!
//! It connects to the socket the first process waits at and says so. The connection closes at execve(2), and an end of
//! the stream without a word is therefore the news that the program runs; a failure is told before.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::errno::Errno;
use oci_spec::runtime::Spec;
use thiserror::Error;

use super::hooks;
use super::line::{End, Word};
use super::state::{self, Container, Locked, StateRoot, Status};
use crate::errno::{of, why};

/// Starts the program of the created container `id`. Returns when it runs.
pub fn start(root: &StateRoot, id: &str) -> Result<(), Error> {
    start_locked(&mut root.lock(id)?)
}

pub(super) fn start_locked(container: &mut Locked) -> Result<(), Error> {
    let status = container.status();
    if status != Status::Created {
        return Err(Error::NotCreated {
            id: container.state.id.clone(),
            status,
        });
    }
    let id = container.state.id.clone();
    let failed = |error: std::io::Error| Error::Gone {
        id: id.clone(),
        errno: of(&error),
    };
    let directory = File::open(container.directory()).map_err(failed)?;
    let path = format!("/proc/self/fd/{}/start", directory.as_raw_fd());
    // ANCHOR: go
    let line = UnixStream::connect(&path).map_err(failed)?;
    let line = End::of(OwnedFd::from(line));
    // Nobody comes by this way twice.
    fs::remove_file(&path).map_err(failed)?;
    // Ahead of the deed, as always: whoever finds "running" looks whether the process is there.
    container.update(|state| state.status = Status::Running)?;
    line.say(&Word::Recorded).map_err(|errno| failed(errno.into()))?;
    if let Some(Word::Failed(status, message)) = line.hear() {
        return Err(Error::Container { status, message });
    }
    // ANCHOR_END: go
    // The program runs: a hook that fails now changes nothing about that (runtime.md, "start", step 9: "log a warning").
    // Most have none, and to understand the whole configuration takes longer than all the rest: the word's absence tells.
    let may_have_hooks = configuration_bytes(container)?
        .windows(9)
        .any(|word| word == b"poststart");
    if may_have_hooks
        && let Some(hooks) = configuration(container)?.hooks()
        && let Some(poststart) = hooks.poststart()
    {
        hooks::run("poststart", poststart, &container.oci_state_as(Status::Running))?;
    }
    Ok(())
}

/// The configuration a container was created from.
pub(super) fn configuration(container: &Container) -> Result<Spec, Error> {
    serde_json::from_slice(&configuration_bytes(container)?).map_err(|_| Error::Configuration {
        path: container.directory().join("config.json"),
        errno: Errno::EINVAL,
    })
}

fn configuration_bytes(container: &Container) -> Result<Vec<u8>, Error> {
    let path = container.directory().join("config.json");
    fs::read(&path).map_err(|error| Error::Configuration {
        path,
        errno: of(&error),
    })
}

/// Why the program does not run.
#[derive(Debug, Error)]
pub enum Error {
    /// Nothing to start.
    #[error("cannot start container {id}: it is {status}, and only one that is created can be started")]
    NotCreated {
        /// Its name.
        id: String,
        /// How far it has come.
        status: Status,
    },
    /// Its first process does not answer.
    #[error(
        "cannot reach the first process of container {id}: {}. It may just have ended; delete the container",
        why(errno)
    )]
    Gone {
        /// Its name.
        id: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The copy of config.json.
    #[error("cannot read {}: {}", path.display(), why(errno))]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The first process's own account of what failed inside.
    #[error("{message}")]
    Container {
        /// The status to exit with.
        status: u8,
        /// What failed, on what, why, and what to do.
        message: String,
    },
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] hooks::Error),
}

impl Error {
    /// The status to exit with.
    pub fn status(&self) -> u8 {
        match self {
            Error::Container { status, .. } => *status,
            _ => super::FAILED,
        }
    }
}
