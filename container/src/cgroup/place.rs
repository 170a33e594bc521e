//! The cgroups of a container that outlives its launcher: at a path an engine chose, found again by every later command.
//!
//! `container run` makes a cgroup for a limit and has it removed by a process that waits for the end ([`super::Cgroup`]).
//! Under an engine nobody waits: `create` makes the cgroups, `delete` removes them, and in between `kill`, `pause`,
//! `update` and `events` find them by what the state on disk says. Engines also read them behind the runtime's back, so
//! there is one for every controller that limits, accounts or stops processes, limit or not.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::hierarchy::{self, Hierarchy};
use super::{Error, write};
use crate::errno::of;

/// The v1 controllers a container always gets a cgroup of. The others (`cpuset`, `hugetlb`, `net_cls`, `rdma`, ...) only
/// limit, and are joined when there is a limit to set.
const ALWAYS: [&str; 7] = ["memory", "cpu", "cpuacct", "pids", "blkio", "devices", "freezer"];

/// The controllers a v2 cgroup gets when its parent has them to give.
const WANTED_V2: [&str; 7] = ["cpu", "memory", "pids", "io", "cpuset", "hugetlb", "rdma"];

/// How long processes that were told to freeze, or to end, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// One cgroup of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The v1 controllers of its hierarchy; none on v2.
    pub controllers: Vec<String>,
    /// Whether the hierarchy is v2.
    pub v2: bool,
    /// Where the hierarchy is mounted.
    pub mount_point: PathBuf,
    /// The cgroup itself.
    pub directory: PathBuf,
}

/// All cgroups of a container: one for each v1 hierarchy, or one in v2, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Places(pub Vec<Place>);

impl Places {
    /// Where the cgroups go. `path` is config.json's: absolute from the root of each hierarchy, else from where the
    /// caller is (v1), or beside it (v2, where a cgroup with processes passes nothing on). `limited` are controllers
    /// that have a limit to enforce.
    pub fn plan(path: &Path, limited: &[&str]) -> Result<Places, Error> {
        let mut places = Vec::new();
        let mut in_v1: Vec<String> = Vec::new();
        let hierarchies = hierarchy::of_this_process()?;
        for hierarchy in hierarchies.iter().filter(|hierarchy| !hierarchy.is_v2()) {
            let wanted = |name: &String| ALWAYS.contains(&name.as_str()) || limited.contains(&name.as_str());
            if hierarchy.controllers().iter().any(wanted) {
                in_v1.extend_from_slice(hierarchy.controllers());
                places.push(Place::at(hierarchy, path));
            }
        }
        // Beside version 1 hierarchies, version 2 has only what they left to it.
        let in_v2 = limited.iter().any(|name| !in_v1.iter().any(|taken| taken == name));
        if (places.is_empty() || in_v2)
            && let Some(hierarchy) = hierarchies.iter().find(|hierarchy| hierarchy.is_v2())
        {
            places.push(Place::at(hierarchy, path));
        }
        Ok(Places(places))
    }

    /// Makes them, with what leads to them.
    pub fn make(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(Place::make)
    }

    /// Moves the calling process into the v1 ones; see [`super::Cgroup::join`] for why it writes `0`.
    pub fn join(&self) -> Result<(), Error> {
        for place in self.0.iter().filter(|place| !place.v2) {
            let tasks = place.directory.join("tasks");
            write(&tasks, "0").map_err(Error::io("move into", &tasks))?;
        }
        Ok(())
    }

    /// The directory of the v2 one, for clone3 to start a process in.
    pub fn open_v2(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(place) = self.0.iter().find(|place| place.v2) else {
            return Ok(None);
        };
        let directory = fs::File::open(&place.directory).map_err(Error::io("open", &place.directory))?;
        Ok(Some(directory.into()))
    }

    /// The one with this controller, which on v2 is the only one there is.
    pub fn with(&self, controller: &str) -> Option<&Place> {
        let v1 = |place: &&Place| place.controllers.iter().any(|name| name == controller);
        self.0.iter().find(v1).or_else(|| self.0.iter().find(|place| place.v2))
    }

    /// Every process in the container's cgroups, those of cgroups the container made itself included.
    pub fn processes(&self) -> Result<Vec<Pid>, Error> {
        let place = self.with("pids").or(self.0.first());
        let mut pids = Vec::new();
        if let Some(place) = place {
            collect(&place.directory, &mut pids)?;
        }
        Ok(pids)
    }

    /// Stops every process where it is, or has all go on; returns when they are.
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let place = self
            .with("freezer")
            .ok_or(Error::NoController { controller: "freezer" })?;
        let (file, value) = match (place.v2, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let path = place.directory.join(file);
        let begin = Instant::now();
        loop {
            // v1 may miss a process that is just being born; written again, it catches that one too.
            write(&path, value).map_err(Error::io("write to", &path))?;
            if self.frozen() == frozen {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                return Err(Error::io("freeze", &place.directory)(Errno::ETIMEDOUT.into()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the processes are stopped.
    pub fn frozen(&self) -> bool {
        let Some(place) = self.with("freezer") else {
            return false;
        };
        let read = |file: &str| fs::read_to_string(place.directory.join(file)).unwrap_or_default();
        match place.v2 {
            true => read("cgroup.events").lines().any(|line| line == "frozen 1"),
            false => read("freezer.state").trim() == "FROZEN",
        }
    }

    /// Removes them. Whatever still runs in them must have been killed; the kernel takes a moment to clear it away.
    pub fn remove(&self) -> Result<(), Error> {
        for place in &self.0 {
            let begin = Instant::now();
            loop {
                match remove_tree(&place.directory) {
                    Ok(()) => break,
                    Err(error) if of(&error) == Errno::EBUSY && begin.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                    Err(error) => return Err(Error::io("remove", &place.directory)(error)),
                }
            }
        }
        Ok(())
    }
}

impl Place {
    fn at(hierarchy: &Hierarchy, path: &Path) -> Place {
        let start = match path.is_absolute() {
            true => &hierarchy.mount_point,
            false if hierarchy.is_v2() => hierarchy.own.parent().unwrap_or(&hierarchy.mount_point),
            false => &hierarchy.own,
        };
        // Never above the place it starts from: a component that leads upwards counts for nothing.
        let below = path
            .components()
            .filter(|component| matches!(component, Component::Normal(_)));
        let start = if start.starts_with(&hierarchy.mount_point) {
            start
        } else {
            &hierarchy.mount_point
        };
        Place {
            controllers: hierarchy.controllers().to_vec(),
            v2: hierarchy.is_v2(),
            mount_point: hierarchy.mount_point.clone(),
            directory: below.fold(start.to_path_buf(), |directory, component| directory.join(component)),
        }
    }

    fn make(&self) -> Result<(), Error> {
        let create = |directory: &Path| match fs::create_dir(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io("create the cgroup", directory)(error))
            }
            _ => Ok(()),
        };
        // The usual case takes one call; on v2 and for cpuset every step from the root on has something to be told.
        let cpuset = self.controllers.iter().any(|name| name == "cpuset");
        if !self.v2 && !cpuset && fs::create_dir(&self.directory).is_ok() {
            return Ok(());
        }
        let mut way: Vec<&Path> = self
            .directory
            .ancestors()
            .take_while(|directory| *directory != self.mount_point && directory.starts_with(&self.mount_point))
            .collect();
        if self.v2 {
            pass_on(&self.mount_point);
        }
        while let Some(directory) = way.pop() {
            create(directory)?;
            if self.v2 && !way.is_empty() {
                pass_on(directory);
            }
            if cpuset {
                inherit_cpuset(directory)?;
            }
        }
        Ok(())
    }
}

/// Gives the children of a v2 cgroup whatever controllers it has. Each by itself: one that is refused (`cpuset` where
/// the parent is not allowed it) must not keep the others. What was needed and is missing shows when a limit is set.
fn pass_on(directory: &Path) {
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let (there, given) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let has = |list: &str, name: &str| list.split_whitespace().any(|listed| listed == name);
    for name in WANTED_V2 {
        if has(&there, name) && !has(&given, name) {
            let _ = write(&directory.join("cgroup.subtree_control"), &format!("+{name}"));
        }
    }
}

/// A new cpuset has no processors and no memory, and takes no process until it has both.
fn inherit_cpuset(directory: &Path) -> Result<(), Error> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = directory.join(file);
        let own = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        if own.trim().is_empty()
            && let Some(parent) = directory.parent()
        {
            let theirs = fs::read_to_string(parent.join(file)).map_err(Error::io("read", &parent.join(file)))?;
            write(&path, theirs.trim()).map_err(Error::io("write to", &path))?;
        }
    }
    Ok(())
}

fn collect(directory: &Path, pids: &mut Vec<Pid>) -> Result<(), Error> {
    let procs = directory.join("cgroup.procs");
    match fs::read_to_string(&procs) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw)),
        Err(error) if matches!(of(&error), Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        // A threaded cgroup (v2) answers this way; its processes are listed by the one above it.
        Err(error) if of(&error) == Errno::EOPNOTSUPP => {}
        Err(error) => return Err(Error::io("read", &procs)(error)),
    }
    for child in children(directory) {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        // Busy by processes, or by cgroups beneath it.
        Err(error) if of(&error) == Errno::EBUSY => {}
        other => return other,
    }
    children(directory).iter().try_for_each(|child| remove_tree(child))?;
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n\
33 31 0:30 / /cg/cpuset rw - cgroup cgroup rw,cpuset\n\
41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n";

    fn directories(path: &str) -> Vec<String> {
        let found = hierarchy::parse("2:cpu:/mine\n3:cpuset:/\n0::/mine\n", MOUNTS);
        let at = |hierarchy: &Hierarchy| Place::at(hierarchy, Path::new(path)).directory;
        found
            .iter()
            .map(|hierarchy| at(hierarchy).display().to_string())
            .collect()
    }

    #[test]
    fn an_absolute_path_starts_at_the_root_of_each_hierarchy() {
        assert_eq!(
            directories("/a/b"),
            ["/cg/cpu/a/b", "/cg/cpuset/a/b", "/cg/unified/a/b"]
        );
    }

    #[test]
    fn a_relative_path_starts_where_the_caller_is_and_leads_nowhere_else() {
        assert_eq!(directories("a"), ["/cg/cpu/mine/a", "/cg/cpuset/a", "/cg/unified/a"]);
        assert_eq!(
            directories("../../a"),
            ["/cg/cpu/mine/a", "/cg/cpuset/a", "/cg/unified/a"]
        );
    }
}
