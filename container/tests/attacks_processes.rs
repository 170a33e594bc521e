//! Attacks across the boundary between processes: on the launcher, on other programs of the host, and by outliving both.
//!
//! A victim waits on the host. Every attack on it is made from inside, and by a process outside, where it works.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use common::attacks::{lend_a_key, tell_of_the_key};
use common::{container, end_with_the_test, probe, shell, text, until};
use nix::errno::Errno;

/// A process of the host's root, or of the user who runs the tests, with something to hide.
struct Victim(Child);

const SECRET: &str = "VICTIMS_SECRET=do-not-tell";

impl Victim {
    fn wait_for_attack() -> Victim {
        let mut command = Command::new("sleep");
        command.arg("1000").env_clear().env("VICTIMS_SECRET", "do-not-tell");
        end_with_the_test(&mut command);
        Victim(command.spawn().unwrap())
    }

    fn assert_unharmed(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the victim is no more");
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        assert!(
            status.contains("TracerPid:\t0") && status.contains("State:\tS"),
            "{status}"
        );
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries everything one process can do to another, on the process whose number is in the environment; the answers.
#[test]
#[ignore = "is run inside and outside of a container by the tests"]
fn attack_a_process() {
    let victim: i32 = std::env::var("VICTIM").unwrap().parse().unwrap();
    let tell = |name: &str, answer: libc::c_long| {
        let answer = Errno::result(answer).map_or_else(|errno| format!("{errno:?}"), |_| "ok".into());
        println!("\nprobe: {name} {answer}");
    };
    // SAFETY: numbers, and memory of this process that is alive during the calls.
    unsafe {
        tell("kill", libc::kill(victim, 0).into());
        let pidfd = libc::syscall(libc::SYS_pidfd_open, victim, 0);
        tell("pidfd_open", pidfd);
        tell(
            "pidfd_send_signal",
            libc::syscall(libc::SYS_pidfd_send_signal, pidfd, 0, 0, 0),
        );
        tell("pidfd_getfd", libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0).min(0));
        let mut bytes = [0u8; 16];
        let here = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // Where a program not linked to a fixed place seldom is; EFAULT means that only the address was wrong.
        let there = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(0x40_0000),
            iov_len: bytes.len(),
        };
        let faults = |answer: isize| {
            if Errno::last() == Errno::EFAULT {
                0
            } else {
                answer as libc::c_long
            }
        };
        Errno::clear();
        tell(
            "process_vm_readv",
            faults(libc::process_vm_readv(
                victim,
                &raw const here,
                1,
                &raw const there,
                1,
                0,
            )),
        );
        Errno::clear();
        tell(
            "process_vm_writev",
            faults(libc::process_vm_writev(
                victim,
                &raw const here,
                1,
                &raw const there,
                1,
                0,
            )),
        );
        // PTRACE_SEIZE: does not stop the victim; it is over when this process ends.
        tell("ptrace", libc::ptrace(libc::PTRACE_SEIZE, victim, 0, 0));
        tell(
            "setpriority",
            libc::setpriority(libc::PRIO_PROCESS, victim as u32, 0).into(),
        );
        let limit = libc::rlimit {
            rlim_cur: 1,
            rlim_max: 1,
        };
        // RLIMIT_CORE (4): the victim could no longer dump core.
        tell(
            "prlimit",
            libc::prlimit(victim, 4, &raw const limit, std::ptr::null_mut()).into(),
        );
        let processors = [0xffu8; 128];
        tell(
            "sched_setaffinity",
            libc::syscall(libc::SYS_sched_setaffinity, victim, 128, processors.as_ptr()),
        );
    }
    let open = |name: &str, path: &str, write: bool| {
        let opened = fs::File::options()
            .read(true)
            .write(write)
            .open(format!("/proc/{victim}/{path}"));
        let answer = opened.map_or_else(
            |error| format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap())),
            |_| "ok".into(),
        );
        println!("\nprobe: {name} {answer}");
    };
    open("proc-mem", "mem", true);
    open("proc-environ", "environ", false);
    open("proc-root", "root/etc/passwd", false);
    open("proc-cwd", "cwd/.", false);
    open("proc-exe", "exe", false);
    open("proc-fd", "fd/0", false);
    open("proc-ns", "ns/mnt", false);
    open("proc-oom", "oom_score_adj", true);
}

const ATTACKS_ON_A_PROCESS: usize = 18;

fn attack(options: &[&str], victim: u32) -> Vec<String> {
    let image = common::image().unwrap();
    let victim = format!("VICTIM={victim}");
    let options: Vec<&str> = options.iter().copied().chain(["--env", &victim]).collect();
    probe(image, &options, "attack_a_process")
}

fn refused_by(answers: &[String], errnos: &[&str]) {
    assert_eq!(answers.len(), ATTACKS_ON_A_PROCESS, "{answers:?}");
    for answer in answers {
        let (attack, got) = answer.split_once(' ').unwrap();
        assert!(errnos.contains(&got), "{attack}: {got}, expected {errnos:?}");
    }
}

#[test]
fn a_process_of_the_host_is_out_of_reach() {
    let _ = image_or_skip!();
    let mut victim = Victim::wait_for_attack();
    let outside = Command::new("/proc/self/exe")
        .args([
            "--exact",
            "attack_a_process",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("VICTIM", victim.0.id().to_string())
        .output()
        .unwrap();
    // The control: outside the same user may do nearly all of that. (Whether another's file can be read does not matter.)
    let outside = text(&outside);
    for attack in [
        "kill",
        "pidfd_open",
        "pidfd_getfd",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "prlimit",
        "proc-mem",
        "proc-environ",
    ] {
        assert!(
            outside.contains(&format!("probe: {attack} ok")),
            "{attack} outside: {outside}"
        );
    }
    drop(victim);

    victim = Victim::wait_for_attack();
    // There is no such process in the container's table: no number of the host's means anything. EPERM is the filter's
    // answer, EBADF that of a call on the pidfd there was none of.
    refused_by(&attack(&[], victim.0.id()), &["ESRCH", "ENOENT", "EPERM", "EBADF"]);
    victim.assert_unharmed();
    // Even with the host's table of processes in view, the user namespace holds no right over any of them.
    let answers = attack(&["--without", "pid"], victim.0.id());
    let allowed = ["pidfd_open ok", "proc-exe EACCES"];
    let rest: Vec<String> = answers
        .iter()
        .filter(|answer| !allowed.contains(&answer.as_str()))
        .cloned()
        .collect();
    for answer in &rest {
        let (attack, got) = answer.split_once(' ').unwrap();
        assert!(
            ["EPERM", "EACCES", "ESRCH"].contains(&got),
            "{attack} without pid: {got}"
        );
    }
    victim.assert_unharmed();
}

#[test]
fn the_launcher_is_out_of_reach_where_its_number_is_known() {
    let image = image_or_skip!();
    root_or_skip!();
    // In the host's table the launcher is the parent of the program's parent.
    let script = "launcher=$(awk '/^PPid/ { print $2 }' /proc/$PPID/status); kill -KILL $launcher; kill -STOP $launcher; \
                  cat /proc/$launcher/environ; ls /proc/$launcher/root/ /proc/$launcher/fd/ >/dev/null; echo survived";
    let output = shell(image, &["--without", "pid"], script);
    assert_eq!(text(&output), "survived");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said.to_lowercase().matches("denied").count() + said.matches("permitted").count(),
        5,
        "{said}"
    );
}

#[test]
fn every_process_of_the_host_is_spared_by_kill_minus_one() {
    let image = image_or_skip!();
    let mut victim = Victim::wait_for_attack();
    // kill(-1) spares its caller and the first process of its pid namespace.
    assert_eq!(text(&shell(image, &[], "kill -KILL -1; echo survived")), "survived");
    victim.assert_unharmed();
    // In the host's table an ordinary user's container could reach whatever is that user's: the ids are the same.
    root_or_skip!();
    let output = shell(image, &["--without", "pid"], "kill -KILL -1");
    assert_eq!(
        output.status.code(),
        Some(137),
        "its own first process is within its rights: {output:?}"
    );
    victim.assert_unharmed();
}

#[test]
fn abstract_sockets_of_the_host_are_another_networks() {
    let image = image_or_skip!();
    let name = format!("lab-attack-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    UnixStream::connect_addr(&address).unwrap();
    let variable = format!("SOCKET={name}");
    let connect = |options: &[&str]| {
        let options: Vec<&str> = options.iter().copied().chain(["--env", &variable]).collect();
        probe(image, &options, "connect_to_an_abstract_socket").concat()
    };
    assert_eq!(connect(&[]), "connect ECONNREFUSED");
    // The control: it is the network namespace that hides them, and nothing else.
    assert_eq!(connect(&["--without", "net"]), "connect ok");
}

#[test]
#[ignore = "is run inside a container by the test above"]
fn connect_to_an_abstract_socket() {
    let address = SocketAddr::from_abstract_name(std::env::var("SOCKET").unwrap()).unwrap();
    let answer = UnixStream::connect_addr(&address);
    let answer = answer.map_or_else(
        |error| format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap())),
        |_| "ok".into(),
    );
    println!("\nprobe: connect {answer}");
}

#[test]
fn a_key_of_the_hosts_session_cannot_be_read() {
    let image = image_or_skip!();
    let read = |outside: bool| {
        let mut command = if outside {
            let mut command = Command::new("/proc/self/exe");
            command.args(["--exact", "read_a_key", "--ignored", "--nocapture", "--test-threads=1"]);
            command
        } else {
            let mut command = container(["--rootfs"]);
            command
                .arg(image)
                .args(["--", "/lib/loader", "--library-path", "/lib", "/bin/probe"]);
            command.args(["--exact", "read_a_key", "--ignored", "--nocapture", "--test-threads=1"]);
            command
        };
        lend_a_key(&mut command);
        let output = command.output();
        match output {
            Ok(output) => text(&output),
            Err(error) => format!("no keyrings here: {error}"),
        }
    };
    let outside = read(true);
    if outside.starts_with("no keyrings") {
        println!("{outside}");
        return;
    }
    assert!(outside.contains("probe: key hush"), "{outside}");
    let inside = read(false);
    assert!(inside.contains("probe: key EPERM"), "{inside}");
    assert!(!inside.contains("hush"), "{inside}");
}

#[test]
#[ignore = "is run inside and outside of a container by the test above"]
fn read_a_key() {
    tell_of_the_key();
}

#[test]
fn nothing_outlives_the_container() {
    let image = image_or_skip!();
    let marker = common::marker(41);
    // A daemon as daemons are made: a session of its own, its parent gone, signals ignored.
    let script = format!(
        "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM HUP INT; sleep {marker} & exit' & sleep 0.2; echo left"
    );
    for options in [&[][..], &["--without", "pid"]] {
        assert_eq!(text(&shell(image, options, &script)), "left", "{options:?}");
        until("the daemon is gone", || (!is_running(&marker)).then_some(()));
    }
    // And when the launcher is killed, who cannot clean up then.
    for options in [&[][..], &["--without", "pid"]] {
        let mut command = container(options);
        command.arg("--rootfs").arg(image);
        command.args([
            "--",
            "sh",
            "-c",
            &format!("setsid sleep {marker} & echo left; sleep 1000"),
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        until("the daemon runs", || is_running(&marker).then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
        until("the daemon is gone", || (!is_running(&marker)).then_some(()));
    }
}

fn is_running(marker: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let command_line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let wanted = format!("sleep\0{marker}\0");
    processes.map(command_line).any(|line| line == wanted.as_bytes())
}

/// The secret is there to be found, or not finding it would prove nothing.
#[test]
fn the_victim_has_a_secret() {
    let victim = Victim::wait_for_attack();
    let environ = until("sleep runs", || {
        let environ = fs::read(format!("/proc/{}/environ", victim.0.id())).unwrap();
        String::from_utf8_lossy(&environ).contains(SECRET).then_some(environ)
    });
    assert!(String::from_utf8(environ).unwrap().contains(SECRET));
}
