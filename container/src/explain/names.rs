//! The kernel's constants by name, as far as setting up a container needs them.
//!
//! A table that lacks a name loses nothing: what has no name is shown as the number it is.

/// Names for the bits of a set.
pub type Bits = &'static [(&'static str, u64)];

/// `MS_*` of mount(2).
pub const MOUNT: Bits = &[
    ("MS_RDONLY", 1),
    ("MS_NOSUID", 2),
    ("MS_NODEV", 4),
    ("MS_NOEXEC", 8),
    ("MS_REMOUNT", 32),
    ("MS_NOATIME", 1024),
    ("MS_BIND", 4096),
    ("MS_MOVE", 8192),
    ("MS_REC", 16384),
    ("MS_SILENT", 32768),
    ("MS_UNBINDABLE", 1 << 17),
    ("MS_PRIVATE", 1 << 18),
    ("MS_SLAVE", 1 << 19),
    ("MS_SHARED", 1 << 20),
    ("MS_RELATIME", 1 << 21),
    ("MS_STRICTATIME", 1 << 24),
];

/// `CLONE_*` of clone(2), clone3(2), unshare(2) and setns(2).
pub const CLONE: Bits = &[
    ("CLONE_NEWTIME", 0x80),
    ("CLONE_VM", 0x100),
    ("CLONE_FS", 0x200),
    ("CLONE_FILES", 0x400),
    ("CLONE_SIGHAND", 0x800),
    ("CLONE_PIDFD", 0x1000),
    ("CLONE_VFORK", 0x4000),
    ("CLONE_PARENT", 0x8000),
    ("CLONE_THREAD", 0x1_0000),
    ("CLONE_NEWNS", 0x2_0000),
    ("CLONE_SETTLS", 0x8_0000),
    ("CLONE_PARENT_SETTID", 0x10_0000),
    ("CLONE_CHILD_CLEARTID", 0x20_0000),
    ("CLONE_CHILD_SETTID", 0x100_0000),
    ("CLONE_NEWCGROUP", 0x200_0000),
    ("CLONE_NEWUTS", 0x400_0000),
    ("CLONE_NEWIPC", 0x800_0000),
    ("CLONE_NEWUSER", 0x1000_0000),
    ("CLONE_NEWPID", 0x2000_0000),
    ("CLONE_NEWNET", 0x4000_0000),
    ("CLONE_CLEAR_SIGHAND", 0x1_0000_0000),
    ("CLONE_INTO_CGROUP", 0x2_0000_0000),
];

/// The bits of [`CLONE`] that ask for a namespace.
pub const NEW_NAMESPACES: u64 = 0x7e02_0080;

/// `O_*` of open(2), but for the access mode.
pub const OPEN: Bits = &[
    ("O_CREAT", 0o100),
    ("O_EXCL", 0o200),
    ("O_NOCTTY", 0o400),
    ("O_TRUNC", 0o1000),
    ("O_APPEND", 0o2000),
    ("O_NONBLOCK", 0o4000),
    ("O_DIRECTORY", 0o200_000),
    ("O_NOFOLLOW", 0o400_000),
    ("O_CLOEXEC", 0o2_000_000),
    ("O_PATH", 0o10_000_000),
];

/// `AT_*`, of all calls that take a directory and a path.
pub const AT: Bits = &[
    ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("AT_REMOVEDIR", 0x200),
    ("AT_SYMLINK_FOLLOW", 0x400),
    ("AT_NO_AUTOMOUNT", 0x800),
    ("AT_EMPTY_PATH", 0x1000),
    ("AT_RECURSIVE", 0x8000),
];

/// `OPEN_TREE_*` of open_tree(2), and the `AT_*` it takes.
pub const OPEN_TREE: Bits = &[
    ("OPEN_TREE_CLONE", 1),
    ("AT_EMPTY_PATH", 0x1000),
    ("AT_RECURSIVE", 0x8000),
    ("OPEN_TREE_CLOEXEC", 0o2_000_000),
];

/// `MOVE_MOUNT_*` of move_mount(2).
pub const MOVE_MOUNT: Bits = &[
    ("MOVE_MOUNT_F_SYMLINKS", 1),
    ("MOVE_MOUNT_F_EMPTY_PATH", 4),
    ("MOVE_MOUNT_T_EMPTY_PATH", 0x40),
    ("MOVE_MOUNT_BENEATH", 0x200),
];

/// `MOUNT_ATTR_*` of mount_setattr(2) and fsmount(2).
pub const MOUNT_ATTRIBUTES: Bits = &[
    ("MOUNT_ATTR_RDONLY", 1),
    ("MOUNT_ATTR_NOSUID", 2),
    ("MOUNT_ATTR_NODEV", 4),
    ("MOUNT_ATTR_NOEXEC", 8),
    ("MOUNT_ATTR_IDMAP", 0x10_0000),
];

/// Of umount2(2).
pub const UNMOUNT: Bits = &[
    ("MNT_FORCE", 1),
    ("MNT_DETACH", 2),
    ("MNT_EXPIRE", 4),
    ("UMOUNT_NOFOLLOW", 8),
];

/// Of close_range(2).
pub const CLOSE_RANGE: Bits = &[("CLOSE_RANGE_UNSHARE", 2), ("CLOSE_RANGE_CLOEXEC", 4)];

/// `MSG_*` of send(2) and recv(2).
pub const MESSAGE: Bits = &[
    ("MSG_PEEK", 2),
    ("MSG_DONTWAIT", 0x40),
    ("MSG_NOSIGNAL", 0x4000),
    ("MSG_CMSG_CLOEXEC", 0x4000_0000),
];

/// Of socket(2), above the socket's type.
pub const SOCKET: Bits = &[("SOCK_NONBLOCK", 0o4000), ("SOCK_CLOEXEC", 0o2_000_000)];

/// Of memfd_create(2).
pub const MEMFD: Bits = &[("MFD_CLOEXEC", 1), ("MFD_ALLOW_SEALING", 2), ("MFD_EXEC", 0x10)];

/// Of mmap(2) and mprotect(2).
pub const PROTECTION: Bits = &[("PROT_READ", 1), ("PROT_WRITE", 2), ("PROT_EXEC", 4)];

/// Of mmap(2).
pub const MAP: Bits = &[
    ("MAP_SHARED", 1),
    ("MAP_PRIVATE", 2),
    ("MAP_FIXED", 0x10),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_NORESERVE", 0x4000),
    ("MAP_STACK", 0x2_0000),
];

/// Names for values of which one holds.
pub type Values = &'static [(&'static str, u64)];

/// Address families of socket(2).
pub const FAMILIES: Values = &[("AF_UNIX", 1), ("AF_INET", 2), ("AF_INET6", 10), ("AF_NETLINK", 16)];

/// Socket types.
pub const SOCKET_TYPES: Values = &[
    ("SOCK_STREAM", 1),
    ("SOCK_DGRAM", 2),
    ("SOCK_RAW", 3),
    ("SOCK_SEQPACKET", 5),
];

/// Options of prctl(2).
pub const PRCTL: Values = &[
    ("PR_SET_PDEATHSIG", 1),
    ("PR_SET_DUMPABLE", 4),
    ("PR_SET_KEEPCAPS", 8),
    ("PR_SET_NAME", 15),
    ("PR_SET_SECCOMP", 22),
    ("PR_CAPBSET_READ", 23),
    ("PR_CAPBSET_DROP", 24),
    ("PR_SET_SECUREBITS", 28),
    ("PR_SET_CHILD_SUBREAPER", 36),
    ("PR_SET_NO_NEW_PRIVS", 38),
    ("PR_CAP_AMBIENT", 47),
];

/// Operations of seccomp(2).
pub const SECCOMP: Values = &[
    ("SECCOMP_SET_MODE_STRICT", 0),
    ("SECCOMP_SET_MODE_FILTER", 1),
    ("SECCOMP_GET_ACTION_AVAIL", 2),
];

/// Requests of ioctl(2).
pub const IOCTL: Values = &[
    ("TCGETS", 0x5401),
    ("TIOCSCTTY", 0x540e),
    ("SIOCGIFFLAGS", 0x8913),
    ("SIOCSIFFLAGS", 0x8914),
    ("SIOCSIFADDR", 0x8916),
];

/// Commands of fcntl(2).
pub const FCNTL: Values = &[
    ("F_DUPFD", 0),
    ("F_GETFD", 1),
    ("F_SETFD", 2),
    ("F_GETFL", 3),
    ("F_SETFL", 4),
    ("F_DUPFD_CLOEXEC", 1030),
    ("F_ADD_SEALS", 1033),
];

/// Operations of flock(2).
pub const LOCK: Values = &[
    ("LOCK_SH", 1),
    ("LOCK_EX", 2),
    ("LOCK_SH|LOCK_NB", 5),
    ("LOCK_EX|LOCK_NB", 6),
    ("LOCK_UN", 8),
];

/// What rt_sigprocmask(2) does with a set.
pub const SIGNAL_MASK: Values = &[("SIG_BLOCK", 0), ("SIG_UNBLOCK", 1), ("SIG_SETMASK", 2)];

/// File types in a mode.
pub const FILE_TYPES: Values = &[
    ("S_IFIFO", 0o010_000),
    ("S_IFCHR", 0o020_000),
    ("S_IFDIR", 0o040_000),
    ("S_IFBLK", 0o060_000),
    ("S_IFREG", 0o100_000),
];

/// The set bits by name, joined as C would; what has no name as a number.
pub fn bits(table: Bits, value: u64) -> String {
    let mut rest = value;
    let mut named: Vec<String> = Vec::new();
    for &(name, bit) in table {
        if value & bit == bit {
            named.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 || named.is_empty() {
        named.push(if rest == 0 { "0".into() } else { format!("{rest:#x}") });
    }
    named.join("|")
}

/// The bit of this name; 0 when the table lacks it.
pub fn bit(table: Bits, name: &str) -> u64 {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(0, |&(_, bit)| bit)
}

/// The value's name, or the number.
pub fn value(table: Values, value: u64) -> String {
    table
        .iter()
        .find(|&&(_, known)| known == value)
        .map_or_else(|| value.to_string(), |&(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_named_and_the_rest_is_a_number() {
        assert_eq!(bits(MOUNT, 4096 | 16384), "MS_BIND|MS_REC");
        assert_eq!(bits(MOUNT, 2 | 1 << 30), "MS_NOSUID|0x40000000");
        assert_eq!(bits(MOUNT, 0), "0");
        assert_eq!(bits(CLONE, 0x7e02_0000).matches("CLONE_NEW").count(), 7);
        assert_eq!(value(PRCTL, 24), "PR_CAPBSET_DROP");
        assert_eq!(value(PRCTL, 999), "999");
    }
}
