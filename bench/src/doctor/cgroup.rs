//! Control groups: which version, and may this user make one that accounts memory?

use nix::unistd::geteuid;

use super::{Finding, Standing};
use crate::accounting::Accounting;
use crate::cgroups;

/// Everything about cgroups.
pub fn examine() -> Vec<Finding> {
    vec![mode(), delegation()]
}

fn mode() -> Finding {
    let name = "cgroup mode";
    let hierarchies = cgroups::hierarchies();
    let mode = cgroups::mode(&hierarchies);
    let memory = match cgroups::memory(&hierarchies) {
        Some(hierarchy) => format!("memory is accounted by version {}", hierarchy.version),
        None => "no hierarchy accounts memory".into(),
    };
    let found = format!("{mode}; {memory}");
    match mode {
        "v2" => Finding::new(name, Standing::Good, found, "One hierarchy for all controllers."),
        "none" => Finding::new(name, Standing::Missing, found, "No limits and no accounting.")
            .fix("mount it: sudo mount -t cgroup2 none /sys/fs/cgroup"),
        "hybrid" => Finding::new(
            name,
            Standing::Limited,
            found,
            "Both versions are mounted. crun refuses such a host; run by root, `lab compare` gives the race a mount \
             namespace without the version 2 mount.",
        )
        .fix("boot with systemd.unified_cgroup_hierarchy=1 to have version 2 alone"),
        _ => Finding::new(
            name,
            Standing::Limited,
            found,
            "Version 1: one hierarchy per controller, each entered on its own.",
        ),
    }
}

fn delegation() -> Finding {
    let name = "cgroup delegation";
    match Accounting::create() {
        Ok(accounting) => {
            drop(accounting);
            Finding::new(
                name,
                Standing::Good,
                "a memory cgroup was made and removed",
                "Peak and kernel memory can be measured.",
            )
        }
        Err(error) => {
            let meaning = "Limits cannot be set, and comparisons lack peak and kernel memory.";
            let finding = Finding::new(name, Standing::Limited, error.to_string(), meaning);
            if geteuid().is_root() {
                finding.fix("run outside of a container, or mount its cgroup file system writable")
            } else {
                finding.fix("run as root, or have an administrator give this user a cgroup of its own (chown)")
            }
        }
    }
}
