//! `crun` and `runc`: other people's runtimes, with the configuration their engines would hand them.
//!
//! The bundle's config.json is the OCI runtime specification's ordinary default, as `runc spec` prints it: namespaces,
//! mounts, masked and read-only paths, capabilities. It has no seccomp filter and, run by root, no user namespace; our
//! own container has both and pays for them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use super::{Bounds, Contender, Request, SEARCH_PATH, Setup, Skipped, command, shown};
use crate::cgroups;
use crate::equipment::wire::Side;
use crate::equipment::{Disk, Equipment};
use crate::image::PROGRAM;
use crate::launchers::sha256;

/// What differs between the runtimes.
#[derive(Debug)]
pub struct Peer {
    name: &'static str,
}

/// What lets crun run where both versions of cgroups are mounted, which it refuses.
pub const HYBRID_FIX: &str = "run as root, and the race gets a mount namespace without the cgroup v2 mount; or boot \
                              with systemd.unified_cgroup_hierarchy=1";

/// The C runtime of Red Hat's containers project.
pub const CRUN: Peer = Peer { name: "crun" };
/// The reference runtime, in Go.
pub const RUNC: Peer = Peer { name: "runc" };

/// A runtime that speaks the OCI command line: `RUNTIME run --bundle DIR ID`.
pub struct Oci {
    peer: &'static Peer,
    program: PathBuf,
    version: String,
    /// Bundles, one per list of arguments: config.json holds them.
    bundles: PathBuf,
    rootfs: PathBuf,
    /// Where an ordinary user's runtime keeps its state. Root's has its own place.
    state: Option<PathBuf>,
    /// The cgroup its containers' own lie in.
    cgroup: Option<String>,
}

/// What one launch may differ in from another with the same arguments.
#[derive(Clone, Copy, Debug)]
struct Launch<'a> {
    /// Names the container's own cgroup, which holds one container at a time.
    container: &'a str,
    bounds: Option<&'a Bounds>,
    given: Given<'a>,
}

impl<'a> Launch<'a> {
    /// One of a series in which none begins before the last has ended: all take the same cgroup, and the bundle is there
    /// already.
    fn after_another(given: Given<'a>) -> Launch<'a> {
        Launch {
            container: "payload",
            bounds: None,
            given,
        }
    }
}

impl Oci {
    /// Finds the runtime.
    ///
    /// # Errors
    /// When it is not installed, or does not tell its version.
    pub fn new(peer: &'static Peer, setup: &Setup) -> Result<Oci, Skipped> {
        let name = peer.name;
        let program = find(name).ok_or_else(|| Skipped {
            reason: format!("{name} is not installed: it is in none of the directories {SEARCH_PATH}"),
            fix: format!("install the package {name}, for example: apt install {name}"),
        })?;
        let version = version(&program).ok_or_else(|| Skipped {
            reason: format!("`{} --version` failed", program.display()),
            fix: format!("install the package {name} anew"),
        })?;
        Ok(Oci {
            peer,
            program,
            version,
            bundles: setup.image.folder().join(name),
            rootfs: setup.image.rootfs(),
            state: (!geteuid().is_root()).then(|| setup.image.folder().join(format!("{name}-state"))),
            cgroup: setup.cgroup.map(|race| format!("{race}/{name}")),
        })
    }

    /// The bundle for these arguments, written on first use: the warm-up launches come before the timed ones.
    fn bundle(&self, workload: &[String], launch: &Launch) -> io::Result<PathBuf> {
        let what = format!("{}\0{launch:?}", workload.join("\0"));
        let bundle = self.bundles.join(&sha256(what.as_bytes())[..16]);
        let config = bundle.join("config.json");
        if !config.exists() {
            fs::create_dir_all(&bundle)?;
            let cgroup = self.cgroup.as_ref().map(|path| format!("{path}/{}", launch.container));
            let text = config_json(&self.rootfs, workload, cgroup.as_deref(), launch).to_string();
            fs::write(config, text)?;
        }
        Ok(bundle)
    }

    fn run(&self, id: &str, workload: &[String], launch: &Launch) -> io::Result<Command> {
        if let Some(state) = &self.state {
            fs::create_dir_all(state)?;
        }
        let mut command = self.runtime();
        command
            .args(["run", "--bundle"])
            .arg(self.bundle(workload, launch)?)
            .arg(id);
        Ok(command)
    }

    fn runtime(&self) -> Command {
        let mut command = command(&self.program);
        if let Some(state) = &self.state {
            command.arg("--root").arg(state);
            // Rootless runtimes ask for it before they look at --root.
            command.env("XDG_RUNTIME_DIR", state);
        }
        command
    }
}

impl Contender for Oci {
    fn name(&self) -> &'static str {
        self.peer.name
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        self.run(request.id, request.workload, &Launch::after_another(Given::Nothing))
    }

    fn equipped(&self, request: &Request, equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        let with = |object: String| [request.workload, &[object]].concat();
        Ok(match equipment {
            Equipment::Disk(disk) => disk.empty_folder().and_then(|folder| {
                let file = Disk::file_in(Path::new(VOLUME)).to_string_lossy().into_owned();
                self.run(request.id, &with(file), &Launch::after_another(Given::Folder(&folder)))
            }),
            Equipment::Net(wire) => self.run(
                request.id,
                &with(wire.peer_by_cable().to_string()),
                &Launch::after_another(Given::NetworkOfItsLauncher),
            ),
        })
    }

    fn network_side(&self) -> Side {
        Side::Inside
    }

    fn equipment(&self, equipment: &Equipment) -> String {
        match equipment {
            Equipment::Disk(_) => "a file there, in a bind-mounted folder".into(),
            Equipment::Net(_) => "a cable (veth)".into(),
        }
    }

    fn command_beside(&self, request: &Request, bounds: Option<&Bounds>) -> io::Result<Command> {
        let launch = Launch {
            container: request.id,
            bounds,
            given: Given::Nothing,
        };
        self.run(request.id, request.workload, &launch)
    }

    fn takes_bounds(&self) -> bool {
        // Without a cgroup of its own there is nowhere to write them.
        self.cgroup.is_some()
    }

    fn clean_up(&self, id: &str) {
        // It complains when there is nothing to delete, which is the best case.
        let delete = self
            .runtime()
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .output();
        drop(delete);
    }

    fn details(&self) -> BTreeMap<String, String> {
        let mut run = self.runtime();
        run.args(["run", "--bundle", "BUNDLE", "ID"]);
        let isolation = if geteuid().is_root() {
            "the runtime specification's default: namespaces pid, network, ipc, uts, mount, cgroup; no user namespace; \
             no seccomp filter"
        } else {
            "the runtime specification's rootless default: namespaces pid, ipc, uts, mount, cgroup, user, network; no \
             seccomp filter; no cgroup of its own"
        };
        BTreeMap::from([
            ("version".into(), self.version.clone()),
            ("command".into(), shown(&run, &[])),
            ("isolation".into(), isolation.into()),
        ])
    }

    fn fix(&self, _status: i32) -> String {
        let name = self.peer.name;
        if name == "crun" && !geteuid().is_root() && cgroups::mode(&cgroups::hierarchies()) == "hybrid" {
            return HYBRID_FIX.into();
        }
        format!("the message is {name}'s own; `lab doctor` tests each thing a container needs")
    }
}

/// The program of this name in [`SEARCH_PATH`].
pub fn find(name: &str) -> Option<PathBuf> {
    SEARCH_PATH
        .split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

/// Where a folder of the host is bound.
pub(super) const VOLUME: &str = "/tmp";

/// What differs from the default configuration.
#[derive(Clone, Copy, Debug)]
enum Given<'a> {
    Nothing,
    /// A folder of the host at [`VOLUME`].
    Folder(&'a Path),
    /// No network namespace of its own.
    NetworkOfItsLauncher,
}

/// First line of what `program --version` prints.
pub fn version(program: &Path) -> Option<String> {
    let output = command(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned();
    output.status.success().then_some(text)
}

/// OCI runtime specification, config.md; the values are those `runc spec` (`runc spec --rootless`) prints.
fn config_json(rootfs: &Path, workload: &[String], cgroup: Option<&str>, launch: &Launch) -> Value {
    let Launch { bounds, given, .. } = *launch;
    let rootless = !geteuid().is_root();
    let arguments: Vec<&str> = std::iter::once(PROGRAM)
        .chain(workload.iter().map(String::as_str))
        .collect();
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
        .iter()
        .filter(|&&kind| kind != "network" || !matches!(given, Given::NetworkOfItsLauncher))
        .map(|kind| json!({ "type": kind }))
        .collect();
    if rootless {
        namespaces.push(json!({ "type": "user" }));
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": arguments,
            "env": [format!("PATH={SEARCH_PATH}")],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": rootfs, "readonly": true },
        "hostname": "lab",
        "mounts": mounts(rootless),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    let linux = &mut config["linux"];
    if rootless {
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": geteuid().as_raw(), "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": getegid().as_raw(), "size": 1 }]);
    } else {
        linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    }
    if let (Given::Folder(folder), Some(mounts)) = (given, config["mounts"].as_array_mut()) {
        mounts.push(json!({ "destination": VOLUME, "type": "bind", "source": folder, "options": ["bind", "rw"] }));
    }
    if let Some(path) = cgroup {
        let linux = &mut config["linux"];
        linux["cgroupsPath"] = json!(path);
        if let Some(bounds) = bounds {
            linux["resources"]["memory"] = json!({ "limit": bounds.memory_mib << 20 });
            linux["resources"]["pids"] = json!({ "limit": bounds.processes });
        }
    }
    config
}

fn mounts(rootless: bool) -> Value {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"] }),
    ];
    // The group tty (5) of /dev/pts has no place in a map of one id.
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !rootless {
        pts.push("gid=5");
    }
    mounts.push(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts }));
    mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                        "options": ["nosuid", "noexec", "nodev", "ro"] }));
    if !rootless {
        mounts.push(
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }),
        );
    }
    Value::Array(mounts)
}
