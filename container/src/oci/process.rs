//! The program and what it may: from the description in config.json to execve(2).
//!
//! `create` and `exec` end the same way, so they share this. [`Setup::of`] understands the description while there is
//! still somebody to hear of mistakes; [`Setup::prepare`] does what needs privileges, inside the container;
//! [`Setup::become_program`] gives them up, in the one order that works, and executes the program.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, chdir, setgroups};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxPersonality, LinuxPersonalityDomain, LinuxSeccomp, Process,
};
use protocol::status;
use thiserror::Error;

use super::labels::{self, Labels};
use super::terminal::{self, Terminal};
use super::treatment::Treatment;
use crate::capabilities::{self, Sets};
use crate::errno::{of, why};
use crate::mounts::target::{self, Missing, Root};
use crate::program::{DEFAULT_PATH, Executable, Program};
use crate::seccomp::{self, profile};
use crate::users::User;
use crate::{privileges, program, signals};

/// What is to be run, understood.
pub struct Setup {
    program: Program,
    cwd: PathBuf,
    user: User,
    groups: Option<Vec<Gid>>,
    umask: Option<u32>,
    sets: Sets,
    treatment: Treatment,
    no_new_privileges: bool,
    filter: Option<profile::Filter>,
    oom_score_adj: Option<i32>,
    personality: Option<libc::c_ulong>,
    /// `None` without a terminal; else its size, where one is given.
    terminal: Option<Option<(u16, u16)>>,
    /// Descriptors from 3 on that the program is to inherit.
    pub preserve_fds: u32,
    /// What the standard streams are to be; the caller's own where `None`.
    pub streams: Option<[OwnedFd; 3]>,
    /// The engine's end of the socket the terminal's master goes to.
    pub console: Option<OwnedFd>,
    /// The socket of the supervisor who decides about system calls, and what to tell him.
    pub supervisor: Option<(OwnedFd, String)>,
    /// Whether the kernel is to kill the program when its parent ends.
    pub dies_with_caller: bool,
    labels: Labels,
}

impl Setup {
    /// Understands `process` and the container's `seccomp` profile.
    pub fn of(
        process: &Process,
        seccomp: Option<&LinuxSeccomp>,
        personality: Option<&LinuxPersonality>,
    ) -> Result<Setup, Error> {
        let c_strings = |list: &Option<Vec<String>>| {
            let c_string = |text: &String| CString::new(text.as_bytes()).map_err(|_| Error::Nul(text.clone()));
            list.iter().flatten().map(c_string).collect::<Result<Vec<_>, _>>()
        };
        let user = process.user();
        let filter = seccomp.map(profile::compile).transpose()?;
        let sets = process.capabilities().as_ref().map(sets).unwrap_or_default();
        Ok(Setup {
            program: Program {
                arguments: c_strings(process.args())?,
                environment: c_strings(process.env())?,
            },
            cwd: process.cwd().clone(),
            user: User {
                uid: user.uid(),
                gid: user.gid(),
            },
            groups: user
                .additional_gids()
                .as_ref()
                .map(|gids| gids.iter().copied().map(Gid::from_raw).collect()),
            umask: user.umask(),
            sets,
            treatment: Treatment::of(process),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
            oom_score_adj: process.oom_score_adj(),
            labels: Labels::of(process)?,
            personality: personality.map(|personality| match personality.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            }),
            terminal: process.terminal().unwrap_or(false).then(|| {
                process
                    .console_size()
                    .map(|size| (size.height() as u16, size.width() as u16))
            }),
            preserve_fds: 0,
            streams: None,
            console: None,
            supervisor: None,
            dies_with_caller: false,
        })
    }

    /// Connects to the engine's console socket, or says that it is missing or of no use.
    pub fn connect_console(&mut self, socket: Option<&Path>) -> Result<(), terminal::Error> {
        self.console = match (self.terminal, socket) {
            (Some(_), Some(path)) => Some(terminal::connect(path)?),
            (Some(_), None) if self.console.is_none() => return Err(terminal::Error::NoSocket),
            (None, Some(_)) => return Err(terminal::Error::NoTerminal),
            (Some(_), None) => return Ok(()),
            (None, None) => None,
        };
        Ok(())
    }

    /// Whether the program gets a terminal.
    pub fn wants_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Whether a supervisor outside decides about some system calls.
    pub fn notifies(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.notifies)
    }

    /// What the launcher sets from outside, while the process's files in /proc are still its own.
    pub fn adjust(&self, pid: nix::unistd::Pid) -> Result<(), Error> {
        let Some(value) = self.oom_score_adj else { return Ok(()) };
        let path = format!("/proc/{pid}/oom_score_adj");
        fs::write(&path, value.to_string()).map_err(|error| Error::OomScore {
            value,
            errno: of(&error),
        })
    }

    /// What needs privileges and the container's files: session, terminal, limits, working directory; and finds the
    /// program. A session of its own comes first, since it is what a terminal belongs to.
    pub fn prepare(&mut self) -> Result<(Executable, Option<Terminal>), Error> {
        signals::leave_the_callers_session().map_err(|errno| Error::Step {
            step: "start a session for the program",
            errno,
        })?;
        let terminal = match (self.terminal, self.console.take()) {
            (Some(size), Some(console)) => {
                let terminal = Terminal::open(&console, size)?;
                terminal.give_to(self.user.uid)?;
                terminal.take()?;
                Some(terminal)
            }
            _ => None,
        };
        for (stream, file) in self.streams.iter().flatten().enumerate() {
            // SAFETY: takes numbers only; the stream's old file is what is to be closed.
            let copied = unsafe { libc::dup2(file.as_raw_fd(), stream as i32) };
            Errno::result(copied).map_err(|errno| Error::Step {
                step: "set up the standard streams",
                errno,
            })?;
        }
        self.treatment.apply()?;
        if let Some(personality) = self.personality {
            // SAFETY: takes a number only.
            let set = unsafe { libc::personality(personality) };
            Errno::result(set).map_err(|errno| Error::Step {
                step: "set the personality",
                errno,
            })?;
        }
        self.labels.open()?;
        self.complete_environment();
        self.enter_cwd()?;
        let executable = self.find()?;
        // Root in the container needs the right to cut the bounding set; soon he has it no more.
        if self.sets.bounding != u64::MAX {
            capabilities::cut_bounding_set(self.sets.bounding)?;
        }
        Ok((executable, terminal))
    }

    /// A program without PATH finds nothing, one without HOME writes into /.
    fn complete_environment(&mut self) {
        let has = |name: &[u8], environment: &[CString]| {
            environment.iter().any(|variable| variable.as_bytes().starts_with(name))
        };
        if !has(b"PATH=", &self.program.environment) {
            self.program.environment.extend(CString::new(DEFAULT_PATH));
        }
        if !has(b"HOME=", &self.program.environment) {
            let home = home_of(self.user.uid).unwrap_or_else(|| "/".into());
            self.program.environment.extend(CString::new(format!("HOME={home}")));
        }
    }

    /// Enters the working directory, which is made where it is missing: inside, whatever links lead to it. A descriptor that leaked in from outside could
    /// name a directory of the host by `/proc/self/fd/N` (CVE-2024-21626): the kernel then calls the place unreachable
    /// from this process's root.
    fn enter_cwd(&self) -> Result<(), Error> {
        let failed = |errno| Error::Cwd {
            path: self.cwd.clone(),
            errno,
        };
        match chdir(&self.cwd) {
            Err(Errno::ENOENT) => {
                let root = Root::new(target::reopen_path(Path::new("/")).map_err(failed)?);
                let made = root.open_or_make(&self.cwd, Missing::Directory);
                made.map_err(|error| failed(error.errno))?;
                chdir(&self.cwd).map_err(failed)?;
            }
            // The program's user may be the one who is allowed in: he tries again.
            Err(Errno::EACCES) => return Ok(()),
            other => other.map_err(failed)?,
        }
        check_cwd()
    }

    fn find(&self) -> Result<Executable, Error> {
        let executable = self.program.find().map_err(|error| match error {
            program::Error::NotFound { name, path } => Error::NotInPath { name, path },
            other => other.into(),
        })?;
        // One that was named by a path is looked at now, so that `create` and not `start` says that it is missing.
        if let Executable::Path(path) = &executable {
            let path = Path::new(OsStr::from_bytes(path.as_bytes()));
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {}
                Ok(_) => {
                    return Err(Error::NotExecutable {
                        path: path.to_owned(),
                        errno: Errno::EACCES,
                    });
                }
                Err(error) => match of(&error) {
                    Errno::ENOENT => return Err(Error::NotFound(path.to_owned())),
                    // Its user may be the one who is allowed to.
                    Errno::EACCES => {}
                    errno => {
                        return Err(Error::NotExecutable {
                            path: path.to_owned(),
                            errno,
                        });
                    }
                },
            }
        }
        Ok(executable)
    }

    /// Gives up privileges, and with them the way back. After this the program's ids, capabilities and filter hold; only
    /// a filter that needs no privileges is left for the very end.
    pub fn drop_privileges(&self) -> Result<(), Error> {
        let failed = |step| move |errno| Error::Step { step, errno };
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter: it must come while that is still there, and must
        // then allow all that follows.
        if !self.no_new_privileges {
            self.load_filter()?;
        }
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        let granted = self.sets.within(capabilities::permitted()?);
        // Else the change from root to another user would clear them all.
        // SAFETY: PR_SET_KEEPCAPS takes a number and no pointer.
        let kept = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1u64, 0u64, 0u64, 0u64) };
        Errno::result(kept).map_err(failed("keep capabilities across the change of user"))?;
        let groups = self.groups.as_deref().unwrap_or_default();
        match setgroups(groups) {
            // In a user namespace of an ordinary user's, groups cannot be changed, and there are none but his own.
            Err(Errno::EPERM) if groups.is_empty() && setgroups_denied() => {}
            other => other.map_err(failed("set the additional groups"))?,
        }
        privileges::become_user(self.user)?;
        // SAFETY: as above.
        let kept = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0u64, 0u64, 0u64, 0u64) };
        Errno::result(kept).map_err(failed("stop keeping capabilities"))?;
        granted.take()?;
        if self.no_new_privileges {
            // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers and no pointer.
            let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1u64, 0u64, 0u64, 0u64) };
            Errno::result(set).map_err(failed("give up new privileges"))?;
        }
        Ok(())
    }

    /// Executes the program. Returns only when that failed. `line` is the one descriptor that is still needed then.
    pub fn become_program(&self, executable: &Executable, line: BorrowedFd<'_>) -> Error {
        let Err(error) = self.exec(executable, line);
        error
    }

    fn exec(&self, executable: &Executable, line: BorrowedFd<'_>) -> Result<std::convert::Infallible, Error> {
        self.labels.set()?;
        // After the last change of ids, which would undo it.
        if self.dies_with_caller {
            privileges::die_with_parent()?;
        }
        if self.no_new_privileges {
            self.load_filter()?;
        }
        chdir(&self.cwd).map_err(|errno| Error::Cwd {
            path: self.cwd.clone(),
            errno,
        })?;
        check_cwd()?;
        // Every signal as a fresh process has it.
        signals::restore_for_program(&SigSet::empty()).map_err(|errno| Error::Step {
            step: "restore the signals",
            errno,
        })?;
        program::close_all_but(3 + self.preserve_fds, &[line.as_raw_fd()]).map_err(|errno| Error::Step {
            step: "close the runtime's descriptors",
            errno,
        })?;
        let Err(error) = self.program.replace_with(executable);
        Err(match error {
            program::Error::Exec {
                errno: Errno::ENOENT,
                path,
            } if !Path::new(&path).exists() => Error::NotFound(path.into()),
            program::Error::Exec { path, errno } => Error::NotExecutable {
                path: path.into(),
                errno,
            },
            other => other.into(),
        })
    }

    fn load_filter(&self) -> Result<(), Error> {
        let Some(filter) = &self.filter else { return Ok(()) };
        let listener = seccomp::load(filter)?;
        if let (Some(listener), Some((supervisor, state))) = (listener, &self.supervisor) {
            super::line::send(supervisor, state.as_bytes(), &[listener.as_raw_fd()]).map_err(|errno| Error::Step {
                step: "send the seccomp descriptor to its supervisor",
                errno,
            })?;
        }
        Ok(())
    }
}

/// config.json's sets as bit masks. `oci-spec` knows the names; one the kernel does not know cannot be granted.
fn sets(capabilities: &LinuxCapabilities) -> Sets {
    let mask = |set: &Option<Capabilities>| set.iter().flatten().fold(0, |mask, capability| mask | bit(*capability));
    Sets {
        bounding: mask(capabilities.bounding()),
        effective: mask(capabilities.effective()),
        permitted: mask(capabilities.permitted()),
        inheritable: mask(capabilities.inheritable()),
        ambient: mask(capabilities.ambient()),
    }
}

fn bit(capability: Capability) -> u64 {
    capabilities::by_name(&capability.to_string()).unwrap_or(0)
}

/// The home directory of `uid` in the container's own list of users.
fn home_of(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        // NAME:PASSWORD:UID:GID:COMMENT:HOME:SHELL
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(5).map(|home| (*home).to_owned()))?
    })
}

/// Refuses a working directory outside of the root. The system call itself is asked: libc's getcwd may answer otherwise.
fn check_cwd() -> Result<(), Error> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the length given.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    Errno::result(length).map_err(|errno| Error::Step {
        step: "ask for the working directory",
        errno,
    })?;
    let path = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    match path.to_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(Error::Outside(path.to_string_lossy().into_owned())),
    }
}

fn setgroups_denied() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// Why the program does not run as it is described.
#[derive(Debug, Error)]
pub enum Error {
    /// C strings end where a NUL is.
    #[error("{0:?} contains a NUL character: no argument and no variable of a process can")]
    Nul(String),
    /// Not in any directory of PATH.
    #[error("cannot find the program {name} in the container: executable file not found in $PATH ({path})")]
    NotInPath {
        /// As it was named.
        name: String,
        /// Where it was looked for.
        path: String,
    },
    /// Not where it was said to be.
    #[error("cannot execute {}: no such file or directory in the container (ENOENT)", .0.display())]
    NotFound(PathBuf),
    /// There, and not executable.
    #[error("cannot execute {}: {}. It must be a regular file with execute permission for the program's user, and an ELF program for this processor or a script whose interpreter is in the container", path.display(), why(errno))]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The working directory.
    #[error("cannot enter the working directory {}: {}", path.display(), why(errno))]
    Cwd {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// It is the host's.
    #[error(
        "the working directory leads out of the container ({0}): a descriptor of the host's leaked in, and process.cwd names it"
    )]
    Outside(String),
    /// A limit was refused.
    #[error(
        "cannot set {name} to {soft} (hard: {hard}): {}. Raising a hard limit takes CAP_SYS_RESOURCE on the host; podman's option is --ulimit",
        why(errno)
    )]
    Limit {
        /// Which one.
        name: String,
        /// The soft limit.
        soft: u64,
        /// The hard limit.
        hard: u64,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The out-of-memory score.
    #[error(
        "cannot set oom_score_adj to {value}: {}. Lowering it takes CAP_SYS_RESOURCE",
        why(errno)
    )]
    OomScore {
        /// What was wanted.
        value: i32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// One of the steps in between.
    #[error("cannot {step}: {}", why(errno))]
    Step {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A security module.
    #[error(transparent)]
    Labels(#[from] labels::Error),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] profile::Error),
    /// The filter.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] terminal::Error),
    /// Ids.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// Capabilities.
    #[error(transparent)]
    Capabilities(#[from] capabilities::Error),
    /// Finding or executing it.
    #[error(transparent)]
    Program(#[from] program::Error),
}

impl Error {
    /// The runtime's exit status for this.
    pub fn status(&self) -> u8 {
        match self {
            Error::NotFound(_) | Error::NotInPath { .. } => status::NOT_FOUND,
            Error::NotExecutable { .. } => status::NOT_EXECUTABLE,
            Error::Program(error) => error.status(),
            _ => super::FAILED,
        }
    }
}
