//! Control groups: how much of the machine a container may use.
//!
//! Namespaces decide what a process sees, cgroups what it gets (cgroups(7)). A cgroup is a directory in a file system
//! of the kernel's; its limits are files in it. Hosts offer them as version 1, with one hierarchy per controller, as
//! version 2, with one hierarchy for all, or as both at once.
//!
//! A cgroup is made for the controllers that have a limit to enforce and for no other. Each costs the start about
//! 150 microseconds (half for mkdir, half for moving in), and the launcher's own cgroups account for the container
//! anyway: its cgroups lie beneath them, and where it has none it simply stays in them. Whoever wants the figures of a
//! run puts the launcher into a cgroup.

pub mod device_rules;
pub mod hierarchy;
pub mod place;
pub mod resources;
pub mod stats;
mod v1;
mod v2;

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use thiserror::Error;

use crate::errno::{of, why};
use crate::keeper::{self, Duty, Keeper};
use hierarchy::Hierarchy;

/// What a container may use. `None` is no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, page cache and kernel memory included. Swap is not to be used beyond it.
    pub memory: Option<u64>,
    /// Processor time in thousandths of one processor: 1500 is one and a half.
    pub cpu_thousandths: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The controllers that enforce [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// `memory`.
    Memory,
    /// `cpu`.
    Cpu,
    /// `pids`.
    Pids,
}

impl Controller {
    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }
}

impl Limits {
    /// The controllers needed to enforce them, each with its value.
    fn by_controller(&self) -> Vec<(Controller, u64)> {
        let limits = [
            (Controller::Memory, self.memory),
            (Controller::Cpu, self.cpu_thousandths),
            (Controller::Pids, self.pids),
        ];
        limits
            .into_iter()
            .filter_map(|(controller, limit)| Some((controller, limit?)))
            .collect()
    }
}

/// A file of a cgroup and what to write to it.
struct Setting {
    file: &'static str,
    value: String,
    /// Kernels without the feature lack the file, and the limit holds without it.
    optional: bool,
}

/// One directory to make.
struct Group {
    directory: PathBuf,
    settings: Vec<Setting>,
    v2: bool,
}

/// The cgroups of one container, and the process that will remove them.
pub struct Cgroup {
    groups: Vec<Group>,
    /// The directory of the v2 cgroup, for clone3 to start the container in.
    into: Option<OwnedFd>,
    keeper: Option<Keeper>,
}

impl Cgroup {
    /// Makes the cgroups that enforce `limits`, beneath the launcher's own.
    pub fn make(limits: &Limits) -> Result<Cgroup, Error> {
        let wanted = limits.by_controller();
        let mut cgroup = Cgroup {
            groups: plan(&wanted)?,
            into: None,
            keeper: None,
        };
        if cgroup.groups.is_empty() {
            return Ok(cgroup);
        }
        // Whoever removes them must be there before they are.
        let directories = cgroup.groups.iter().map(|group| group.directory.clone()).collect();
        cgroup.keeper = Some(Keeper::hire(Duty::RemoveDirectories(directories))?);
        for group in &cgroup.groups {
            group.make()?;
            if group.v2 {
                let directory = fs::File::open(&group.directory).map_err(Error::io("open", &group.directory))?;
                cgroup.into = Some(directory.into());
            }
        }
        Ok(cgroup)
    }

    /// Whether there is any.
    pub fn is_made(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The v2 cgroup to clone the container into.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.into.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process into the v1 cgroups. In v2 it was born in its cgroup.
    ///
    /// It writes `0`, "me", to `tasks`. Writing a process id to `cgroup.procs` would move a whole process, for which
    /// the kernel waits until every processor has passed a quiet state: milliseconds on an idle machine.
    // ANCHOR: join
    pub fn join(&self) -> Result<(), Error> {
        for group in self.groups.iter().filter(|group| !group.v2) {
            let tasks = group.directory.join("tasks");
            write(&tasks, "0").map_err(Error::io("move into", &tasks))?;
        }
        Ok(())
    }
    // ANCHOR_END: join

    /// Has the cgroups removed, and waits until they are.
    pub fn remove(self) -> Result<(), Error> {
        self.keeper.map_or(Ok(()), |keeper| Ok(keeper.dismiss()?))
    }
}

impl Group {
    fn make(&self) -> Result<(), Error> {
        fs::create_dir(&self.directory).map_err(Error::io("create the cgroup", &self.directory))?;
        for setting in &self.settings {
            let file = self.directory.join(setting.file);
            match write(&file, &setting.value) {
                Err(error) if setting.optional && of(&error) == Errno::ENOENT => {}
                Err(error) => {
                    return Err(Error::Limit {
                        file,
                        value: setting.value.clone(),
                        errno: of(&error),
                    });
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Control files want one write for the whole value, and are there already or not at all.
fn write(path: &Path, value: &str) -> std::io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// Which cgroups to make for the `wanted` controllers.
fn plan(wanted: &[(Controller, u64)]) -> Result<Vec<Group>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let hierarchies = hierarchy::of_this_process()?;
    // Unique among what lives at the same time, whatever pid namespace the launcher is in.
    let name = format!("container-{}-{:x}", std::process::id(), protocol::marks::monotonic_ns());
    let mut groups = Vec::new();
    let mut in_v2 = Vec::new();
    for &(controller, limit) in wanted {
        match hierarchies.iter().find(|hierarchy| hierarchy.has_v1(controller)) {
            Some(hierarchy) => groups.push(v1::group(hierarchy, &name, controller, limit)),
            None => in_v2.push((controller, limit)),
        }
    }
    if let Some(&(first, _)) = in_v2.first() {
        let hierarchy: &Hierarchy =
            hierarchies
                .iter()
                .find(|hierarchy| hierarchy.is_v2())
                .ok_or(Error::NoController {
                    controller: first.name(),
                })?;
        groups.push(v2::group(hierarchy, &name, &in_v2)?);
    }
    Ok(groups)
}

/// Why a limit cannot be enforced.
#[derive(Debug, Error)]
pub enum Error {
    /// The host has no such controller.
    #[error(
        "cannot limit {controller}: no cgroup hierarchy with that controller is mounted here. Mount one (v2: mount -t cgroup2 none /sys/fs/cgroup), or leave the limit out"
    )]
    NoController {
        /// Its name.
        controller: &'static str,
    },
    /// v2: none of the cgroups above would give a child the controllers.
    #[error(
        "cannot limit {controllers}: neither the launcher's cgroup {own} nor one above it passes these controllers on to children and lets this user make some. An ordinary user needs a delegated cgroup (systemd-run --user --scope -p Delegate=yes container run ...); root can enable them in cgroup.subtree_control of a cgroup without processes of its own"
    )]
    NotDelegated {
        /// The controllers that were needed.
        controllers: String,
        /// The launcher's own cgroup.
        own: String,
    },
    /// A limit was refused.
    #[error("cannot write {value:?} to {}: {}. See the limits of the cgroups above", file.display(), why(errno))]
    Limit {
        /// The control file.
        file: PathBuf,
        /// The value.
        value: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A name in `unified` is none.
    #[error("\"unified\" names files of one cgroup; {file:?} is a path")]
    NoFile {
        /// What was named.
        file: String,
    },
    /// A device rule cannot be understood.
    #[error("cannot understand the device rule {rule}: {why}")]
    DeviceRule {
        /// The rule.
        rule: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The kernel took no device filter.
    #[error("cannot {action} the device filter of {}: {}. Version 2 filters devices by a BPF program, which takes CAP_BPF (or CAP_SYS_ADMIN) and CONFIG_CGROUP_BPF", directory.display(), why(errno))]
    DeviceFilter {
        /// What was tried.
        action: &'static str,
        /// The cgroup.
        directory: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A directory or file was refused.
    #[error("cannot {action} {}: {}.{}", path.display(), why(errno), cure(*errno))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The keeper.
    #[error(transparent)]
    Keeper(#[from] keeper::Error),
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

fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => {
            " Only the owner of a cgroup may set limits beneath it: run as root, or have it delegated to this user, or leave out --memory, --cpus and --pids"
        }
        Errno::EROFS => {
            " The cgroup file system is read-only here, as it is inside most containers: run outside, or leave out --memory, --cpus and --pids"
        }
        _ => "",
    }
}
