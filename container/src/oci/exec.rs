//! `exec`: another program in a container that runs.
//!
//! A process enters the container's cgroups and all of its namespaces, and clones one that becomes the program the way
//! the first process does. Between the two lies the moment a hostile container waits for: a process of the host's is in
//! its pid namespace, with the runtime's file as its /proc/PID/exe (CVE-2019-5736) and the runtime's descriptors in
//! /proc/PID/fd (CVE-2024-21626). It has hidden itself before it comes (not dumpable), every descriptor closes at
//! execve(2), the working directory is checked, and what /proc/PID/exe leads to cannot be written (the binary runs from a read-only mount of itself).

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::Process;
use thiserror::Error;

use super::create::{self, reap};
use super::init::{become_root_inside, join_session_keyring};
use super::join::{self, Way};
use super::line::{self, End, Word};
use super::process::{self, Setup};
use super::state::{self, StateRoot, Status, send_signal};
use super::{spec, start, terminal};
use crate::cgroup;
use crate::clone::Side;
use crate::errno::{of, why};
use crate::namespaces::Namespace;
use crate::privileges;

/// What to run, and where.
#[derive(Debug, Default)]
pub struct Request {
    /// The container's name.
    pub id: String,
    /// The program's description: [`process_like`] makes one after the container's own.
    pub process: Process,
    /// The socket that gets the terminal's master, when the description asks for a terminal.
    pub console_socket: Option<PathBuf>,
    /// Where to write the process's id.
    pub pid_file: Option<PathBuf>,
    /// Descriptors from 3 on that the program is to inherit from the caller.
    pub preserve_fds: u32,
    /// Standard input, output and error of the program; the caller's own when `None`.
    pub streams: Option<[OwnedFd; 3]>,
    /// Also when the container is paused: the program then waits until it is resumed.
    pub ignore_paused: bool,
}

/// A program that was started: a child of the caller.
#[derive(Debug)]
pub struct Child {
    /// Its process id, as the host sees it.
    pub pid: Pid,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
}

/// The description of a container's own program, to be changed.
pub fn process_like(root: &StateRoot, id: &str) -> Result<Process, Error> {
    let configuration = start::configuration(&root.open(id)?)?;
    let mut process = configuration.process().clone().unwrap_or_default();
    process.set_terminal(Some(false)).set_console_size(None);
    Ok(process)
}

/// Starts the program. Returns when it runs; whoever wants its status waits for the child.
///
/// The calling process must have a single thread.
pub fn exec(root: &StateRoot, request: Request) -> Result<Child, Error> {
    exec_with(root, request, None)
}

/// The same; `console` is the socket for a terminal's master where there is no path to one.
pub(super) fn exec_with(root: &StateRoot, mut request: Request, console: Option<OwnedFd>) -> Result<Child, Error> {
    spec::check_process(&request.process)?;
    let container = root.lock(&request.id)?;
    let first = match container.status() {
        Status::Created | Status::Running => container.state.process,
        Status::Paused if request.ignore_paused => container.state.process,
        _ => None,
    };
    let not_running = || Error::NotRunning {
        id: request.id.clone(),
        status: container.status(),
    };
    let first = first.ok_or_else(not_running)?;
    let first_fd = first.open().ok_or_else(not_running)?;

    let configuration = start::configuration(&container)?;
    let linux = configuration.linux().as_ref();
    let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
    let personality = linux.and_then(|linux| linux.personality().as_ref());
    let mut setup = Setup::of(&request.process, seccomp, personality)?;
    setup.console = console;
    setup.connect_console(request.console_socket.as_deref())?;
    setup.preserve_fds = request.preserve_fds;
    setup.streams = request.streams.take();
    if setup.notifies()
        && let Some(path) = seccomp.and_then(|profile| profile.listener_path().as_ref())
    {
        let socket = UnixStream::connect(path).map_err(|error| Error::Supervisor {
            path: path.clone(),
            errno: of(&error),
        })?;
        setup.supervisor = Some((socket.into(), container.oci_state().to_string()));
    }

    let cgroups = &container.state.cgroups;
    let into = cgroups.open_v2()?;
    let kinds = join::differing(first.pid)?;
    let before = || {
        cgroups.join().map_err(|error| error.to_string())?;
        privileges::hide_from_inside().map_err(|error| error.to_string())
    };
    let way = Way {
        namespaces: vec![(kinds, first_fd)],
        time_offsets: None,
        before: &before,
    };
    let (ours, theirs) = line::pair().map_err(Error::Channel)?;
    match way.clone3(0, into.as_ref().map(AsFd::as_fd))? {
        Side::Container => {
            drop(ours);
            let user = kinds & Namespace::User.clone_flag() as libc::c_int != 0;
            become_program(setup, &theirs, user, &request.id)
        }
        Side::Launcher { pid, pidfd } => {
            drop(theirs);
            let result = look_after(pid, &ours, &setup, &request);
            match result {
                Ok(()) => Ok(Child { pid, pidfd }),
                Err(error) => {
                    // It may have ended already.
                    let _ = send_signal(&pidfd, libc::SIGKILL);
                    reap(pid);
                    Err(error)
                }
            }
        }
    }
}

/// The launcher's part: the id is written before the program runs.
fn look_after(pid: Pid, line: &End, setup: &Setup, request: &Request) -> Result<(), Error> {
    setup.adjust(pid)?;
    line.say(&Word::Go(Vec::new())).map_err(Error::Channel)?;
    match line.hear() {
        Some(Word::Ready) => {}
        Some(Word::Failed(status, message)) => return Err(Error::Container { status, message }),
        _ => return Err(Error::Vanished),
    }
    if let Some(path) = &request.pid_file {
        create::write_pid_file(path, pid).map_err(|error| Error::PidFile(error.to_string()))?;
    }
    line.say(&Word::Recorded).map_err(Error::Channel)?;
    // The line closes at execve.
    match line.hear() {
        Some(Word::Failed(status, message)) => Err(Error::Container { status, message }),
        _ => Ok(()),
    }
}

/// The new process's part.
fn become_program(mut setup: Setup, launcher: &End, in_user_namespace: bool, id: &str) -> ! {
    let attempt = || -> Result<std::convert::Infallible, process::Error> {
        let gone = |step| process::Error::Step {
            step,
            errno: Errno::EPIPE,
        };
        let Some(Word::Go(_)) = launcher.hear() else {
            return Err(gone("hear from `exec`"));
        };
        // The container's, or its caller would lend his keys.
        join_session_keyring(id);
        if in_user_namespace {
            become_root_inside()?;
            privileges::hide_from_inside()?;
        }
        let (executable, _terminal) = setup.prepare()?;
        launcher.say(&Word::Ready).map_err(|_| gone("speak to `exec`"))?;
        let Some(Word::Recorded) = launcher.hear() else {
            return Err(gone("hear from `exec`"));
        };
        setup.drop_privileges()?;
        Err(setup.become_program(&executable, launcher.as_fd()))
    };
    let Err(error) = { attempt }();
    // Nobody is left to tell if this fails too.
    let _ = launcher.say(&Word::Failed(error.status(), error.to_string()));
    // SAFETY: ends this process at once. The launcher's exit handlers are not ours to run.
    unsafe { libc::_exit(error.status().into()) }
}

/// Reads a description from a file, as engines hand it over (`--process`).
pub fn read_process(path: &std::path::Path) -> Result<Process, Error> {
    let bytes = fs::read(path).map_err(|error| Error::ProcessFile {
        path: path.to_owned(),
        why: why(&of(&error)),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::ProcessFile {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

/// Why the program does not run.
#[derive(Debug, Error)]
pub enum Error {
    /// There is nothing to run it in.
    #[error("cannot run a program in container {id}: it is {status}")]
    NotRunning {
        /// Its name.
        id: String,
        /// How far it has come.
        status: Status,
    },
    /// The description's file.
    #[error("cannot read the program's description {}: {why}", path.display())]
    ProcessFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file for the id.
    #[error("{0}")]
    PidFile(String),
    /// The seccomp supervisor.
    #[error("cannot connect to the seccomp supervisor at {}: {}", path.display(), why(errno))]
    Supervisor {
        /// His socket.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The line to the new process.
    #[error("cannot talk to the new process: {}. The limit on open files may be reached (ulimit -n)", why(.0))]
    Channel(Errno),
    /// It ended and said nothing.
    #[error(
        "the new process ended before it could say why: the container's memory or process limit may leave no room for it"
    )]
    Vanished,
    /// Its own account of what failed inside.
    #[error("exec failed: {message}")]
    Container {
        /// The status to exit with.
        status: u8,
        /// What failed, on what, why, and what to do.
        message: String,
    },
    /// The description.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// The description, looked at closely.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The container's configuration.
    #[error(transparent)]
    Start(#[from] start::Error),
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The namespaces.
    #[error(transparent)]
    Join(#[from] join::Error),
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] terminal::Error),
}

impl Error {
    /// The status to exit with.
    pub fn status(&self) -> u8 {
        match self {
            Error::Container { status, .. } => *status,
            Error::Process(error) => error.status(),
            _ => super::FAILED,
        }
    }
}
