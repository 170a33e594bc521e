//! The seven namespaces, and which of them a container gets.
//!
//! A namespace is one kernel table seen through a view of its own: mount table, process ids, interfaces, and so on
//! (namespaces(7)). A container is nothing more than a process for which several of these views were made new.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One kind of namespace. The order is the one in which messages list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// User and group ids, and the capabilities that go with them.
    User,
    /// The mount table: which file systems are where.
    Mount,
    /// Process ids: the first process inside is 1.
    Pid,
    /// Network interfaces, addresses, routes, ports.
    Net,
    /// Host name and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Which cgroup counts as the root of the hierarchy.
    Cgroup,
}

impl Namespace {
    /// Every kind.
    pub const ALL: [Namespace; 7] = [
        Namespace::User,
        Namespace::Mount,
        Namespace::Pid,
        Namespace::Net,
        Namespace::Uts,
        Namespace::Ipc,
        Namespace::Cgroup,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Namespace::User => "user",
            Namespace::Mount => "mount",
            Namespace::Pid => "pid",
            Namespace::Net => "net",
            Namespace::Uts => "uts",
            Namespace::Ipc => "ipc",
            Namespace::Cgroup => "cgroup",
        }
    }

    /// The name of its link in `/proc/PID/ns`.
    pub const fn proc_name(self) -> &'static str {
        match self {
            Namespace::Mount => "mnt",
            other => other.name(),
        }
    }

    /// The flag that asks clone(2) for a new one.
    pub const fn clone_flag(self) -> u64 {
        // The constants are C ints; CLONE_NEWUSER and its neighbours are positive, so the widening is exact.
        // ANCHOR: flags
        (match self {
            Namespace::User => libc::CLONE_NEWUSER,
            Namespace::Mount => libc::CLONE_NEWNS,
            Namespace::Pid => libc::CLONE_NEWPID,
            Namespace::Net => libc::CLONE_NEWNET,
            Namespace::Uts => libc::CLONE_NEWUTS,
            Namespace::Ipc => libc::CLONE_NEWIPC,
            Namespace::Cgroup => libc::CLONE_NEWCGROUP,
        }) as u64
        // ANCHOR_END: flags
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Namespace, Error> {
        Namespace::ALL
            .into_iter()
            .find(|namespace| namespace.name() == text)
            .ok_or_else(|| Error::Unknown(text.to_owned()))
    }
}

/// The set of namespaces a container gets new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    flags: u64,
}

impl Namespaces {
    /// All seven but those in `left_out`.
    pub fn without(left_out: &[Namespace]) -> Namespaces {
        let flags = Namespace::ALL
            .into_iter()
            .filter(|namespace| !left_out.contains(namespace))
            .fold(0, |flags, namespace| flags | namespace.clone_flag());
        Namespaces { flags }
    }

    /// Whether the container gets a new one of this kind.
    pub const fn has(self, namespace: Namespace) -> bool {
        self.flags & namespace.clone_flag() != 0
    }

    /// The flags for clone3(2).
    pub const fn clone_flags(self) -> u64 {
        self.flags
    }

    /// Refuses sets that cannot hold together, each with its reason.
    ///
    /// `as_root` says whether the launcher is root, `rootfs` whether a root file system was asked for, `hostname`
    /// whether a host name was.
    pub fn check(self, as_root: bool, rootfs: bool, hostname: bool) -> Result<(), Error> {
        if !self.has(Namespace::User) && !as_root {
            return Err(Error::UserNeeded);
        }
        if !self.has(Namespace::Mount) && rootfs {
            return Err(Error::MountNeeded);
        }
        if !self.has(Namespace::Uts) && hostname {
            return Err(Error::UtsNeeded);
        }
        let recognisable = [Namespace::Mount, Namespace::Net, Namespace::Ipc, Namespace::Uts];
        if !self.has(Namespace::Pid) && !recognisable.into_iter().any(|namespace| self.has(namespace)) {
            return Err(Error::NothingToRecogniseBy);
        }
        Ok(())
    }
}

/// What is wrong with a set of namespaces.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No namespace has this name.
    #[error("{0:?} is no namespace; there are user, mount, pid, net, uts, ipc and cgroup")]
    Unknown(String),
    /// Only root can make the other namespaces without a user namespace.
    #[error(
        "leaving out the user namespace needs root: the right to make the other namespaces comes from it. Run as root, or keep it"
    )]
    UserNeeded,
    /// Without its own mount table a container cannot have its own root.
    #[error(
        "--rootfs needs the mount namespace: mounting a root file system without one would change the host's mount table. Leave out --rootfs (the program then sees the host's files), or keep the mount namespace"
    )]
    MountNeeded,
    /// The host's name would change.
    #[error(
        "--hostname needs the uts namespace: without one it would rename the host. Leave out --hostname, or keep the uts namespace"
    )]
    UtsNeeded,
    /// Nothing would tell the container's processes from the host's.
    #[error(
        "the pid namespace can only be left out while a mount, net, ipc or uts namespace remains: with none of them nothing tells the container's processes from others when they must be ended"
    )]
    NothingToRecogniseBy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for namespace in Namespace::ALL {
            assert_eq!(namespace.name().parse(), Ok(namespace));
        }
        assert!(matches!("network".parse::<Namespace>(), Err(Error::Unknown(_))));
    }

    #[test]
    fn what_is_left_out_is_not_there() {
        let set = Namespaces::without(&[Namespace::Net, Namespace::User]);
        for namespace in Namespace::ALL {
            let left_out = matches!(namespace, Namespace::Net | Namespace::User);
            assert_eq!(set.has(namespace), !left_out);
        }
        assert_eq!(set.clone_flags() & libc::CLONE_NEWNET as u64, 0);
    }

    #[test]
    fn impossible_sets_are_refused() {
        let without = Namespaces::without;
        assert_eq!(
            without(&[Namespace::User]).check(false, false, false),
            Err(Error::UserNeeded)
        );
        assert_eq!(without(&[Namespace::User]).check(true, false, false), Ok(()));
        assert_eq!(
            without(&[Namespace::Mount]).check(true, true, false),
            Err(Error::MountNeeded)
        );
        assert_eq!(
            without(&[Namespace::Uts]).check(true, false, true),
            Err(Error::UtsNeeded)
        );
        assert_eq!(
            without(&Namespace::ALL).check(true, false, false),
            Err(Error::NothingToRecogniseBy)
        );
    }
}
