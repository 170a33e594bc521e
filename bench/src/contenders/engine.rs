//! `podman` and `docker`: engines, what people type. Beneath each an OCI runtime starts the container; what the engine does
//! around it, storage, networks, records, is in its figure.
//!
//! The image is imported from the race's own root directory and removed afterwards. podman gets a storage of its own in the
//! image's folder; docker's engine is somebody's daemon, so there the image lies among that person's for as long as the race
//! lasts, under a name nobody else uses.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};

use super::{Bounds, Contender, Request, Setup, Skipped, command, oci, shown, words};
use crate::equipment::wire::Side;
use crate::equipment::{Disk, Equipment};
use crate::image::PROGRAM;

/// What differs between the engines.
#[derive(Debug)]
pub struct Kind {
    name: &'static str,
    /// Whether it has no daemon, and keeps its images where it is told.
    own_storage: bool,
    /// Before the subcommand.
    options: &'static [&'static str],
    /// After `run`.
    run: &'static [&'static str],
    install: &'static str,
}

/// No daemon. Limits are named because in a nested machine root may not raise the defaults podman would set.
pub const PODMAN: Kind = Kind {
    name: "podman",
    own_storage: true,
    options: &["--cgroup-manager", "cgroupfs"],
    run: &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"],
    install: "apt-get install podman",
};
/// A daemon, which must run.
pub const DOCKER: Kind = Kind {
    name: "docker",
    own_storage: false,
    options: &[],
    run: &[],
    install: "install Docker's engine, start it, and let your user reach its socket (group docker)",
};

/// An engine with the image in it.
pub struct Engine {
    kind: &'static Kind,
    program: PathBuf,
    version: String,
    storage: Option<Storage>,
    image: String,
}

/// Where an engine without a daemon keeps everything.
struct Storage {
    images: PathBuf,
    /// What runs. There are sockets in it, whose paths may not be long (unix(7)): podman takes 50 characters.
    running: PathBuf,
}

impl Engine {
    /// Finds the engine and gives it the image.
    ///
    /// # Errors
    /// When it is not installed, does not answer, or refuses the image.
    pub fn new(kind: &'static Kind, setup: &Setup) -> Result<Engine, Skipped> {
        let name = kind.name;
        let skipped = |reason: String| Skipped {
            reason,
            fix: kind.install.into(),
        };
        let program = oci::find(name).ok_or_else(|| skipped(format!("{name} is not installed")))?;
        let version = oci::version(&program).ok_or_else(|| skipped(format!("`{name} --version` failed")))?;
        let archive = setup.image.folder().join(format!("{name}-image.tar"));
        let pack = || -> io::Result<()> {
            let mut builder = tar::Builder::new(File::create(&archive)?);
            builder.append_dir_all(".", setup.image.rootfs())?;
            builder.finish()
        };
        pack().map_err(|error| skipped(format!("cannot pack the image: {error}")))?;
        let engine = Engine {
            kind,
            program,
            version,
            storage: kind.own_storage.then(|| Storage {
                images: setup.image.folder().join(format!("{name}-storage")),
                running: setup.image.folder().join("run"),
            }),
            image: format!("isolation-lab-{}", std::process::id()),
        };
        let mut import = engine.command();
        import.arg("import").arg(&archive).arg(&engine.image);
        let output = import.stdin(Stdio::null()).output();
        let output = output.map_err(|error| skipped(format!("cannot run {name}: {error}")))?;
        match output.status.success() {
            true => Ok(engine),
            false => Err(refused(kind, String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// A container of this name, its image and program still to be said.
    fn container(&self, name: &str, network: &str) -> Command {
        let mut command = self.command();
        command.args(["run", "--rm", "--name", name, "--network", network]);
        command.args(self.kind.run);
        command
    }

    fn command(&self) -> Command {
        let mut command = command(&self.program);
        if let Some(storage) = &self.storage {
            command.arg("--root").arg(&storage.images);
            command.arg("--runroot").arg(&storage.running);
        }
        command.args(self.kind.options);
        command
    }

    /// A subcommand whose complaints nobody needs: it is run where there may be nothing to do.
    fn quietly(&self, words: &[&str]) {
        drop(self.command().args(words).stdin(Stdio::null()).output());
    }
}

/// The engine is there and did not take the image.
fn refused(kind: &Kind, words: &str) -> Skipped {
    Skipped {
        reason: format!("{} did not take the image: {words}", kind.name),
        fix: match kind.own_storage {
            true if words.contains("longer than") => "set TMPDIR to a folder whose path is shorter".into(),
            true => format!("the message is {}'s own; try `{0} import` by hand", kind.name),
            false => kind.install.into(),
        },
    }
}

impl Drop for Engine {
    /// The image goes, and with it the mount of its storage onto itself that podman leaves.
    fn drop(&mut self) {
        if self.kind.own_storage {
            // A race that was interrupted may have left one behind while it was still being made.
            self.quietly(&["kill", "--all"]);
            self.quietly(&["rm", "--all", "--force"]);
        }
        self.quietly(&["rmi", "--force", &self.image]);
        if let Some(storage) = &self.storage {
            // Not mounted: nothing to do.
            let _ = umount2(&storage.images.join("overlay"), MntFlags::MNT_DETACH);
        }
    }
}

impl Contender for Engine {
    fn name(&self) -> &'static str {
        self.kind.name
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        self.command_beside(request, None)
    }

    fn takes_bounds(&self) -> bool {
        true
    }

    fn command_beside(&self, request: &Request, bounds: Option<&Bounds>) -> io::Result<Command> {
        let mut command = self.container(request.id, "none");
        if let Some(bounds) = bounds {
            command.arg(format!("--memory={}m", bounds.memory_mib));
            command.arg(format!("--pids-limit={}", bounds.processes));
        }
        command.args([&*self.image, PROGRAM]).args(request.workload);
        Ok(command)
    }

    /// A folder of the disk as a volume; the network namespace the engine is started in. A daemon is not started by the lab.
    fn equipped(&self, request: &Request, equipment: &Equipment) -> Result<io::Result<Command>, Skipped> {
        let with = |mut command: Command, object: &OsStr| {
            command.args([&*self.image, PROGRAM]).args(words(request, object));
            command
        };
        match equipment {
            Equipment::Disk(disk) => Ok(disk.empty_folder().map(|folder| {
                let mut command = self.container(request.id, "none");
                let mut volume = folder.into_os_string();
                volume.push(":");
                volume.push(oci::VOLUME);
                command.arg("--volume").arg(volume);
                with(command, Disk::file_in(Path::new(oci::VOLUME)).as_os_str())
            })),
            Equipment::Net(_) if !self.kind.own_storage => Err(Skipped {
                reason: format!(
                    "{}'s daemon starts its containers, and the lab's cable does not reach where that runs",
                    self.kind.name
                ),
                fix: "choose from process, container, crun, runc, podman".into(),
            }),
            Equipment::Net(wire) => {
                let peer = wire.peer_by_cable().to_string();
                Ok(Ok(with(self.container(request.id, "host"), peer.as_ref())))
            }
        }
    }

    fn network_side(&self) -> Side {
        Side::Inside
    }

    fn equipment(&self, equipment: &Equipment) -> String {
        match equipment {
            Equipment::Disk(_) => "a file there, in a bind-mounted folder".into(),
            Equipment::Net(_) if self.kind.own_storage => "a cable (veth)".into(),
            Equipment::Net(_) => String::new(),
        }
    }

    fn clean_up(&self, id: &str) {
        // `rm --force` alone would ask first, and wait ten seconds for the answer.
        self.quietly(&["kill", id]);
        self.quietly(&["rm", "--force", id]);
    }

    fn details(&self) -> BTreeMap<String, String> {
        let request = Request {
            id: "ID",
            workload: &["LESSON".into()],
            marks_fd: None,
        };
        let mut details = BTreeMap::from([
            ("version".into(), self.version.clone()),
            ("isolation".into(), "the engine's default, without a network".into()),
        ]);
        if let Ok(command) = Contender::command(self, &request) {
            let folders = self.storage.iter();
            let folders = folders.flat_map(|storage| [(&*storage.images, "STORAGE"), (&*storage.running, "RUN")]);
            details.insert("command".into(), shown(&command, &folders.collect::<Vec<_>>()));
        }
        details
    }

    fn fix(&self, _status: i32) -> String {
        format!("the message is {}'s own; try the same command by hand", self.kind.name)
    }
}
