//! Containers with names: what turns one run of a program into something to come back to.
//!
//! There is no daemon. What is known of a container is a directory of files ([`place`], [`record`]); what looks after a
//! running one is a process of its own, its supervisor ([`supervisor`]): it holds the program's streams, keeps the log
//! ([`logs`]), waits for the end, and starts the program again where the restart policy says so. A command reads the
//! files, talks to the supervisor over a socket ([`attach`]), or does the work itself.
//!
//! Any of these processes can be killed at any moment, so nothing is believed because a file says it. A container runs
//! if its supervisor holds a lock that the kernel lifts with the supervisor's last breath ([`Container::supervisor`]).
//! What a killed one left behind, the next command clears away ([`settle`]).

pub mod account;
pub mod attach;
pub mod client;
pub mod copy;
pub mod create;
pub mod filesystem;
pub mod filter;
pub mod images;
pub mod launch;
pub mod logs;
pub mod naming;
pub mod own_users;
pub mod place;
pub mod record;
pub mod runtime;
pub mod settle;
pub mod specification;
pub mod start;
pub mod statistics;
pub mod stop;
pub mod streams;
pub mod supervisor;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::errno::{of, why};
use crate::{network, oci};
use place::Place;
use record::{Process, Settings, State, Status};

/// A container that exists.
#[derive(Clone, Debug)]
pub struct Container {
    /// Where everything is kept.
    pub place: Place,
    /// What was asked for.
    pub settings: Settings,
}

/// The right to change a container: one command at a time has it.
pub struct Locked {
    /// The container.
    pub container: Container,
    /// Lifted by the kernel when this process ends, however it does.
    _lock: Flock<File>,
}

impl std::ops::Deref for Locked {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Container {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.settings.id
    }

    /// Its directory.
    pub fn directory(&self) -> PathBuf {
        self.place.container(&self.settings.id)
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Every container there is, the newest first.
    pub fn all(place: &Place) -> Result<Vec<Container>, Error> {
        let directory = place.containers();
        let mut all = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
            let entry = entry.map_err(Error::io("list", &directory))?;
            // A name with a dot is a container that is being made or removed.
            if let Some(id) = entry.file_name().to_str().filter(|name| !name.contains('.'))
                && let Some(container) = Container::load(place, id)?
            {
                all.push(container);
            }
        }
        all.sort_by(|one, other| other.settings.created.cmp(&one.settings.created));
        Ok(all)
    }

    /// The container with this name, or whose id starts with it.
    pub fn find(place: &Place, name: &str) -> Result<Container, Error> {
        if naming::is_valid(name)
            && let Ok(id) = fs::read_link(place.names().join(name))
            && let Some(container) = id.to_str().and_then(|id| Container::load(place, id).transpose())
        {
            return container;
        }
        let is_id = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut matching = match is_id {
            true => Container::all(place)?,
            false => Vec::new(),
        };
        matching.retain(|container| container.id().starts_with(name));
        match (matching.pop(), matching.is_empty()) {
            (Some(container), true) => Ok(container),
            (Some(_), false) => Err(Error::Ambiguous(name.to_owned())),
            (None, _) => Err(Error::NoSuch(name.to_owned())),
        }
    }

    /// Waits for the right to change it. Fails when it went away meanwhile.
    pub fn lock(&self) -> Result<Locked, Error> {
        self.take_lock(FlockArg::LockExclusive)?.ok_or_else(|| self.gone())
    }

    /// The right to change it if nobody has it now.
    pub fn try_lock(&self) -> Result<Option<Locked>, Error> {
        self.take_lock(FlockArg::LockExclusiveNonblock)
    }

    fn take_lock(&self, how: FlockArg) -> Result<Option<Locked>, Error> {
        let path = self.file("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.gone()),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let lock = match Flock::lock(file, how) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => {
                return Err(Error::Io {
                    action: "lock",
                    path,
                    errno,
                });
            }
        };
        // Whoever had it may have removed the container.
        let container = Container::load(&self.place, self.id())?.ok_or_else(|| self.gone())?;
        Ok(Some(Locked { container, _lock: lock }))
    }

    /// What is said when it is not there any more.
    fn gone(&self) -> Error {
        Error::NoSuch(self.settings.name.clone())
    }

    fn load(place: &Place, id: &str) -> Result<Option<Container>, Error> {
        let path = place.container(id).join("settings.json");
        Ok(read_json(&path)?.map(|settings| Container {
            place: place.clone(),
            settings,
        }))
    }

    /// How it stands, as last written.
    pub fn state(&self) -> Result<State, Error> {
        Ok(read_json(&self.file("state.json"))?.unwrap_or_default())
    }

    /// Writes how it stands. For its supervisor; and for a command that has it locked while it has no supervisor.
    pub fn write_state(&self, state: &State) -> Result<(), Error> {
        write_json(&self.file("state.json"), state)
    }

    /// The process that looks after it, if there is one. The lock tells, not a number in a file.
    pub fn supervisor(&self) -> Option<i32> {
        let file = File::open(self.file("alive")).ok()?;
        let mut lock = whole_file(libc::F_WRLCK);
        // SAFETY: F_GETLK reads and writes the flock structure it is given.
        let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
        (asked == 0 && lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_pid)
    }

    /// Where it really is in its life.
    pub fn status(&self, state: &State) -> Status {
        match state.status {
            Status::Running | Status::Restarting if self.supervisor().is_none() => Status::Exited,
            status => status,
        }
    }

    /// The container's first process, if it runs.
    pub fn init(&self) -> Result<Process, Error> {
        let state = self.state()?;
        match state.init.filter(|init| init.is_alive()) {
            Some(init) if self.status(&state) == Status::Running => Ok(init),
            _ => Err(Error::NotRunning(self.settings.name.clone())),
        }
    }
}

/// Takes the lock that says "alive", for as long as this process lives: children do not inherit it (fcntl(2), "record
/// locks"). The file must stay open, and must not be opened a second time by this process.
pub fn say_alive(container: &Container) -> Result<File, Error> {
    let path = container.file("alive");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: F_SETLK reads the flock structure it is given.
    match Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) }) {
        Ok(_) => Ok(file),
        Err(errno) => Err(Error::Io {
            action: "lock",
            path,
            errno,
        }),
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: flock is plain integers, for which zero is a value: from the start, to the end.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// Whom the bridge serves.
impl network::bridge::Members for Place {
    fn is_there(&self, id: &str) -> bool {
        Container::load(self, id)
            .ok()
            .flatten()
            .is_some_and(|container| container.supervisor().is_some())
    }

    fn hosts_file(&self, id: &str) -> PathBuf {
        self.container(id).join("hosts")
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| Error::Garbled {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Replaces a file as a whole.
fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Error> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let text = serde_json::to_vec(value).map_err(|error| Error::Garbled {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let write = || -> std::io::Result<()> {
        File::create(&beside)?.write_all(&text)?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&beside);
        Error::io("write", path)(error)
    })
}

/// What stands between a command and a container.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody has this name.
    #[error("no container {0}: container ps -a lists those there are")]
    NoSuch(String),
    /// Several have it.
    #[error("{0} is the beginning of more than one container's id: give more of it")]
    Ambiguous(String),
    /// The name is taken.
    #[error("the name {name} belongs to container {id}: remove that one (container rm {name}), or choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// Not a name.
    #[error("{0:?} is no name for a container: 1 to 63 letters, digits, _ . and -, the first a letter or a digit")]
    BadName(String),
    /// It must run for this.
    #[error("container {0} is not running: container start {0}")]
    NotRunning(String),
    /// It must not run for this.
    #[error("container {0} is running: stop it first (container stop {0}), or use -f where there is one")]
    Running(String),
    /// It could not be started.
    #[error("{message}")]
    Start {
        /// The exit status that says so.
        status: u8,
        /// What failed, on what, why.
        message: String,
    },
    /// What was asked for cannot be had.
    #[error("{0}")]
    Refused(String),
    /// Neither of the places for files is known.
    #[error("neither CONTAINER_STATE, XDG_DATA_HOME nor HOME is set: there is nowhere to keep containers")]
    NoHome,
    /// A file.
    #[error("cannot {action} {}: {}", path.display(), why(errno))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file's content.
    #[error("{} cannot be understood: {reason}", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The kernel said no.
    #[error("cannot {action}: {}", why(errno))]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        errno: Errno,
    },
    /// The bridge.
    #[error(transparent)]
    Bridge(#[from] network::bridge::Error),
    /// The namespace.
    #[error(transparent)]
    Namespace(#[from] network::namespace::Error),
    /// A user namespace.
    #[error(transparent)]
    Clone(#[from] crate::clone::Error),
    /// Its ids.
    #[error(transparent)]
    Users(#[from] crate::users::Error),
    /// A port.
    #[error(transparent)]
    Forward(#[from] network::forward::Error),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
    /// The OCI runtime.
    #[error(transparent)]
    Runtime(#[from] oci::Error),
    /// An image.
    #[error(transparent)]
    Image(#[from] images::Error),
}

impl Error {
    /// For `map_err` on the operations of `std::fs`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Io {
            action,
            path: path.to_owned(),
            errno: of(&error),
        }
    }

    /// For `map_err` on system calls.
    pub fn kernel(action: &'static str) -> impl FnOnce(Errno) -> Error {
        move |errno| Error::Kernel { action, errno }
    }

    /// The exit status of a command that fails so.
    pub fn status(&self) -> u8 {
        match self {
            Error::Start { status, .. } => *status,
            // Not found and not executable have statuses of their own; whatever else failed is the container's making.
            Error::Runtime(error) => match error.status() {
                status @ (protocol::status::NOT_FOUND | protocol::status::NOT_EXECUTABLE) => status,
                _ => protocol::status::LAUNCHER_FAILED,
            },
            _ => protocol::status::LAUNCHER_FAILED,
        }
    }
}
