//! `kill`: a signal for the container's first process, or for every process of it.

use nix::errno::Errno;
use nix::unistd::Pid;
use thiserror::Error;

use super::state::{self, Container, StateRoot, Status, send_signal};
use crate::cgroup;
use crate::errno::why;

/// Sends signal `number` to the first process of container `id`, with `all` to every process of the container.
pub fn kill(root: &StateRoot, id: &str, number: i32, all: bool) -> Result<(), Error> {
    let container = root.lock(id)?;
    if all {
        return kill_all(&container, number);
    }
    let gone = || Error::NotRunning {
        id: id.to_owned(),
        status: container.status(),
    };
    let process = container
        .state
        .process
        .and_then(|process| process.open())
        .ok_or_else(gone)?;
    match send_signal(process, number) {
        Err(Errno::ESRCH) => Err(gone()),
        other => other.map_err(|errno| Error::Refused { number, errno }),
    }
}

/// Signals every process of the container. A container that made processes faster than they are signalled is frozen
/// meanwhile; one that is frozen gets the signal when it goes on.
fn kill_all(container: &Container, number: i32) -> Result<(), Error> {
    let cgroups = &container.state.cgroups;
    let was_frozen = cgroups.frozen();
    // A container without cgroups is one of an ordinary user's, and has its first process only to go by.
    let can_freeze = cgroups.with("freezer").is_some();
    if can_freeze && !was_frozen {
        cgroups.freeze(true)?;
    }
    for pid in cgroups.processes()? {
        crate::signals::send(pid, number);
    }
    if cgroups.0.is_empty()
        && let Some(process) = container.state.process.filter(state::Process::is_alive)
    {
        crate::signals::send(Pid::from_raw(process.pid), number);
    }
    if can_freeze && !was_frozen {
        cgroups.freeze(false)?;
    }
    Ok(())
}

/// A signal by its name (with or without SIG) or number.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    let real_time = |prefix: &str| name.strip_prefix(prefix)?.parse::<i32>().ok();
    if let Some(offset) = real_time("SIGRTMIN+") {
        return Some(libc::SIGRTMIN() + offset).filter(|&number| number <= libc::SIGRTMAX());
    }
    if let Some(offset) = real_time("SIGRTMAX-") {
        return Some(libc::SIGRTMAX() - offset).filter(|&number| number >= libc::SIGRTMIN());
    }
    name.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
}

/// Why no signal was sent.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no process.
    #[error("cannot signal container {id}: it is {status}, and has no process (container not running)")]
    NotRunning {
        /// Its name.
        id: String,
        /// How far it has come.
        status: Status,
    },
    /// The kernel refused.
    #[error("cannot send signal {number}: {}", why(errno))]
    Refused {
        /// The signal.
        number: i32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(signal_number(text), Some(libc::SIGTERM), "{text}");
        }
        assert_eq!(signal_number("SIGRTMIN+3"), Some(libc::SIGRTMIN() + 3));
        assert_eq!(signal_number("RTMAX-1"), Some(libc::SIGRTMAX() - 1));
        for text in ["", "0", "-1", "999", "SIGNOTHING"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }
}
