//! Namespaces that exist already: joined on the way to the clone.
//!
//! setns(2) changes the calling process for good, and a pid namespace is only joined by children. So a process in
//! between does it: forked from the launcher, it enters what is to be joined and clones the container's first process
//! as its own sibling (CLONE_PARENT), which thus is the launcher's child as if nobody had been in between.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, fork, geteuid};
use thiserror::Error;

use super::spec::Plan;
use crate::clone::{self, Side, clone3};
use crate::errno::{of, why};
use crate::namespaces::Namespace;

/// CLONE_NEWTIME (`linux/sched.h`): a time namespace, for setns(2) and unshare(2).
const CLONE_NEWTIME: libc::c_int = 0x80;

/// What the process in between has to do.
pub struct Way<'a> {
    /// Files of namespaces, with the kind setns(2) is to insist on, in order.
    pub namespaces: Vec<(libc::c_int, OwnedFd)>,
    /// Offsets of the clocks, when a time namespace is to be made.
    pub time_offsets: Option<String>,
    /// What else it does before it clones: moves into cgroups, hides.
    pub before: &'a dyn Fn() -> Result<(), String>,
}

impl Way<'_> {
    /// The way into the namespaces of `plan`. `None` when all are new: then a clone is enough.
    pub fn of(plan: &Plan, time_offsets: Option<String>) -> Result<Option<Way<'static>>, Error> {
        let mut files: Vec<(libc::c_int, PathBuf)> = plan
            .joined
            .iter()
            .map(|(kind, path)| (kind.clone_flag() as libc::c_int, path.clone()))
            .collect();
        files.extend(plan.joined_time.iter().map(|path| (CLONE_NEWTIME, path.clone())));
        if files.is_empty() && !plan.new_time {
            return Ok(None);
        }
        // Root joins the user namespace last, while he still has his rights over the others; for an ordinary user it
        // is the user namespace that gives him any.
        let user = Namespace::User.clone_flag() as libc::c_int;
        files.sort_by_key(|(kind, _)| (*kind == user) == geteuid().is_root());
        let open = |(kind, path): (libc::c_int, PathBuf)| {
            let file = File::open(&path).map_err(|error| Error::Open {
                path,
                errno: of(&error),
            })?;
            Ok::<_, Error>((kind, OwnedFd::from(file)))
        };
        Ok(Some(Way {
            namespaces: files.into_iter().map(open).collect::<Result<_, _>>()?,
            time_offsets: plan.new_time.then(|| time_offsets.unwrap_or_default()),
            before: &|| Ok(()),
        }))
    }

    /// Clones this process at the end of the way, with `flags` for new namespaces. Returns twice, as clone3 does.
    pub fn clone3(&self, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Error> {
        let (mut reader, mut writer) = std::io::pipe().map_err(|error| Error::Between(of(&error)))?;
        // SAFETY: the launcher has one thread, so that its copy may do whatever the launcher may.
        let between = match unsafe { fork() }.map_err(Error::Between)? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(reader);
                let said = match self.go(flags, cgroup) {
                    Ok(Side::Container) => return Ok(Side::Container),
                    Ok(Side::Launcher { pid, .. }) => format!("+{pid}"),
                    Err(error) => format!("-{error}"),
                };
                let _ = writer.write_all(said.as_bytes());
                // SAFETY: ends this process at once. The launcher's exit handlers are not ours to run.
                unsafe { libc::_exit(0) }
            }
        };
        drop(writer);
        let mut said = String::new();
        // The container holds the pipe's other end too, until it has cloned; it reads to the end of the line only.
        let mut buffer = [0; 8192];
        if let Ok(length) = reader.read(&mut buffer) {
            said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
        let mut status = 0;
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        unsafe { libc::waitpid(between.as_raw(), &raw mut status, 0) };
        match said.strip_prefix('+').and_then(|pid| pid.parse::<libc::pid_t>().ok()) {
            Some(pid) => {
                // SAFETY: takes numbers only. The process is our child and not waited for: its id is still its own.
                let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
                let pidfd = Errno::result(pidfd).map_err(Error::Between)?;
                Ok(Side::Launcher {
                    pid: Pid::from_raw(pid),
                    // SAFETY: pidfd_open just made this descriptor for us.
                    pidfd: unsafe { OwnedFd::from_raw_fd(pidfd as i32) },
                })
            }
            None if said.is_empty() => Err(Error::Said("the process that joins namespaces was killed".into())),
            None => Err(Error::Said(said.trim_start_matches('-').to_owned())),
        }
    }

    fn go(&self, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Error> {
        (self.before)().map_err(Error::Said)?;
        for (kind, file) in &self.namespaces {
            // SAFETY: takes numbers only.
            let joined = unsafe { libc::setns(file.as_raw_fd(), *kind) };
            Errno::result(joined).map_err(|errno| Error::Join {
                names: names(*kind),
                errno,
            })?;
        }
        if let Some(offsets) = &self.time_offsets {
            make_time_namespace(offsets)?;
        }
        Ok(clone3(flags | libc::CLONE_PARENT as u64, cgroup)?)
    }
}

/// The kinds in a mask of flags.
fn names(flags: libc::c_int) -> String {
    let mut names: Vec<&str> = Namespace::ALL
        .into_iter()
        .filter(|kind| kind.clone_flag() as libc::c_int & flags != 0)
        .map(Namespace::name)
        .collect();
    if flags & CLONE_NEWTIME != 0 {
        names.push("time");
    }
    names.join(", ")
}

/// Makes a time namespace for the children of this process. Its clocks can be set until the first of them is born
/// (time_namespaces(7)).
fn make_time_namespace(offsets: &str) -> Result<(), Error> {
    let failed = |errno| Error::Time { errno };
    // SAFETY: takes a number only.
    Errno::result(unsafe { libc::unshare(CLONE_NEWTIME) }).map_err(failed)?;
    match offsets.is_empty() {
        true => Ok(()),
        false => fs::write("/proc/self/timens_offsets", offsets).map_err(|error| failed(of(&error))),
    }
}

/// The flags of all kinds in which process `pid` differs from this one, for setns(2) with its pidfd.
pub fn differing(pid: i32) -> Result<libc::c_int, Error> {
    let link = |who: &str, name: &str| {
        let path = Path::new("/proc").join(who).join("ns").join(name);
        match fs::read_link(&path) {
            // A kind this kernel does not have.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && who == "self" => Ok(PathBuf::new()),
            other => other.map_err(|error| Error::Open {
                path,
                errno: of(&error),
            }),
        }
    };
    let mut flags = 0;
    let kinds = Namespace::ALL.map(|kind| (kind.proc_name(), kind.clone_flag() as libc::c_int));
    for (name, flag) in kinds.into_iter().chain([("time", CLONE_NEWTIME)]) {
        let own = link("self", name)?;
        if !own.as_os_str().is_empty() && own != link(&pid.to_string(), name)? {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// Why a namespace could not be joined.
#[derive(Debug, Error)]
pub enum Error {
    /// Its file.
    #[error("cannot open the namespace {}: {}. Its process may have ended", path.display(), why(errno))]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// It itself.
    #[error(
        "cannot join the namespace ({names}): {}. It must be of that kind, and belong to a user namespace this process has rights over",
        why(errno)
    )]
    Join {
        /// Its kind.
        names: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The clocks.
    #[error(
        "cannot make the time namespace: {}. Its clocks may not be set before the machine's start; setting them takes CAP_SYS_TIME",
        why(errno)
    )]
    Time {
        /// The kernel's answer.
        errno: Errno,
    },
    /// No process in between.
    #[error("cannot start the process that joins namespaces: {}. The limit on processes may be reached (ulimit -u)", why(.0))]
    Between(Errno),
    /// Its own account.
    #[error("{0}")]
    Said(String),
    /// The clone.
    #[error(transparent)]
    Clone(#[from] clone::Error),
}
