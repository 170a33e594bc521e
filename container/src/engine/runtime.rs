//! The engine's dealings with the OCI runtime: a bundle in, a process out.
//!
//! The runtime is this crate's own ([`crate::oci`]), called as functions. Each container has a state directory of its
//! own for it, so that whatever a killed supervisor left of it is found where the container is.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::unistd::Pid;

use super::streams::Streams;
use super::{Container, Error};
use crate::oci::{self, StateRoot, line};

/// The socket by which the runtime hands over a terminal's master, in the container's directory.
const CONSOLE: &str = "console.sock";

/// Where the runtime keeps what it knows of the container.
pub fn state_root(container: &Container) -> StateRoot {
    StateRoot::new(container.file("runtime"))
}

/// Starts the program of the container's bundle: its first process, whose parent is the caller, and its streams. Pipes
/// among them are given to `owner`, a user and a group of the host's.
pub fn start(container: &Container, owner: Option<(u32, u32)>) -> Result<(Pid, Streams), Error> {
    let root = state_root(container);
    let mut request = oci::Request {
        id: container.id().to_owned(),
        bundle: container.file("bundle"),
        // Whatever ends a supervisor ends its container: nobody would keep its log, learn its status or start it again.
        die_with_caller: true,
        ..Default::default()
    };
    let directory = container.directory();
    let console = match container.settings.terminal {
        false => None,
        true => {
            // A socket's path may have 107 bytes, so it starts at an open descriptor of the directory.
            let held = std::fs::File::open(&directory).map_err(Error::io("open", &directory))?;
            let path = format!("/proc/self/fd/{}/{CONSOLE}", held.as_raw_fd());
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).map_err(Error::io("listen in", &directory))?;
            request.console_socket = Some(path.into());
            Some((listener, held))
        }
    };
    let streams = match &console {
        Some(_) => None,
        None => {
            let (streams, program) = Streams::pipes(container.settings.interactive, owner)?;
            request.streams = Some(program.streams);
            Some(streams)
        }
    };
    let begun = (|| {
        // ANCHOR: steps
        oci::create(&root, request).map_err(oci::Error::from)?;
        let pid = oci::state(&root, container.id())?.pid();
        let streams = match (streams, &console) {
            (Some(streams), _) => streams,
            (None, Some((listener, _))) => Streams::terminal(receive_terminal(listener)?)?,
            (None, None) => Streams::default(),
        };
        oci::start(&root, container.id()).map_err(oci::Error::from)?;
        // ANCHOR_END: steps
        Ok((Pid::from_raw(pid), streams))
    })();
    if begun.is_err() {
        // The error that led here is the one to report.
        let _ = delete(container);
    }
    begun
}

/// The terminal's master. The runtime has sent it by now: this does not wait.
fn receive_terminal(listener: &UnixListener) -> Result<OwnedFd, Error> {
    let (socket, _) = listener
        .accept()
        .map_err(Error::io("accept a terminal at", std::path::Path::new(CONSOLE)))?;
    let (_, descriptors) =
        line::receive(&socket.into(), &mut [0; 64]).map_err(Error::kernel("receive the terminal"))?;
    descriptors
        .into_iter()
        .next()
        .ok_or_else(|| Error::Refused("the runtime sent no terminal".into()))
}

/// Ends what is left of the container's processes, and removes its cgroups.
pub fn delete(container: &Container) -> Result<(), Error> {
    Ok(oci::delete(&state_root(container), container.id(), true).map_err(oci::Error::from)?)
}
