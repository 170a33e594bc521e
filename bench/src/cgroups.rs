//! Which cgroups this host has, and where this process is in them: cgroups(7), proc_pid_mountinfo(5).

use std::fs;
use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// 1 or 2.
    pub version: u8,
    /// Version 1: the controllers and name it was mounted with. Version 2: the controllers its root offers.
    pub controllers: Vec<String>,
}

/// Every hierarchy mounted in this process's mount namespace. Empty when there is none, or no /proc.
pub fn hierarchies() -> Vec<Hierarchy> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mountinfo.lines().filter_map(parse_mount).collect()
}

/// `v1`, `v2`, `hybrid` (both mounted, the controllers with v1) or `none`.
pub fn mode(hierarchies: &[Hierarchy]) -> &'static str {
    let has = |version| hierarchies.iter().any(|hierarchy| hierarchy.version == version);
    match (has(1), has(2)) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}

/// The hierarchy that accounts memory.
pub fn memory(hierarchies: &[Hierarchy]) -> Option<&Hierarchy> {
    hierarchies
        .iter()
        .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == "memory"))
}

/// The directory of the cgroup that process `pid` is in, in `hierarchy`. `pid` may be `self`.
pub fn directory_of(pid: &str, hierarchy: &Hierarchy) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        // hierarchy-ID:controller-list:cgroup-path; version 2 has ID 0 and no controllers.
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let here = match hierarchy.version {
            2 => controllers.is_empty(),
            _ => controllers
                .split(',')
                .any(|name| hierarchy.controllers.iter().any(|ours| ours == name)),
        };
        here.then(|| hierarchy.mount_point.join(path.trim_start_matches('/')))
    })
}

/// Removes a cgroup and those below it. Control files need not, and cannot, be removed.
pub fn remove_tree(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

fn parse_mount(line: &str) -> Option<Hierarchy> {
    // ID parent major:minor root mount-point options [optional...] - type source super-options
    let (left, right) = line.split_once(" - ")?;
    let mount_point = PathBuf::from(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    let split = |text: &str, separator| text.split(separator).map(str::to_owned).collect();
    match kind {
        "cgroup" => Some(Hierarchy {
            mount_point,
            version: 1,
            controllers: split(options, ','),
        }),
        "cgroup2" => {
            let offered = fs::read_to_string(mount_point.join("cgroup.controllers")).unwrap_or_default();
            Some(Hierarchy {
                mount_point,
                version: 2,
                controllers: split(offered.trim(), ' '),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_with_optional_fields() {
        let line = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:14 - cgroup cgroup rw,memory";
        let hierarchy = parse_mount(line).unwrap();
        assert_eq!(hierarchy.mount_point, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(hierarchy.version, 1);
        assert!(memory(&[hierarchy]).is_some());
        assert_eq!(parse_mount("22 1 0:21 / /proc rw - proc proc rw"), None);
    }
}
