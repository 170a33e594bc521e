//! The program: its status, its signals, its surroundings.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use common::{container, message, shell, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn the_status_is_the_programs() {
    let image = image_or_skip!();
    for status in [0, 1, 42, 255] {
        assert_eq!(shell(image, &[], &format!("exit {status}")).status.code(), Some(status));
    }
    assert_eq!(
        container(["workload", "crash"]).output().unwrap().status.code(),
        Some(139)
    );
    for (signal, status) in [("KILL", 137), ("TERM", 143), ("RTMIN+3", 128 + 37)] {
        let number = if signal == "RTMIN+3" { "37" } else { signal };
        assert_eq!(
            shell(image, &[], &format!("kill -{number} $$")).status.code(),
            Some(status),
            "{signal}"
        );
    }
}

#[test]
fn launcher_statuses_and_messages_say_what_is_wrong() {
    let image = image_or_skip!();
    let run = |program: &[&str]| {
        container(["--rootfs"])
            .arg(image)
            .arg("--")
            .args(program)
            .output()
            .unwrap()
    };
    assert!(message(&run(&["no-such-program"]), 127).contains("cannot find the program no-such-program"));
    assert!(message(&run(&["/bin/no-such-program"]), 127).contains("cannot find the program /bin/no-such-program"));
    assert!(message(&run(&["not-a-program"]), 126).contains("Permission denied (EACCES)"));
    assert!(message(&run(&["/etc"]), 126).contains("(EACCES)"));
    assert!(message(&run(&["/etc/motd/x"]), 126).contains("(ENOTDIR)"));
    assert!(
        message(&run(&["/bin/probe"]), 126).contains("interpreter"),
        "its loader is not in /lib64"
    );
    let refused = |arguments: &[&str]| message(&container(arguments).output().unwrap(), 125);
    assert!(refused(&["--rootfs", "/no/such/place", "x"]).contains("No such file or directory (ENOENT)"));
    assert!(refused(&["--rootfs", "/etc/passwd", "x"]).contains("Not a directory (ENOTDIR)"));
    assert!(
        refused(&["--workdir", "/nowhere", "workload", "hello"])
            .contains("cannot enter the working directory /nowhere")
    );
    for bad in [
        &["--memory", "much", "workload"][..],
        &["--memory", "12", "workload"],
        &["--memory", "-1", "workload"],
        &["--cpus", "0", "workload"],
        &["--cpus", "nan", "workload"],
        &["--cpus", "-1", "workload"],
        &["--cpus", "inf", "workload"],
        &["--pids", "0", "workload"],
        &["--pids", "-3", "workload"],
        &["--user", "root", "workload"],
        &["--user", "4294967295", "workload"],
        &["--env", "=x", "workload"],
        &["--env", "NAME", "workload"],
        &["--marks-fd", "-1", "workload"],
        &["--no-such-option", "workload"],
        &[],
    ] {
        let text = refused(bad);
        assert!(text.contains("error:"), "{bad:?}: {text}");
    }
}

#[test]
fn a_marks_descriptor_that_is_not_open_is_refused() {
    let _ = image_or_skip!();
    assert!(
        message(
            &container(["--marks-fd", "77", "workload", "hello"]).output().unwrap(),
            125
        )
        .contains("77")
    );
}

#[test]
fn environment_directory_user_and_arguments_are_those_asked_for() {
    let image = image_or_skip!();
    let mut command = container([
        "--env",
        "GREETING=hi there",
        "--env",
        "EMPTY=",
        "--workdir",
        "/etc",
        "--rootfs",
    ]);
    command.arg(image).args(["--", "env"]).env("LEAKED", "from the host");
    let environment = text(&command.output().unwrap());
    let mut lines: Vec<_> = environment.lines().filter(|line| !line.starts_with("PATH=")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["EMPTY=", "GREETING=hi there"]);
    assert_eq!(text(&shell(image, &["--workdir", "/etc"], "pwd")), "/etc");
    let mut command = container(["--rootfs"]);
    command.arg(image).args(["--", "printf", "%s|", "--memory", "", "a b"]);
    assert_eq!(text(&command.output().unwrap()), "--memory||a b|");
    let id = "id -u; id -g; grep -E '^(Groups|CapEff|CapPrm)' /proc/self/status | tr -d '[:space:]'";
    assert_eq!(
        text(&shell(image, &["--user", "1000:50"], id)),
        "1000\n50\nGroups:CapPrm:0000000000000000CapEff:0000000000000000"
    );
    if common::is_root() {
        assert!(message(&shell(image, &["--user", "70000"], id), 125).contains("0 to 65535"));
    }
}

#[test]
fn a_path_of_ones_own_is_searched() {
    let image = image_or_skip!();
    let mut command = container(["--env", "PATH=/nowhere", "--rootfs"]);
    assert!(message(&command.arg(image).args(["--", "ls"]).output().unwrap(), 127).contains("/nowhere"));
}

#[test]
fn standard_input_reaches_the_program() {
    let image = image_or_skip!();
    let mut child = container(["--rootfs"])
        .arg(image)
        .args(["--", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap()), "100000");
}

#[test]
fn no_other_descriptor_reaches_the_program() {
    let image = image_or_skip!();
    let (secret, (reader, marks)) = (File::open("/").unwrap(), std::io::pipe().unwrap());
    for fd in [secret.as_raw_fd(), marks.as_raw_fd(), reader.as_raw_fd()] {
        // SAFETY: clears the close-on-exec flag of a descriptor this test owns.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
    }
    let mut command = container(["--marks-fd", &marks.as_raw_fd().to_string(), "--rootfs"]);
    command.arg(image).args([
        "--",
        "sh",
        "-c",
        "ls /proc/self/fd | wc -l; ls /proc/1/fd 2>&1 | grep -c denied",
    ]);
    // 0, 1, 2, and the directory ls is reading; the first process's may not be looked at.
    assert_eq!(text(&command.output().unwrap()), "4\n1");
}

#[test]
fn a_directory_as_standard_stream_is_refused() {
    let _ = image_or_skip!();
    let output = container(["workload", "hello"])
        .stdin(File::open("/").unwrap())
        .output()
        .unwrap();
    assert!(message(&output, 125).contains("file descriptor 0 is a directory of the host"));
}

fn start(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    common::hear_the_keyboard();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, output)
}

fn shell_to_start(image: &std::path::Path, options: &[&str], script: &str) -> Command {
    let mut command = container(options);
    command.arg("--rootfs").arg(image).args(["--", "sh", "-c", script]);
    command
}

#[test]
fn signals_reach_the_program() {
    let image = image_or_skip!();
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGCONT, "CONT"),
    ] {
        let script = format!("trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done");
        let (mut child, mut output) = start(shell_to_start(image, &[], &script));
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(
            (rest.as_str(), child.wait().unwrap().code()),
            (format!("got {name}\n").as_str(), Some(7))
        );
    }
}

#[test]
fn a_signal_without_a_handler_ends_the_program() {
    let image = image_or_skip!();
    let (mut child, _output) = start(shell_to_start(image, &[], "echo ready; exec sleep 1000"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn the_launchers_own_signal_settings_stay_with_it() {
    let image = image_or_skip!();
    let status = text(&shell(
        image,
        &[],
        "grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f 2",
    ));
    let sets: Vec<_> = status
        .lines()
        .map(|set| u64::from_str_radix(set, 16).unwrap())
        .collect();
    let bit = |signal: i32| 1u64 << (signal - 1);
    assert_eq!(sets[0], 0, "blocked");
    assert_eq!(sets[1] & (bit(libc::SIGPIPE) | bit(libc::SIGCHLD)), 0, "ignored");
}

#[test]
fn it_works_when_the_caller_ignores_child_signals() {
    let _ = image_or_skip!();
    let mut command = container(["workload", "exit", "5"]);
    // SAFETY: signal(2) is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        })
    };
    assert_eq!(command.output().unwrap().status.code(), Some(5));
}

#[test]
fn orphans_are_reaped() {
    let image = image_or_skip!();
    // Each subshell ends at once and leaves its child to process 1.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (true & true &); done; while grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.01; done; echo clean";
    let output = text(&shell(image, &[], script));
    assert!(output.ends_with("clean"), "{output}");
}

#[test]
fn the_rest_ends_with_the_program() {
    let image = image_or_skip!();
    // Were the background process alive, the pipe's end would never come.
    assert_eq!(text(&shell(image, &[], "sleep 1000 & echo bye")), "bye");
    assert_eq!(
        text(&shell(image, &["--without", "pid"], "setsid sleep 1000 & echo bye")),
        "bye"
    );
}

#[test]
fn marks_tell_the_start_in_order() {
    let image = image_or_skip!();
    let (reader, marks) = std::io::pipe().unwrap();
    // SAFETY: clears the close-on-exec flag of a descriptor this test owns.
    assert_eq!(unsafe { libc::fcntl(marks.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let mut options = vec!["--marks-fd".to_owned(), marks.as_raw_fd().to_string()];
    if common::is_root() {
        options.extend(["--pids".into(), "30".into()]);
    }
    let output = container(&options)
        .arg("--rootfs")
        .arg(image)
        .args(["--", "echo", "x"])
        .output()
        .unwrap();
    assert_eq!(text(&output), "x");
    drop(marks);
    let marks: Vec<serde_json::Value> = BufReader::new(reader)
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let at = |name: &str| {
        let mark = marks
            .iter()
            .find(|mark| mark["name"] == name)
            .unwrap_or_else(|| panic!("no mark {name}: {marks:?}"));
        assert_eq!(mark["emitter"], "container");
        mark["ns"].as_u64().unwrap()
    };
    // Two processes report, so the user map may be written before or after the clone is noticed inside.
    let inside = [
        "clone returned",
        "mounts done",
        "pivot done",
        "privileges dropped",
        "exec",
        "exit",
    ];
    assert!(inside.map(at).is_sorted());
    let launcher = ["process start", "user map written", "mounts done"];
    assert!(launcher.map(at).is_sorted());
    if common::is_root() {
        assert!(["process start", "cgroup made", "clone returned"].map(at).is_sorted());
    }
}

#[test]
fn streams_the_program_closes_are_closed_for_its_caller() {
    let image = image_or_skip!();
    let mut command = shell_to_start(image, &[], "echo ready; exec 0<&- 1>&-; exec sleep 1000");
    command.stdin(Stdio::piped());
    let (mut child, mut output) = start(command);
    let mut input = child.stdin.take().unwrap();
    let reader = std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
    common::until("the end of the output", || reader.is_finished().then_some(()));
    assert_eq!(reader.join().unwrap().unwrap(), 0);
    // One byte at a time, so that the pipe is not full before its last reader is gone.
    common::until("nobody to read the input", || {
        input
            .write_all(b"x")
            .is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
            .then_some(())
    });
    assert_eq!(child.try_wait().unwrap(), None, "the program runs on");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn the_keys_of_the_terminal_reach_the_program() {
    let image = image_or_skip!();
    let (mut master, mut terminal) = (-1, -1);
    use std::ptr::{null, null_mut};
    // SAFETY: the kernel's answers go to two integers; without name, settings and size nothing else is touched.
    let opened = unsafe { libc::openpty(&raw mut master, &raw mut terminal, null_mut(), null(), null()) };
    assert_eq!(opened, 0);
    // SAFETY: openpty just made both descriptors for us.
    let (mut master, terminal) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(terminal)) };
    // The shell takes its own signal when the sleep has ended by another: the whole group must get it.
    let mut command = shell_to_start(image, &[], "trap 'exit 7' INT; echo ready; sleep 1000");
    command.stdin(terminal);
    // SAFETY: both calls are plain system calls, allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        })
    };
    let (mut child, _output) = start(command);
    let programs = |launcher| {
        let first = *common::children(launcher).first()?;
        let shell = *common::children(first).first()?;
        Some([shell, *common::children(shell).first()?])
    };
    let [shell, sleep] = common::until("the sleep to run", || programs(child.id()));
    let state_is = |pid: u32, state: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.contains(&format!("State:\t{state}")).then_some(())
    };
    master.write_all(b"\x1a").unwrap();
    for pid in [shell, sleep] {
        common::until("Ctrl-Z to stop the program", || state_is(pid, "T"));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT).unwrap();
    for pid in [shell, sleep] {
        common::until("the program to continue", || state_is(pid, "S"));
    }
    master.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}
