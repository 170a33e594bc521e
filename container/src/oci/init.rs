//! The container's first process, until it becomes the program.
//!
//! The other half of [`super::create`](mod@super::create), told from inside. Where [`crate::init`] stays and looks after a program, this
//! process becomes the program itself: an engine's container has what its config.json says as process 1, and nobody in
//! between. It waits twice on its way: for the launcher, and, created but not started, for `start`.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use oci_spec::runtime::Hook;
use thiserror::Error;

use super::line::{End, Word};
use super::process::{self, Setup};
use super::rootfs::{self, FromHost};
use super::spec::Bundle;
use super::state::{Container, Status};
use super::{hooks, terminal};
use crate::cgroup::{self, place::Places};
use crate::errno::{of, why};
use crate::namespaces::Namespace;
use crate::program::Executable;
use crate::{network, privileges, users};

/// What the first process has from the launcher: a copy of its memory, and two ends.
pub struct Init<'a> {
    /// The bundle.
    pub bundle: &'a Bundle,
    /// The program.
    pub setup: Setup,
    /// What is mounted from the host, where the launcher could open it.
    pub from_host: Option<FromHost>,
    /// Where it is to move.
    pub cgroups: &'a Places,
    /// The container as it is on disk, for hooks.
    pub container: &'a Container,
    /// The line to `create`.
    pub launcher: End,
    /// The socket `start` will come by.
    pub door: UnixListener,
    /// Whether the root is left by pivot_root(2).
    pub pivot: bool,
    /// Whether it gets a session keyring of its own.
    pub new_keyring: bool,
}

impl Init<'_> {
    /// Becomes the program, or reports why not and ends.
    pub fn run(mut self) -> ! {
        let status = match self.create() {
            Ok(executable) => self.wait_for_start(&executable),
            Err(error) => report(&self.launcher, &error),
        };
        // SAFETY: ends this process at once. The launcher's exit handlers are not ours to run.
        unsafe { libc::_exit(status.into()) }
    }

    /// From the clone to "created".
    fn create(&mut self) -> Result<Executable, Error> {
        let namespaces = &self.bundle.namespaces;
        self.cgroups.join()?;
        let from_launcher = match self.launcher.hear() {
            Some(Word::Go(descriptors)) => descriptors,
            _ => return Err(Error::LauncherGone),
        };
        // They only had to be kept open until now: mounts the launcher has placed beneath those we have a copy of.
        drop(from_launcher);
        let place = rootfs::open_place(&self.bundle.rootfs)?;
        if namespaces.has(Namespace::User) {
            become_root_inside()?;
        }
        privileges::hide_from_inside()?;
        if namespaces.makes(Namespace::Cgroup) {
            // A cgroup namespace shows as root the cgroup its maker is in, so it is made after moving in.
            unshare(CloneFlags::CLONE_NEWCGROUP).map_err(Error::step("make the cgroup namespace"))?;
        }
        if namespaces.makes(Namespace::Net) {
            network::loopback::raise()?;
        }
        self.set_names()?;
        if self.new_keyring {
            join_session_keyring(&self.container.state.id);
        }
        self.set_sysctls()?;
        self.enter_root(&place)?;
        drop(place);
        let (executable, terminal) = self.setup.prepare()?;
        if let Some(terminal) = &terminal {
            rootfs::mount_console(std::os::fd::AsFd::as_fd(terminal))?;
        }
        self.launcher.say(&Word::Ready).map_err(|_| Error::LauncherGone)?;
        match self.launcher.hear() {
            Some(Word::Recorded) => Ok(executable),
            _ => Err(Error::LauncherGone),
        }
    }

    fn set_names(&self) -> Result<(), Error> {
        let spec = &self.bundle.spec;
        if let Some(name) = spec.hostname() {
            sethostname(name).map_err(Error::name("host name", name))?;
        }
        if let Some(name) = spec.domainname() {
            // SAFETY: the kernel reads as many bytes as it is told.
            let set = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
            Errno::result(set).map_err(Error::name("domain name", name))?;
        }
        Ok(())
    }

    /// Kernel settings of the container's own namespaces. /proc/sys shows the writer's, so the host's /proc will do.
    fn set_sysctls(&self) -> Result<(), Error> {
        let linux = self.bundle.linux()?;
        for (key, value) in linux.sysctl().iter().flatten() {
            // A name with a slash has it where the dots are: interfaces may have dots in their names.
            let path = match key.contains('/') {
                true => key.clone(),
                false => key.replace('.', "/"),
            };
            fs::write(format!("/proc/sys/{path}"), value).map_err(|error| Error::Sysctl {
                key: key.clone(),
                value: value.clone(),
                errno: of(&error),
            })?;
        }
        Ok(())
    }

    fn enter_root(&mut self, place: &OwnedFd) -> Result<(), Error> {
        let linux = self.bundle.linux()?;
        let plan = rootfs::Plan {
            rootfs: &self.bundle.rootfs,
            read_only: self.bundle.root()?.readonly().unwrap_or(false),
            bundle: &self.bundle.directory,
            mounts: self.bundle.spec.mounts().as_deref().unwrap_or_default(),
            linux,
            cgroups: self.cgroups,
            may_make_nodes: !self.bundle.namespaces.has(Namespace::User) && users::is_host_root(),
        };
        let built = plan.build(self.from_host.take().unwrap_or_default(), place)?;
        if super::create::has_early_hooks(self.bundle) {
            self.launcher.say(&Word::Built).map_err(|_| Error::LauncherGone)?;
            let Some(Word::HooksDone) = self.launcher.hear() else {
                return Err(Error::LauncherGone);
            };
        }
        let hooks = self.hooks(|hooks| hooks.create_container());
        if !hooks.is_empty() {
            hooks::run("createContainer", hooks, &self.state_for_hooks(Status::Creating))?;
        }
        Ok(built.enter(&plan, self.pivot)?)
    }

    fn hooks(&self, which: impl Fn(&oci_spec::runtime::Hooks) -> &Option<Vec<Hook>>) -> &[Hook] {
        self.bundle
            .spec
            .hooks()
            .as_ref()
            .and_then(|hooks| which(hooks).as_deref())
            .unwrap_or_default()
    }

    /// The state, with this process's id as it sees itself: the host's is unknown here.
    fn state_for_hooks(&self, status: Status) -> serde_json::Value {
        let mut state = self.container.oci_state_as(status);
        state["pid"] = std::process::id().into();
        state
    }

    /// From "created" to the program. `start` holds a connection open that closes at execve(2): that is how it learns
    /// that the program runs. Whatever fails before is told there.
    fn wait_for_start(self, executable: &Executable) -> u8 {
        // Only `create` listened so far; a message it does not read any more would end us by SIGPIPE.
        drop(self.launcher);
        let visitor = loop {
            let Ok((visitor, _)) = self.door.accept() else {
                return super::FAILED;
            };
            let end = End::of(OwnedFd::from(visitor));
            if let Some(Word::Recorded) = end.hear() {
                break end;
            }
            // It connected and died: another may come.
        };
        let hooks = self
            .bundle
            .spec
            .hooks()
            .as_ref()
            .and_then(|hooks| hooks.start_container().as_deref());
        let result = (|| {
            self.setup.drop_privileges()?;
            if let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) {
                let mut state = self.container.oci_state_as(Status::Created);
                state["pid"] = std::process::id().into();
                hooks::run("startContainer", hooks, &state)?;
            }
            Err(self.setup.become_program(executable, visitor.as_fd()).into())
        })();
        match result {
            Ok(()) => super::FAILED,
            Err(error) => report(&visitor, &error),
        }
    }
}

/// Tells the other side what failed, and returns the status to end with.
fn report(listener: &End, error: &Error) -> u8 {
    let status = error.status();
    // Nobody is left to tell if this fails too.
    let _ = listener.say(&Word::Failed(status, error.to_string()));
    status
}

/// Root of the user namespace, without the launcher's groups where the kernel lets them be dropped.
pub(super) fn become_root_inside() -> Result<(), process::Error> {
    match nix::unistd::setgroups(&[]) {
        // An ordinary user's namespace has only one group, and setgroups(2) is closed there.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => {
            return Err(process::Error::Step {
                step: "drop the launcher's groups",
                errno,
            });
        }
    }
    Ok(privileges::become_user(crate::users::User::default())?)
}

/// Keyrings are not namespaced: with the launcher's session keyring the container would have the keys of whoever
/// started it. One that cannot be made (a kernel without keys, a full quota) was not had either.
pub(super) fn join_session_keyring(id: &str) {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1; // linux/keyctl.h
    if let Ok(name) = std::ffi::CString::new(format!("_ses.{id}")) {
        // SAFETY: the name is NUL-terminated, and the kernel copies it.
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    }
}

/// Why the container could not be built from inside.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody is left to be created for.
    #[error("`create` ended before the container was created")]
    LauncherGone,
    /// A name was refused.
    #[error("cannot set the {what} to {name:?}: {}. It may have at most 64 bytes", why(errno))]
    Name {
        /// Which name.
        what: &'static str,
        /// The name.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A kernel setting was refused.
    #[error("cannot set the sysctl {key} to {value:?}: {}", why(errno))]
    Sysctl {
        /// Its name.
        key: String,
        /// What was wanted.
        value: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Another step.
    #[error("cannot {step}: {}", why(errno))]
    Step {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The configuration.
    #[error(transparent)]
    Spec(#[from] super::spec::Error),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] network::loopback::Error),
    /// The root.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] hooks::Error),
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] terminal::Error),
    /// Privileges.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// The program.
    #[error(transparent)]
    Process(#[from] process::Error),
}

impl Error {
    fn step(step: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| Error::Step { step, errno }
    }

    fn name<'a>(what: &'static str, name: &'a str) -> impl Fn(Errno) -> Error + 'a {
        move |errno| Error::Name {
            what,
            name: name.to_owned(),
            errno,
        }
    }

    /// The status to exit with.
    fn status(&self) -> u8 {
        match self {
            Error::Process(error) => error.status(),
            _ => super::FAILED,
        }
    }
}
