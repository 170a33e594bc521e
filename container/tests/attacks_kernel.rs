//! Attacks on the kernel's own interfaces, each made for real from inside: the call has the arguments with which it works.
//!
//! Every attack is made outside too, by the same code, where it gets further: that is what shows that it is one, and that
//! the answer inside is the container's doing. What a kernel does not have cannot be attacked; then both get the same
//! answer, and the test says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use common::probe;
use nix::errno::Errno;

/// Set where the attacks are made outside, by a process that is allowed to make them.
const CONTROL: &str = "ATTACK_FROM_OUTSIDE";

/// One way out: what it is, the answers inside that mean it is shut, and those outside that mean it is open there.
struct Attack {
    name: &'static str,
    shut: &'static [&'static str],
    open: &'static [&'static str],
}

const fn attack(name: &'static str, shut: &'static [&'static str], open: &'static [&'static str]) -> Attack {
    Attack { name, shut, open }
}

const EPERM: &[&str] = &["EPERM"];
const OK: &[&str] = &["ok"];

const ATTACKS: &[Attack] = &[
    // Code of one's own in the kernel. Outside the kernel reads the module and finds that it is none.
    attack("init_module", EPERM, &["ENOEXEC"]),
    attack("finit_module", EPERM, &["ENOEXEC"]),
    attack("delete_module", EPERM, &["ENOENT"]),
    attack("kexec_load", EPERM, OK),
    attack("bpf", EPERM, OK),
    attack("perf_event_open", EPERM, OK),
    attack("io_uring_setup", EPERM, OK),
    attack("userfaultfd", EPERM, OK),
    attack("iopl", EPERM, OK),
    // The machine as a whole.
    attack("reboot", EPERM, OK),
    attack("swapon", EPERM, &["ENOENT"]),
    attack("acct", EPERM, OK),
    attack("clock_settime", EPERM, &["EINVAL"]),
    attack("settimeofday", EPERM, &["EINVAL"]),
    attack("adjtimex", EPERM, OK),
    attack("clock_adjtime", EPERM, OK),
    attack("sethostname", EPERM, OK),
    attack("syslog", EPERM, OK),
    // Networks below and beside the container's.
    attack("packet", EPERM, OK),
    attack("raw", EPERM, OK),
    attack("vsock", EPERM, OK),
    attack("alg", EPERM, OK),
    // Namespaces and file systems of one's own making.
    attack("unshare-user", EPERM, OK),
    attack("unshare-mount", EPERM, OK),
    attack("clone-user", EPERM, OK),
    // Its flags are behind a pointer, where the filter cannot look: there is no such call inside.
    attack("clone3-user", &["ENOSYS"], OK),
    attack("setns", EPERM, OK),
    attack("mount-tmpfs", EPERM, OK),
    attack("mount-proc", EPERM, OK),
    attack("mount-overlay", EPERM, OK),
    attack("mount-fuse", EPERM, &["EINVAL", "ENODEV"]),
    attack("mount-cgroup", EPERM, OK),
    attack("remount", EPERM, OK),
    attack("umount", EPERM, OK),
    attack("fsopen", EPERM, OK),
    attack("open_tree", EPERM, OK),
    attack("chroot", EPERM, OK),
    attack("pivot_root", EPERM, &["EBUSY", "EINVAL"]),
    attack("open_by_handle_at", EPERM, OK),
    attack("fanotify_init", EPERM, OK),
    attack("quotactl", EPERM, &["ENOTBLK", "ENOENT", "ESRCH"]),
    attack("mknod-disk", EPERM, OK),
    attack("mknod-kmem", EPERM, OK),
    // Keyrings: not namespaced.
    attack("add_key", EPERM, OK),
    attack("keyctl-session", EPERM, OK),
    attack("request_key", EPERM, &["ENOKEY"]),
    // The terminal. ENOTTY where the descriptor is none.
    attack("tiocsti", EPERM, OK),
    attack("tioclinux", EPERM, &["ENOTTY"]),
    attack("kcmp", EPERM, OK),
    attack("process_madvise", EPERM, OK),
    attack("rtprio", EPERM, OK),
    attack("nice", &["EACCES", "EPERM"], OK),
    attack("io-class-realtime", EPERM, OK),
];

/// What a kernel built without something says.
const NOT_IN_THIS_KERNEL: &[&str] = &["ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ENODEV", "EOPNOTSUPP"];

#[test]
fn every_door_is_shut_inside_and_open_outside() {
    let image = image_or_skip!();
    root_or_skip!();
    let outside = answers(&outside("doors"));
    // With a user namespace the rights are gone and the filter refuses; without one the filter and the missing
    // capabilities stand alone.
    for options in [
        &[][..],
        &["--without", "user"],
        &["--without", "pid"],
        &["--user", "1000:1000"],
    ] {
        let inside = answers(&probe(image, options, "doors"));
        for attack in ATTACKS {
            let answer = inside
                .get(attack.name)
                .unwrap_or_else(|| panic!("{}: not tried", attack.name));
            assert!(
                attack.shut.contains(&answer.as_str()),
                "{} inside ({options:?}): {answer}",
                attack.name
            );
        }
        assert_eq!(inside.len(), ATTACKS.len(), "{inside:?}");
    }
    for attack in ATTACKS {
        let answer = outside[attack.name].as_str();
        if NOT_IN_THIS_KERNEL.contains(&answer) {
            println!("{}: {answer} outside too, this kernel has no such thing", attack.name);
        } else {
            assert!(attack.open.contains(&answer), "{} outside: {answer}", attack.name);
        }
    }
}

/// A named container has more capabilities than a plain run, and another filter: the same doors are shut.
#[test]
fn every_door_is_shut_in_a_named_container() {
    let image = image_or_skip!();
    let lab = lab_or_skip!();
    let bind = |path: &str| format!("{}/{path}:/{path}:ro", image.display());
    let (loader, program) = (bind("lib"), bind("bin/probe"));
    // With a user namespace of its own and without, and in the host's network.
    for options in [
        &[][..],
        &["--userns", "host"],
        &["--network", "host"],
        &["-u", "1000:1000"],
    ] {
        let front = ["run", "--rm", "-v", &loader, "-v", &program, "-e", "RUST_BACKTRACE=0"];
        let probe = ["busybox", "/lib/loader", "--library-path", "/lib", "/bin/probe"];
        let test = ["--exact", "doors", "--ignored", "--nocapture", "--test-threads=1"];
        let command = front.iter().chain(options).chain(&probe).chain(&test);
        let said = common::text(&lab.run(command.copied()));
        let lines: Vec<String> = said
            .lines()
            .filter_map(|line| Some(line.split_once("probe: ")?.1.to_owned()))
            .collect();
        let inside = answers(&lines);
        // Programs of images change their root: engines leave them CAP_SYS_CHROOT, and no directory of the host's is open.
        let open: Vec<_> = ATTACKS
            .iter()
            .filter(|attack| attack.name != "chroot")
            .filter(|attack| {
                !inside
                    .get(attack.name)
                    .is_some_and(|answer| attack.shut.contains(&answer.as_str()))
            })
            .map(|attack| (attack.name, inside.get(attack.name)))
            .collect();
        assert!(open.is_empty(), "{options:?}: {open:?}");
    }
    lab.assert_empty();
}

/// The same attacks made by a process of the host, as root, in a mount namespace that is thrown away.
fn outside(name: &str) -> Vec<String> {
    let output = Command::new("/proc/self/exe")
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CONTROL, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| Some(line.split_once("probe: ")?.1.to_owned()))
        .collect()
}

fn answers(lines: &[String]) -> BTreeMap<String, String> {
    lines
        .iter()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, answer)| (name.into(), answer.into()))
        .collect()
}

/// Prints the answer of a call.
fn tell(name: &str, answer: libc::c_long) {
    let answer = Errno::result(answer).map_or_else(|errno| format!("{errno:?}"), |_| "ok".into());
    println!("\nprobe: {name} {answer}");
}

/// Makes an attack in a process of its own, which its success would change.
fn tell_of_child(name: &str, attack: impl FnOnce() -> libc::c_long) {
    // SAFETY: the child makes system calls only, and ends without running anything of the test's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = match Errno::result(attack()) {
            Ok(_) => 0,
            Err(errno) => errno as i32,
        };
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the kernel writes the status to the integer whose address it is given.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(libc::WIFEXITED(status), "{name}: {status:#x}");
    match libc::WEXITSTATUS(status) {
        0 => println!("\nprobe: {name} ok"),
        errno => println!("\nprobe: {name} {:?}", Errno::from_raw(errno)),
    }
}

/// Closes what an attack that worked opened.
fn tell_of_descriptor(name: &str, answer: libc::c_long) {
    tell(name, answer);
    if answer >= 0 {
        // SAFETY: the descriptor was just opened, and nobody else has it.
        unsafe { libc::close(answer as i32) };
    }
}

#[test]
#[ignore = "is run inside and outside of a container by the test above"]
fn doors() {
    if std::env::var_os(CONTROL).is_some() {
        // SAFETY: this thread alone leaves the mount namespace; what it mounts ends with it.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS), 0);
            let private = libc::MS_REC | libc::MS_PRIVATE;
            assert_eq!(
                libc::mount(
                    std::ptr::null(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    private,
                    std::ptr::null()
                ),
                0
            );
        }
    }
    let directory = format!("/tmp/attack-{}", std::process::id());
    fs::create_dir_all(&directory).unwrap();
    kernel();
    machine();
    networks();
    namespaces(&directory);
    files(&directory);
    processes();
    let _ = fs::remove_dir_all(&directory);
}

fn kernel() {
    let garbage = [0x7fu8; 256];
    // A descriptor of something that is no module.
    let file = fs::File::open("/proc/self/exe").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: every pointer leads to memory of the size the call reads or writes, alive during the call.
    unsafe {
        tell(
            "init_module",
            libc::syscall(libc::SYS_init_module, garbage.as_ptr(), garbage.len(), c"".as_ptr()),
        );
        tell(
            "finit_module",
            libc::syscall(libc::SYS_finit_module, fd, c"".as_ptr(), 0),
        );
        tell(
            "delete_module",
            libc::syscall(
                libc::SYS_delete_module,
                c"lab_no_such_module".as_ptr(),
                libc::O_NONBLOCK,
            ),
        );
        // No segments: throws away a kernel that was loaded before, of which there is none.
        tell("kexec_load", libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0));
        // BPF_MAP_CREATE: an array (2) of one entry of four bytes.
        let map: [u32; 32] = std::array::from_fn(|i| [2, 4, 4, 1].get(i).copied().unwrap_or(0));
        tell_of_descriptor("bpf", libc::syscall(libc::SYS_bpf, 0, map.as_ptr(), size_of_val(&map)));
        // PERF_TYPE_SOFTWARE (1), PERF_COUNT_SW_CPU_CLOCK (0), everything that runs on processor 0.
        let mut event = [0u32; 32];
        (event[0], event[1]) = (1, 128);
        tell_of_descriptor(
            "perf_event_open",
            libc::syscall(libc::SYS_perf_event_open, event.as_ptr(), -1, 0, -1, 0),
        );
        let mut ring = [0u8; 120];
        tell_of_descriptor(
            "io_uring_setup",
            libc::syscall(libc::SYS_io_uring_setup, 4, ring.as_mut_ptr()),
        );
        tell_of_descriptor("userfaultfd", libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC));
        tell_of_child("iopl", || libc::syscall(libc::SYS_iopl, 3));
    }
}

fn machine() {
    let bad_time = libc::timespec {
        tv_sec: 1,
        tv_nsec: 2_000_000_000,
    };
    // SAFETY: as above; outside each call changes nothing: a setting to what it is, or a value that cannot be.
    unsafe {
        let (one, two) = (libc::LINUX_REBOOT_MAGIC1, libc::LINUX_REBOOT_MAGIC2);
        // What Ctrl-Alt-Del does, as it is from the start: the one reboot(2) that does not.
        tell(
            "reboot",
            libc::syscall(libc::SYS_reboot, one, two, libc::LINUX_REBOOT_CMD_CAD_ON, 0),
        );
        tell("swapon", libc::syscall(libc::SYS_swapon, c"/no/such/file".as_ptr(), 0));
        tell("acct", libc::syscall(libc::SYS_acct, 0));
        tell(
            "clock_settime",
            libc::syscall(libc::SYS_clock_settime, libc::CLOCK_REALTIME, &raw const bad_time),
        );
        // Microseconds this time, and as many too many.
        tell(
            "settimeofday",
            libc::syscall(libc::SYS_settimeofday, &raw const bad_time, 0),
        );
        let mut now: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut now);
        now.modes = libc::ADJ_TICK;
        tell("adjtimex", libc::syscall(libc::SYS_adjtimex, &raw mut now).min(0));
        tell(
            "clock_adjtime",
            libc::syscall(libc::SYS_clock_adjtime, libc::CLOCK_REALTIME, &raw mut now).min(0),
        );
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        let name = std::ffi::CStr::from_ptr(name.nodename.as_ptr());
        tell(
            "sethostname",
            libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.count_bytes()),
        );
        let mut log = vec![0u8; 1 << 16];
        // SYSLOG_ACTION_READ_ALL.
        tell(
            "syslog",
            libc::syscall(libc::SYS_syslog, 3, log.as_mut_ptr(), log.len()).min(0),
        );
    }
}

fn networks() {
    let socket = |name, family, kind, protocol: i32| {
        // SAFETY: takes numbers only.
        tell_of_descriptor(name, unsafe { libc::socket(family, kind, protocol) }.into());
    };
    socket("packet", libc::AF_PACKET, libc::SOCK_RAW, i32::from(3u16.to_be()));
    socket("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    socket("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0);
    socket("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
}

fn namespaces(directory: &str) {
    let directory = std::ffi::CString::new(directory).unwrap();
    let at = directory.as_ptr();
    // SAFETY: strings are NUL-terminated and alive; a clone without a stack of its own runs on a copy of this one, and
    // the child ends at once.
    unsafe {
        tell_of_child("unshare-user", || libc::unshare(libc::CLONE_NEWUSER).into());
        tell_of_child("unshare-mount", || libc::unshare(libc::CLONE_NEWNS).into());
        let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as libc::c_ulong;
        let reap = |child: libc::c_long| {
            match child {
                0 => libc::_exit(0),
                child if child > 0 => libc::waitpid(child as i32, std::ptr::null_mut(), 0),
                _ => 0,
            };
            child
        };
        tell_of_child("clone-user", || reap(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0)));
        let arguments: [u64; 8] = [libc::CLONE_NEWUSER as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
        tell_of_child("clone3-user", || {
            reap(libc::syscall(libc::SYS_clone3, arguments.as_ptr(), 64))
        });
        tell_of_child("setns", || {
            let own = libc::open(c"/proc/self/ns/uts".as_ptr(), libc::O_RDONLY);
            libc::setns(own, 0).into()
        });
        let mount = |kind: &std::ffi::CStr, options: &std::ffi::CStr| -> libc::c_long {
            libc::mount(c"none".as_ptr(), at, kind.as_ptr(), 0, options.as_ptr().cast()).into()
        };
        tell("mount-tmpfs", mount(c"tmpfs", c""));
        tell("mount-proc", mount(c"proc", c""));
        tell("mount-overlay", mount(c"overlay", c"lowerdir=/bin:/etc"));
        tell("mount-fuse", mount(c"fuse", c""));
        // The first step to release_agent, a program the kernel starts for whoever owns the hierarchy.
        tell("mount-cgroup", mount(c"cgroup2", c""));
        // Those that worked are taken down again.
        while libc::umount2(at, libc::MNT_DETACH) == 0 {}
        let remount = libc::MS_REMOUNT | libc::MS_BIND;
        tell(
            "remount",
            libc::mount(
                std::ptr::null(),
                c"/proc".as_ptr(),
                std::ptr::null(),
                remount,
                std::ptr::null(),
            )
            .into(),
        );
        // With a copy of it on top, or there would be none left for what follows.
        libc::mount(
            c"/proc".as_ptr(),
            c"/proc".as_ptr(),
            std::ptr::null(),
            libc::MS_BIND | libc::MS_REC,
            std::ptr::null(),
        );
        tell("umount", libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH).into());
        tell_of_descriptor("fsopen", libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1));
        tell_of_descriptor(
            "open_tree",
            libc::syscall(
                libc::SYS_open_tree,
                libc::AT_FDCWD,
                c"/".as_ptr(),
                libc::OPEN_TREE_CLONE,
            ),
        );
        tell_of_child("chroot", || libc::chroot(c"/tmp".as_ptr()).into());
        tell_of_child("pivot_root", || {
            libc::syscall(libc::SYS_pivot_root, c"/tmp".as_ptr(), c"/tmp".as_ptr())
        });
    }
}

fn files(directory: &str) {
    let path = |name: &str| std::ffi::CString::new(format!("{directory}/{name}")).unwrap();
    // SAFETY: strings are NUL-terminated and alive; the handle has room for the largest there is.
    unsafe {
        tell_of_descriptor("open_by_handle_at", open_the_root_by_handle());
        tell_of_descriptor("fanotify_init", libc::syscall(libc::SYS_fanotify_init, 0, 0));
        // Q_SYNC's neighbour Q_GETINFO (0x800005) for a device that is none.
        tell(
            "quotactl",
            libc::syscall(libc::SYS_quotactl, 0x80_0005u32 << 8, c"/dev/null".as_ptr(), 0, 0),
        );
        let node = |name: &str, kind, major, minor| {
            let path = path(name);
            let made = libc::mknod(path.as_ptr(), kind | 0o600, libc::makedev(major, minor));
            tell(name, made.into());
            libc::unlink(path.as_ptr());
        };
        node("mknod-disk", libc::S_IFBLK, 254, 0);
        node("mknod-kmem", libc::S_IFCHR, 1, 1);
        let (kind, name, secret) = (c"user".as_ptr(), c"lab-attack".as_ptr(), c"x".as_ptr());
        // KEY_SPEC_PROCESS_KEYRING (-2): a key that ends with this process.
        tell("add_key", libc::syscall(libc::SYS_add_key, kind, name, secret, 1, -2));
        // KEYCTL_GET_KEYRING_ID (0) of KEY_SPEC_SESSION_KEYRING (-3), which the container would have from its caller.
        tell("keyctl-session", libc::syscall(libc::SYS_keyctl, 0, -3, 1));
        tell(
            "request_key",
            libc::syscall(libc::SYS_request_key, kind, c"lab-no-such-key".as_ptr(), 0, 0),
        );
        terminal();
    }
}

/// "Shocker": a file named by its number in the file system, past every mount and every directory's permissions.
fn open_the_root_by_handle() -> libc::c_long {
    let mut handle = [0u8; 8 + 128];
    handle[0] = 128;
    let mut mount = 0;
    // SAFETY: the handle's first word says how much room follows.
    unsafe {
        let (own, flags) = (c"/proc/self/exe".as_ptr(), libc::AT_SYMLINK_FOLLOW);
        if libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            own,
            handle.as_mut_ptr(),
            &raw mut mount,
            flags,
        ) != 0
        {
            // Some file systems give no handles out, an overlay among them; any handle will do to be refused.
            handle[4] = 1;
        }
        let root = libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY);
        let opened = libc::syscall(libc::SYS_open_by_handle_at, root, handle.as_ptr(), libc::O_RDONLY);
        let errno = Errno::last();
        libc::close(root);
        errno.set();
        opened
    }
}

/// Types into a terminal, which a shell may read from.
fn terminal() {
    // SAFETY: strings are NUL-terminated; the ioctls take an int or a byte.
    unsafe {
        let master = libc::open(c"/dev/ptmx".as_ptr(), libc::O_RDWR | libc::O_NOCTTY);
        assert!(master >= 0, "{}", Errno::last());
        let unlock = 0;
        libc::ioctl(master, libc::TIOCSPTLCK, &raw const unlock);
        // TIOCGPTPEER: the other end, wherever devpts is mounted.
        let slave = libc::ioctl(master, 0x5441, libc::O_RDWR | libc::O_NOCTTY);
        tell("tiocsti", libc::ioctl(slave, libc::TIOCSTI, c"x".as_ptr()).into());
        let subcode = 2u8;
        tell(
            "tioclinux",
            libc::ioctl(slave, libc::TIOCLINUX, &raw const subcode).into(),
        );
        libc::close(slave);
        libc::close(master);
    }
}

fn processes() {
    // SAFETY: numbers, and structures that are alive.
    unsafe {
        let own = std::process::id();
        tell("kcmp", libc::syscall(libc::SYS_kcmp, own, own, 0, 0, 0).min(0));
        let pidfd = libc::syscall(libc::SYS_pidfd_open, own, 0);
        let page = vec![0u8; 8192];
        let aligned = (page.as_ptr().addr() + 4095) & !4095;
        let range = [aligned, 4096];
        // MADV_COLD (20): harmless to whom it is done.
        tell(
            "process_madvise",
            libc::syscall(libc::SYS_process_madvise, pidfd, range.as_ptr(), 1, 20, 0).min(0),
        );
        libc::close(pidfd as i32);
        let first = libc::sched_param { sched_priority: 1 };
        tell_of_child("rtprio", || {
            libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first).into()
        });
        tell_of_child("nice", || libc::setpriority(libc::PRIO_PROCESS, 0, -5).into());
        // IOPRIO_WHO_PROCESS (1), IOPRIO_CLASS_RT (1): before everybody else at the disk.
        tell_of_child("io-class-realtime", || {
            libc::syscall(libc::SYS_ioprio_set, 1, 0, 1 << 13)
        });
    }
}
