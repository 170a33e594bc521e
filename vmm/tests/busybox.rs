//! Programs nobody here wrote, unchanged: busybox in a guest prints what busybox on the host prints, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use support::{Rootfs, compile, kvm, skipped};

const BUSYBOX: &str = "/bin/busybox";
/// A command busybox does not have, to compare how it says so.
const NO_APPLET: &str = "yes-no-such-applet";

/// A file system with busybox and some files to work on; None, aloud, where that cannot be.
fn rootfs() -> Option<Rootfs> {
    if !kvm() {
        return None;
    }
    let static_busybox = fs::read(BUSYBOX).ok().filter(|file| {
        // A dynamically linked one names its interpreter.
        !file.windows(9).any(|window| window == b"/ld-linux")
    });
    let Some(busybox) = static_busybox else {
        skipped("there is no static /bin/busybox (Debian: busybox-static)");
        return None;
    };
    let words = "pear\napple\nfig\napple\ncherry\n10\n9\n2\n";
    let lines: String = (1..=5000).map(|i| format!("line {i} of many\n")).collect();
    // Every byte value, and lengths around a page.
    let all_bytes: Vec<u8> = (0..4097u32).map(|i| (i.wrapping_mul(167) >> 3) as u8).collect();
    Some(
        Rootfs::new()
            .program("bin/busybox", &busybox)
            .file("words", words)
            .file("lines", lines)
            .file("bytes", all_bytes)
            .file("empty", "")
            .file(".hidden", "h\n")
            .file("table", "ann:3:red\nbob:1:blue\ncy:2:red\n")
            .file("dir/sub/deep", "deep\n")
            .file("dir/one", "1\n")
            .file("dir/two", "2\n")
            .link("link", "dir/one")
            .link("dangling", "nowhere")
            .directory("hollow"),
    )
}

/// Runs each command line in a guest and on the host. Words are separated by spaces, `'` quotes.
fn same(rootfs: &Rootfs, commands: &[&str]) {
    for command in commands {
        same_with(rootfs, command, b"");
    }
}

fn same_with(rootfs: &Rootfs, command: &str, stdin: &[u8]) {
    let mut words = vec![BUSYBOX];
    // Odd pieces stand between quotes.
    for (i, piece) in command.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(piece);
        } else {
            words.extend(piece.split_whitespace());
        }
    }
    let host = rootfs.run_on_host(&words, stdin);
    if host.stderr.contains("applet not found") && command != NO_APPLET {
        // Two missing applets would agree and prove nothing.
        skipped(&format!("this busybox has no {}", words[1]));
        return;
    }
    rootfs.same(&words, stdin);
}

#[test]
fn printing() {
    let Some(rootfs) = rootfs() else { return };
    same(
        &rootfs,
        &[
            "echo hello world",
            "echo -n 'no newline'",
            "echo -e 'tab\\there\\x41'",
            "echo 'two  spaces' '' 'a \"quoted\" word' 'back\\slash'",
            "printf '%d %5.2f %s|%-6s|%x\\n' 42 3.14159 text left 255",
            "printf '%s\\n' a b c",
            "seq 10",
            "seq 5 -2 -5",
            "seq -w 8 11",
            "seq 1 3000",
            NO_APPLET,
            "date -u -d @0 '+%F %T %s %j %u'",
            "date -u -d @1700000000 +%c",
            "cal 2 2024",
            "true",
            "false",
            "expr 6 '*' 7",
            "expr length abcdef",
            "expr 1 / 0",
            "test -f words",
            "test -d words",
            "test -L link",
            "test -e dangling",
            "basename /a/b/c.txt .txt",
            "dirname /a/b/c.txt",
            "factor 5040 97",
        ],
    );
}

#[test]
fn reading_files() {
    let Some(rootfs) = rootfs() else { return };
    same(
        &rootfs,
        &[
            "cat words",
            "cat words lines dir/one",
            "cat link dir/sub/../sub/./deep",
            "cat bytes",
            "cat empty",
            "cat missing",
            "cat words missing dir/one",
            "cat dir",
            "cat dangling",
            "cat words/below",
            "head -n 3 lines",
            "head -c 17 bytes",
            "tail -n 2 lines",
            "tail -c 100 bytes",
            "tail -n +4998 lines",
            "od -c words",
            "od -A x -t x1 bytes",
            "hexdump -C bytes",
            "xxd words",
            "strings -n 5 words",
            "wc words lines bytes empty",
            "wc -l lines",
            "sha256sum words bytes lines empty",
            "md5sum bytes",
            "sha512sum bin/busybox",
            "sha256sum bin/busybox",
            "cmp words lines",
            "cmp words words",
            "diff words table",
            "base64 bytes",
            "stat -c '%n %s %F %a' words bytes bin/busybox",
            "readlink link",
            "readlink words",
        ],
    );
}

#[test]
fn standard_input() {
    let Some(rootfs) = rootfs() else { return };
    let large: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    same_with(&rootfs, "cat", b"typed\n");
    same_with(&rootfs, "cat - words", b"first\n");
    same_with(&rootfs, "cat", b"");
    same_with(&rootfs, "cat", &large);
    same_with(&rootfs, "sha256sum", &large);
    same_with(&rootfs, "wc -c", &large);
    same_with(&rootfs, "tr a-z A-Z", b"shout\n");
    same_with(&rootfs, "sort -n", b"10\n9\n-3\n");
    same_with(&rootfs, "sed s/a/b/g", b"banana\n");
    same_with(&rootfs, "sh", b"x=3\necho $((x * 7))\nexit 5\n");
    same_with(
        &rootfs,
        "sh -c 'while read a b; do echo \"$b $a\"; done'",
        b"one two\nthree four\n",
    );
}

#[test]
fn text_tools() {
    let Some(rootfs) = rootfs() else { return };
    same(
        &rootfs,
        &[
            "sort words",
            "sort -n words",
            "sort -r words",
            "sort -u words",
            "sort -t : -k 2 -n table",
            "uniq -c words",
            "cut -d : -f 1,3 table",
            "cut -c 2-4 words",
            "grep -n ap words",
            "grep -c . lines",
            "grep -E '^line [0-9]{2} ' lines",
            "grep -v e words",
            "grep nothing words",
            "grep -r deep dir",
            "sed -n 2,4p words",
            "sed -e 's/\\(.*\\)/<\\1>/' words",
            "awk '{ n += length($0) } END { print n, NR }' words",
            "awk -F : '$2 > 1 { printf \"%s=%d\\n\", $1, $2 * 1.5 }' table",
            "awk 'BEGIN { for (i = 0; i < 5; i++) print i, sin(i), 2 ^ i }'",
            "rev words",
            "tac words",
            "nl words",
            "fold -w 3 words",
            "paste words table",
            "expand words",
            "dd if=lines bs=100 count=2 skip=1 status=none",
            "bc -v",
        ],
    );
}

#[test]
fn directories() {
    let Some(rootfs) = rootfs() else { return };
    same(
        &rootfs,
        &[
            "ls",
            "ls -1",
            "ls -a",
            "ls -A dir",
            "ls -R",
            "ls -1p",
            "ls missing",
            "ls -d dir",
            "ls hollow",
            "ls words dir",
        ],
    );
    // An archive is in sorted order, a directory of the host in any: compare the sets.
    for words in [
        &["find", "."][..],
        &["find", "dir", "-type", "f"],
        &["find", ".", "-name", "*e*"],
        &["find", ".", "-type", "l"],
    ] {
        let words: Vec<&str> = [BUSYBOX].iter().chain(words).copied().collect();
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let guest = rootfs.run(&words);
        let host = rootfs.run_on_host(&words, b"");
        assert_eq!(sorted(guest.text()), sorted(host.text()), "{words:?}");
        assert_eq!(guest.status, host.status, "{words:?}");
    }
}

#[test]
fn shell_without_children() {
    let Some(rootfs) = rootfs() else { return };
    same(
        &rootfs,
        &[
            "sh -c 'echo $((6 * 7)) $((2 ** 10)) $((7 / 2)) $((-7 % 3)) $((1 << 40)) $((0xff & 0x0f))'",
            "sh -c 'for i in 1 2 3; do printf \"%s;\" $i; done; echo'",
            "sh -c 'f() { echo \"$1-$#\"; return 3; }; f a b; echo $?'",
            "sh -c 'case abc in a*) echo starts;; *) echo no;; esac'",
            "sh -c 'set -- x y z; shift; echo $@ $#'",
            "sh -c 'cd dir && echo *'",
            "sh -c 'v=path/to/file.txt; echo ${v##*/} ${v%.txt} ${#v}'",
            "sh -c 'read line < words; echo $line'",
            "sh -c 'while read line; do echo \"[$line]\"; done < words'",
            "sh -c '[ -f words ] && [ ! -f nothing ] && echo both'",
            "sh -c 'exit 7'",
            "sh -c 'echo err >&2; exit 1'",
            "sh -c 'echo swallowed > /dev/null; echo kept'",
            "sh -c 'echo \"$0\" \"$1\"' zero one",
            "sh -c 'trap \"echo bye\" EXIT; echo hi'",
        ],
    );
}

#[test]
fn the_environment_is_linux_own_for_a_first_process() {
    let Some(rootfs) = rootfs() else { return };
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let guest = rootfs.run(&[BUSYBOX, "env"]);
    let host = rootfs.run_on_host(&[BUSYBOX, "env"], b"");
    assert_eq!(sorted(guest.text()), sorted(host.text()));
    let guest = rootfs.run_with(
        &["--cmdline", "COLOUR=blue"],
        &[BUSYBOX, "sh", "-c", "echo $COLOUR"],
        b"",
    );
    assert_eq!((guest.text().as_str(), guest.status), ("blue\n", 0), "{guest:?}");
}

#[test]
fn uname_names_the_lab_kernel() {
    let Some(rootfs) = rootfs() else { return };
    for (field, want) in [("-s", "Linux\n"), ("-n", "lab-guest\n"), ("-m", "x86_64\n")] {
        assert_eq!(rootfs.run(&[BUSYBOX, "uname", field]).text(), want);
    }
    let release = rootfs.run(&[BUSYBOX, "uname", "-r"]).text();
    assert!(release.ends_with("-lab\n"), "{release}");
    assert_eq!(rootfs.run(&[BUSYBOX, "hostname"]).text(), "lab-guest\n");
    assert_eq!(rootfs.run(&[BUSYBOX, "nproc"]).text(), "1\n");
    assert_eq!(rootfs.run(&[BUSYBOX, "id", "-u"]).text(), "0\n");
    assert_eq!(rootfs.run(&[BUSYBOX, "pwd"]).text(), "/\n");
}

#[test]
fn what_the_guest_lacks_is_an_error_of_the_program_and_not_of_the_machine() {
    let Some(rootfs) = rootfs() else { return };
    for words in [
        &[BUSYBOX, "sh", "-c", "/bin/busybox true"][..],
        &[BUSYBOX, "touch", "new"],
        &[BUSYBOX, "mkdir", "new"],
        &[BUSYBOX, "rm", "words"],
        &[BUSYBOX, "mount", "-t", "proc", "proc", "/hollow"],
        &[BUSYBOX, "wget", "http://127.0.0.1/"],
        &[BUSYBOX, "sh", "-c", "echo x > words"],
    ] {
        let ran = rootfs.run(words);
        assert!(ran.status != 0, "{words:?}: {ran:?}");
        assert!(
            !ran.stderr.is_empty() && !ran.stderr.contains("lab kernel"),
            "{words:?}: {ran:?}"
        );
    }
}

#[test]
fn every_way_to_link_a_static_program() {
    if !kvm() {
        return;
    }
    // glibc at a fixed address, glibc position-independent, and musl: the workload.
    for flags in [&["-static"][..], &["-static-pie", "-fPIE"], &["-static", "-O3"]] {
        let Some(program) = compile("greet", flags) else { return };
        let rootfs = Rootfs::new().program("bin/greet", &program);
        let words = ["/bin/greet", "a", "b c", ""];
        rootfs.same(&words, b"from standard input\n");
    }
    let rootfs = Rootfs::new().program("bin/workload", guest_images::WORKLOAD);
    rootfs.same(&["/bin/workload", "hello"], b"");
    rootfs.same(&["/bin/workload", "exit", "9"], b"");
}
