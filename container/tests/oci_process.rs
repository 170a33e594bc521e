//! The program runs as config.json describes it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use oci_common::succeed;
use serde_json::json;

/// A number for `file` that no test's number is: to be copied from, since a descriptor copied to itself keeps closing at
/// exec. It closes with the test.
fn beyond(file: &fs::File) -> i32 {
    // SAFETY: takes numbers only.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100) }
}

#[test]
fn ids_groups_directory_variables_and_umask() {
    let mut bundle = bundle_or_skip!("id -u; id -g; id -G; pwd; echo $GREETING $HOME; umask");
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27});
    bundle.config["process"]["cwd"] = json!("/made/on/the/way");
    bundle.config["process"]["env"] = json!(["PATH=/bin", "GREETING=hello"]);
    assert_eq!(
        bundle.run(),
        "1000\n1001\n1001 5 7\n/made/on/the/way\nhello /home/user\n0027"
    );
}

#[test]
fn limits_score_and_new_privileges() {
    let mut bundle =
        bundle_or_skip!("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status");
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    assert_eq!(bundle.run(), "100\n200\n500\nNoNewPrivs:\t1");
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    assert!(bundle.run().ends_with("NoNewPrivs:\t0"));
}

#[test]
fn each_set_of_capabilities_is_as_described() {
    let mut bundle = bundle_or_skip!("grep Cap /proc/self/status");
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let chown_kill = json!(["CAP_CHOWN", "CAP_KILL"]);
    bundle.config["process"]["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"], "effective": chown_kill, "permitted": chown_kill,
        "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
    });
    // What a program of another user's than root keeps over execve is what is ambient.
    let kill = format!("{:016x}", 1 << 5);
    let bounding = format!("{:016x}", 1 | 1 << 5 | 1 << 7);
    let expected = format!("CapInh:\t{kill}\nCapPrm:\t{kill}\nCapEff:\t{kill}\nCapBnd:\t{bounding}\nCapAmb:\t{kill}");
    assert_eq!(bundle.run(), expected);
    bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0});
    bundle.config["process"]["capabilities"] = json!({});
    assert!(bundle.run().contains("CapBnd:\t0000000000000000"));
}

#[test]
fn the_terminals_master_goes_to_the_console_socket() {
    let mut bundle = bundle_or_skip!("tty; stty size; test -c /dev/console && echo console; read line; echo got $line");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    let without = bundle.on_bundle(&["create"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&without.stderr).contains("--console-socket"),
        "{without:?}"
    );
    let path = bundle.path("console");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut create = bundle.on_bundle(&["create", "--console-socket", path.to_str().unwrap()]);
    succeed(create.stdout(Stdio::null()));
    let (stream, _) = listener.accept().unwrap();
    let (_, mut descriptors) = container::oci::line::receive(&stream.into(), &mut [0; 64]).unwrap();
    let mut master = fs::File::from(descriptors.pop().unwrap());
    bundle.command(&["start"]);
    master.write_all(b"word\n").unwrap();
    let mut said = String::new();
    let mut buffer = [0; 1024];
    // EIO is how a terminal's end is told.
    while let Ok(length @ 1..) = std::io::Read::read(&mut master, &mut buffer) {
        said.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    let words: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && *line != "word")
        .collect();
    assert_eq!(words, ["/dev/pts/0", "33 77", "console", "got word"]);
}

#[test]
fn descriptors_are_passed_on_when_asked_for_and_never_else() {
    let bundle = bundle_or_skip!("cat <&3; ls /proc/self/fd | wc -l");
    fs::write(bundle.path("file"), "through descriptor 3\n").unwrap();
    let file = fs::File::open(bundle.path("file")).unwrap();
    let descriptor = beyond(&file);
    let run = |arguments: &[&str]| {
        let mut command = bundle.on_bundle(arguments);
        // SAFETY: dup2(2) is a plain system call, and allowed between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(descriptor, 3) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            })
        };
        command.output().unwrap()
    };
    let passed = run(&["run", "--preserve-fds", "1"]);
    // Standard streams, 3, and the one `ls` reads the directory by.
    assert_eq!(String::from_utf8(passed.stdout).unwrap(), "through descriptor 3\n5\n");
    let kept = run(&["run"]);
    assert!(
        String::from_utf8(kept.stderr)
            .unwrap()
            .contains("bad file descriptor".trim_start())
            || kept.stdout == b"4\n"
    );
}

#[test]
fn a_working_directory_that_leads_out_is_refused() {
    let mut bundle = bundle_or_skip!("pwd; ls ../../../../");
    for descriptor in 3..16 {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{descriptor}"));
        let mut command = bundle.on_bundle(&["run"]);
        let host = fs::File::open("/").unwrap();
        let number = beyond(&host);
        // SAFETY: dup2(2) and fcntl(2) are plain system calls, and allowed between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(number, 9) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            })
        };
        let output = command.output().unwrap();
        assert!(!output.status.success(), "descriptor {descriptor}: {output:?}");
    }
}

#[test]
fn the_runtimes_own_file_is_out_of_reach() {
    // Executes itself, so that its /proc/PID/exe is the runtime's file, and another tries to write through that.
    let mut bundle = bundle_or_skip!("");
    fs::write(bundle.root("bin/again"), "#!/proc/self/exe\n").unwrap();
    succeed(
        std::process::Command::new("chmod")
            .arg("755")
            .arg(bundle.root("bin/again")),
    );
    let before = fs::read(oci_common::RUNTIME).unwrap();
    // Holds the link open until the runtime has ended, since a file cannot be written while it is executed.
    let script = "while :; do for p in /proc/[0-9]*; do case $(stat -Lc %i $p/exe) in INODE)
        (exec 9< $p/exe && sleep 0.3 && { echo overwritten >> /proc/self/fd/9; echo seen >> /tmp/seen; }) 2>>/tmp/refused &
        ;; esac; done; done";
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(oci_common::RUNTIME).unwrap()).to_string();
    bundle.config["process"]["args"] = json!(["sh", "-c", script.replace("INODE", &inode)]);
    let everything: Vec<String> = container::capabilities::NAMES
        .iter()
        .map(|name| format!("CAP_{name}"))
        .collect();
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(everything);
    }
    bundle.start();
    // Tried until it is the read-only mount that refuses: while another test executes the same file, it is busy.
    oci_common::wait_until(|| {
        bundle.runtime(&["exec", &bundle.id, "/bin/again"]).output().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(400));
        let refused = fs::read_to_string(bundle.root("tmp/refused")).unwrap_or_default();
        refused.contains("Read-only file system")
    });
    assert!(!fs::read_to_string(bundle.root("tmp/seen")).unwrap().is_empty());
    assert_eq!(fs::read(oci_common::RUNTIME).unwrap(), before);
}

#[test]
fn a_label_holds_or_is_refused() {
    let mut bundle = bundle_or_skip!("cat /proc/self/attr/current");
    let is_on = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == "Y");
    bundle.config["process"]["apparmorProfile"] = json!("unconfined");
    match is_on("/sys/module/apparmor/parameters/enabled") {
        true => assert!(bundle.run().contains("unconfined")),
        false => {
            let refused = bundle.refusal();
            assert!(
                refused.contains("process.apparmorProfile") && refused.contains("AppArmor is not"),
                "{refused}"
            );
        }
    }
    bundle.config["process"]["apparmorProfile"] = json!("");
    bundle.config["process"]["selinuxLabel"] = json!("system_u:system_r:no_such_t:s0");
    let refused = bundle.refusal();
    assert!(refused.contains("system_u:system_r:no_such_t:s0"), "{refused}");
    bundle.config["process"]["selinuxLabel"] = json!("");
    bundle.config["linux"]["mountLabel"] = json!("system_u:object_r:some_t:s0");
    assert!(bundle.refusal().contains("linux.mountLabel"));
    // Nothing was asked for: nothing is refused.
    bundle.config["linux"]["mountLabel"] = json!("");
    bundle.config["process"]["args"] = json!(["true"]);
    assert_eq!(bundle.run(), "");
    assert!(bundle.is_gone());
}
