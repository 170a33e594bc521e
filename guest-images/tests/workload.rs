//! The workload's lessons, run on the host: what a learner sees must be right before it is compared anywhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The workload as the build left it: the very bytes that are embedded. Not a copy made here, because a file that one
/// thread has just written cannot be executed while another thread's child still holds it open.
struct Workload;

impl Workload {
    fn new() -> Workload {
        assert!(fs::read(Workload.path()).unwrap() == guest_images::WORKLOAD);
        Workload
    }

    fn path(&self) -> PathBuf {
        env!("LAB_WORKLOAD").into()
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(self.path()).args(words).output().unwrap()
    }

    /// Runs a lesson that reports one line of JSON.
    fn report(&self, words: &[&str]) -> Value {
        let output = self.run(words);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            output.stdout.iter().filter(|&&byte| byte == b'\n').count(),
            1,
            "{output:?}"
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn hello_is_one_line() {
    let output = Workload::new().run(&["hello"]);
    assert_eq!(output.stdout, b"hello from the workload\n");
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn exit_gives_the_status_asked_for() {
    let workload = Workload::new();
    for status in [0, 1, 7, 255] {
        assert_eq!(workload.run(&["exit", &status.to_string()]).status.code(), Some(status));
    }
}

#[test]
fn cpu_computes_a_known_checksum() {
    let workload = Workload::new();
    // The same recurrence, written again.
    let expected = |rounds: u64| {
        let (mut state, mut sum) = (0x9e37_79b9_7f4a_7c15u64, 0u64);
        for _ in 0..rounds {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            sum = sum.wrapping_add(state.wrapping_mul(0x2545_f491_4f6c_dd1d));
        }
        format!("{sum:016x}")
    };
    for rounds in [0, 1, 2, 100_000] {
        let report = workload.report(&["cpu", &rounds.to_string()]);
        assert_eq!(report["checksum"].as_str().unwrap(), expected(rounds));
        assert_eq!(report["rounds"].as_u64().unwrap(), rounds);
        assert!(report["ns"].is_u64());
        // Nearly all of it, unless others have the processor; more by what reading the clocks takes.
        assert!(report["cpu_ns"].as_u64().unwrap() > 0);
    }
}

#[test]
fn memory_reads_back_what_it_wrote() {
    let workload = Workload::new();
    let first = workload.report(&["memory", "3"]);
    assert_eq!(first["mebibytes"], 3);
    assert_eq!(first["checksum"], workload.report(&["memory", "3"])["checksum"]);
    assert_ne!(first["checksum"], workload.report(&["memory", "4"])["checksum"]);
    assert_eq!(workload.report(&["memory", "0"])["checksum"], "0000000000000000");
    // More than any address space holds, in bytes and even in a number of bytes.
    for mebibytes in ["200000000000", "18446744073709551615"] {
        let output = workload.run(&["memory", mebibytes]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(mebibytes),
            "{output:?}"
        );
    }
}

#[test]
fn syscalls_counts_what_it_was_told() {
    let workload = Workload::new();
    for count in [0, 1, 1000] {
        let report = workload.report(&["syscalls", &count.to_string()]);
        assert_eq!(report["count"], count);
        assert!(report["ns_each"].is_number());
    }
}

#[test]
fn whoami_sees_this_machine() {
    let report = Workload::new().report(&["whoami"]);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(report["system"], "Linux");
    assert_eq!(report["kernel_release"], release.trim());
    assert_eq!(report["hostname"], hostname.trim());
    assert_eq!(report["ppid"], std::process::id());
    assert!(report["pid"].as_u64().unwrap() > 1);
    assert_eq!(report["cpus"], std::thread::available_parallelism().unwrap().get());
    assert!(report["total_memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(
        report["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name.as_str().unwrap().starts_with("pid:["))
    );
    let mounts = report["mounts"].as_array().unwrap();
    assert!(
        mounts
            .iter()
            .any(|mount| mount["point"] == "/proc" && mount["kind"] == "proc"),
        "{mounts:?}"
    );
}

#[test]
fn disk_writes_the_blocks_it_says_and_reads_past_the_cache() {
    let workload = Workload::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    let path = file.to_str().unwrap();
    // No operation: the file is made, and only that.
    let first = workload.run(&["disk", "write", "0", path]);
    assert!(first.status.success(), "{first:?}");
    let before = fs::read(&file).unwrap();
    assert_eq!(before.len(), 16 << 20);
    let report = workload.report(&["disk", "write", "9", path]);
    assert_eq!((&report["count"], &report["block_bytes"]), (&9.into(), &4096.into()));
    let after = fs::read(&file).unwrap();
    let mut changed: Vec<u8> = Vec::new();
    for (old, new) in before.chunks(4096).zip(after.chunks(4096)) {
        if old != new {
            assert!(new.iter().all(|byte| *byte == new[0]));
            changed.push(new[0]);
        }
    }
    changed.sort_unstable();
    assert_eq!(changed, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    // As many as there are, each once; more different ones there are not.
    assert_eq!(workload.run(&["disk", "write", "4097", path]).status.code(), Some(1));

    let read = workload.run(&["disk", "read", "64", path]);
    if String::from_utf8_lossy(&read.stderr).contains("O_DIRECT") {
        return println!("skipped: the temporary files' file system knows no O_DIRECT");
    }
    let report: Value = serde_json::from_slice(&read.stdout).unwrap();
    assert_eq!(report["lesson"], "disk read");
    assert_eq!(fs::read(&file).unwrap(), after);
}

#[test]
fn net_sends_what_it_says() {
    let workload = Workload::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peer = std::thread::spawn(move || {
        let (mut echo, _) = listener.accept().unwrap();
        let mut bytes = 0;
        let mut byte = [0];
        while echo.read(&mut byte).unwrap() == 1 {
            bytes += 1;
            // The first says what is wanted.
            match bytes {
                1 => assert_eq!(byte, [b'e']),
                _ => echo.write_all(&byte).unwrap(),
            }
        }
        let (mut sink, _) = listener.accept().unwrap();
        sink.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [b's']);
        let mut lengths = Vec::new();
        let mut length = [0; 8];
        while sink.read_exact(&mut length).is_ok() {
            lengths.push(u64::from_le_bytes(length));
            let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
            sink.read_exact(&mut bytes).unwrap();
            sink.write_all(&[1]).unwrap();
        }
        (bytes, lengths)
    });
    assert_eq!(workload.report(&["net", "request", "10", &address])["count"], 10);
    assert_eq!(workload.report(&["net", "stream", "2", &address])["mebibytes"], 2);
    // What is wanted, 16 to warm up, 10 that count; 1 MiB to warm up, 2 that count.
    assert_eq!(peer.join().unwrap(), (27, vec![1 << 20, 2 << 20]));
    for wrong in ["nowhere", "127.0.0.1"] {
        assert_eq!(workload.run(&["net", "request", "1", wrong]).status.code(), Some(1));
    }
    // Nobody listens there any more.
    let refused = workload.run(&["net", "stream", "1", &address]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("refused"),
        "{refused:?}"
    );
}

#[test]
fn crash_dies_of_sigsegv() {
    assert_eq!(Workload::new().run(&["crash"]).status.signal(), Some(11));
}

#[test]
fn forks_counts_its_copies_and_leaves_none() {
    let workload = Workload::new();
    for most in [0, 1, 7] {
        let report = workload.report(&["forks", &most.to_string()]);
        assert_eq!(
            (report["made"].as_u64(), report["most"].as_u64()),
            (Some(most), Some(most))
        );
        assert!(report["stopped_by"].is_null(), "{report}");
    }
    // More than any machine has process numbers for is more than there is memory to remember.
    let output = workload.run(&["forks", "9223372036854775807"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn doors_tells_an_answer_for_each_and_the_host_lives() {
    let report = Workload::new().report(&["doors"]);
    let doors = report["doors"].as_array().unwrap();
    let names: Vec<&str> = doors.iter().map(|door| door["door"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"/proc/sysrq-trigger") && names.contains(&"reboot"),
        "{names:?}"
    );
    for door in doors {
        let answer = door["answer"].as_str().unwrap();
        assert!(
            answer == "open" || answer.starts_with('E') || answer.starts_with("errno"),
            "{door}"
        );
    }
}

#[test]
fn panic_tries_nothing_on_a_kernel_that_is_no_guests() {
    assert!(
        !PathBuf::from("/.lab/command").exists(),
        "this machine is a guest of the lab's"
    );
    let output = Workload::new().run(&["panic"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("nothing was tried"),
        "{output:?}"
    );
}

#[test]
fn idle_says_so_and_waits() {
    let workload = Workload::new();
    let mut child = Command::new(workload.path())
        .arg("idle")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"idle\n");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn wrong_usage_is_status_two_and_names_the_lessons() {
    let workload = Workload::new();
    for words in [
        &[][..],
        &["nothing"],
        &["hello", "twice"],
        &["cpu", "many"],
        &["exit", "-1"],
        &["memory", "1", "2"],
        &["disk", "erase", "1", "file"],
    ] {
        let output = workload.run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        for lesson in [
            "hello", "whoami", "cpu", "memory", "syscalls", "disk", "net", "idle", "exit", "crash", "forks", "doors",
            "panic",
        ] {
            assert!(text.contains(lesson), "{words:?}: {text}");
        }
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_not_silence() {
    let workload = Workload::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = Command::new(workload.path())
        .arg("hello")
        .stdout(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
