//! Giving up privileges: the last thing before the program runs, in the one order that works.
//!
//! Until here the set-up had every capability over its own namespaces, since mounting, mapping and naming need them.
//! Each step below gives up what a later step does not need; after the last there is no way back, not even through a
//! set-user-id program.

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use thiserror::Error;

use crate::capabilities;
use crate::errno::why;
use crate::seccomp;
use crate::users::User;

/// Whom a program runs as, and what root among them may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The user.
    pub user: User,
    /// The capabilities that root keeps, as a bit mask.
    pub capabilities: u64,
}

/// Exchanges the launcher's groups for `groups` and becomes root of the user namespace, whose ids were mapped just now.
pub fn become_root_inside(groups: &[u32]) -> Result<(), Error> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(Error::ids("drop the launcher's groups"))?;
    become_user(User::default())
}

/// Becomes `user` for good: real, effective and saved ids. A change from root to another id also clears the
/// capabilities.
pub fn become_user(user: User) -> Result<(), Error> {
    // Groups first: as another user one may not change them any more.
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setresgid(gid, gid, gid).map_err(Error::ids("change the group ids"))?;
    setresuid(uid, uid, uid).map_err(Error::ids("change the user ids"))
}

/// Hides this process from ptrace(2) and /proc of everybody without rights on the host. Its memory is a copy of the
/// launcher's and its /proc/1/exe is the launcher's file: a container that may write to that has won (CVE-2019-5736).
pub fn hide_from_inside() -> Result<(), Error> {
    // SAFETY: PR_SET_DUMPABLE takes a number and no pointer.
    let set = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0u64, 0u64, 0u64, 0u64) };
    Errno::result(set)
        .map(drop)
        .map_err(Error::ids("hide the set-up process"))
}

/// Has the kernel kill this process when its parent ends. Changing ids undoes it, so this comes after.
pub fn die_with_parent() -> Result<(), Error> {
    // SAFETY: PR_SET_PDEATHSIG takes a number and no pointer.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0u64, 0u64, 0u64) };
    Errno::result(set)
        .map(drop)
        .map_err(Error::ids("tie the container to its launcher"))
}

/// Loads the system call filter, which sets no_new_privs. Everything after it must be allowed by the filter.
pub fn filter_system_calls() -> Result<(), Error> {
    Ok(seccomp::apply()?)
}

/// What the program itself does, between its creation and execve: take the user's ids and the capabilities that go
/// with them. Root inside keeps those it was given, anybody else none.
pub fn drop_for_program(rights: Rights) -> Result<(), Error> {
    if rights.user != User::default() {
        become_user(rights.user)?;
    }
    let kept = if rights.user.uid == 0 { rights.capabilities } else { 0 };
    Ok(capabilities::keep_only(kept)?)
}

/// Why a privilege is still there.
#[derive(Debug, Error)]
pub enum Error {
    /// Ids, or a property of the process.
    #[error("cannot {step}: {}", why(errno))]
    Process {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Capabilities.
    #[error(transparent)]
    Capabilities(#[from] capabilities::Error),
    /// The filter.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
}

impl Error {
    fn ids(step: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| Error::Process { step, errno }
    }
}
