//! A mount namespace for the whole race, where crun needs one.
//!
//! crun refuses hosts on which both versions of cgroups are mounted ("hybrid"). Without the version 2 mount it takes
//! version 1 and works. So the harness takes the mount away in a mount namespace of its own, once, before the first
//! launch: every contender then starts from the same place, and none pays for a wrapper.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::cgroups;

/// Those who need it: crun, and podman, which leaves its containers to it.
const CRUNS: [&str; 2] = ["crun", "podman"];

/// Enters the namespace if one of these contenders needs it, this host is hybrid, and we may. Returns a note for the results when something was done, or
/// could not be.
pub fn enter_if_crun_needs_it(contenders: &[String]) -> Option<String> {
    if !contenders.iter().any(|name| CRUNS.contains(&name.as_str())) {
        return None;
    }
    let hierarchies = cgroups::hierarchies();
    if cgroups::mode(&hierarchies) != "hybrid" || !geteuid().is_root() {
        return None;
    }
    let unified: Vec<&Path> = hierarchies
        .iter()
        .filter(|hierarchy| hierarchy.version == 2)
        .map(|hierarchy| &*hierarchy.mount_point)
        .collect();
    match hide(&unified) {
        Ok(()) => Some(
            "The race ran in a mount namespace without the cgroup v2 mount, which crun does not accept beside v1. All \
             contenders alike."
                .into(),
        ),
        Err(error) => Some(format!(
            "The cgroup v2 mount could not be taken away for crun, which does not accept it beside v1: {error}."
        )),
    }
}

/// Moves the calling thread, and so what it starts from now on, into a mount namespace of its own.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn enter() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this, what is mounted or unmounted here would be so for everybody.
    let (none, recursively_private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, recursively_private, none)
}

fn hide(mount_points: &[&Path]) -> nix::Result<()> {
    enter()?;
    for mount_point in mount_points {
        umount2(*mount_point, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}
