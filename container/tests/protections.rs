//! What a container must not be able to do, tried from inside.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::ffi::CString;
use std::fs;

use common::{probe, shell, text};
use nix::errno::Errno;

/// Scripts that must fail, with a word of the reason they must fail for.
const REFUSED: [(&str, &str); 24] = [
    ("echo x > /proc/sys/kernel/hostname", "Read-only"),
    ("echo 1 > /proc/sys/vm/drop_caches", "Read-only"),
    ("echo /bin/sh > /proc/sys/kernel/core_pattern", "Read-only"),
    ("mount -o remount,rw /proc/sys", "denied|permitted"),
    ("umount /proc/sys", "denied|permitted"),
    ("mount -t tmpfs none /tmp", "denied|permitted"),
    ("mount --bind /bin /tmp", "denied|permitted"),
    ("mknod /tmp/disk b 254 0", "permitted"),
    ("mknod /tmp/mem c 1 1", "permitted"),
    ("chroot / true", "permitted"),
    ("unshare -U true", "permitted"),
    ("unshare -m true", "permitted"),
    ("nsenter -t 1 -m true", "permitted|denied"),
    ("hostname other", "permitted"),
    ("date -s 2000-01-01 && test $(date +%Y) = 2000", "permitted"),
    ("swapoff -a; swapon /bin/busybox", "permitted"),
    ("dmesg", "permitted"),
    ("insmod /bin/busybox", "permitted"),
    ("reboot -f", "permitted"),
    ("ip link add dummy0 type dummy", "permitted|not supported"),
    ("ifconfig lo 10.0.0.1", "permitted"),
    ("ping -c 1 127.0.0.1", "permitted|denied"),
    ("cat /proc/1/environ", "denied"),
    (
        "ls -l /proc/1/exe | grep . ; readlink /proc/1/cwd || ls /proc/1/cwd",
        "denied",
    ),
];

#[test]
fn the_shells_ways_out_are_refused() {
    let image = image_or_skip!();
    for (script, reason) in REFUSED {
        let output = shell(image, &[], script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{script}: {output:?}");
        let expected = reason
            .split('|')
            .any(|word| said.to_lowercase().contains(&word.to_lowercase()));
        assert!(expected, "{script}: {said}");
    }
}

#[test]
fn they_are_refused_to_the_hosts_root_too() {
    let image = image_or_skip!();
    root_or_skip!();
    // Without a user namespace the container's root is the host's: capabilities and the filter alone hold it.
    for (script, _) in REFUSED {
        let output = shell(image, &["--without", "user"], script);
        assert!(!output.status.success(), "{script}: {output:?}");
    }
    assert!(
        probe(image, &["--without", "user"], "system_calls_inside")
            .iter()
            .all(|answer| { answer == "inet ok" || (!answer.ends_with(" ok")) })
    );
}

#[test]
fn masked_files_are_empty_and_the_rest_is_absent() {
    let image = image_or_skip!();
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/acpi",
        "/sys/firmware",
        "/proc/scsi",
    ] {
        // The mask needs something to cover; what this kernel lacks cannot be read either.
        let read = format!("if test -d {path}; then ls -A {path}; elif test -e {path}; then head -c 100 {path}; fi");
        assert_eq!(text(&shell(image, &[], &read)), "", "{path}");
    }
    for path in ["/dev/kmsg", "/dev/mem", "/dev/kvm", "/dev/vda", "/dev/sda", "/dev/fuse"] {
        assert!(
            !shell(image, &[], &format!("test -e {path}")).status.success(),
            "{path}"
        );
    }
    if fs::exists("/proc/kmsg").unwrap() {
        assert!(!shell(image, &[], "head -c 1 /proc/kmsg").status.success());
    }
}

#[test]
fn privileges_are_cut_for_the_program_and_for_process_1() {
    let image = image_or_skip!();
    let kept = "0000000020000420";
    let wanted = format!(
        "CapInh:0000000000000000 CapPrm:{kept} CapEff:{kept} CapBnd:{kept} CapAmb:0000000000000000 NoNewPrivs:1 Seccomp:2"
    );
    for process in ["self", "1"] {
        // Process 1 cuts its own sets while the program starts already.
        let read = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/PID/status | tr -d '\\t' | tr '\\n' ' '"
            .replace("PID", process);
        let script = format!("until test \"$({read})\" = '{wanted} '; do sleep 0.01; done; {read}");
        assert_eq!(text(&shell(image, &[], &script)), wanted, "{process}");
    }
}

#[test]
fn no_new_privileges_come_from_a_set_user_id_program() {
    let image = image_or_skip!();
    root_or_skip!();
    // chown needs CAP_CHOWN, so the file stays root's; run as another user it must not make that user root.
    let directory = common::open_directory();
    let root = directory.path();
    fs::create_dir(root.join("bin")).unwrap();
    fs::copy(image.join("bin/busybox"), root.join("bin/id")).unwrap();
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o4755);
    fs::set_permissions(root.join("bin/id"), mode).unwrap();
    let output = common::container(["--user", "1000", "--rootfs"])
        .arg(root)
        .args(["id", "-u"])
        .output()
        .unwrap();
    assert_eq!(text(&output), "1000");
}

/// Prints what a call answered: `ok`, or the errno's name.
fn report(call: &str, answer: libc::c_long) {
    let answer = Errno::result(answer).map_or_else(|errno| format!("{errno:?}"), |_| "ok".into());
    println!("\nprobe: {call} {answer}");
}

/// Runs inside the container, see `system_calls_are_refused`.
#[test]
#[ignore = "is run inside a container by the tests"]
fn system_calls_inside() {
    // SAFETY: each call is either refused by the filter before it reads an argument, or takes the harmless arguments
    // given: numbers, null pointers (answered with EFAULT), valid strings.
    unsafe {
        let call = |name: &str, number: libc::c_long| {
            report(
                name,
                libc::syscall(number, 0usize, 0usize, 0usize, 0usize, 0usize, 0usize),
            );
        };
        call("keyctl", libc::SYS_keyctl);
        call("add_key", libc::SYS_add_key);
        call("request_key", libc::SYS_request_key);
        call("bpf", libc::SYS_bpf);
        call("perf_event_open", libc::SYS_perf_event_open);
        call("userfaultfd", libc::SYS_userfaultfd);
        call("io_uring_setup", libc::SYS_io_uring_setup);
        call("open_by_handle_at", libc::SYS_open_by_handle_at);
        call("setns", libc::SYS_setns);
        call("unshare", libc::SYS_unshare);
        call("mount", libc::SYS_mount);
        call("umount2", libc::SYS_umount2);
        call("pivot_root", libc::SYS_pivot_root);
        call("chroot", libc::SYS_chroot);
        call("fsopen", libc::SYS_fsopen);
        call("open_tree", libc::SYS_open_tree);
        call("move_mount", libc::SYS_move_mount);
        call("mount_setattr", libc::SYS_mount_setattr);
        call("kexec_load", libc::SYS_kexec_load);
        call("init_module", libc::SYS_init_module);
        call("finit_module", libc::SYS_finit_module);
        call("delete_module", libc::SYS_delete_module);
        call("reboot", libc::SYS_reboot);
        call("swapon", libc::SYS_swapon);
        call("acct", libc::SYS_acct);
        call("settimeofday", libc::SYS_settimeofday);
        call("clock_settime", libc::SYS_clock_settime);
        call("syslog", libc::SYS_syslog);
        call("iopl", libc::SYS_iopl);
        call("quotactl", libc::SYS_quotactl);
        call("fanotify_init", libc::SYS_fanotify_init);
        call("pidfd_getfd", libc::SYS_pidfd_getfd);
        call("process_madvise", libc::SYS_process_madvise);
        call("kcmp", libc::SYS_kcmp);
        call("clone3", libc::SYS_clone3);
        call("x32", 0x4000_0000 + libc::SYS_getpid);
        report(
            "clone-user",
            libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0),
        );
        report(
            "personality",
            libc::syscall(libc::SYS_personality, libc::ADDR_NO_RANDOMIZE),
        );
        report("vsock", libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).into());
        report("alg", libc::socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0).into());
        report("inet", libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0).into());
        report("packet", libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).into());
        report("tiocsti", libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()).into());
        report("ptrace-init", libc::ptrace(libc::PTRACE_ATTACH, 1, 0, 0));
        let mut byte = 0u8;
        let iov = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        report(
            "read-init",
            libc::process_vm_readv(1, &raw const iov, 1, &raw const iov, 1, 0) as libc::c_long,
        );
        report("mem-init", libc::open(c"/proc/1/mem".as_ptr(), libc::O_RDWR).into());
        report("exe-init", libc::open(c"/proc/1/exe".as_ptr(), libc::O_RDONLY).into());
        report("root-init", libc::open(c"/proc/1/root".as_ptr(), libc::O_RDONLY).into());
        let map = libc::open(c"/proc/self/uid_map".as_ptr(), libc::O_WRONLY);
        report("uid-map", libc::write(map, c"0 0 1".as_ptr().cast(), 5) as libc::c_long);
        report("bounding", libc::prctl(libc::PR_CAPBSET_DROP, 0, 0, 0, 0).into());
        report("int80", int80_getpid());
        report("rlimit", raise_limit());
        report(
            "rtprio",
            libc::sched_setscheduler(0, libc::SCHED_FIFO, &libc::sched_param { sched_priority: 1 }).into(),
        );
        report("nice", libc::setpriority(libc::PRIO_PROCESS, 0, -5).into());
        let name = CString::new("/proc/sysrq-trigger").unwrap();
        report("sysrq", libc::open(name.as_ptr(), libc::O_WRONLY).into());
    }
}

/// getpid by the i386 table, through the 32-bit entry.
fn int80_getpid() -> libc::c_long {
    const I386_GETPID: i64 = 20;
    let answer: i64;
    // SAFETY: getpid takes no arguments; the kernel clobbers r8 to r11 at most.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") I386_GETPID => answer,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    let answer = answer as i32;
    if answer < 0 {
        Errno::from_raw(-answer).set();
        return -1;
    }
    answer.into()
}

fn raise_limit() -> libc::c_long {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // RLIMIT_MEMLOCK is limited on every distribution.
    // SAFETY: the kernel reads the structure.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit).into() }
}

#[test]
fn system_calls_are_refused() {
    let image = image_or_skip!();
    let answers = probe(image, &[], "system_calls_inside");
    assert_eq!(answers.len(), 55, "{answers:?}");
    for answer in answers {
        let (call, got) = answer.split_once(' ').unwrap();
        let expected: &[&str] = match call {
            "clone3" => &["ENOSYS"],
            "inet" => &["ok"],
            "mem-init" | "exe-init" | "root-init" => &["EACCES", "EPERM"],
            // Absent where the kernel has no such trigger.
            "sysrq" => &["EROFS", "EACCES", "ENOENT"],
            "nice" => &["EACCES", "EPERM"],
            _ => &["EPERM"],
        };
        assert!(expected.contains(&got), "{call}: {got}, expected {expected:?}");
    }
}

#[test]
fn the_callers_process_group_is_out_of_reach() {
    let image = image_or_skip!();
    // kill(0) knows no pid namespace. Where inside and outside are the same user, the ids do not hold it either.
    for options in [&[][..], &["--without", "pid"], &["--without", "user"]] {
        if options.contains(&"user") && !common::is_root() {
            continue;
        }
        let mut command = common::container(options);
        command.arg("--rootfs").arg(image);
        command.args(["--", "sh", "-c", "kill -KILL 0"]);
        // In a group of its own, or a launcher that fails this would take the tests along.
        let status = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .status()
            .unwrap();
        // 137 is the launcher's word about its program; a launcher that was killed itself has no status.
        assert_eq!(status.code(), Some(137), "{options:?}");
    }
}
