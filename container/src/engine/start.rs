//! Starting a container: a supervisor is made for it, and says whether the program runs.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::SigmaskHow;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use super::record::{State, Status};
use super::supervisor::{leave_the_command, supervise};
use super::{Container, Error, Locked, settle};
use crate::{signals, terminal};

/// How long a supervisor may take to leave after it has written down the end.
const LEAVING: Duration = Duration::from_secs(30);

/// A container that runs, as the command that started it sees it.
pub struct Started {
    /// A client that was there before the program's first word, if it was asked for.
    pub client: Option<UnixStream>,
    supervisor: Pid,
}

impl Started {
    /// Waits until the supervisor has gone, after it said goodbye: nothing is left of the container then but what stays.
    pub fn wait_for_supervisor(&self) {
        let _ = waitpid(self.supervisor, None);
    }
}

/// Starts it; `attached`: with a client.
pub fn start(container: &Locked, attached: bool) -> Result<Started, Error> {
    settle::settle(container)?;
    wait_until_left(container)?;
    let state = container.state()?;
    if matches!(container.status(&state), Status::Running | Status::Restarting) {
        return Err(Error::Running(container.settings.name.clone()));
    }
    let _ = std::fs::remove_file(container.file("stop"));
    // What the last run left in the state would be mistaken for this one's.
    container.write_state(&State::default())?;

    let pair = || UnixStream::pair().map_err(Error::io("make a line to", &container.directory()));
    let (report, supervisors_report) = pair()?;
    let (client, supervisors_client) = match attached {
        true => pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
        false => (None, None),
    };
    // A program may ask for the size in its first moment, before a client could send it.
    let size = client.is_some().then(terminal::own_size).flatten();
    // The supervisor takes every signal as it comes, from its first moment on.
    let mask = signals::block_all().map_err(Error::kernel("take charge of signals"))?;
    // SAFETY: this process has one thread, so that its copy may do whatever it may.
    let supervisor = match unsafe { fork() }.map_err(Error::kernel("start a supervisor"))? {
        ForkResult::Child => {
            let report_fd = OwnedFd::from(supervisors_report);
            let client_fd = supervisors_client.map(OwnedFd::from);
            let kept: Vec<&OwnedFd> = std::iter::once(&report_fd).chain(&client_fd).collect();
            if leave_the_command(&kept).is_ok() {
                supervise(
                    container.container.clone(),
                    report_fd.into(),
                    client_fd.map(UnixStream::from),
                    size,
                );
            }
            // SAFETY: ends this process at once. The command's exit handlers, and the lock it holds, are not ours.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => child,
    };
    drop((supervisors_report, supervisors_client));
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)
        .map_err(Error::kernel("restore the signal mask"))?;
    let mut said = Vec::new();
    (&report)
        .read_to_end(&mut said)
        .map_err(Error::io("hear from the supervisor of", &container.directory()))?;
    if said.first() != Some(&0) {
        let _ = waitpid(supervisor, None);
    }
    match said.split_first() {
        Some((0, _)) => Ok(Started { client, supervisor }),
        Some((&status, message)) => Err(Error::Start {
            status,
            message: String::from_utf8_lossy(message).into_owned(),
        }),
        None => Err(Error::Start {
            status: protocol::status::LAUNCHER_FAILED,
            message: "the container's supervisor was killed before the program ran".into(),
        }),
    }
}

/// Waits while a supervisor is there and its program is not: it is about to start it, or saying goodbye after the end.
pub fn wait_until_left(container: &Container) -> Result<(), Error> {
    let until = Instant::now() + LEAVING;
    while container.supervisor().is_some()
        && matches!(container.state()?.status, Status::Exited | Status::Created)
        && Instant::now() < until
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
