//! Stopping, killing, removing.

use std::time::Duration;

use super::record::Status;
use super::settle;
use super::start::wait_until_left;
use super::{Container, Error, Locked, launch};

/// How long the kernel may take to end what was killed, and the supervisor to clear away.
const CLEARING: Duration = Duration::from_secs(60);

/// Asks the program to end with `signal`, and kills it after `timeout`. It is not started again. Nothing happens when it
/// does not run.
pub fn stop(container: &Locked, signal: i32, timeout: Duration) -> Result<(), Error> {
    settle::settle(container)?;
    // Before the signal: a program that ends at once must not be started again.
    let mark = container.file("stop");
    std::fs::write(&mark, "").map_err(Error::io("write", &mark))?;
    if let Ok(init) = container.init()
        && let Ok(pidfd) = launch::pidfd_open(init.pid)
        && init.is_alive()
    {
        launch::send_signal(&pidfd, signal);
        if !launch::wait_for_end(&pidfd, Some(timeout)) {
            launch::send_signal(&pidfd, libc::SIGKILL);
        }
    }
    if let Some(supervisor) = container.supervisor()
        && let Ok(pidfd) = launch::pidfd_open(supervisor)
        && !launch::wait_for_end(&pidfd, Some(CLEARING))
    {
        return Err(Error::Refused(format!(
            "the supervisor of container {} (process {supervisor}) does not come to its end",
            container.settings.name
        )));
    }
    Ok(())
}

/// Sends a signal to the program. Without the lock: also while somebody waits for it to stop.
pub fn kill(container: &Container, signal: i32) -> Result<(), Error> {
    let init = container.init()?;
    let pidfd = launch::pidfd_open(init.pid)?;
    // The number may have been given to another process before it was opened.
    if !init.is_alive() {
        return Err(Error::NotRunning(container.settings.name.clone()));
    }
    launch::send_signal(&pidfd, signal);
    Ok(())
}

/// Removes a container; `force` stops it first, `volumes` removes those that were made for it alone.
pub fn remove(container: Locked, force: bool, volumes: bool) -> Result<(), Error> {
    settle::settle(&container)?;
    wait_until_left(&container)?;
    let state = container.state()?;
    if matches!(container.status(&state), Status::Running | Status::Restarting) {
        if !force {
            return Err(Error::Running(container.settings.name.clone()));
        }
        stop(&container, libc::SIGKILL, Duration::ZERO)?;
    }
    // Whatever a supervisor that was killed in the middle of its work may have left.
    launch::clear_away_the_abandoned(&container)?;
    settle::give_back(&container)?;
    settle::erase(&container)?;
    if volumes {
        settle::remove_anonymous_volumes(&container)?;
    }
    Ok(())
}

/// The number of a signal given by name, with or without `SIG`, or by number.
pub fn signal(text: &str) -> Result<i32, String> {
    use nix::sys::signal::Signal;
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") {
        upper.clone()
    } else {
        format!("SIG{upper}")
    };
    let highest = libc::SIGRTMAX();
    text.parse::<i32>()
        .ok()
        .filter(|number| (1..=highest).contains(number))
        .or_else(|| name.parse::<Signal>().ok().map(|signal| signal as i32))
        .ok_or_else(|| format!("{text:?} is no signal; kill -l lists those there are"))
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal("sigkill"), Ok(9));
        assert_eq!(signal("34"), Ok(34));
        assert!(signal("0").is_err() && signal("SIGNOTHING").is_err());
    }
}
