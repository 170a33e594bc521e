//! What other people's hypervisors are given: the same kernel file as `vm-linux`, the same files in the initrd, the same
//! command line.
//!
//! They know nothing of the lab's ports: their guest ends by restarting. So the program's exit status is lost, and a workload
//! that ends with any but 0 cannot be raced there.

use std::io;
use std::path::{Path, PathBuf};

use vmm::kernel::Kernel;
use vmm::machine::Kind;
use vmm::vm::{Config, Start};

use super::{SEARCH_PATH, Setup};
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

    /// The kernel command line.
    pub fn command_line(&self, workload: &[String]) -> String {
        let line = vmm::command_line::build(&self.config(workload), false);
        String::from_utf8_lossy(&line).into_owned()
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

/// The program of this name in [`SEARCH_PATH`].
pub fn find(name: &str) -> Option<PathBuf> {
    let folders = SEARCH_PATH.split(':').map(Path::new);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
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
