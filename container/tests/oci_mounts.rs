//! Mounts, devices, masks and the root are as config.json describes them, and nothing leads out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

#[test]
fn binds_have_the_options_they_ask_for() {
    let mut bundle = bundle_or_skip!(
        "cat /file /directory/inside; echo x > /directory/made || echo refused; echo y > /writable/made; grep ' /directory ' /proc/self/mountinfo | grep -c nosuid,nodev"
    );
    let host = bundle.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("inside"), "inside ").unwrap();
    fs::write(bundle.path("single"), "single ").unwrap();
    bundle.mount(json!({"destination": "/file", "type": "bind", "source": "single", "options": ["bind", "ro"]}));
    bundle.mount(json!({"destination": "/directory", "source": host, "options": ["rbind", "ro", "nosuid", "nodev"]}));
    bundle.mount(json!({"destination": "/writable", "source": host, "options": ["bind"]}));
    assert_eq!(bundle.run(), "single inside refused\n1");
    assert!(host.join("made").exists());
}

#[test]
fn recursive_options_reach_mounts_beneath() {
    let mut bundle = bundle_or_skip!("echo x > /outer/inner/file || echo refused");
    // A mount beneath the source, made by a container's own mount and shared by none: /dev has some.
    bundle.mount(json!({"destination": "/outer", "type": "bind", "source": "/dev", "options": ["rbind", "rro"]}));
    bundle.config["process"]["args"] = json!(["sh", "-c", "grep ' /outer' /proc/self/mountinfo | grep -vc ' ro,'"]);
    let output = bundle.on_bundle(&["run"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0\n");
}

#[test]
fn a_tmpfs_starts_with_what_it_covers_when_asked_to() {
    let mut bundle =
        bundle_or_skip!("cat /data/sub/file; readlink /data/link; stat -c '%a %u' /data/sub; echo x > /data/new");
    fs::create_dir_all(bundle.root("data/sub")).unwrap();
    fs::write(bundle.root("data/sub/file"), "copied\n").unwrap();
    symlink("sub/file", bundle.root("data/link")).unwrap();
    std::os::unix::fs::chown(bundle.root("data/sub"), Some(1000), Some(1000)).unwrap();
    bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(bundle.run(), "copied\nsub/file\n755 1000");
    assert!(!bundle.root("data/new").exists());
}

#[test]
fn links_in_the_image_lead_mounts_nowhere_but_into_the_image() {
    let mut bundle = bundle_or_skip!("cat /target/file");
    let (victim, source) = (bundle.path("victim"), bundle.path("source"));
    fs::create_dir_all(&victim).unwrap();
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), "mounted").unwrap();
    symlink(&victim, bundle.root("target")).unwrap();
    symlink("../../../../../../../../../../../../../../etc", bundle.root("etc/up")).unwrap();
    bundle.mount(json!({"destination": "/target", "source": source, "options": ["bind"]}));
    bundle.mount(json!({"destination": "/etc/up/made-by-a-test", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(bundle.run(), "mounted");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert!(bundle.root("etc/made-by-a-test").is_dir());
    assert!(!std::path::Path::new("/etc/made-by-a-test").exists());
}

#[test]
fn proc_is_mounted_on_no_link() {
    let bundle = bundle_or_skip!("true");
    fs::remove_dir(bundle.root("proc")).unwrap();
    symlink("tmp", bundle.root("proc")).unwrap();
    assert!(bundle.refusal().contains("follow no link"));
}

#[test]
fn masks_and_read_only_paths_hold() {
    let mut bundle = bundle_or_skip!(
        "cat /secret; ls /hidden | wc -l; echo 1 > /proc/sys/kernel/panic || echo refused; echo x > /fixed/file || echo refused; cat /fixed/file"
    );
    fs::write(bundle.root("secret"), "secret").unwrap();
    fs::create_dir(bundle.root("hidden")).unwrap();
    fs::write(bundle.root("hidden/file"), "").unwrap();
    fs::create_dir(bundle.root("fixed")).unwrap();
    fs::write(bundle.root("fixed/file"), "fixed").unwrap();
    for (list, paths) in [
        ("maskedPaths", ["/secret", "/hidden"]),
        ("readonlyPaths", ["/fixed", "/not/there"]),
    ] {
        bundle.config["linux"][list]
            .as_array_mut()
            .unwrap()
            .extend(paths.map(|path| json!(path)));
    }
    assert_eq!(bundle.run(), "0\nrefused\nrefused\nfixed");
    bundle.config["root"]["readonly"] = json!(true);
    bundle.config["process"]["args"] = json!(["sh", "-c", "echo x > /file || echo refused"]);
    assert_eq!(bundle.run(), "refused");
}

#[test]
fn devices_are_there_and_their_owners_and_modes() {
    let mut bundle = bundle_or_skip!(
        "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; head -c 2 /dev/zero | wc -c; stat -c '%a %u %g %t:%T' /dev/mine; readlink /dev/fd; readlink /dev/ptmx"
    );
    bundle.config["linux"]["devices"] = json!([
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8}]);
    assert_eq!(bundle.run(), "2\n640 7 8 1:3\n/proc/self/fd\npts/ptmx");
}

#[test]
fn the_host_sees_nothing_of_it() {
    let mut bundle = bundle_or_skip!("mount | wc -l > /tmp/mounts; sleep 1000");
    bundle.mount(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}));
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    bundle.start();
    let path = bundle.path("");
    let ours = |table: &str| {
        table
            .lines()
            .filter(|line| line.contains(path.to_str().unwrap()))
            .count()
    };
    assert_eq!(
        ours(&fs::read_to_string("/proc/self/mountinfo").unwrap()),
        ours(&before)
    );
    // And it nothing of the host.
    assert_eq!(bundle.exec("grep -c /usr /proc/self/mountinfo || true"), "0");
}

#[test]
fn the_cgroup_mount_shows_the_containers_own() {
    let bundle = bundle_or_skip!(
        "f=$(ls /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null); cat $f; echo 9 > $f || echo refused"
    );
    let mut bundle = bundle;
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 77});
    assert_eq!(bundle.run(), "77\nrefused");
}
