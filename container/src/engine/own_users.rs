//! A user namespace for a container of root's: its root is nobody on the host.
//!
//! The container's 65536 ids are a range of the host's that nobody else has. On disk nothing of that is seen: layers,
//! changes and volumes keep the ids they have in the image, where root is 0. In between, idmapped mounts translate
//! (mount_setattr(2), MOUNT_ATTR_IDMAP): so containers with different ranges share one layer, and a container may have
//! another range at its next start. An ordinary user's containers need none of this: their root is his own id.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};

use super::record::Users;
use super::{Container, Error, filesystem, launch};
use crate::clone::{Side, clone3};
use crate::errno::why;
use crate::mounts::tree::Tree;
use crate::namespaces::Namespace;
use crate::network::Mode;
use crate::users::{IDS_PER_CONTAINER, User, UserMap};

/// Changes of user leave the capabilities alone (`SECBIT_NO_SETUID_FIXUP`, linux/securebits.h).
const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

/// A user namespace, kept alive by an open file.
#[derive(Debug)]
pub struct OwnUsers {
    namespace: OwnedFd,
    first: u32,
}

impl OwnUsers {
    /// A new one. The calling process, which has one thread, stays in its own.
    pub fn new() -> Result<OwnUsers, Error> {
        let map = UserMap::choose(User::default())?;
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("make", Path::new("a line to a process")))?;
        match clone3(Namespace::User.clone_flag(), None)? {
            Side::Container => {
                drop(ours);
                // Until the other side has opened the namespace and lets go.
                let _ = (&theirs).read(&mut [0]);
                // SAFETY: ends this process at once. The caller's exit handlers are not ours to run.
                unsafe { libc::_exit(0) }
            }
            Side::Launcher { pid, .. } => {
                drop(theirs);
                let made = map
                    .write(pid)
                    .map_err(Error::from)
                    .and_then(|()| OwnUsers::open(pid, map.outside(User::default()).0));
                drop(ours);
                let _ = waitpid(pid, None);
                made
            }
        }
    }

    /// The one process `pid` is in, whose ids start at `first`.
    pub fn open(pid: Pid, first: u32) -> Result<OwnUsers, Error> {
        let path = format!("/proc/{pid}/ns/user");
        let file = File::open(&path).map_err(Error::io("open", Path::new(&path)))?;
        Ok(OwnUsers {
            namespace: file.into(),
            first,
        })
    }

    /// The host's id of the container's root. The others follow.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// By which other processes find it, as long as this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// What is mounted at `path`, `recursive` with the mounts beneath it, with its owners shifted.
    pub fn shifted(&self, path: &Path, recursive: bool) -> Result<Tree, Error> {
        let shift = || {
            let tree = Tree::copy_of(path, recursive)?;
            tree.shift_owners(self.as_fd(), recursive)?;
            Ok(tree)
        };
        shift().map_err(|errno: Errno| {
            Error::Refused(format!(
                "the owners of {} cannot be shifted to the container's ids: {}. Its file system must be able to (ext4, xfs, btrfs; tmpfs from Linux 6.3 on; not overlay, /proc, /sys or one of the network), and so must those mounted beneath it",
                path.display(),
                why(&errno)
            ))
        })
    }

    /// Calls `act` as the container's root where files are concerned, and with every capability of the host's root.
    ///
    /// Whoever mounts an overlay makes two directories in it there and then, and is the one on whose behalf it copies
    /// files up later. Through a shifted mount the host's root is nobody, who can own no file.
    pub fn as_root_inside<T>(&self, act: impl FnOnce() -> T) -> Result<T, Error> {
        let secure_bits = |bits: libc::c_ulong| {
            // SAFETY: PR_SET_SECUREBITS takes a number and no pointer.
            let set = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0u64, 0u64, 0u64) };
            Errno::result(set).map_err(Error::kernel("keep capabilities across a change of user"))
        };
        // SAFETY: PR_GET_SECUREBITS takes and changes nothing.
        let before = unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0u64, 0u64, 0u64, 0u64) };
        let before = Errno::result(before).map_err(Error::kernel("read the secure bits"))? as libc::c_ulong;
        secure_bits(before | NO_SETUID_FIXUP)?;
        setfsgid(Gid::from_raw(self.first));
        setfsuid(Uid::from_raw(self.first));
        let result = act();
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        secure_bits(before)?;
        Ok(result)
    }

    /// The host's id of `id` in the container.
    pub fn outside(&self, id: u32) -> Result<u32, Error> {
        match id < IDS_PER_CONTAINER {
            true => Ok(self.first + id),
            false => Err(Error::Refused(format!(
                "id {id} is beyond the container's, which are 0 to {}: --userns host does without a user namespace",
                IDS_PER_CONTAINER - 1
            ))),
        }
    }
}

/// A container's root, mounted, and whose ids its files have there.
pub struct Root {
    /// Where it is mounted.
    pub path: PathBuf,
    /// The container's own user namespace, if it has one.
    pub users: Option<OwnUsers>,
    /// Why it has none, where nobody asked for that.
    pub why_not: Option<String>,
}

/// Mounts the container's root, with a user namespace of its own where that is wanted and can be had.
pub fn mount_root(container: &Container, rootless: bool) -> Result<Root, Error> {
    let settings = &container.settings;
    let with_the_hosts = |why_not| {
        Ok(Root {
            path: filesystem::mount_root(container, rootless, None)?,
            users: None,
            why_not,
        })
    };
    match (settings.users, &settings.network) {
        (Users::Host, _) if rootless => Err(Error::Refused(
            "--userns host is root's: an ordinary user's container always has a user namespace, without which he may mount nothing".into(),
        )),
        _ if rootless => with_the_hosts(None),
        // The ports below 1024 of the host's network are for those who are root on the host.
        (Users::Host, _) | (Users::Auto, Mode::Host) => with_the_hosts(None),
        (wanted, _) => match with_own(container) {
            Ok((path, users)) => Ok(Root {
                path,
                users: Some(users),
                why_not: None,
            }),
            Err(error) if wanted == Users::Private => Err(error),
            Err(error) => with_the_hosts(Some(error.to_string())),
        },
    }
}

fn with_own(container: &Container) -> Result<(PathBuf, OwnUsers), Error> {
    let users = match &container.settings.network {
        // A network namespace belongs to a user namespace: whoever shares one has to be in the other.
        Mode::Container(name) => {
            let other = Container::find(&container.place, name)?;
            let (init, first) = (other.init()?, other.state()?.ids_from);
            let first = first.ok_or_else(|| {
                Error::Refused(format!(
                    "container {name}, whose network it shares, has no user namespace of its own"
                ))
            })?;
            OwnUsers::open(Pid::from_raw(init.pid), first)?
        }
        _ => OwnUsers::new()?,
    };
    // What cannot be shifted would be nobody's inside. Better to know before anything is mounted.
    for (source, _) in launch::sources(container) {
        if source.exists() {
            users.shifted(&source, true)?;
        }
    }
    Ok((filesystem::mount_root(container, false, Some(&users))?, users))
}

impl AsFd for OwnUsers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}
