//! User ids: who the container's root is on the host.
//!
//! A user namespace has a map from ids inside to ids outside (user_namespaces(7)). Inside, the set-up has every
//! capability over what belongs to the namespace; outside it is an ordinary id that owns nothing.
//!
//! - **Root** may write any map. Mapping 0 to 0 would be the mistake: a process that got out would be the host's root,
//!   and even inside it owns every file of /proc/sys by its id alone. So a container's 65536 ids become a range that
//!   nobody on the host uses.
//! - **An ordinary user** may map exactly one id: his own (more would need /etc/subuid and a setuid helper). It appears
//!   inside as 0, or as the id of `--user`.

use std::fs;

use nix::errno::Errno;
use nix::unistd::{Pid, getegid, geteuid};
use thiserror::Error;

use crate::errno::{of, why};

/// Whether this process is root, and no root of some user namespace alone: files and cgroups of the host obey it.
///
/// Only the first user namespace maps every id there is, each to itself (user_namespaces(7)).
pub fn is_host_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// How many ids a container has: 0 to 65535, of which 65534 is `nobody`.
pub const IDS_PER_CONTAINER: u32 = 1 << 16;

/// Where the ids of containers begin and end. The range is the one systemd reserves for containers
/// (systemd's document "Users, Groups, UIDs and GIDs"), so that no well-kept distribution gives these ids to anybody.
const CONTAINER_RANGES: std::ops::Range<u32> = 0x0008_0000..0x6fff_0000;

/// Whom the program runs as, as ids inside the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One line of a `uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The first id in the container.
    pub inside: u32,
    /// Which id of the host's that is.
    pub outside: u32,
    /// How many ids follow each other.
    pub count: u32,
}

/// Gives the user namespace of process `pid` any maps, as an engine asks for them.
///
/// Whoever lacks the right to write them himself has `newuidmap` and `newgidmap` write them, which are installed
/// set-user-id root and let him have what /etc/subuid and /etc/subgid say.
pub fn write_maps(pid: Pid, uids: &[IdMap], gids: &[IdMap]) -> Result<(), Error> {
    let own = |map: &[IdMap], id: u32| matches!(map, [one] if one.count == 1 && one.outside == id);
    let only_own = own(uids, geteuid().as_raw()) && own(gids, getegid().as_raw());
    if !geteuid().is_root() && !only_own {
        have_written("newuidmap", pid, uids)?;
        return have_written("newgidmap", pid, gids);
    }
    if !geteuid().is_root() {
        write_file(pid, "setgroups", "deny".into())?;
    }
    write_file(pid, "uid_map", lines(uids))?;
    write_file(pid, "gid_map", lines(gids))
}

fn lines(maps: &[IdMap]) -> String {
    let line = |map: &IdMap| format!("{} {} {}\n", map.inside, map.outside, map.count);
    maps.iter().map(line).collect()
}

fn have_written(helper: &'static str, pid: Pid, maps: &[IdMap]) -> Result<(), Error> {
    let numbers = maps.iter().flat_map(|map| [map.inside, map.outside, map.count]);
    let mut command = std::process::Command::new(helper);
    command
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()));
    let output = command.output().map_err(|error| Error::NoHelper {
        helper,
        errno: of(&error),
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Helper {
            helper,
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

fn write_file(pid: Pid, name: &str, text: String) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{name}");
    fs::write(&path, &text).map_err(|error| Error::Write {
        path,
        text,
        errno: of(&error),
    })
}

/// The maps of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserMap {
    uids: IdMap,
    gids: IdMap,
    whole_range: bool,
}

impl UserMap {
    /// The map this process may write for a container whose program runs as `user`.
    pub fn choose(user: User) -> Result<UserMap, Error> {
        let (uid, gid) = (geteuid(), getegid());
        if uid.is_root() {
            if user.uid >= IDS_PER_CONTAINER || user.gid >= IDS_PER_CONTAINER {
                return Err(Error::OutOfRange(user.uid, user.gid));
            }
            return Ok(UserMap::range_for(Pid::this()));
        }
        let one = |inside, outside| IdMap {
            inside,
            outside,
            count: 1,
        };
        Ok(UserMap {
            uids: one(user.uid, uid.as_raw()),
            gids: one(user.gid, gid.as_raw()),
            whole_range: false,
        })
    }

    /// A range of its own for the container of this launcher, so that two containers do not meet in the host's
    /// per-user limits. Nothing is stored under these ids, so a range is free again when its launcher has ended.
    fn range_for(launcher: Pid) -> UserMap {
        let ranges = CONTAINER_RANGES.len() as u32 / IDS_PER_CONTAINER;
        let ids = IdMap {
            inside: 0,
            outside: CONTAINER_RANGES.start + (launcher.as_raw() as u32 % ranges) * IDS_PER_CONTAINER,
            count: IDS_PER_CONTAINER,
        };
        UserMap {
            uids: ids,
            gids: ids,
            whole_range: true,
        }
    }

    /// Whether ids other than the launcher's own are mapped: only then can the program change between ids, and only
    /// then does a file of the host's root need its owner shifted to appear as the container's root.
    pub fn is_range(&self) -> bool {
        self.whole_range
    }

    /// The host's ids of `user`, who has been checked to be in the map.
    pub fn outside(&self, user: User) -> (u32, u32) {
        let outside = |map: IdMap, id: u32| map.outside + (id - map.inside);
        (outside(self.uids, user.uid), outside(self.gids, user.gid))
    }

    /// Gives the user namespace of process `pid` this map. A map can be written once only.
    pub fn write(&self, pid: Pid) -> Result<(), Error> {
        let file = |name: &str, text: String| write_file(pid, name, text);
        let line = |map: IdMap| format!("{} {} {}", map.inside, map.outside, map.count);
        if !self.whole_range {
            // Without this an ordinary user could drop a group that a file's permissions are set against
            // (CVE-2014-8989), so the kernel wants it said before it takes his gid map.
            file("setgroups", "deny".into())?;
        }
        file("uid_map", line(self.uids))?;
        file("gid_map", line(self.gids))
    }
}

/// What the kernel counts for each user, in every user namespace from the innermost out: what a container uses is taken from
/// its creator's share on the host too. The defaults there are 128 inotify instances, and watches of 1 KiB each for a
/// hundredth of the memory; one container that takes them all leaves none to root (namespaces(7), `/proc/sys/user`).
const SHARED_COUNTS: [(&str, &str); 2] = [
    ("/proc/sys/user/max_inotify_instances", "32"),
    ("/proc/sys/user/max_inotify_watches", "16384"),
];

/// Bounds what this process's user namespace may take of them. Whoever runs it has every capability there still.
pub fn bound_shared_counts() -> Result<(), Error> {
    for (path, bound) in SHARED_COUNTS {
        match fs::write(path, bound) {
            // A kernel without inotify has nothing to bound.
            Err(error) if of(&error) != Errno::ENOENT => {
                return Err(Error::Bound {
                    path,
                    errno: of(&error),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether this process can take on other ids in the user namespace it is in: not where one id alone is mapped, which is
/// when setgroups(2) had to be given up first.
pub fn may_change_ids() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "allow")
}

/// Why the users could not be mapped.
#[derive(Debug, Error)]
pub enum Error {
    /// The container has no such ids.
    #[error("--user {0}:{1} is beyond the container's ids, which are 0 to 65535")]
    OutOfRange(u32, u32),
    /// The helper is not installed.
    #[error(
        "cannot run {helper}: {}. Mapping more than one's own id takes it for an ordinary user (Debian: apt install uidmap), and a range in /etc/subuid and /etc/subgid",
        why(errno)
    )]
    NoHelper {
        /// Which one.
        helper: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The helper refused the map.
    #[error("{helper} refused the map: {words}. The range must be this user's in /etc/subuid and /etc/subgid")]
    Helper {
        /// Which one.
        helper: &'static str,
        /// What it said.
        words: String,
    },
    /// A count stayed unbounded.
    #[error(
        "cannot bound {path} for the container: {}. /proc/sys may be read-only here: run outside of other containers, or leave out the limits",
        why(errno)
    )]
    Bound {
        /// The setting.
        path: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused the map.
    #[error(
        "cannot write {text:?} to {path}: {}. Mapping a range needs CAP_SETUID and CAP_SETGID here, and the range must be mapped in this user namespace too: inside another container, run as an ordinary user or with --without user",
        why(errno)
    )]
    Write {
        /// The map's file.
        path: String,
        /// What was to be written.
        text: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_apart_and_inside_the_reserve() {
        let one = UserMap::range_for(Pid::from_raw(1000)).uids;
        let next = UserMap::range_for(Pid::from_raw(1001)).uids;
        assert_eq!(one.outside + one.count, next.outside);
        for pid in [1, 28_000, 32_768, 4_194_304] {
            let map = UserMap::range_for(Pid::from_raw(pid)).uids;
            assert!(CONTAINER_RANGES.contains(&map.outside));
            assert!(CONTAINER_RANGES.contains(&(map.outside + map.count - 1)));
            assert_eq!(map.outside % IDS_PER_CONTAINER, 0);
        }
    }
}
