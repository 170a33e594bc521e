//! Version 2: one hierarchy, one directory for all limits (kernel document `admin-guide/cgroup-v2`).
//!
//! A cgroup has the controllers its parent lists in `cgroup.subtree_control`, and a parent other than the root can
//! list any only while it has no processes of its own. The launcher's own cgroup has one: the launcher. So the
//! container's cgroup goes into the nearest cgroup, from the launcher's own upwards, that passes the controllers on.

use std::fs;
use std::path::Path;

use super::hierarchy::Hierarchy;
use super::{Controller, Error, Group, Setting, write};

/// The period in which a quota of processor time counts, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The cgroup that enforces the `wanted` limits.
pub(super) fn group(hierarchy: &Hierarchy, name: &str, wanted: &[(Controller, u64)]) -> Result<Group, Error> {
    let setting = |file, value: String, optional| Setting { file, value, optional };
    // ANCHOR: limits
    let settings = |&(controller, limit): &(Controller, u64)| match controller {
        Controller::Memory => vec![
            setting("memory.max", limit.to_string(), false),
            // Absent without swap accounting.
            setting("memory.swap.max", "0".into(), true),
        ],
        Controller::Cpu => vec![setting(
            "cpu.max",
            format!("{} {PERIOD_US}", limit * PERIOD_US / 1000),
            false,
        )],
        Controller::Pids => vec![setting("pids.max", limit.to_string(), false)],
    };
    // ANCHOR_END: limits
    let names: Vec<&str> = wanted.iter().map(|(controller, _)| controller.name()).collect();
    let parent = hierarchy
        .own
        .ancestors()
        .take_while(|directory| directory.starts_with(&hierarchy.mount_point))
        .find(|directory| passes_on(directory, &names) && may_make_children(directory))
        .ok_or_else(|| Error::NotDelegated {
            controllers: names.join(", "),
            own: hierarchy.own.display().to_string(),
        })?;
    Ok(Group {
        directory: parent.join(name),
        settings: wanted.iter().flat_map(settings).collect(),
        v2: true,
    })
}

/// Whether children of `directory` have these controllers, enabling them where that is possible.
fn passes_on(directory: &Path, names: &[&str]) -> bool {
    let has_all = |file: &str| {
        let list = fs::read_to_string(directory.join(file)).unwrap_or_default();
        names
            .iter()
            .all(|name| list.split_whitespace().any(|listed| listed == *name))
    };
    if has_all("cgroup.subtree_control") {
        return true;
    }
    let all = names
        .iter()
        .map(|name| format!("+{name}"))
        .collect::<Vec<_>>()
        .join(" ");
    // EBUSY where there are processes, EACCES where it is somebody else's: then a cgroup further up may do.
    has_all("cgroup.controllers") && write(&directory.join("cgroup.subtree_control"), &all).is_ok()
}

fn may_make_children(directory: &Path) -> bool {
    nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::hierarchy;

    /// A tree of plain files with the names and contents of control files: enough to choose a place by.
    #[test]
    fn the_nearest_cgroup_that_passes_the_controllers_on_is_chosen() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().to_str().unwrap();
        let session = root.path().join("user/session");
        fs::create_dir_all(&session).unwrap();
        // A cgroup with processes refuses to enable controllers; here the file to do it with is not even there.
        fs::write(session.join("cgroup.controllers"), "memory pids\n").unwrap();
        fs::write(root.path().join("user/cgroup.subtree_control"), "memory pids\n").unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        let mounts = format!("31 23 0:28 / {mount} rw - cgroup2 cgroup2 rw\n");
        let hierarchy = hierarchy::parse("0::/user/session\n", &mounts).remove(0);
        let place = |wanted: &[(Controller, u64)]| group(&hierarchy, "c", wanted).map(|group| group.directory);
        assert_eq!(
            place(&[(Controller::Memory, 1 << 20)]).unwrap(),
            root.path().join("user/c")
        );
        assert_eq!(
            place(&[(Controller::Cpu, 500), (Controller::Pids, 9)]).unwrap(),
            root.path().join("c")
        );
        fs::write(root.path().join("cgroup.subtree_control"), "memory\n").unwrap();
        assert!(matches!(
            place(&[(Controller::Cpu, 500)]),
            Err(Error::NotDelegated { .. })
        ));
    }

    #[test]
    fn settings_have_the_units_of_the_control_files() {
        let mounts = "31 23 0:28 / / rw - cgroup2 cgroup2 rw\n";
        let mut hierarchy = hierarchy::parse("0::/\n", mounts).remove(0);
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        hierarchy.mount_point = root.path().to_owned();
        hierarchy.own = root.path().to_owned();
        let made = group(&hierarchy, "c", &[(Controller::Cpu, 1500), (Controller::Memory, 65536)]).unwrap();
        let values: Vec<_> = made
            .settings
            .iter()
            .map(|setting| (setting.file, setting.value.as_str()))
            .collect();
        assert_eq!(
            values,
            [
                ("cpu.max", "150000 100000"),
                ("memory.max", "65536"),
                ("memory.swap.max", "0")
            ]
        );
    }
}
