//! Accounting cgroups: one around each weighed launch, so that the host's own books say what the launch cost.
//!
//! Only a cgroup counts everything: user pages, the page cache brought in, and the kernel's memory (slab, page tables,
//! stacks), which no figure of a process shows. Entering one costs up to 9 ms (writing `cgroup.procs` waits for an RCU
//! grace period), and so weighed launches are never timed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::cgroups::{self, Hierarchy};
use crate::leftovers;

/// A dying cgroup may refuse its removal for a moment: processes that were killed are still on their way out.
const REMOVAL_TRIES: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// Why there is no accounting, or none for this launch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no memory controller mounted.
    #[error("no cgroup hierarchy with the memory controller is mounted")]
    NoController,
    /// A cgroup or one of its files refused.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// The race's own cgroup; each weighed launch gets one below it. Removed, with all below, when the value goes.
#[derive(Debug)]
pub struct Accounting {
    memory: Hierarchy,
    all: Vec<Hierarchy>,
    directory: PathBuf,
    path: Option<String>,
    _claim: File,
}

impl Accounting {
    /// Makes the race's cgroup: below the root for root, below our own for an ordinary user.
    ///
    /// # Errors
    /// When there is no memory controller, or this user may not make cgroups.
    pub fn create() -> Result<Accounting, Error> {
        let all = cgroups::hierarchies();
        let memory = cgroups::memory(&all).ok_or(Error::NoController)?.clone();
        let base = if geteuid().is_root() {
            memory.mount_point.clone()
        } else {
            cgroups::directory_of("self", &memory).ok_or(Error::NoController)?
        };
        leftovers::remove_abandoned(&base, |directory| {
            remove(directory);
            // As in `drop`: runtimes make the path they are given in every hierarchy.
            let elsewhere = all
                .iter()
                .filter_map(|other| Some(other.mount_point.join(directory.file_name()?)));
            elsewhere.for_each(|directory| remove(&directory));
        });
        let name = format!("{}{}", leftovers::PREFIX, std::process::id());
        let directory = base.join(&name);
        fs::create_dir(&directory).map_err(file("make the cgroup", &directory))?;
        let claim = leftovers::claim(&directory).map_err(file("lock the cgroup", &directory))?;
        let accounting = Accounting {
            path: geteuid().is_root().then(|| format!("/{name}")),
            all,
            directory,
            memory,
            _claim: claim,
        };
        if accounting.memory.version == 2 {
            pass_on_memory(&base)?;
            pass_on_memory(&accounting.directory)?;
        }
        Ok(accounting)
    }

    /// The race's cgroup as a path below the root of every hierarchy, for runtimes that take one. None below our own
    /// cgroup, which has another path in every hierarchy.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// A fresh account for one launch of `contender`.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub fn open(&self, contender: &str) -> Result<Account, Error> {
        let directory = self.directory.join(contender);
        // What a runtime left there while it was timed.
        remove(&directory);
        fs::create_dir(&directory).map_err(file("make the cgroup", &directory))?;
        let mut account = Account {
            entrance: directory.clone(),
            directory,
            version: self.memory.version,
        };
        if account.version == 2 {
            // Version 2 allows processes in leaves only, and the launcher makes further cgroups beside itself.
            pass_on_memory(&account.directory)?;
            account.entrance = account.directory.join("launcher");
            fs::create_dir(&account.entrance).map_err(file("make the cgroup", &account.entrance))?;
        }
        Ok(account)
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        remove(&self.directory);
        // Runtimes given our path make it in every hierarchy, and on leaving remove only their own part of it.
        if let Some(path) = &self.path {
            for hierarchy in &self.all {
                remove(&hierarchy.mount_point.join(&path[1..]));
            }
        }
    }
}

/// One launch's cgroup. Removed when the value goes.
#[derive(Debug)]
pub struct Account {
    directory: PathBuf,
    entrance: PathBuf,
    version: u8,
}

impl Account {
    /// A descriptor a process writes `0` to in order to enter.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn entrance(&self) -> Result<File, Error> {
        let path = self.entrance.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).map_err(file("open", &path))
    }

    /// Most that was ever charged, in bytes. Version 2 counts it since Linux 5.19.
    pub fn peak(&self) -> Option<u64> {
        self.number(["memory.max_usage_in_bytes", "memory.peak"])
    }

    /// What is charged now, in bytes.
    pub fn usage(&self) -> Option<u64> {
        self.number(["memory.usage_in_bytes", "memory.current"])
    }

    /// The kernel memory in it, in bytes: slab, page tables, stacks. In version 2's memory.stat since Linux 5.18.
    pub fn kernel(&self) -> Option<u64> {
        if self.version == 1 {
            return self.number(["memory.kmem.usage_in_bytes", ""]);
        }
        let text = fs::read_to_string(self.directory.join("memory.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("kernel ")?.parse().ok())
    }

    /// Whether process `pid` is charged to this account.
    pub fn charges(&self, pid: u32) -> bool {
        let hierarchies = cgroups::hierarchies();
        let place = cgroups::memory(&hierarchies).and_then(|memory| cgroups::directory_of(&pid.to_string(), memory));
        place.is_some_and(|place| place.starts_with(&self.directory))
    }

    /// Waits until nobody is in this cgroup or below it, for `patience` at most.
    pub fn wait_until_empty(&self, patience: Duration) {
        let began = Instant::now();
        while !processes_in(&self.directory).is_empty() && began.elapsed() < patience {
            sleep(REMOVAL_PAUSE);
        }
    }

    /// Kills whoever is in this cgroup or below it, until nobody is.
    pub fn kill_all(&self) {
        for _ in 0..REMOVAL_TRIES {
            let inside = processes_in(&self.directory);
            if inside.is_empty() {
                return;
            }
            for pid in inside {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            sleep(REMOVAL_PAUSE);
        }
    }

    fn number(&self, [v1, v2]: [&str; 2]) -> Option<u64> {
        let name = if self.version == 1 { v1 } else { v2 };
        fs::read_to_string(self.directory.join(name)).ok()?.trim().parse().ok()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn processes_in(directory: &Path) -> Vec<i32> {
    let own = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes_in(&entry.path()));
        }
    }
    found
}

/// Version 2: lets the cgroups below `directory` have the memory controller.
fn pass_on_memory(directory: &Path) -> Result<(), Error> {
    let path = directory.join("cgroup.subtree_control");
    fs::write(&path, "+memory").map_err(file("enable the memory controller in", &path))
}

fn remove(directory: &Path) {
    for _ in 0..REMOVAL_TRIES {
        cgroups::remove_tree(directory);
        if !directory.exists() {
            return;
        }
        sleep(REMOVAL_PAUSE);
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}
