//! The policy: what the container's programs may not ask of the kernel.
//!
//! Modelled on the default profile of Docker and Podman (`seccomp.json` in containers/common, `default.json` in
//! moby/profiles) for a container without extra capabilities. Those list what is allowed; written as what is refused,
//! the same policy is shorter and can give each refusal its reason. What differs:
//!
//! - System calls newer than this table get ENOSYS, so that a libc falls back to the older call it knows.
//! - AF_ALG sockets are refused too: the kernel's crypto API has given away root more than once.
//! - The ioctls TIOCSTI and TIOCLINUX are refused: they type into the terminal the container shares with the shell
//!   that started it. (The program's own session keeps most of that away already; this does not depend on it.)
//! - ptrace is allowed, as Docker allows it since Linux 4.8 (before, a tracer could change a call after the filter had
//!   seen it). It reaches nobody outside: there is no process of the host in the pid namespace to name, and the user
//!   namespace holds no right over one.
//! - Calls by the i386 or x32 tables are refused altogether; Docker filters them by the same list.

/// What the filter does about a range of system call numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call goes through.
    Allow,
    /// The call fails with EPERM.
    Refuse,
    /// The call fails with ENOSYS: as if the kernel had no such call.
    Unknown,
    /// clone(2): refused when its flags ask for a new namespace.
    CloneFlags,
    /// personality(2): only the values in [`PERSONALITIES`].
    Personality,
    /// socket(2): not the families in [`SOCKET_FAMILIES`].
    SocketFamily,
    /// ioctl(2): not the requests in [`TERMINAL_IOCTLS`].
    TerminalIoctl,
}

/// Numbers from here on belong to no x86-64 system call this table knows: the last is `file_setattr`, Linux 6.17.
pub const FIRST_UNKNOWN: u32 = 470;

/// x32 calls have this bit set in their number (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

/// The CLONE_NEW* flags clone(2) takes: mount, cgroup, uts, ipc, user, pid, net. (CLONE_NEWTIME only works in clone3.)
pub const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// personality(2) values Docker allows: Linux, Linux with 32-bit uname, the two with a fake 2.6 release (UNAME26), and
/// the query. Others switch off address randomisation or make read imply exec.
pub const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// AF_ALG (38, kernel crypto) and AF_VSOCK (40: it reaches the hypervisor, past every network namespace).
pub const SOCKET_FAMILIES: [u32; 2] = [38, 40];

/// TIOCSTI and TIOCLINUX.
pub const TERMINAL_IOCTLS: [u32; 2] = [0x5412, 0x541c];

/// Everything that is not plainly allowed: first and last number of a range, and what happens to it. Sorted.
pub const EXCEPTIONS: [(u32, u32, Action); 45] = {
    use Action::{CloneFlags, Personality, Refuse, SocketFamily, TerminalIoctl, Unknown};
    [
        (16, 16, TerminalIoctl), // ioctl
        (41, 41, SocketFamily),  // socket
        (56, 56, CloneFlags),    // clone
        (103, 103, Refuse),      // syslog: reads the kernel's log
        (134, 134, Refuse),      // uselib: loads a library into the address space, obsolete
        (135, 135, Personality), // personality
        (136, 136, Refuse),      // ustat: obsolete
        (139, 139, Refuse),      // sysfs: obsolete
        (153, 153, Refuse),      // vhangup: hangs up the terminal
        (155, 156, Refuse),      // pivot_root, _sysctl
        (161, 161, Refuse),      // chroot: the first half of the oldest way out of a root directory
        (163, 170, Refuse),      // acct, settimeofday, mount, umount2, swapon, swapoff, reboot, sethostname
        (171, 178, Refuse), // setdomainname, iopl, ioperm, create_module, init_module, delete_module, get_kernel_syms, query_module
        (179, 185, Refuse), // quotactl, nfsservctl, getpmsg, putpmsg, afs_syscall, tuxcall, security
        (212, 212, Refuse), // lookup_dcookie
        (214, 215, Refuse), // epoll_ctl_old, epoll_wait_old
        (227, 227, Refuse), // clock_settime
        (236, 239, Refuse), // vserver, mbind, set_mempolicy, get_mempolicy: memory placement is the host's to decide
        (246, 246, Refuse), // kexec_load
        (248, 250, Refuse), // add_key, request_key, keyctl: keyrings are not namespaced
        (256, 256, Refuse), // migrate_pages
        // ANCHOR: refused
        (272, 272, Refuse), // unshare
        (279, 279, Refuse), // move_pages
        (298, 298, Refuse), // perf_event_open
        (300, 300, Refuse), // fanotify_init
        (304, 304, Refuse), // open_by_handle_at: opens files by inode, past every mount ("Shocker")
        (308, 308, Refuse), // setns
        (312, 313, Refuse), // kcmp, finit_module
        (320, 321, Refuse), // kexec_file_load, bpf
        (323, 323, Refuse), // userfaultfd: holds the kernel at a page fault, the lever of many exploits
        // ANCHOR_END: refused
        (335, 336, Refuse),  // uretprobe, uprobe
        (337, 423, Unknown), // no such numbers on x86-64
        (425, 427, Refuse),  // io_uring_setup, io_uring_enter, io_uring_register
        (428, 433, Refuse),  // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick
        (435, 435, Unknown), // clone3: its flags are behind a pointer, which a filter cannot follow; libc falls back to clone
        (438, 438, Refuse),  // pidfd_getfd
        (440, 440, Refuse),  // process_madvise
        (442, 443, Refuse),  // mount_setattr, quotactl_fd
        (450, 450, Refuse),  // set_mempolicy_home_node
        (457, 458, Refuse),  // statmount, listmount
        (459, 461, Refuse),  // lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules
        (467, 467, Refuse),  // open_tree_attr
        (468, 469, Unknown), // file_getattr, file_setattr: not yet in Docker's list
        (FIRST_UNKNOWN, X32_BIT - 1, Unknown),
        (X32_BIT, u32::MAX, Refuse),
    ]
};
