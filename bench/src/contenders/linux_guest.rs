//! What other people's hypervisors are given: the same kernel file as `vm-linux`, the same files in the initrd, the same
//! command line, and for the lessons of disk and network the same raw disk and the same tap.
//!
//! They know nothing of the lab's ports: their guest ends by restarting. So the program's exit status is lost, and a workload
//! that ends with any but 0 cannot be raced there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use vmm::kernel::Kernel;
use vmm::machine::Kind;
use vmm::vm::{Config, Start};

use super::{Contender, Request, SEARCH_PATH, Setup, Skipped, oci, shown};
use crate::equipment::{Disk, Equipment};
use crate::image::PROGRAM;
use crate::launchers::sha256;

/// A Linux guest's files.
pub struct LinuxGuest {
    /// The kernel.
    pub kernel: PathBuf,
    initrd: PathBuf,
    folder: PathBuf,
}

impl LinuxGuest {
    /// The image's files with this kernel.
    pub fn new(kernel: PathBuf, setup: &Setup) -> LinuxGuest {
        LinuxGuest {
            kernel,
            initrd: setup.image.initrd(),
            folder: setup.image.folder().to_owned(),
        }
    }

    /// What `vmm` would make of the same wish, as far as the guest can see it.
    fn config(&self, workload: &[String]) -> Config {
        Config {
            kernel: Kernel::File(self.kernel.clone()),
            machine: Kind::Pc,
            start: Start {
                init: true,
                program: PROGRAM.into(),
                arguments: workload.iter().map(Into::into).collect(),
            },
            ..Config::default()
        }
    }

    /// The kernel command line; `options` say what [`Given`] asks of the guest's init, if anything.
    pub fn command_line(&self, workload: &[String], options: &str) -> String {
        let config = Config {
            options: options.into(),
            ..self.config(workload)
        };
        String::from_utf8_lossy(&vmm::command_line::build(&config, false)).into_owned()
    }

    /// The image's initrd and behind it what `vmm` puts there for a Linux guest; one file for each lesson.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn initrd(&self, workload: &[String]) -> io::Result<PathBuf> {
        let file = self.file("initrd-linux", workload);
        if !file.exists() {
            let start = self.config(workload).start;
            let mut archive = std::fs::read(&self.initrd)?;
            archive.resize(archive.len().next_multiple_of(vmm::layout::PAGE as usize), 0);
            archive.extend(vmm::initrd::init_archive(&start).map_err(io::Error::other)?);
            std::fs::write(&file, archive)?;
        }
        Ok(file)
    }

    /// A place for a file of this kind that depends on the lesson.
    pub fn file(&self, kind: &str, workload: &[String]) -> PathBuf {
        let name = sha256(workload.join("\0").as_bytes());
        self.folder.join(format!("{kind}-{name}"))
    }
}

/// Where the guest's init mounts the disk.
const DISK: &str = "/mnt";

/// A virtio disk or network card, as far as it is the same for every hypervisor.
pub struct Given {
    /// What the host's side is.
    pub device: Device,
    /// What the guest's init is told by the kernel's command line.
    pub options: String,
    /// What the lesson works on: a file on that disk, or the peer's address.
    pub object: OsString,
}

/// The host's side of a device.
pub enum Device {
    /// A raw disk.
    Disk(PathBuf),
    /// The name of a tap.
    Tap(&'static str),
}

/// A disk or a card of this equipment for one launch.
///
/// # Errors
/// [`Skipped`] when there is none here; else when the disk cannot be written.
pub fn given(equipment: &Equipment) -> Result<io::Result<Given>, Skipped> {
    Ok(match equipment {
        Equipment::Disk(disk) => {
            disk.has_raw()?;
            disk.fresh_raw().map(|raw| Given {
                device: Device::Disk(raw),
                options: format!("lab.disk=/dev/vda:{DISK}"),
                object: Disk::file_in(Path::new(DISK)).into_os_string(),
            })
        }
        Equipment::Net(wire) => {
            let (tap, address) = wire.tap()?;
            Ok(Given {
                device: Device::Tap(tap),
                options: format!("lab.ip={address}"),
                object: wire.peer_by_tap().to_string().into(),
            })
        }
    })
}

/// A hypervisor no distribution has a package of, from the directories of the search path.
///
/// # Errors
/// When it is in none of them; `project` is where it is to be had.
pub fn downloaded(name: &str, project: &str) -> Result<PathBuf, Skipped> {
    oci::find(name).ok_or_else(|| Skipped {
        reason: format!("{name} is not installed: it is in none of the directories {SEARCH_PATH}"),
        fix: format!("download a release from {project} and put it there under that name"),
    })
}

/// What a reader must know about such a hypervisor: how it isolates, which it is, and its command line for a start, in which
/// `files` stand by what they are.
pub fn details(
    contender: &dyn Contender,
    isolation: &str,
    version: Option<String>,
    files: &[(&Path, &str)],
) -> BTreeMap<String, String> {
    let request = Request {
        id: "",
        workload: &[],
        marks_fd: None,
    };
    let mut details = BTreeMap::from([
        ("isolation".into(), isolation.into()),
        ("version".into(), version.unwrap_or_default()),
    ]);
    if let Ok(command) = contender.command(&request) {
        details.insert("command".into(), shown(&command, files));
    }
    details
}

#[cfg(test)]
pub mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::image::Image;
    use crate::launchers::Launchers;

    pub fn image() -> Image {
        Image::build().unwrap()
    }

    /// Launchers nobody launches.
    pub fn launchers() -> Launchers {
        Launchers::find(Some(Path::new("/bin/true")), Some(Path::new("/bin/true"))).unwrap()
    }

    pub fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    /// A program that says `complaint` and fails.
    pub fn failing(complaint: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("fails");
        std::fs::write(&program, format!("#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, program)
    }

    #[test]
    fn each_lesson_has_an_initrd_of_its_own() {
        let (image, launchers) = (image(), launchers());
        let setup = Setup {
            image: &image,
            launchers: &launchers,
            cgroup: None,
        };
        let guest = LinuxGuest::new("/boot/vmlinux".into(), &setup);
        let [one, other] = ["hello", "cpu 7"].map(|lesson| guest.initrd(&words(lesson)).unwrap());
        assert_ne!(one, other);
        assert_eq!(guest.initrd(&words("hello")).unwrap(), one);
        assert!(
            std::fs::read(other)
                .unwrap()
                .starts_with(&std::fs::read(image.initrd()).unwrap())
        );
    }
}
