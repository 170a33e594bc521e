//! The system calls, group by group: a C program runs on the host and in a guest, and prints the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Rootfs, compile, kvm, rootfs_with};

/// A file system with `/bin/NAME` and files of every kind; None, aloud, where the program cannot be compiled.
fn rootfs(name: &str) -> Option<Rootfs> {
    if !kvm() {
        return None;
    }
    let mut rootfs = rootfs_with(name)?
        .file("words", "pear\napple\nfig\n")
        // A page and a bit, so that the second page of a mapping has an end to show.
        .file("bytes", (0..5000u32).map(|i| ((i * 7) >> 2) as u8).collect::<Vec<_>>())
        .file("dir/one", "1")
        .file("dir/sub/deep", "deep\n")
        .directory("hollow")
        .link("link", "dir/one")
        .link("dirlink", "dir")
        .link("dangling", "nowhere")
        .link("loop-a", "loop-b")
        .link("loop-b", "loop-a");
    for i in 0..40 {
        rootfs = rootfs.file(&format!("many/{}-{i}", "x".repeat(i * 3)), "");
    }
    Some(rootfs)
}

/// Runs `/bin/NAME` on both sides and names the first line that differs: clearer than two pages of output.
fn same_lines(rootfs: &Rootfs, name: &str) {
    let words = [format!("/bin/{name}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (guest, host) = (rootfs.run(&words), rootfs.run_on_host(&words, b""));
    let (guest_text, host_text) = (guest.text(), host.text());
    let differences: Vec<_> = guest_text
        .lines()
        .zip(host_text.lines())
        .filter(|(guest, host)| guest != host)
        .collect();
    assert!(
        differences.is_empty(),
        "guest, host: {differences:#?}\n{}",
        guest.stderr
    );
    assert_eq!(guest_text, host_text);
    assert_eq!((guest.status, host.status), (0, 0), "{guest:?}");
}

#[test]
fn files_and_directories() {
    let Some(rootfs) = rootfs("files") else { return };
    same_lines(&rootfs, "files");
}

/// Shows small disagreements with Linux: pread at a negative offset, a name above 255 bytes, a readlink buffer of no
/// length, an unknown access mode, an unknown limit, and a write of nothing from nowhere.
#[test]
fn corners() {
    let Some(rootfs) = rootfs("edges") else { return };
    same_lines(&rootfs, "edges");
}

#[test]
fn signals_limits_and_identity() {
    let Some(rootfs) = rootfs("process") else { return };
    same_lines(&rootfs, "process");
}

#[test]
fn memory() {
    let Some(rootfs) = rootfs("memory") else { return };
    same_lines(&rootfs, "memory");
}

#[test]
fn what_only_the_lab_kernel_refuses() {
    let Some(rootfs) = rootfs("lab_only") else { return };
    let ran = rootfs.run_with(&["--cmdline", "lab.statistics"], &["/bin/lab_only"], b"");
    let answers: Vec<String> = ran
        .text()
        .lines()
        .map(|line| line.rsplit(" = ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        answers,
        [
            "EROFS",
            "EROFS",
            "EROFS",
            "EEXIST",
            "EROFS",
            "EACCES",
            "EACCES",
            "ENOSYS",
            "ENOSYS",
            "ENOSYS",
            "ENOSYS",
            "pid 1, parent 0, uid 0"
        ],
        "{}",
        ran.text()
    );
    // 500, -1, fork and socket, at least; the C library may have asked for more.
    let unknown = ran.stderr.split(" unknown").next().unwrap().rsplit(' ').next().unwrap();
    assert!(unknown.parse::<u32>().unwrap() >= 4, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("system calls") && ran.stderr.lines().count() == 1,
        "{}",
        ran.stderr
    );
}

#[test]
fn clocks_and_random_numbers_are_the_hosts() {
    let Some(rootfs) = rootfs("clocks") else { return };
    let real = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_nanos() as u64
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let before = (real(), protocol::marks::monotonic_ns());
        let ran = rootfs.run(&["/bin/clocks"]);
        let after = (real(), protocol::marks::monotonic_ns());
        let text = ran.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "0 1 1 -1 1 1 1", "{ran:?}");
        let times: Vec<u64> = lines[1].split(' ').map(|time| time.parse().unwrap()).collect();
        assert!(
            (before.0..=after.0).contains(&times[0]),
            "real time: {before:?} {times:?} {after:?}"
        );
        assert!(
            (before.1..=after.1).contains(&times[1]),
            "monotonic: {before:?} {times:?} {after:?}"
        );
        seen.push(lines[2].to_owned());
    }
    assert_ne!(seen[0], seen[1], "two guests, the same random numbers");
}

#[test]
fn a_program_starts_as_the_abi_says() {
    if !kvm() {
        return;
    }
    for flags in [
        &["-static", "-Wl,-e,first"][..],
        &["-static-pie", "-fPIE", "-Wl,-e,first"],
    ] {
        let Some(program) = compile("start", flags) else { return };
        let rootfs = Rootfs::new().program("bin/start", &program);
        // The number of arguments moves the stack: both parities, and quoting that must survive the command line.
        for arguments in [
            &[][..],
            &["one"],
            &["one", "two"],
            &[
                "a b",
                "",
                "\"",
                "\\",
                "\\\"",
                "tab\there",
                "new\nline",
                "--",
                "-x",
                "rdinit=/bin/other",
            ],
            &["öß€", "'single'", "$HOME", "*", "a=b"],
        ] {
            let words: Vec<&str> = ["/bin/start"].iter().chain(arguments).copied().collect();
            rootfs.same(&words, b"");
        }
        let random: Vec<String> = (0..2).map(|_| rootfs.run(&["/bin/start", "random"]).text()).collect();
        assert_ne!(random[0].lines().last(), random[1].lines().last(), "AT_RANDOM repeats");
    }
}

#[test]
fn as_many_arguments_as_a_command_line_holds() {
    let Some(rootfs) = rootfs("start_count") else { return };
    let many = vec!["x"; 950];
    let words: Vec<&str> = ["/bin/start_count"].iter().chain(&many).copied().collect();
    rootfs.same(&words, b"");
}
