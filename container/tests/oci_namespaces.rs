//! Namespaces: new, the host's, and joined by path; user maps; kernel settings that belong to them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::fs;

use serde_json::json;

fn host(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn what_is_listed_is_new_and_what_is_not_is_the_hosts() {
    let mut bundle = bundle_or_skip!("for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done");
    let names = ["pid", "net", "ipc", "uts", "mnt", "cgroup"];
    for (name, link) in names.iter().zip(bundle.run().lines()) {
        assert_ne!(link, host(name), "{name}");
    }
    bundle.config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
    bundle.config.as_object_mut().unwrap().remove("hostname");
    // Without a network namespace of its own a container may not mount sysfs; and the queues are the host's too.
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["type"] != "mqueue");
    for (name, link) in names.iter().zip(bundle.run().lines()) {
        assert_eq!(link == host(name), !matches!(*name, "pid" | "mnt"), "{name}");
    }
}

#[test]
fn namespaces_of_another_container_are_joined() {
    let first = bundle_or_skip!("sleep 1000");
    first.start();
    let pid = first.state()["pid"].to_string();
    let mut second = bundle_or_skip!(
        "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname; ps | grep -c 'sleep 1000'"
    );
    let joined = |kind: &str, name: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")});
    second.config["linux"]["namespaces"] = json!([
        {"type": "mount"}, joined("network", "net"), joined("ipc", "ipc"), joined("uts", "uts"), joined("pid", "pid")]);
    second.config["hostname"] = json!("renamed");
    let output = second.run();
    let lines: Vec<&str> = output.lines().collect();
    for (name, link) in ["net", "ipc", "uts", "pid"].iter().zip(&lines) {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(theirs.to_str().unwrap(), *link);
    }
    assert_eq!(lines[4], "renamed");
    assert!(lines[5].parse::<u32>().unwrap() >= 1);
    assert!(second.is_gone() && first.status() == "running");
}

#[test]
fn users_are_mapped() {
    let mut bundle = bundle_or_skip!(
        "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /tmp/made; test -c /dev/null && echo null > /dev/null && echo device"
    );
    let map = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    std::os::unix::fs::chown(bundle.root("tmp"), Some(700_000), Some(700_000)).unwrap();
    // A directory of root's alone would keep the container's root out.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.path(""), open).unwrap();
    assert_eq!(bundle.run(), "0\n 0 700000 1000\ndevice");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(bundle.root("tmp/made")).unwrap());
    assert_eq!(owner, 700_000);
    // And an exec finds its way in.
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.start();
    assert_eq!(
        bundle.exec("id -u; grep CapEff /proc/self/status"),
        "0\nCapEff:\t0000000020000420"
    );
}

#[test]
fn clocks_are_offset() {
    let mut bundle = bundle_or_skip!("cut -d. -f1 /proc/uptime");
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 0}});
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        skip!("needs a kernel with CONFIG_TIME_NS");
    }
    assert!(bundle.run().parse::<u64>().unwrap() >= 1_000_000_000);
}

#[test]
fn kernel_settings_are_the_containers_own() {
    let mut bundle = bundle_or_skip!(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni; hostname; cat /proc/sys/kernel/domainname"
    );
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shmmni": "99"});
    bundle.config["hostname"] = json!("name");
    bundle.config["domainname"] = json!("domain");
    let outside = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    assert_eq!(bundle.run(), "77\n99\nname\ndomain");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), outside);
}

#[test]
fn the_loopback_interface_is_up() {
    let bundle = bundle_or_skip!("ip -o addr show lo | grep -c 127.0.0.1");
    assert_eq!(bundle.run(), "1");
}

#[test]
fn a_mount_with_the_containers_maps_shows_its_owners_shifted() {
    let mut bundle = bundle_or_skip!("stat -c %u:%g /shared/file; touch /shared/made");
    let map = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map.clone();
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    let shared = bundle.path("shared");
    fs::create_dir(&shared).unwrap();
    // The container's root owns nothing here, and could not make it.
    fs::create_dir(bundle.root("shared")).unwrap();
    fs::write(shared.join("file"), "").unwrap();
    std::os::unix::fs::chown(shared.join("file"), Some(7), Some(8)).unwrap();
    let mut mount = json!({
        "type": "bind", "source": shared, "destination": "/shared", "options": ["bind"], "uidMappings": map, "gidMappings": map});
    bundle.mount(mount.clone());
    assert_eq!(bundle.run(), "7:8");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(shared.join("made")).unwrap());
    assert_eq!(owner, 0);
    // Others than the container's are refused, not left out.
    mount["uidMappings"] = json!([{"containerID": 0, "hostID": 800_000, "size": 1000}]);
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    bundle.mount(mount);
    assert!(bundle.refusal().contains("other than the container's"));
}
