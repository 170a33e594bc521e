//! config.json: read, and checked for what cannot work before anything is made.
//!
//! The types are those of the `oci-spec` crate, which follow the specification word by word.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Mount, Process, Root, Spec};
use thiserror::Error;

use crate::errno::{of, why};
use crate::namespaces::Namespace;

/// A bundle: a directory with a config.json, checked.
#[derive(Debug)]
pub struct Bundle {
    /// The directory, absolute.
    pub directory: PathBuf,
    /// The configuration as it was read.
    pub bytes: Vec<u8>,
    /// And understood.
    pub spec: Spec,
    /// Where the root file system is.
    pub rootfs: PathBuf,
    /// Which namespaces are made new, and which joined.
    pub namespaces: Plan,
}

/// Which namespaces a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Flags for clone3(2), for those made new.
    pub new: u64,
    /// Those joined, each by the path of its file.
    pub joined: Vec<(Namespace, PathBuf)>,
    /// A new time namespace, which cannot be had from clone3 together with the offsets of its clocks.
    pub new_time: bool,
    /// A time namespace to join.
    pub joined_time: Option<PathBuf>,
}

impl Plan {
    /// Whether a new one of this kind is made.
    pub fn makes(&self, namespace: Namespace) -> bool {
        self.new & namespace.clone_flag() != 0
    }

    /// Whether the container has one that is not the caller's.
    pub fn has(&self, namespace: Namespace) -> bool {
        self.makes(namespace) || self.joined.iter().any(|(kind, _)| *kind == namespace)
    }

    fn of(linux: &Linux) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        let mut seen = Vec::new();
        for namespace in linux.namespaces().iter().flatten() {
            let typ = namespace.typ();
            if seen.contains(&typ) {
                return Err(Error::Invalid(format!("linux.namespaces has {typ} twice")));
            }
            seen.push(typ);
            let kind = match typ {
                LinuxNamespaceType::Mount => Namespace::Mount,
                LinuxNamespaceType::Cgroup => Namespace::Cgroup,
                LinuxNamespaceType::Uts => Namespace::Uts,
                LinuxNamespaceType::Ipc => Namespace::Ipc,
                LinuxNamespaceType::User => Namespace::User,
                LinuxNamespaceType::Pid => Namespace::Pid,
                LinuxNamespaceType::Network => Namespace::Net,
                LinuxNamespaceType::Time => {
                    plan.joined_time = namespace.path().clone();
                    plan.new_time = plan.joined_time.is_none();
                    continue;
                }
            };
            match namespace.path() {
                Some(path) => plan.joined.push((kind, path.clone())),
                None => plan.new |= kind.clone_flag(),
            }
        }
        Ok(plan)
    }
}

impl Bundle {
    /// Reads and checks `directory/config.json`.
    pub fn load(directory: &Path) -> Result<Bundle, Error> {
        let directory = fs::canonicalize(directory).map_err(Error::io("find the bundle", directory))?;
        let path = directory.join("config.json");
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let spec: Spec = serde_json::from_slice(&bytes).map_err(|error| Error::Json { path, error })?;
        Bundle::check(directory, bytes, spec)
    }

    fn check(directory: PathBuf, bytes: Vec<u8>, spec: Spec) -> Result<Bundle, Error> {
        check_version(spec.version())?;
        let root = spec.root().as_ref().ok_or_else(|| Error::missing("root"))?;
        let rootfs = directory.join(root.path());
        let rootfs = fs::canonicalize(&rootfs).map_err(Error::io("find the root file system", &rootfs))?;
        if !rootfs.is_dir() {
            return Err(Error::io("use the root file system", &rootfs)(Errno::ENOTDIR.into()));
        }
        let linux = spec.linux().as_ref().ok_or_else(|| Error::missing("linux"))?;
        let namespaces = Plan::of(linux)?;
        check_namespaces(&spec, linux, &namespaces)?;
        check_sysctl(linux.sysctl().iter().flatten(), &namespaces)?;
        if let Some(process) = spec.process() {
            check_process(process)?;
        }
        for mount in spec.mounts().iter().flatten() {
            check_owners(mount, linux)?;
            if !mount.destination().is_absolute() {
                let destination = mount.destination().display();
                return Err(Error::Invalid(format!(
                    "the mount destination {destination} is not absolute"
                )));
            }
        }
        refuse_what_is_not_here(linux)?;
        Ok(Bundle {
            directory,
            bytes,
            rootfs,
            namespaces,
            spec,
        })
    }

    /// The program's description, which `start` needs and `create` does not (runtime.md).
    pub fn process(&self) -> Result<&Process, Error> {
        self.spec.process().as_ref().ok_or_else(|| Error::missing("process"))
    }

    /// The part for Linux, which has been checked to be there.
    pub fn linux(&self) -> Result<&Linux, Error> {
        self.spec.linux().as_ref().ok_or_else(|| Error::missing("linux"))
    }

    /// The part about the root, which has been checked to be there.
    pub fn root(&self) -> Result<&Root, Error> {
        self.spec.root().as_ref().ok_or_else(|| Error::missing("root"))
    }

    /// config.json's annotations.
    pub fn annotations(&self) -> HashMap<String, String> {
        self.spec.annotations().clone().unwrap_or_default()
    }
}

/// A mount's owners can be shifted by the container's own maps, and by no others: those need a user namespace each.
fn check_owners(mount: &Mount, linux: &Linux) -> Result<(), Error> {
    let own = |maps: &Option<Vec<LinuxIdMapping>>, containers: &Option<Vec<LinuxIdMapping>>| {
        maps.as_ref()
            .is_none_or(|maps| maps.is_empty() || Some(maps) == containers.as_ref())
    };
    let destination = mount.destination().display();
    if !own(mount.uid_mappings(), linux.uid_mappings()) || !own(mount.gid_mappings(), linux.gid_mappings()) {
        return Err(Error::Invalid(format!(
            "the mount at {destination} has uidMappings or gidMappings other than the container's, which is not supported"
        )));
    }
    Ok(())
}

/// Every 1.x says the same to a runtime that follows 1.2: later ones only add (config.md, "Specification version").
fn check_version(version: &str) -> Result<(), Error> {
    match version.split('.').next() {
        Some("1") => Ok(()),
        _ => Err(Error::Invalid(format!(
            "ociVersion is {version:?}; this runtime follows version 1 of the specification"
        ))),
    }
}

fn check_namespaces(spec: &Spec, linux: &Linux, plan: &Plan) -> Result<(), Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.into()));
    if !plan.has(Namespace::Mount) {
        return invalid(
            "linux.namespaces has no mount namespace: building a root without one would change the host's mounts",
        );
    }
    if !plan.makes(Namespace::Mount) {
        return invalid(
            "linux.namespaces joins a mount namespace by path: the container's root would replace the one of whoever is in it. Ask for a new one",
        );
    }
    if (spec.hostname().is_some() || spec.domainname().is_some()) && !plan.has(Namespace::Uts) {
        return invalid("hostname and domainname need a uts namespace: without one they would rename the host");
    }
    let mapped = linux.uid_mappings().as_ref().is_some_and(|map| !map.is_empty());
    if plan.makes(Namespace::User) && !mapped {
        return invalid("a new user namespace needs linux.uidMappings and linux.gidMappings");
    }
    if mapped && !plan.has(Namespace::User) {
        return invalid("linux.uidMappings needs a user namespace in linux.namespaces");
    }
    let offsets = linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
    if offsets && !plan.new_time {
        return invalid("linux.timeOffsets needs a new time namespace in linux.namespaces");
    }
    if plan.new_time && plan.makes(Namespace::User) {
        return invalid(
            "a new time namespace together with a new user namespace is not supported: its clocks are set before the users are mapped. Join an existing user namespace, or leave one out",
        );
    }
    Ok(())
}

/// Only what belongs to one of the container's own namespaces may be set; anything else would be the host's.
fn check_sysctl<'a>(settings: impl Iterator<Item = (&'a String, &'a String)>, plan: &Plan) -> Result<(), Error> {
    for (key, _) in settings {
        let dotted = key.replace('/', ".");
        let namespace = match dotted.as_str() {
            "kernel.msgmax"
            | "kernel.msgmnb"
            | "kernel.msgmni"
            | "kernel.sem"
            | "kernel.shmall"
            | "kernel.shmmax"
            | "kernel.shmmni"
            | "kernel.shm_rmid_forced" => Namespace::Ipc,
            "kernel.domainname" | "kernel.hostname" => Namespace::Uts,
            name if name.starts_with("fs.mqueue.") => Namespace::Ipc,
            name if name.starts_with("net.") && !name.contains("..") => Namespace::Net,
            _ => {
                return Err(Error::Invalid(format!(
                    "sysctl {key} belongs to no namespace: setting it would change the host"
                )));
            }
        };
        if !plan.has(namespace) {
            return Err(Error::Invalid(format!(
                "sysctl {key} belongs to the {namespace} namespace, and the container shares the host's"
            )));
        }
    }
    Ok(())
}

/// What a program's description must have (config.md, "Process").
pub fn check_process(process: &Process) -> Result<(), Error> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::missing("process.args"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::Invalid(format!(
            "process.cwd is {}, which is not absolute",
            process.cwd().display()
        )));
    }
    Ok(())
}

/// What this runtime does not do is refused, never left out silently.
fn refuse_what_is_not_here(linux: &Linux) -> Result<(), Error> {
    let refused = [
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (
            linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()),
            "linux.mountLabel",
        ),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (
            linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()),
            "linux.netDevices",
        ),
    ];
    match refused.into_iter().find(|(there, _)| *there) {
        Some((_, name)) => Err(Error::Invalid(format!("{name} is not supported by this runtime"))),
        None => Ok(()),
    }
}

/// What is wrong with a bundle.
#[derive(Debug, Error)]
pub enum Error {
    /// Not there, or not readable.
    #[error("cannot {action} {}: {}. A bundle is a directory with a config.json and, usually, a rootfs", path.display(), why(errno))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Not JSON, or other JSON than the specification's.
    #[error("cannot understand {}: {error}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: serde_json::Error,
    },
    /// It cannot work.
    #[error("config.json cannot be followed: {0}")]
    Invalid(String),
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Io {
            action,
            path: path.to_owned(),
            errno: of(&error),
        }
    }

    fn missing(name: &str) -> Error {
        Error::Invalid(format!("{name} is missing"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(config: serde_json::Value) -> Result<Bundle, Error> {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("rootfs")).unwrap();
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        Bundle::load(directory.path())
    }

    fn minimal() -> serde_json::Value {
        json!({
            "ociVersion": "1.0.2-dev",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh"]},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}]},
        })
    }

    #[test]
    fn namespaces_are_sorted_into_new_and_joined() {
        let plan = check(minimal()).unwrap().namespaces;
        assert!(plan.makes(Namespace::Mount) && !plan.makes(Namespace::Pid) && plan.has(Namespace::Pid));
        assert!(!plan.has(Namespace::Net));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_name() {
        let with = |pointer: &str, value: serde_json::Value| {
            let mut config = minimal();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[key] = value;
            match check(config) {
                Err(Error::Invalid(text)) => text,
                other => panic!("{pointer}: {other:?}"),
            }
        };
        assert!(with("/ociVersion", json!("2.0.0")).contains("ociVersion"));
        assert!(with("/hostname", json!("name")).contains("uts"));
        assert!(with("/process/args", json!([])).contains("process.args"));
        assert!(with("/process/cwd", json!("relative")).contains("cwd"));
        assert!(with("/linux/namespaces", json!([])).contains("mount"));
        assert!(with("/linux/sysctl", json!({"kernel.panic": "1"})).contains("no namespace"));
        assert!(with("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).contains("net namespace"));
        assert!(
            with(
                "/linux/uidMappings",
                json!([{"containerID": 0, "hostID": 1, "size": 1}])
            )
            .contains("user")
        );
        assert!(with("/linux/intelRdt", json!({})).contains("intelRdt"));
    }
}
