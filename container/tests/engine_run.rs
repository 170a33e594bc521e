//! `container run IMAGE`: what the program finds, and what becomes of its status.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use common::{message, text};

#[test]
fn the_exit_status_is_the_programs_or_says_what_failed() {
    let lab = lab_or_skip!();
    let status = |arguments: &[&str]| lab.run(arguments.iter().copied()).status.code();
    assert_eq!(status(&["run", "--rm", "busybox", "sh", "-c", "exit 7"]), Some(7));
    // The first process of a pid namespace cannot be killed from within; a fault of its own ends it.
    assert_eq!(status(&["run", "--rm", "workload", "crash"]), Some(128 + libc::SIGSEGV));
    assert_eq!(status(&["run", "--rm", "busybox", "no-such-program"]), Some(127));
    assert_eq!(status(&["run", "--rm", "busybox", "/etc/motd"]), Some(126));
    assert_eq!(status(&["run", "--rm", "no-such-image"]), Some(125));
    lab.assert_empty();
}

#[test]
fn the_built_in_image_holds_the_workload() {
    let lab = lab_or_skip!();
    assert_eq!(
        lab.text(["run", "--rm", "workload", "hello"]),
        "hello from the workload"
    );
    // Without an option that needs more, the same words start the plain, raced run.
    assert_eq!(lab.text(["run", "workload", "hello"]), "hello from the workload");
    assert_eq!(lab.run(["run", "--rm", "workload", "exit", "9"]).status.code(), Some(9));
    lab.assert_empty();
}

#[test]
fn user_directory_environment_and_host_name_are_as_asked_for() {
    let lab = lab_or_skip!();
    let file = lab.path().join("variables");
    std::fs::write(&file, "# a comment\nFROM_FILE=1\nBOTH=file\n").unwrap();
    let options = [
        "-u",
        "ann",
        "-w",
        "/tmp",
        "--hostname",
        "box",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "BOTH=line",
    ];
    let script = "echo $(id -u):$(id -g) $(id -G) $(pwd) $(hostname) $FROM_FILE $BOTH $HOME; grep box /etc/hosts; cat /etc/hostname";
    let said = text(&lab.shell(&options, script));
    assert!(
        said.starts_with("1000:100 100 10 /tmp box 1 line /home/ann\n127.0.0.1\tbox "),
        "{said}"
    );
    assert!(said.ends_with("\nbox"), "{said}");
    assert_eq!(text(&lab.shell(&["-u", "5:wheel"], "id -u; id -g")), "5\n10");
    assert!(message(&lab.shell(&["-u", "bob"], "true"), 125).contains("no user bob"));
    lab.assert_empty();
}

#[test]
fn the_entry_point_can_be_replaced() {
    let lab = lab_or_skip!();
    assert_eq!(
        lab.text(["run", "--rm", "--entrypoint", "/bin/echo", "busybox", "x"]),
        "x"
    );
    assert!(message(&lab.run(["run", "--rm", "busybox"]), 125).contains("names no program"));
}

#[test]
fn standard_input_is_passed_on_when_asked_for() {
    let lab = lab_or_skip!();
    for (options, expected) in [(&["run", "--rm", "-i"][..], "typed"), (&["run", "--rm"][..], "")] {
        let mut command = lab.command(options.iter().copied().chain(["busybox", "cat"]));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Nobody may be there to read it: that is the second case.
        let _ = child.stdin.take().unwrap().write_all(b"typed\n");
        assert_eq!(text(&child.wait_with_output().unwrap()), expected);
    }
    lab.assert_empty();
}

#[test]
fn both_outputs_arrive_apart_and_whole() {
    let lab = lab_or_skip!();
    let output = lab.shell(&[], "echo out; echo err >&2; head -c 3000000 /dev/zero | tr '\\0' x");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.stdout.len(), 4 + 3_000_000);
}

#[test]
fn a_read_only_root_stays_as_it_is_and_a_tmpfs_does_not() {
    let lab = lab_or_skip!();
    let options = ["--read-only", "--tmpfs", "/tmp:size=1m"];
    let said = text(&lab.shell(
        &options,
        "touch /x 2>&1; touch /tmp/y && echo written; df -k /tmp | tail -1",
    ));
    assert!(
        said.contains("Read-only file system") && said.contains("written") && said.contains("1024"),
        "{said}"
    );
}

#[test]
fn limits_reach_the_cgroups() {
    let lab = lab_or_skip!();
    lab.start(
        "limited",
        &[
            "--memory",
            "32M",
            "--cpus",
            "0.5",
            "--pids",
            "20",
            "--ulimit",
            "nofile=100:200",
        ],
        "sleep 1000",
    );
    let groups = lab.inspect("limited")["Cgroups"].clone();
    let read = |v1: &str, file1: &str, file2: &str| {
        let directory = groups
            .as_object()
            .unwrap()
            .iter()
            .find(|(names, _)| names.split(',').any(|name| name == v1));
        let (directory, file) = match directory {
            Some((_, directory)) => (directory, file1),
            None => (&groups["v2"], file2),
        };
        let path = std::path::Path::new(directory.as_str().unwrap()).join(file);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(read("pids", "pids.max", "pids.max"), "20");
    assert!(["50000", "50000 100000"].contains(&read("cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert_eq!(
        lab.text(["exec", "limited", "sh", "-c", "ulimit -Sn; ulimit -Hn"]),
        "100\n200"
    );
    // A program that needs more is killed, and that is written down.
    lab.run(["rm", "-f", "limited"]);
    let eat = lab.run(["run", "--name", "eater", "--memory", "16M", "workload", "memory", "64"]);
    assert_eq!(eat.status.code(), Some(137), "{eat:?}");
    assert_eq!(lab.state_of("eater", "OOMKilled"), true);
}

#[test]
fn capabilities_and_the_filter_are_as_asked_for() {
    let lab = lab_or_skip!();
    let status =
        |options: &[&str]| text(&lab.shell(options, "grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status"));
    let default = status(&[]);
    assert!(
        default.contains("Seccomp:\t2") && default.contains("NoNewPrivs:\t1"),
        "{default}"
    );
    assert!(status(&["--cap-drop", "ALL"]).contains("CapEff:\t0000000000000000"));
    assert!(status(&["--cap-drop", "ALL", "--cap-add", "NET_RAW"]).contains("CapEff:\t0000000000002000"));
    assert!(status(&["--security-opt", "seccomp=unconfined"]).contains("Seccomp:\t0"));
    assert!(status(&["--security-opt", "no-new-privileges=false"]).contains("NoNewPrivs:\t0"));
    // A profile of the test's own: no program may make a directory.
    let profile = lab.path().join("profile.json");
    let rules =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, rules).unwrap();
    let option = format!("seccomp={}", profile.display());
    let said = text(&lab.shell(&["--security-opt", &option], "mkdir /tmp/x 2>&1 || true"));
    assert!(said.contains("Operation not permitted"), "{said}");
    // The default one refuses what the lab's own does, and gives chroot back to who has the capability.
    let said = text(&lab.shell(
        &[],
        "unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; chroot / true && echo chrooted; true",
    ));
    assert!(
        said.contains("chrooted")
            && said.contains("unshare(0x20000): Operation not permitted")
            && said.contains("mount: permission denied"),
        "{said}"
    );
    let said = text(&lab.shell(&["--cap-drop", "SYS_CHROOT"], "chroot / true 2>&1; true"));
    assert!(said.contains("not permitted"), "{said}");
}

#[test]
fn a_terminal_is_one_inside_and_has_the_size_of_the_outer() {
    let lab = lab_or_skip!();
    let outer = nix::pty::openpty(
        Some(&libc::winsize {
            ws_row: 30,
            ws_col: 90,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }),
        None,
    )
    .unwrap();
    let mut command = lab.command([
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "tty; stty size; read line; echo got $line",
    ]);
    command
        .stdin(outer.slave.try_clone().unwrap())
        .stdout(outer.slave.try_clone().unwrap())
        .stderr(outer.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut screen = std::fs::File::from(outer.master);
    screen.write_all(b"typed\r").unwrap();
    let mut shown = Vec::new();
    // Reading a terminal nobody has open any more fails with EIO.
    let _ = std::io::Read::read_to_end(&mut screen, &mut shown);
    assert!(child.wait().unwrap().success());
    let shown = String::from_utf8_lossy(&shown);
    // The terminal's echo of what was typed comes in between, wherever it happens to.
    for line in ["/dev/pts/0\r\n", "30 90\r\n", "got typed\r\n"] {
        assert!(shown.contains(line), "{shown:?}");
    }
    assert!(message(&lab.run(["run", "--rm", "-it", "busybox", "true"]), 125).contains("needs a terminal"));
    lab.assert_empty();
}

#[test]
fn the_keys_to_leave_by_leave_the_program_running() {
    let lab = lab_or_skip!();
    let outer = nix::pty::openpty(None, None).unwrap();
    let mut command = lab.command([
        "run",
        "--name",
        "stays",
        "-it",
        "busybox",
        "sh",
        "-c",
        "echo ready; sleep 1000",
    ]);
    command
        .stdin(outer.slave.try_clone().unwrap())
        .stdout(outer.slave.try_clone().unwrap())
        .stderr(outer.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    // Shown here, and not only written: the terminal is in raw mode by then, and passes these keys on.
    let mut terminal = fs::File::from(outer.master);
    let mut shown = Vec::new();
    while !shown.windows(5).any(|word| word == b"ready") {
        let mut byte = [0];
        terminal.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    terminal.write_all(b"\x10\x11").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(lab.state_of("stays", "Status"), "running");
}

#[test]
fn a_name_belongs_to_one_container_whoever_races_for_it() {
    let lab = lab_or_skip!();
    let start = || {
        lab.command(["run", "-d", "--name", "same", "busybox", "sleep", "1000"])
            .output()
            .unwrap()
    };
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outputs.iter().filter(|output| output.status.success()).count(), 1);
    let loser = outputs.iter().find(|output| !output.status.success()).unwrap();
    assert!(message(loser, 125).contains("the name same belongs to container"));
    lab.text(["rm", "-f", "same"]);
    // A name nobody gave is two words.
    let id = lab.text(["run", "-d", "busybox", "true"]);
    let name = lab.inspect(&id[..12])["Name"].as_str().unwrap().to_owned();
    assert!(name.contains('-') && lab.inspect(&name)["Id"] == id.as_str());
    assert!(message(&lab.run(["run", "--name", "../x", "busybox", "true"]), 125).contains("is no name"));
    lab.text(["rm", &name]);
    lab.assert_empty();
}

#[test]
fn a_signal_to_the_command_reaches_the_program() {
    let lab = lab_or_skip!();
    let script = "trap 'exit 5' TERM; echo ready; while true; do sleep 0.1; done";
    let mut child = lab
        .command(["run", "--name", "asked", "busybox", "sh", "-c", script])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    lab.wait_for_log("asked", "ready");
    // SAFETY: takes numbers only.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_processor_is_shared_out_by_weight() {
    let lab = lab_or_skip!();
    let refused = |option: &str, value: &str| message(&lab.run(["run", option, value, "busybox", "true"]), 125);
    assert!(refused("--cpu-shares", "1").contains("2..=262144"));
    assert!(refused("--cpuset-cpus", "first").contains("0-2,4"));
    for (name, shares) in [("light", "1024"), ("heavy", "2048")] {
        let options = [
            "run",
            "-d",
            "--name",
            name,
            "--cpuset-cpus",
            "0",
            "--cpu-shares",
            shares,
        ];
        let output = lab.run(
            options
                .into_iter()
                .chain(["busybox", "sh", "-c", "while :; do :; done"]),
        );
        if output.status.code() == Some(125) && !common::is_root() {
            skip!("needs root or a delegated cgroup");
        }
        assert!(output.status.success(), "{output:?}");
        assert_eq!(lab.text(["exec", name, "nproc"]), "1");
    }
    // In nanoseconds on version 1, in microseconds on version 2.
    let used = |name: &str| -> f64 {
        let groups = lab.inspect(name)["Cgroups"].clone();
        let read = |file: &str| {
            let mut groups = groups.as_object().unwrap().values().filter_map(|path| path.as_str());
            groups.find_map(|group| fs::read_to_string(format!("{group}/{file}")).ok())
        };
        let field = |text: String| {
            Some(
                text.lines()
                    .find_map(|line| line.strip_prefix("usage_usec "))?
                    .to_owned(),
            )
        };
        let time = read("cpuacct.usage").or_else(|| field(read("cpu.stat")?)).unwrap();
        time.trim().parse().unwrap()
    };
    let before = (used("light"), used("heavy"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    // Whatever else wants that processor takes from what both get, not from how they share it.
    let ratio = (used("heavy") - before.1) / (used("light") - before.0);
    assert!((1.6..2.5).contains(&ratio), "{ratio}");
    lab.text(["rm", "-f", "light", "heavy"]);
    lab.assert_empty();
}

#[test]
fn disks_are_throttled_and_shares_kept_or_missed_aloud() {
    let lab = lab_or_skip!();
    let numbers = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok());
    let Some(number) = numbers.map(|number| number.trim().to_owned()).min() else {
        skip!("needs a disk in /sys/block");
    };
    // A node of the test's own: /dev may be anything.
    let node = lab.path().join("disk");
    let (major, minor) = number.split_once(':').unwrap();
    let made = std::process::Command::new("mknod")
        .arg(&node)
        .args(["b", major, minor])
        .status();
    assert!(made.unwrap().success());
    let rate = format!("{}:1M", node.display());
    let options = [
        "--blkio-weight",
        "300",
        "--device-read-bps",
        &rate,
        "--device-write-iops",
    ];
    let writes = format!("{}:70", node.display());
    let front = ["run", "-d", "--name", "slow"].into_iter().chain(options);
    let output = lab.run(front.chain([writes.as_str(), "busybox", "sleep", "1000"]));
    assert!(output.status.success(), "{output:?}");
    let groups = lab.inspect("slow")["Cgroups"].clone();
    let groups: Vec<&str> = groups
        .as_object()
        .unwrap()
        .values()
        .filter_map(|path| path.as_str())
        .collect();
    let read = |file: &str| {
        let mut found = groups
            .iter()
            .filter_map(|group| fs::read_to_string(format!("{group}/{file}")).ok());
        found.next().map(|text| text.trim().to_owned())
    };
    match read("io.max") {
        Some(limits) => assert_eq!(limits, format!("{number} rbps=1048576 wbps=max riops=max wiops=70")),
        None => {
            assert_eq!(
                read("blkio.throttle.read_bps_device"),
                Some(format!("{number} 1048576"))
            );
            assert_eq!(read("blkio.throttle.write_iops_device"), Some(format!("{number} 70")));
        }
    }
    let weight = ["blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"]
        .into_iter()
        .find_map(read);
    let said = String::from_utf8_lossy(&output.stderr);
    match weight {
        // Version 2 counts from 1 to 10000 where 1 counted from 10 to 1000.
        Some(weight) => assert!(
            ["300", "default 2930", "default 300"].contains(&weight.as_str()),
            "{weight}"
        ),
        None => assert!(said.contains("no share of the disks' time"), "{said}"),
    }
    lab.text(["rm", "-f", "slow"]);
    lab.assert_empty();
}
