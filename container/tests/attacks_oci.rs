//! The ways out of a container that an engine makes: `container-oci`, by configurations and images made to lead astray.
//!
//! As an engine's default has it, the container's root is the host's: no user namespace stands in between.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::attacks::{LEAKED, facts, lead_to_the_launcher, leak, lend_a_key, tell_of_the_key};
use common::{end_with_the_test, text};
use serde_json::{Value, json};
use tempfile::TempDir;

const RUNTIME: &str = env!("CARGO_BIN_EXE_container-oci");

/// A bundle, the state beside it, and something on the host to be found or changed.
struct Attack {
    directory: TempDir,
    config: Value,
}

impl Attack {
    /// `None` where there is nothing to make an image of.
    fn prepare(program: &[&str]) -> Option<Attack> {
        let image = common::image().map_err(|reason| eprintln!("skipped: {reason}")).ok()?;
        let directory = common::open_directory();
        let bait = directory.path().join("bait");
        let rootfs = directory.path().join("rootfs");
        for path in [
            &bait,
            &rootfs,
            &rootfs.join("bin"),
            &rootfs.join("dev"),
            &rootfs.join("etc"),
        ] {
            fs::create_dir(path).unwrap();
        }
        fs::write(bait.join("secret"), "hush").unwrap();
        fs::set_permissions(bait.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        common::copy(image.join("bin/busybox").to_str().unwrap(), &rootfs.join("bin/busybox"));
        common::copy(image.join("bin/busybox").to_str().unwrap(), &bait.join("busybox"));
        for applet in ["sh", "ls", "cat", "sleep", "echo", "id", "touch"] {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": { "user": { "uid": 0, "gid": 0 }, "args": program, "env": ["PATH=/bin"], "cwd": "/" },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": namespaces },
        });
        Some(Attack { directory, config })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, runtime: &Path) -> Command {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(runtime);
        command.arg("--root").arg(self.path("state")).stdin(Stdio::null());
        end_with_the_test(&mut command);
        command
    }

    /// `run`, with the bait left open as [`LEAKED`].
    fn run(&self) -> Output {
        let mut command = self.command(Path::new(RUNTIME));
        command
            .arg("run")
            .arg("--bundle")
            .arg(self.directory.path())
            .arg(self.id("run"));
        leak(&mut command, &self.path("bait"));
        command.output().unwrap()
    }

    fn id(&self, name: &str) -> String {
        format!("{name}{}", self.directory.path().file_name().unwrap().to_string_lossy())
    }

    /// What is in the bait, which nobody inside is to change.
    fn assert_bait_untouched(&self, what: &str, output: &Output) {
        let mut names: Vec<_> = fs::read_dir(self.path("bait"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["busybox", "secret"], "{what}: {output:?}");
        let secret = fs::metadata(self.path("bait/secret")).unwrap();
        assert_eq!(secret.mode() & 0o7777, 0o600, "{what}: {output:?}");
        assert!(
            !String::from_utf8_lossy(&output.stdout).contains("hush"),
            "{what}: {output:?}"
        );
    }
}

/// CVE-2024-21626, in its three forms.
#[test]
fn a_descriptor_is_no_working_directory_and_no_programs_directory() {
    root_or_skip!();
    let Some(mut attack) = Attack::prepare(&["sh", "-c", "ls /proc/self/fd"]) else {
        return;
    };
    let output = attack.run();
    assert_eq!(
        text(&output).lines().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "3 is the listing itself"
    );
    attack.config["process"]["args"] = json!(["cat", "secret", "../bait/secret"]);
    for fd in 3..24 {
        attack.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        let output = attack.run();
        assert!(!output.status.success(), "{fd}: {output:?}");
        attack.assert_bait_untouched("cwd", &output);
    }
    // A directory that is missing is made: not on the host.
    attack.config["process"]["cwd"] = json!(format!("/proc/self/fd/{LEAKED}/made"));
    let output = attack.run();
    assert!(!output.status.success(), "{output:?}");
    attack.assert_bait_untouched("cwd to be made", &output);
    // A program of the host's, whose file could then be overwritten from inside.
    attack.config["process"]["cwd"] = json!("/");
    attack.config["process"]["args"] = json!([
        format!("/proc/self/fd/{LEAKED}/busybox"),
        "echo",
        "a program of the host"
    ]);
    let output = attack.run();
    assert!(!output.status.success(), "{output:?}");
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("of the host"),
        "{output:?}"
    );
}

/// A container that runs, with what `exec` says in it.
fn exec_in_container(
    attack: &Attack,
    runtime: &Path,
    attempts: &[&[&str]],
    prepare: impl Fn(&mut Command),
) -> Vec<Output> {
    let id = attack.id("exec");
    let mut command = attack.command(runtime);
    command.arg("run").arg("--bundle").arg(attack.directory.path()).arg(&id);
    let mut container = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(container.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    let run = |arguments: &&[&str]| {
        let (options, program) = arguments.split_at(arguments.iter().position(|word| *word == "--").unwrap());
        let mut command = attack.command(runtime);
        command.arg("exec").args(options).arg(&id).args(&program[1..]);
        leak(&mut command, &attack.path("bait"));
        prepare(&mut command);
        command.output().unwrap()
    };
    let outputs = attempts.iter().map(run).collect();
    let mut delete = attack.command(runtime);
    assert!(delete.args(["delete", "--force", &id]).status().unwrap().success());
    container.wait().unwrap();
    outputs
}

#[test]
fn exec_brings_no_descriptor_in() {
    root_or_skip!();
    let Some(attack) = Attack::prepare(&["sh", "-c", "echo up; exec sleep 1000"]) else {
        return;
    };
    let cwds: Vec<String> = (3..24).map(|fd| format!("/proc/self/fd/{fd}")).collect();
    let made = format!("/proc/self/fd/{LEAKED}/made");
    let program = format!("/proc/self/fd/{LEAKED}/busybox");
    let mut attempts: Vec<Vec<&str>> = cwds
        .iter()
        .chain([&made])
        .map(|cwd| vec!["--cwd", cwd, "--", "cat", "secret", "../bait/secret"])
        .collect();
    attempts.push(vec!["--", &program, "echo", "hush"]);
    let attempts: Vec<&[&str]> = attempts.iter().map(Vec::as_slice).collect();
    for (attempt, output) in attempts
        .iter()
        .zip(exec_in_container(&attack, Path::new(RUNTIME), &attempts, |_| {}))
    {
        assert!(!output.status.success(), "{attempt:?}: {output:?}");
        attack.assert_bait_untouched("exec", &output);
    }
    let list: &[&str] = &["--", "ls", "/proc/self/fd"];
    let output = exec_in_container(&attack, Path::new(RUNTIME), &[list], |_| {}).remove(0);
    assert_eq!(
        text(&output).lines().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "3 is the listing itself"
    );
}

/// Keyrings are not namespaced: whoever runs `exec` must not lend his.
#[test]
fn exec_does_not_lend_the_callers_keys() {
    root_or_skip!();
    let image = image_or_skip!();
    let Some(attack) = Attack::prepare(&["sh", "-c", "echo up; exec sleep 1000"]) else {
        return;
    };
    fs::create_dir(attack.path("rootfs/lib")).unwrap();
    for entry in fs::read_dir(image.join("lib")).unwrap() {
        let entry = entry.unwrap();
        common::copy(
            entry.path().to_str().unwrap(),
            &attack.path("rootfs/lib").join(entry.file_name()),
        );
    }
    common::copy(
        image.join("bin/probe").to_str().unwrap(),
        &attack.path("rootfs/bin/probe"),
    );
    let probe = [
        "/lib/loader",
        "--library-path",
        "/lib",
        "/bin/probe",
        "--exact",
        "read_a_key",
        "--ignored",
        "--nocapture",
    ];
    // The control: a plain child has it.
    let mut plain = Command::new("/proc/self/exe");
    lend_a_key(plain.args(["--exact", "read_a_key", "--ignored", "--nocapture"]));
    match plain.output() {
        Ok(output) => assert!(text(&output).contains("probe: key hush"), "{output:?}"),
        Err(error) => {
            println!("no keyrings here: {error}");
            return;
        }
    }
    let attempt: Vec<&str> = ["--"].into_iter().chain(probe).collect();
    let output = exec_in_container(&attack, Path::new(RUNTIME), &[&attempt], lend_a_key).remove(0);
    let said = text(&output);
    assert!(said.contains("probe: key E") && !said.contains("hush"), "{said}");
}

#[test]
#[ignore = "is run inside and outside of a container by the test above"]
fn read_a_key() {
    tell_of_the_key();
}

/// Mount points, devices and volumes whose path in the image is a link to the host (CVE-2019-19921, CVE-2021-30465).
#[test]
fn links_in_the_image_lead_no_mount_and_no_device_to_the_host() {
    root_or_skip!();
    let Some(mut attack) = Attack::prepare(&["sh", "-c", "cat /volume/secret /link/secret /proc/1/root/bait/secret"])
    else {
        return;
    };
    let bait = attack.path("bait").to_str().unwrap().to_owned();
    let mounts = attack.config["mounts"].clone();
    fs::create_dir(attack.path("volume")).unwrap();
    let volume = attack.path("volume").to_str().unwrap().to_owned();
    for target in [
        bait.clone(),
        format!("../../../../../../../..{bait}"),
        format!("/proc/self/root{bait}"),
        format!("/proc/self/cwd{bait}"),
    ] {
        symlink(&target, attack.path("rootfs/link")).unwrap();
        for mount in [
            json!({ "destination": "/link", "type": "bind", "source": volume, "options": ["bind", "rw"] }),
            json!({ "destination": "/link/below/it", "type": "bind", "source": volume, "options": ["bind", "rw"] }),
            json!({ "destination": "/link/file", "type": "bind", "source": "/dev/null", "options": ["bind", "rw"] }),
            json!({ "destination": "/link/tmpfs", "type": "tmpfs", "source": "tmpfs" }),
            json!({ "destination": "/link", "type": "proc", "source": "proc" }),
        ] {
            attack.config["mounts"] = mounts.clone();
            attack.config["mounts"].as_array_mut().unwrap().push(mount.clone());
            let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
            let output = attack.run();
            attack.assert_bait_untouched(&format!("{target} {mount}"), &output);
            assert_eq!(
                fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
                before,
                "{mount}"
            );
        }
        // A device's place: whatever is done to the device must not be done to what the link means outside.
        attack.config["mounts"] = mounts.clone();
        let devices =
            json!([{ "path": "/link/node", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0 }]);
        attack.config["linux"]["devices"] = devices;
        let output = attack.run();
        attack.assert_bait_untouched(&format!("device at {target}"), &output);
        attack.config["linux"].as_object_mut().unwrap().remove("devices");
        fs::remove_file(attack.path("rootfs/link")).unwrap();
    }
}

/// A link in /dev to a path at which the image has the very device, and the host a file of its own: the mode that the
/// device is to have is not that file's.
#[test]
fn a_device_behind_a_link_does_not_open_a_file_of_the_host() {
    root_or_skip!();
    let Some(attack) = Attack::prepare(&["sh", "-c", "echo up"]) else {
        return;
    };
    let secret = attack.path("bait/secret");
    let inside = attack.path("rootfs").join(secret.strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    let node = std::ffi::CString::new(inside.to_str().unwrap()).unwrap();
    // SAFETY: the path is NUL-terminated.
    let made = unsafe { libc::mknod(node.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 3)) };
    assert_eq!(made, 0);
    symlink(&secret, attack.path("rootfs/dev/null")).unwrap();
    let output = attack.run();
    attack.assert_bait_untouched("/dev/null", &output);
}

#[test]
fn a_sysctl_stays_in_its_namespace() {
    root_or_skip!();
    let Some(mut attack) = Attack::prepare(&["sh", "-c", "echo up"]) else {
        return;
    };
    let path = attack.path("bait/secret");
    let up = format!("net/../../..{}", path.display());
    for key in [
        "kernel.core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        &up,
        "net.ipv4.ip_forward/../../../kernel/sysrq",
    ] {
        attack.config["linux"]["sysctl"] = json!({ key: "attacked" });
        let output = attack.run();
        assert!(!output.status.success(), "{key}: {output:?}");
        attack.assert_bait_untouched(key, &output);
        assert_eq!(fs::read_to_string(&path).unwrap(), "hush", "{key}");
    }
    assert!(
        !fs::read_to_string("/proc/sys/kernel/core_pattern")
            .unwrap()
            .contains("attacked")
    );
}

/// CVE-2019-5736.
#[test]
fn the_runtimes_own_file_cannot_be_changed_from_inside() {
    root_or_skip!();
    let Some(mut attack) = Attack::prepare(&["script"]) else {
        return;
    };
    let attacker = attack.path("attacker");
    common::compile_overwriter(&attacker);
    let runtime = attack.path("runtime");
    common::copy(RUNTIME, &runtime);
    let bin = attack.path("rootfs/bin");
    lead_to_the_launcher(&bin);
    fs::create_dir(attack.path("rootfs/lib64")).unwrap();
    common::copy(
        attacker.to_str().unwrap(),
        &attack.path("rootfs/lib64/ld-linux-x86-64.so.2"),
    );
    let before = facts(&runtime);
    let assert_unchanged = |what: &str, output: &Output| assert_eq!(before, facts(&runtime), "{what}: {output:?}");
    for program in ["script", "link", "/proc/self/exe"] {
        attack.config["process"]["args"] = json!([program]);
        let mut command = attack.command(&runtime);
        let output = command
            .arg("run")
            .arg("--bundle")
            .arg(attack.directory.path())
            .arg(attack.id("own"))
            .output()
            .unwrap();
        assert_unchanged(program, &output);
    }
    attack.config["process"]["args"] = json!(["sh", "-c", "echo up; exec sleep 1000"]);
    let attempts: [&[&str]; 3] = [&["--", "script"], &["--", "link"], &["--", "/proc/self/exe"]];
    for (attempt, output) in attempts
        .iter()
        .zip(exec_in_container(&attack, &runtime, &attempts, |_| {}))
    {
        assert_unchanged(&format!("exec {attempt:?}"), &output);
    }
}
