//! Where the launcher itself stands: its own cgroup in each hierarchy, as a directory.
//!
//! `/proc/self/cgroup` has the path inside each hierarchy, `/proc/self/mountinfo` where the hierarchies are mounted
//! (cgroups(7), proc_pid_mountinfo(5)). Taking /sys/fs/cgroup for granted would be wrong on more hosts than one thinks.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Controller, Error};

/// One mounted hierarchy, and this process's place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The v1 controllers on it; none for the v2 hierarchy.
    controllers: Vec<String>,
    v2: bool,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// This process's cgroup.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Whether this is the v1 hierarchy with this controller.
    pub fn has_v1(&self, controller: Controller) -> bool {
        !self.v2 && self.controllers.iter().any(|name| name == controller.name())
    }

    /// The names of its v1 controllers; none for the v2 hierarchy.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Whether this is the v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.v2
    }
}

/// The hierarchies that are mounted where this process can see them.
pub fn of_this_process() -> Result<Vec<Hierarchy>, Error> {
    let read = |path: &str| fs::read_to_string(path).map_err(Error::io("read", Path::new(path)));
    Ok(parse(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?))
}

/// `ID:CONTROLLERS:PATH` in `memberships`, with no controllers for v2.
pub fn parse(memberships: &str, mountinfo: &str) -> Vec<Hierarchy> {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let hierarchy = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let mount = mounts.iter().find(|mount| mount.is_of(names))?;
        let mount_point = PathBuf::from(&mount.point);
        // A mount can show a part of the hierarchy only; what lies outside of that part has no path here.
        let own = Path::new(path)
            .strip_prefix(&mount.root)
            .ok()
            .map(|below| mount_point.join(below))?;
        Some(Hierarchy {
            controllers: names
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            v2: names.is_empty(),
            mount_point,
            own,
        })
    };
    memberships.lines().filter_map(hierarchy).collect()
}

struct Mount {
    root: String,
    point: String,
    v2: bool,
    options: String,
}

impl Mount {
    /// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS] - TYPE SOURCE SUPER_OPTIONS`.
    fn parse(line: &str) -> Option<Mount> {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let v2 = match back.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let mut front = front.split(' ').skip(3);
        Some(Mount {
            root: front.next()?.to_owned(),
            point: front.next()?.to_owned(),
            v2,
            options: back.nth(1)?.to_owned(),
        })
    }

    /// Whether this mount shows the hierarchy with these comma-separated controllers.
    fn is_of(&self, names: &str) -> bool {
        if names.is_empty() || self.v2 {
            return names.is_empty() && self.v2;
        }
        names
            .split(',')
            .all(|name| self.options.split(',').any(|option| option == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
35 31 0:32 /outer /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_the_own_cgroup_in_each_hierarchy() {
        let found = parse("5:memory:/outer/a/b\n2:cpu,cpuacct:/\n0::/user.slice\n", MOUNTS);
        let own: Vec<_> = found.iter().map(|hierarchy| hierarchy.own.to_str().unwrap()).collect();
        assert_eq!(
            own,
            [
                "/sys/fs/cgroup/memory/a/b",
                "/sys/fs/cgroup/cpu,cpuacct/",
                "/sys/fs/cgroup/unified/user.slice"
            ]
        );
        assert!(found[1].has_v1(Controller::Cpu) && !found[1].has_v1(Controller::Pids) && found[2].is_v2());
    }

    #[test]
    fn a_cgroup_outside_of_the_mounted_part_is_not_found() {
        assert_eq!(parse("5:memory:/elsewhere\n", MOUNTS), []);
        assert_eq!(parse("9:pids:/\n", MOUNTS), []);
    }
}
