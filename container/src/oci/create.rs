//! `create`: the recipe, from a bundle to a container that waits to be started.
//!
//! Claim the id, make the cgroups, clone into the namespaces, map the users, say go; run the hooks that are to run
//! before the root is entered; write down that it is created, and leave. The other half is told in [`super::init`].
//!
//! Whatever happens on the way, the state on disk is ahead of what exists: first it names the cgroups, then they are
//! made; a process that was cloned ends by itself until `create` has told it that its id is on disk. So a `create` that
//! is killed at any point leaves nothing that `delete --force` would not find.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::unistd::{Pid, geteuid};
use oci_spec::runtime::LinuxIdMapping;
use thiserror::Error;

use super::hooks;
use super::init::Init;
use super::join::{self, Way};
use super::line::{self, End, Word};
use super::process::{self, Setup};
use super::rootfs::{self, FromHost};
use super::spec::{self, Bundle};
use super::state::{self, Locked, OCI_VERSION, Process, State, StateRoot, Status, send_signal};
use super::terminal;
use crate::cgroup::{self, place::Places, resources};
use crate::clone::{self, Side, clone3};
use crate::errno::{of, why};
use crate::namespaces::Namespace;
use crate::users::{self, IdMap};

/// What to create, and for whom.
#[derive(Debug, Default)]
pub struct Request {
    /// The container's name.
    pub id: String,
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// The socket that gets the terminal's master, when config.json asks for a terminal.
    pub console_socket: Option<PathBuf>,
    /// Where to write the first process's id.
    pub pid_file: Option<PathBuf>,
    /// Descriptors from 3 on that the program is to inherit from the caller.
    pub preserve_fds: u32,
    /// Standard input, output and error of the program; the caller's own when `None`.
    pub streams: Option<[OwnedFd; 3]>,
    /// Change the root without pivot_root(2), for hosts that run from an initial ramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Have the kernel kill the first process when the caller ends.
    pub die_with_caller: bool,
}

/// Creates a container. It is left to itself; `start` has its program run.
///
/// The calling process must have a single thread, and becomes the parent of the container's first process: whoever
/// wants its status waits for it, or is a subreaper when the caller ends.
pub fn create(root: &StateRoot, request: Request) -> Result<(), Error> {
    create_locked(root, request, None).map(drop)
}

/// The same, and the lock is kept: for `run`, which starts it at once. `console` is the socket for a terminal's master
/// where there is no path to one.
pub(super) fn create_locked(root: &StateRoot, mut request: Request, console: Option<OwnedFd>) -> Result<Locked, Error> {
    let bundle = Bundle::load(&request.bundle)?;
    let linux = bundle.linux()?;
    let mut setup = Setup::of(
        bundle.process()?,
        linux.seccomp().as_ref(),
        linux.personality().as_ref(),
    )?;
    setup.console = console;
    setup.connect_console(request.console_socket.as_deref())?;
    setup.preserve_fds = request.preserve_fds;
    setup.streams = request.streams.take();
    setup.dies_with_caller = request.die_with_caller;
    let limits = linux.resources().as_ref();
    let cgroups = plan_cgroups(&bundle, &request.id)?;
    let state = State {
        oci_version: OCI_VERSION.into(),
        id: request.id.clone(),
        status: Status::Creating,
        process: None,
        bundle: bundle.directory.clone(),
        rootfs: bundle.rootfs.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        owner: geteuid().as_raw(),
        cgroups,
        annotations: bundle.annotations(),
    };
    let mut container = root.claim(state, &bundle.bytes)?;
    let built = make_cgroups(&mut container, limits).and_then(|()| {
        let build = Build {
            bundle: &bundle,
            request: &request,
            container: &mut container,
        };
        build.run(setup)
    });
    match built {
        Ok(()) => Ok(container),
        Err(error) => {
            // The error that led here is the one to report; what is left stays for `delete --force`.
            if super::delete::clean_up(&container).is_ok() {
                let _ = container.forget();
            }
            Err(error)
        }
    }
}

fn plan_cgroups(bundle: &Bundle, id: &str) -> Result<Places, Error> {
    let linux = bundle.linux()?;
    let limited = linux.resources().as_ref().map(resources::limited).unwrap_or_default();
    // One directory and none above it: what no bundle asked for must go with its container.
    let default = PathBuf::from(format!("/container-oci-{id}"));
    let path = linux
        .cgroups_path()
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty());
    Ok(Places::plan(path.unwrap_or(&default), &limited)?)
}

/// Makes the cgroups and sets the limits. An ordinary user may make none on most hosts: without a limit to enforce, his
/// container stays in his own.
fn make_cgroups(container: &mut Locked, limits: Option<&oci_spec::runtime::LinuxResources>) -> Result<(), Error> {
    let wants_limits = limits.is_some_and(|limits| !resources::limited(limits).is_empty());
    match container.state.cgroups.make() {
        Err(_) if !users::is_host_root() && !wants_limits => {
            // What could be made of them is of no use to anybody.
            container.state.cgroups.remove()?;
            return Ok(container.update(|state| state.cgroups = Places::default())?);
        }
        other => other?,
    }
    let none = Default::default();
    Ok(resources::apply(
        &container.state.cgroups,
        limits.unwrap_or(&none),
        users::is_host_root(),
    )?)
}

/// Whether hooks are to run between building the root and entering it.
pub(super) fn has_early_hooks(bundle: &Bundle) -> bool {
    !early_hooks(bundle).iter().all(|(_, hooks)| hooks.is_empty())
}

#[allow(
    deprecated,
    reason = "engines still write prestart hooks, and the specification still has them run"
)]
fn early_hooks(bundle: &Bundle) -> [(&'static str, &[oci_spec::runtime::Hook]); 2] {
    let Some(hooks) = bundle.spec.hooks() else {
        return [("prestart", &[]), ("createRuntime", &[])];
    };
    [
        ("prestart", hooks.prestart().as_deref().unwrap_or_default()),
        ("createRuntime", hooks.create_runtime().as_deref().unwrap_or_default()),
    ]
}

struct Build<'a> {
    bundle: &'a Bundle,
    request: &'a Request,
    container: &'a mut Locked,
}

impl Build<'_> {
    /// From cgroups to "created".
    fn run(mut self, mut setup: Setup) -> Result<(), Error> {
        let linux = self.bundle.linux()?;
        let namespaces = &self.bundle.namespaces;
        let failed = Error::channel;
        if setup.notifies() {
            setup.supervisor = Some(self.connect_supervisor()?);
        }
        let from_host = self.open_from_host()?;
        let into = self.container.state.cgroups.open_v2()?;
        let (launcher, inside) = line::pair().map_err(failed)?;
        let door = open_door(self.container.directory())?;
        // A cgroup namespace is made later, when the process has moved.
        let flags = namespaces.new & !Namespace::Cgroup.clone_flag();
        let cgroup = into.as_ref().map(AsFd::as_fd);
        let side = match Way::of(namespaces, time_offsets(linux))? {
            None => clone3(flags, cgroup)?,
            Some(way) => way.clone3(flags, cgroup)?,
        };
        let (pid, pidfd) = match side {
            Side::Launcher { pid, pidfd } => (pid, pidfd),
            Side::Container => {
                drop(launcher);
                Init {
                    bundle: self.bundle,
                    setup,
                    from_host,
                    cgroups: &self.container.state.cgroups,
                    container: self.container,
                    launcher: inside,
                    door,
                    pivot: !self.request.no_pivot,
                    new_keyring: !self.request.no_new_keyring,
                }
                .run()
            }
        };
        drop((inside, door));
        let result = self.look_after(pid, &launcher, &setup, from_host.as_ref());
        if result.is_err() {
            // It may have ended already.
            let _ = send_signal(&pidfd, libc::SIGKILL);
            reap(pid);
        }
        result
    }

    /// The launcher's part while the first process builds.
    fn look_after(&mut self, pid: Pid, line: &End, setup: &Setup, from_host: Option<&FromHost>) -> Result<(), Error> {
        let process = Process::now(pid).ok_or(Error::Vanished(None))?;
        self.container.update(|state| state.process = Some(process))?;
        if self.bundle.namespaces.makes(Namespace::User) {
            let linux = self.bundle.linux()?;
            users::write_maps(pid, &id_maps(linux.uid_mappings()), &id_maps(linux.gid_mappings()))?;
        }
        setup.adjust(pid)?;
        if let Some(from_host) = from_host {
            let mounts = self.bundle.spec.mounts().as_deref().unwrap_or_default();
            if mounts.iter().any(rootfs::shifts_owners) {
                let path = PathBuf::from(format!("/proc/{pid}/ns/user"));
                let namespace = File::open(&path).map_err(Error::io("open", &path))?;
                from_host.shift_owners(mounts, &namespace)?;
            }
        }
        line.say(&Word::Go(Vec::new())).map_err(Error::channel)?;
        loop {
            match line.hear() {
                Some(Word::Built) => {
                    let state = self.container.oci_state_as(Status::Creating);
                    for (moment, hooks) in early_hooks(self.bundle) {
                        hooks::run(moment, hooks, &state)?;
                    }
                    line.say(&Word::HooksDone).map_err(Error::channel)?;
                }
                Some(Word::Ready) => break,
                Some(Word::Failed(status, message)) => return Err(Error::Container { status, message }),
                _ => return Err(Error::Vanished(reap(pid))),
            }
        }
        if let Some(path) = &self.request.pid_file {
            write_pid_file(path, pid)?;
        }
        self.container.update(|state| state.status = Status::Created)?;
        line.say(&Word::Recorded).map_err(Error::channel)
    }

    /// Opens what is mounted from the host, where this process may; else it is done inside.
    fn open_from_host(&self) -> Result<Option<FromHost>, Error> {
        if !users::is_host_root() {
            return Ok(None);
        }
        let plan = rootfs::Plan {
            rootfs: &self.bundle.rootfs,
            read_only: false,
            bundle: &self.bundle.directory,
            mounts: self.bundle.spec.mounts().as_deref().unwrap_or_default(),
            linux: self.bundle.linux()?,
            cgroups: &self.container.state.cgroups,
            may_make_nodes: true,
        };
        Ok(Some(FromHost::open(&plan)?))
    }

    /// The seccomp supervisor's socket, and what is sent with the descriptor (config-linux, "The Container Process
    /// State").
    fn connect_supervisor(&self) -> Result<(OwnedFd, String), Error> {
        let linux = self.bundle.linux()?;
        let profile = linux.seccomp().as_ref();
        let path = profile
            .and_then(|profile| profile.listener_path().as_ref())
            .ok_or(Error::NoListener)?;
        let socket = UnixStream::connect(path).map_err(Error::io("connect to the seccomp supervisor at", path))?;
        let state = serde_json::json!({
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": 0,
            "metadata": profile.and_then(|profile| profile.listener_metadata().as_ref()),
            "state": self.container.oci_state_as(Status::Creating),
        });
        Ok((socket.into(), state.to_string()))
    }
}

/// The socket `start` comes by. Its path is named by the directory's descriptor: one of a local socket may have 107
/// bytes only.
fn open_door(directory: &Path) -> Result<UnixListener, Error> {
    let failed = || Error::io("listen for `start` in", directory);
    let opened = File::open(directory).map_err(failed())?;
    UnixListener::bind(format!("/proc/self/fd/{}/start", opened.as_raw_fd())).map_err(failed())
}

fn id_maps(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMap> {
    let map = |mapping: &LinuxIdMapping| IdMap {
        inside: mapping.container_id(),
        outside: mapping.host_id(),
        count: mapping.size(),
    };
    mappings.iter().flatten().map(map).collect()
}

/// Lines for /proc/PID/timens_offsets: clock, seconds, nanoseconds.
fn time_offsets(linux: &oci_spec::runtime::Linux) -> Option<String> {
    let offsets = linux.time_offsets().as_ref()?;
    let line = |(clock, offset): (&String, &oci_spec::runtime::LinuxTimeOffset)| {
        format!(
            "{clock} {} {}\n",
            offset.secs().unwrap_or(0),
            offset.nanosecs().unwrap_or(0)
        )
    };
    Some(offsets.iter().map(line).collect())
}

/// Writes it whole or not at all: an engine that finds it reads it.
pub(super) fn write_pid_file(path: &Path, pid: Pid) -> Result<(), Error> {
    let mut next = path.as_os_str().to_owned();
    next.push(format!(".{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        File::create(&next)?.write_all(pid.to_string().as_bytes())?;
        fs::rename(&next, path)
    };
    write().map_err(Error::io("write", path))
}

/// Waits for a child that has ended, or is about to, and returns what wait(2) says.
pub(super) fn reap(pid: Pid) -> Option<i32> {
    let mut raw = 0;
    loop {
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        let waited = unsafe { libc::waitpid(pid.as_raw(), &raw mut raw, libc::__WALL) };
        match Errno::result(waited) {
            Ok(_) => return Some(raw),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Why there is no container.
#[derive(Debug, Error)]
pub enum Error {
    /// The bundle.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The clone.
    #[error(transparent)]
    Clone(#[from] clone::Error),
    /// Namespaces to join.
    #[error(transparent)]
    Join(#[from] join::Error),
    /// The user map.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// What comes from the host.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// The program's description.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] terminal::Error),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] hooks::Error),
    /// The line to the first process.
    #[error("cannot talk to the container's first process: {}. The limit on open files may be reached (ulimit -n)", why(.0))]
    Channel(Errno),
    /// The first process's own account of what failed inside.
    #[error("{message}")]
    Container {
        /// The status to exit with.
        status: u8,
        /// What failed, on what, why, and what to do.
        message: String,
    },
    /// It ended and said nothing.
    #[error("the container's first process ended before it could say why ({}). When a signal ended it, the memory limit may be too small for its set-up", ended(.0))]
    Vanished(Option<i32>),
    /// A supervisor is asked for and not named.
    #[error(
        "the seccomp profile has calls for a supervisor to decide (SCMP_ACT_NOTIFY), and linux.seccomp.listenerPath does not say where he listens"
    )]
    NoListener,
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
}

fn ended(raw: &Option<i32>) -> String {
    match raw {
        Some(raw) if libc::WIFSIGNALED(*raw) => format!("signal {}", libc::WTERMSIG(*raw)),
        Some(raw) => format!("status {}", libc::WEXITSTATUS(*raw)),
        None => "status unknown".into(),
    }
}

impl Error {
    fn channel(errno: Errno) -> Error {
        Error::Channel(errno)
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Io {
            action,
            path: path.to_owned(),
            errno: of(&error),
        }
    }

    /// The status to exit with.
    pub fn status(&self) -> u8 {
        match self {
            Error::Container { status, .. } => *status,
            Error::Process(error) => error.status(),
            _ => super::FAILED,
        }
    }
}
