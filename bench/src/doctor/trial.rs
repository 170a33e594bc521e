//! The attempts a child of `lab doctor` makes. They change the process that makes them and nothing else.

use std::fs;
use std::path::Path;

use clap::ValueEnum;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// The hidden subcommand of `lab` that makes one attempt.
pub const SUBCOMMAND: &str = "trial";

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trial {
    /// A user namespace, and in it one of every other kind.
    Namespaces,
    /// An overlay in a user namespace, written through.
    Overlay,
}

impl Trial {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Trial::Namespaces => "namespaces",
            Trial::Overlay => "overlay",
        }
    }

    /// Makes the attempt. Call it in a process of its own, from its only thread.
    ///
    /// # Errors
    /// What was refused, and the kernel's reason.
    pub fn attempt(self) -> Result<(), String> {
        match self {
            Trial::Namespaces => namespaces(),
            Trial::Overlay => overlay(),
        }
    }
}

fn namespaces() -> Result<(), String> {
    become_root_of_a_user_namespace()?;
    let kinds = [
        (CloneFlags::CLONE_NEWNS, "mount"),
        (CloneFlags::CLONE_NEWPID, "pid"),
        (CloneFlags::CLONE_NEWUTS, "uts"),
        (CloneFlags::CLONE_NEWIPC, "ipc"),
        (CloneFlags::CLONE_NEWNET, "net"),
        (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
    ];
    for (flag, kind) in kinds {
        unshare(flag).map_err(|errno| refused(&format!("make a {kind} namespace in a user namespace"), errno))?;
    }
    Ok(())
}

fn overlay() -> Result<(), String> {
    become_root_of_a_user_namespace()?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| refused("make a mount namespace", errno))?;
    let none = None::<&str>;
    // A tmpfs over /tmp, seen by this process alone: no directory of the host's is needed or touched.
    let base = Path::new("/tmp");
    mount(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), none)
        .map_err(|errno| refused("mount a tmpfs", errno))?;
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(base.join(name)).map_err(|error| format!("cannot make a directory on it: {error}"))?;
    }
    // userxattr: in a user namespace overlayfs may not keep its notes in trusted.* attributes.
    let options = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work,userxattr";
    mount(
        Some("overlay"),
        &base.join("merged"),
        Some("overlay"),
        MsFlags::empty(),
        Some(options),
    )
    .map_err(|errno| refused("mount an overlay in a user namespace", errno))?;
    fs::write(base.join("merged/file"), "new").map_err(|error| format!("cannot write to the overlay: {error}"))?;
    let upper = fs::read(base.join("upper/file"))
        .map_err(|error| format!("the write did not reach the upper layer: {error}"))?;
    if upper != b"new" {
        return Err("the upper layer does not hold what was written".into());
    }
    Ok(())
}

/// user_namespaces(7): map our own ids to root's; groups must be given up first.
fn become_root_of_a_user_namespace() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| refused("make a user namespace", errno))?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("cannot write {file}: {error}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

fn refused(what: &str, errno: Errno) -> String {
    format!("cannot {what}: {} ({errno:?})", errno.desc())
}
