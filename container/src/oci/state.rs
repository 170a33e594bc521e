//! What is known about a container between two commands: a directory of its own, a lock, a file.
//!
//! An OCI runtime is no daemon. `create` ends, and `start` comes as another process that knows nothing. All that
//! connects them lies in `ROOT/ID/`:
//!
//! | File | What it is |
//! |---|---|
//! | the directory itself | claimed by mkdir(2), which succeeds once: the id is taken. Locked (flock(2)) by the command at work |
//! | `state.json` | what the container is and how far it has come; replaced by rename(2), so that a reader sees the old or the new one whole |
//! | `config.json` | the configuration it was created from; the bundle's may change |
//! | `start` | the socket its first process waits at for `start` |
//!
//! A process id alone names nobody: ids are used again. With the time the process was started, which
//! the kernel keeps to a hundredth of a second, it does.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cgroup::place::Places;
use crate::errno::{of, why};
use crate::users;

/// The version of the runtime specification this runtime follows.
pub const OCI_VERSION: &str = "1.2.1";

/// How long one command waits for another that is at work on the same container.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// How far a container has come (runtime.md, "State"; `paused` is one more, which engines know from runc).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work, or was and has been killed.
    Creating,
    /// Its first process waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// The program has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The specification's version.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// As of the last change by a command; [`Container::status`] looks at what has become of it.
    pub status: Status,
    /// The first process, as the host sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Where it was created from.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// When, in RFC 3339.
    pub created: String,
    /// The user who created it.
    pub owner: u32,
    /// Its cgroups. Written before they are made, so that whatever happens somebody knows what to remove.
    pub cgroups: Places,
    /// From config.json.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
}

/// A process, for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine was (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

impl Process {
    /// The process that has this id now.
    pub fn now(pid: Pid) -> Option<Process> {
        let (_, start_time) = stat(pid.as_raw())?;
        Some(Process {
            pid: pid.as_raw(),
            start_time,
        })
    }

    /// Whether it is there and has not ended.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, start_time)| start_time == self.start_time && !matches!(state, b'Z' | b'X'))
    }

    /// A descriptor for it, which no other process can ever be meant by; `None` when it has ended.
    pub fn open(&self) -> Option<OwnedFd> {
        // SAFETY: takes numbers only.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        // SAFETY: pidfd_open just made this descriptor for us.
        let pidfd = Errno::result(opened)
            .map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
            .ok()?;
        // Looked at after it was opened: if the id was another's by then, this tells.
        self.is_alive().then_some(pidfd)
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(u8, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, parentheses too; what follows the last one cannot.
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    // Fields 4 to 21 are in between.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The directory all containers of one user are in.
#[derive(Clone, Debug)]
pub struct StateRoot(PathBuf);

impl StateRoot {
    /// Containers in `directory`, which is made when the first one is.
    pub fn new(directory: impl Into<PathBuf>) -> StateRoot {
        StateRoot(directory.into())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Claims `state.id` and writes its first state.
    pub(super) fn claim(&self, state: State, config: &[u8]) -> Result<Locked, Error> {
        check_id(&state.id)?;
        let directory = self.0.join(&state.id);
        let create = |path: &Path, recursive| fs::DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        let made = create(&directory, false).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                create(&self.0, true)?;
                create(&directory, false)
            }
            _ => Err(error),
        });
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(Error::Exists(state.id)),
            Err(error) => return Err(Error::io("create", &directory)(error)),
        }
        let lock = lock(&directory, &state.id)?;
        let mut locked = Locked {
            container: Container { directory, state },
            _lock: lock,
        };
        locked.write("config.json", config)?;
        locked.save()?;
        Ok(locked)
    }

    /// The container `id`, to be looked at. Whatever is at work on it goes on.
    pub fn open(&self, id: &str) -> Result<Container, Error> {
        check_id(id)?;
        Container::read(self.0.join(id), id)
    }

    /// The container `id`, for this command alone.
    pub fn lock(&self, id: &str) -> Result<Locked, Error> {
        check_id(id)?;
        let directory = self.0.join(id);
        let lock = lock(&directory, id)?;
        Ok(Locked {
            container: Container::read(directory, id)?,
            _lock: lock,
        })
    }

    /// Removes a directory whose `create` was killed before it could write what it was about to make: nothing was made.
    /// `false` when there is more to it than that.
    pub(super) fn remove_unwritten(&self, id: &str) -> Result<bool, Error> {
        check_id(id)?;
        let directory = self.0.join(id);
        let _lock = lock(&directory, id)?;
        if directory.join("state.json").exists() {
            return Ok(false);
        }
        fs::remove_dir_all(&directory).map_err(Error::io("remove", &directory))?;
        Ok(true)
    }

    /// Every container, by name.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io("read", &self.0))?,
        };
        // What vanishes meanwhile, or is not written yet, is not there yet or any more.
        let mut containers: Vec<Container> = entries
            .flatten()
            .filter_map(|entry| self.open(entry.file_name().to_str()?).ok())
            .collect();
        containers.sort_by(|a, b| a.state.id.cmp(&b.state.id));
        Ok(containers)
    }
}

impl Default for StateRoot {
    /// `/run/container-oci`; for an ordinary user a directory beneath his own `$XDG_RUNTIME_DIR`.
    ///
    /// A rootless engine calls its runtime inside of a user namespace, where its user is root and /run is still the
    /// host's. `USER` tells him from the root of a container that runs an engine: that is how runc has it, too.
    fn default() -> StateRoot {
        let by_name = || std::env::var_os("USER").is_some_and(|user| user == "root");
        let is_ordinary = || !geteuid().is_root() || !by_name() && !users::is_host_root();
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(own) if !own.is_empty() && is_ordinary() => StateRoot(Path::new(&own).join("container-oci")),
            _ => StateRoot("/run/container-oci".into()),
        }
    }
}

/// A container as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct Container {
    directory: PathBuf,
    /// What its file says.
    pub state: State,
}

impl Container {
    fn read(directory: PathBuf, id: &str) -> Result<Container, Error> {
        let path = directory.join("state.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(match directory.exists() {
                    true => Error::Unwritten(id.to_owned()),
                    false => Error::Missing {
                        id: id.to_owned(),
                        root: directory.parent().unwrap_or(&directory).to_owned(),
                    },
                });
            }
            other => other.map_err(Error::io("read", &path))?,
        };
        let state = serde_json::from_slice(&bytes).map_err(|error| Error::Damaged { path, error })?;
        Ok(Container { directory, state })
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What has become of it by now.
    pub fn status(&self) -> Status {
        match self.state.process {
            // A `create` that is still at work holds the lock.
            None if self.state.status == Status::Creating && self.is_locked() => Status::Creating,
            Some(process) if process.is_alive() => match self.state.status {
                Status::Running if self.state.cgroups.frozen() => Status::Paused,
                other => other,
            },
            _ => Status::Stopped,
        }
    }

    /// The first process's id, or 0 when it has ended: as engines expect it.
    pub fn pid(&self) -> i32 {
        match self.state.process {
            Some(process) if process.is_alive() => process.pid,
            _ => 0,
        }
    }

    /// The state as the specification has it (runtime.md, "State").
    pub fn oci_state(&self) -> serde_json::Value {
        self.oci_state_as(self.status())
    }

    /// The same at a moment when `status` is known better: to a hook.
    pub(super) fn oci_state_as(&self, status: Status) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.state.oci_version,
            "id": self.state.id,
            "status": status,
            "bundle": self.state.bundle,
            "annotations": self.state.annotations,
        });
        // REQUIRED when the status is created or running; engines read it as a number at all times.
        state["pid"] = self.pid().into();
        state
    }

    fn is_locked(&self) -> bool {
        let Ok(directory) = File::open(&self.directory) else {
            return false;
        };
        Flock::lock(directory, FlockArg::LockSharedNonblock).is_err()
    }
}

/// A container no other command is at work on, until this value is dropped.
#[derive(Debug)]
pub struct Locked {
    container: Container,
    _lock: Flock<File>,
}

impl std::ops::Deref for Locked {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Locked {
    /// Changes the state, on disk too.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        change(&mut self.container.state);
        self.save()
    }

    fn save(&mut self) -> Result<(), Error> {
        let path = self.container.directory.join("state.json");
        let bytes = serde_json::to_vec(&self.container.state).map_err(|error| Error::Damaged { path, error })?;
        self.write("state.json", &bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.container.directory.join(name);
        let next = self.container.directory.join(format!(".{name}"));
        let write = || -> std::io::Result<()> {
            let mut options = fs::OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&next)?
                .write_all(bytes)?;
            fs::rename(&next, &path)
        };
        write().map_err(Error::io("write", &path))
    }

    /// Forgets the container. Everything it was made of must be gone.
    pub(super) fn forget(self) -> Result<(), Error> {
        let directory = &self.container.directory;
        fs::remove_dir_all(directory).map_err(Error::io("remove", directory))
    }
}

/// Locks a container's directory. Waits while another command is at work, but not for ever: a hook may hang.
fn lock(directory: &Path, id: &str) -> Result<Flock<File>, Error> {
    let missing = || Error::Missing {
        id: id.to_owned(),
        root: directory.parent().unwrap_or(directory).to_owned(),
    };
    let mut file = match File::open(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
        other => other.map_err(Error::io("open", directory))?,
    };
    let begin = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                // Whoever had it may have removed the directory, and another may have made one by the same name.
                let inode = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
                let ours = lock.metadata().map_err(Error::io("look at", directory))?;
                return match fs::metadata(directory) {
                    Ok(now) if inode(&now) == inode(&ours) => Ok(lock),
                    _ => Err(missing()),
                };
            }
            Err((unlocked, Errno::EWOULDBLOCK)) if begin.elapsed() < PATIENCE => {
                file = unlocked;
                std::thread::sleep(PAUSE);
            }
            Err((_, Errno::EWOULDBLOCK)) => return Err(Error::Busy { id: id.to_owned() }),
            Err((_, errno)) => return Err(Error::io("lock", directory)(errno.into())),
        }
    }
}

/// An id becomes the name of a directory and of cgroups.
fn check_id(id: &str) -> Result<(), Error> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
    let long = id.len() > 1024;
    if id.is_empty() || long || id == "." || id == ".." || !id.chars().all(fits) {
        return Err(Error::Id(id.to_owned()));
    }
    Ok(())
}

/// Sends signal `number` to the process behind `pidfd`.
pub(super) fn send_signal(pidfd: impl AsFd, number: i32) -> Result<(), Errno> {
    // SAFETY: the descriptor is open; no siginfo is passed.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            number,
            0usize,
            0,
        )
    };
    Errno::result(sent).map(drop)
}

/// What is wrong with a container's state.
#[derive(Debug, Error)]
pub enum Error {
    /// The id is taken.
    #[error("container with id {0} exists already: delete it, or take another id")]
    Exists(String),
    /// There is none.
    #[error("container {id:?} does not exist in {}: see `container-oci list`, and --root", root.display())]
    Missing {
        /// Its name.
        id: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// Its `create` has not come to writing the state.
    #[error(
        "container {0:?} is being created, or its creation was interrupted: `delete --force` removes what there is"
    )]
    Unwritten(String),
    /// Another command does not come to an end.
    #[error("another command has been at work on container {id:?} for {} seconds: a hook of it may hang", PATIENCE.as_secs())]
    Busy {
        /// Its name.
        id: String,
    },
    /// No name for a container.
    #[error("{0:?} is no container id: it is made of letters, digits and _ + - .")]
    Id(String),
    /// The file makes no sense.
    #[error("cannot understand {}: {error}. `delete --force` needs it; if it is lost, remove the container's cgroups and this directory by hand", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// The file system.
    #[error("cannot {action} {}: {}. --root names a directory this user may write to", path.display(), why(errno))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Io {
            action,
            path: path.to_owned(),
            errno: of(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str) -> State {
        State {
            oci_version: OCI_VERSION.into(),
            id: id.into(),
            status: Status::Creating,
            process: None,
            bundle: "/bundle".into(),
            rootfs: "/bundle/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            owner: 0,
            cgroups: Places::default(),
            annotations: HashMap::new(),
        }
    }

    #[test]
    fn an_id_is_claimed_once_and_can_be_had_again_when_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let root = StateRoot::new(directory.path().join("deep/down"));
        let first = root.claim(state("a"), b"{}").unwrap();
        assert!(matches!(root.claim(state("a"), b"{}"), Err(Error::Exists(_))));
        assert_eq!(root.list().unwrap().len(), 1);
        first.forget().unwrap();
        assert!(matches!(root.open("a"), Err(Error::Missing { .. })));
        root.claim(state("a"), b"{}").unwrap();
    }

    #[test]
    fn a_creation_at_work_is_told_from_one_that_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let root = StateRoot::new(directory.path());
        let locked = root.claim(state("a"), b"{}").unwrap();
        assert_eq!(root.open("a").unwrap().status(), Status::Creating);
        drop(locked);
        assert_eq!(root.open("a").unwrap().status(), Status::Stopped);
    }

    #[test]
    fn a_process_is_told_from_another_with_its_id() {
        let me = Process::now(Pid::this()).unwrap();
        assert!(me.is_alive() && me.open().is_some());
        let another = Process {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(!another.is_alive() && another.open().is_none());
    }

    #[test]
    fn ids_are_names_and_no_paths() {
        for id in ["", ".", "..", "a/b", "a b", "ä"] {
            assert!(matches!(check_id(id), Err(Error::Id(_))), "{id}");
        }
        for id in ["a", "..a", "A_b+c-d.e"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
    }
}
