//! From what was asked for to what the OCI runtime is told: the `config.json` of a bundle.
//!
//! The format is the OCI runtime specification's (1.2, `config.md` and `config-linux.md`). Docker and podman do the
//! same: the engine decides, the runtime below it carries out, and between them is this one document.

use std::path::Path;

use serde_json::{Value, json};

use super::account::Account;
use super::filter;
use super::own_users::OwnUsers;
use super::record::{Seccomp, Settings};
use crate::capabilities;

/// Capabilities a container starts with: what programs in images need to manage their own files and users. The list is
/// podman's; docker's has MKNOD, NET_RAW and AUDIT_WRITE besides.
const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Parts of /proc and /sys that tell too much of the host; as `container run --rootfs` masks them.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Parts that change it.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is known only once the container is being started.
pub struct Circumstances<'a> {
    /// The mounted root file system.
    pub root: &'a Path,
    /// Whom the program runs as.
    pub account: &'a Account,
    /// The network namespace to join; `None` is the host's.
    pub network_namespace: Option<&'a str>,
    /// The directory with `hosts`, `hostname` and `resolv.conf`.
    pub directory: &'a Path,
    /// Whether the host's user ids are out of reach: an ordinary user's container.
    pub rootless: bool,
    /// Its user namespace, where root made it one.
    pub users: Option<&'a OwnUsers>,
    /// Bind mounts: source, target, read-only.
    pub mounts: &'a [(String, String, bool)],
    /// Lines of the terminal, and characters in each.
    pub size: Option<(u16, u16)>,
    /// The cgroup, relative to the mount point of each hierarchy; `None` for an ordinary user without limits.
    pub cgroup: Option<&'a str>,
}

/// The whole document.
pub fn document(settings: &Settings, circumstances: &Circumstances<'_>) -> Result<Value, String> {
    let mut document = json!({
        "ociVersion": "1.2.0",
        "hostname": settings.hostname,
        "root": { "path": circumstances.root, "readonly": settings.read_only },
        "process": process(settings, circumstances)?,
        "mounts": mounts(settings, circumstances),
        "linux": linux(settings, circumstances)?,
        "annotations": settings.labels,
    });
    document["linux"]["seccomp"] = match &settings.seccomp {
        Seccomp::Default => filter::default_profile(&capabilities(settings)?),
        Seccomp::Profile(profile) => profile.clone(),
        Seccomp::Unconfined => return Ok(document),
    };
    Ok(document)
}

fn process(settings: &Settings, circumstances: &Circumstances<'_>) -> Result<Value, String> {
    let Account { uid, gid, groups, home } = circumstances.account;
    let mut environment = settings.environment.clone();
    let has = |environment: &[String], name: &str| environment.iter().any(|variable| variable.starts_with(name));
    let defaults = [
        (crate::program::DEFAULT_PATH.to_owned(), true),
        (format!("HOSTNAME={}", settings.hostname), true),
        (format!("HOME={home}"), true),
        ("TERM=xterm".to_owned(), settings.terminal),
    ];
    for (variable, wanted) in defaults {
        let name = variable.split_inclusive('=').next().unwrap_or_default();
        if wanted && !has(&environment, name) {
            environment.push(variable);
        }
    }
    // An ordinary user may not change groups: the kernel wants setgroups(2) given up before he maps his own id.
    let groups: &[u32] = if circumstances.rootless { &[] } else { groups };
    let mut process = json!({
        "terminal": settings.terminal,
        "user": { "uid": uid, "gid": gid, "additionalGids": groups },
        "args": settings.command,
        "env": environment,
        "cwd": if settings.workdir.is_empty() { "/" } else { &settings.workdir },
        "capabilities": capability_sets(settings, *uid)?,
        "rlimits": settings.ulimits.iter().map(|(name, soft, hard)| {
            json!({ "type": format!("RLIMIT_{}", name.to_uppercase()), "soft": soft, "hard": hard })
        }).collect::<Vec<_>>(),
        "noNewPrivileges": !settings.may_gain_privileges,
    });
    if let Some((rows, columns)) = circumstances.size.filter(|_| settings.terminal) {
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    Ok(process)
}

/// Changes a description of a process to another user's, for `exec -u`.
pub fn run_as(process: &mut oci_spec::runtime::Process, settings: &Settings, account: &Account) -> Result<(), String> {
    let user = json!({ "uid": account.uid, "gid": account.gid, "additionalGids": account.groups });
    let read = |error: serde_json::Error| error.to_string();
    process.set_user(serde_json::from_value(user).map_err(read)?);
    let sets = capability_sets(settings, account.uid)?;
    process.set_capabilities(Some(serde_json::from_value(sets).map_err(read)?));
    Ok(())
}

/// The five sets. Another user than root has none that a program could use, only the bounding set above him.
fn capability_sets(settings: &Settings, uid: u32) -> Result<Value, String> {
    let names = capabilities(settings)?;
    let names: Vec<String> = names.iter().map(|name| format!("CAP_{name}")).collect();
    let effective = if uid == 0 { names.clone() } else { Vec::new() };
    Ok(json!({
        "bounding": names,
        "effective": effective,
        "permitted": effective,
        "inheritable": [],
        "ambient": [],
    }))
}

/// The default, with `--cap-drop` taken away and `--cap-add` added.
fn capabilities(settings: &Settings) -> Result<Vec<&'static str>, String> {
    let all = capabilities::NAMES;
    let parse = |names: &[String]| -> Result<Vec<&'static str>, String> {
        let mut found = Vec::new();
        for name in names {
            let upper = name.to_uppercase();
            let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match all.iter().find(|known| **known == plain) {
                Some(known) => found.push(*known),
                None if plain == "ALL" => found.extend(all),
                None => return Err(format!("{name:?} is no capability: see capabilities(7), or ALL")),
            }
        }
        Ok(found)
    };
    let (add, drop) = (parse(&settings.cap_add)?, parse(&settings.cap_drop)?);
    let kept = |name: &&&'static str| DEFAULT_CAPABILITIES.contains(*name) && !drop.contains(*name);
    Ok(all
        .iter()
        .filter(|name| kept(name) || add.contains(*name))
        .copied()
        .collect())
}

fn mounts(settings: &Settings, circumstances: &Circumstances<'_>) -> Vec<Value> {
    let inert = ["nosuid", "noexec", "nodev"];
    let mount = |kind: &str, target: &str, options: &[&str]| json!({ "type": kind, "source": kind, "destination": target, "options": options });
    // A terminal belongs to the group tty (5 everywhere); where there is but one id, to that.
    let devpts: &[&str] = match circumstances.rootless {
        true => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        false => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    };
    let mut mounts = vec![
        mount("proc", "/proc", &inert),
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "/dev/pts", devpts),
        mount(
            "tmpfs",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("mqueue", "/dev/mqueue", &inert),
    ];
    mounts.push(match circumstances.network_namespace {
        // sysfs shows a network namespace, and may be mounted by the owner of that alone.
        None if circumstances.rootless || circumstances.users.is_some() => {
            json!({ "type": "none", "source": "/sys", "destination": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] })
        }
        _ => mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
    });
    if circumstances.cgroup.is_some() {
        mounts.push(mount(
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ));
    }
    for (target, options) in &settings.tmpfs {
        let mut all = vec!["nosuid", "noexec", "nodev"];
        all.extend(options.split(',').filter(|option| !option.is_empty()));
        mounts.push(mount("tmpfs", target, &all));
    }
    // ANCHOR: bind
    let bind = |source: &str, target: &str, read_only: bool| {
        let mut options = vec!["rbind", "rprivate", if read_only { "ro" } else { "rw" }];
        if circumstances.users.is_some() {
            options.push("ridmap");
        }
        json!({ "type": "bind", "source": source, "destination": target, "options": options })
    };
    // ANCHOR_END: bind
    for name in ["hosts", "hostname", "resolv.conf"] {
        let source = circumstances.directory.join(name);
        mounts.push(bind(&source.to_string_lossy(), &format!("/etc/{name}"), false));
    }
    mounts.extend(
        circumstances
            .mounts
            .iter()
            .map(|(source, target, read_only)| bind(source, target, *read_only)),
    );
    mounts
}

fn linux(settings: &Settings, circumstances: &Circumstances<'_>) -> Result<Value, String> {
    let mut namespaces = vec![
        json!({ "type": "mount" }),
        json!({ "type": "pid" }),
        json!({ "type": "ipc" }),
        json!({ "type": "uts" }),
        json!({ "type": "cgroup" }),
    ];
    if let Some(path) = circumstances.network_namespace {
        namespaces.push(json!({ "type": "network", "path": path }));
    }
    if let Some(users) = circumstances.users {
        namespaces.push(json!({ "type": "user", "path": users.path() }));
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "resources": resources(settings)?,
    });
    if let Some(cgroup) = circumstances.cgroup {
        linux["cgroupsPath"] = json!(cgroup);
    }
    Ok(linux)
}

fn resources(settings: &Settings) -> Result<Value, String> {
    let limits = &settings.limits;
    // The device cgroup: everything refused but the few harmless ones, which the runtime adds by itself.
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(bytes) = limits.memory {
        // Memory and swap together: the same number leaves no swap.
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    let mut cpu = json!({});
    if let Some(thousandths) = limits.cpu_thousandths {
        cpu["quota"] = json!(thousandths * 100);
        cpu["period"] = json!(100_000);
    }
    if let Some(shares) = limits.cpu_shares {
        cpu["shares"] = json!(shares);
    }
    if let Some(list) = &limits.cpuset_cpus {
        cpu["cpus"] = json!(list);
    }
    if cpu != json!({}) {
        resources["cpu"] = cpu;
    }
    if let Some(pids) = limits.pids {
        resources["pids"] = json!({ "limit": pids });
    }
    let mut block = json!({});
    if let Some(weight) = limits.blkio_weight {
        block["weight"] = json!(weight);
    }
    let throttles = [
        ("throttleReadBpsDevice", &limits.device_read_bps),
        ("throttleWriteBpsDevice", &limits.device_write_bps),
        ("throttleReadIOPSDevice", &limits.device_read_iops),
        ("throttleWriteIOPSDevice", &limits.device_write_iops),
    ];
    for (name, devices) in throttles {
        let mut list = Vec::new();
        for (path, rate) in devices {
            let (major, minor) = device_number(path)?;
            list.push(json!({ "major": major, "minor": minor, "rate": rate }));
        }
        if !list.is_empty() {
            block[name] = json!(list);
        }
    }
    if block != json!({}) {
        resources["blockIO"] = block;
    }
    Ok(resources)
}

fn device_number(path: &Path) -> Result<(u64, u64), String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot look at {}: {error}", path.display()))?;
    if !metadata.file_type().is_block_device() {
        return Err(format!(
            "{} is no block device; lsblk lists those there are",
            path.display()
        ));
    }
    Ok((
        nix::sys::stat::major(metadata.rdev()),
        nix::sys::stat::minor(metadata.rdev()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(add: &[&str], drop: &[&str]) -> Result<Vec<&'static str>, String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        capabilities(&Settings {
            cap_add: owned(add),
            cap_drop: owned(drop),
            ..Settings::default()
        })
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(with(&[], &[]).unwrap().len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(with(&["net_raw"], &["ALL"]).unwrap(), ["NET_RAW"]);
        assert!(!with(&[], &["CAP_KILL"]).unwrap().contains(&"KILL"));
        assert_eq!(with(&["ALL"], &[]).unwrap().len(), capabilities::NAMES.len());
        assert!(with(&["FLY"], &[]).is_err());
    }

    #[test]
    fn another_user_than_root_has_no_capability() {
        let sets = capability_sets(&Settings::default(), 1000).unwrap();
        assert_eq!(sets["effective"], json!([]));
        assert_ne!(sets["bounding"], json!([]));
    }
}
