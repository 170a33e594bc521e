//! The file system the testbed starts with: an archive that the lab puts together for each run.
//!
//! What is named on the host's command line lies inside at the same absolute path, so that the command finds it under
//! the name it was given.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use vmm::cpio::{self, Archive, DIRECTORY, PROGRAM};

/// Mode bits of a file anyone may read.
pub const FILE: u32 = libc::S_IFREG | 0o644;
const LINK: u32 = libc::S_IFLNK | 0o777;

/// Something could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot take {} into the testbed: {source}", path.display())]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not fit the format.
    #[error(transparent)]
    Archive(#[from] cpio::Error),
    /// `--with` names a program that is not there.
    #[error(
        "cannot take the program {0} into the testbed: it is not on PATH. Install it, or give its path with --include"
    )]
    NoProgram(String),
}

/// The archive in the making.
#[derive(Default)]
pub struct Initramfs {
    archive: Archive,
    made: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn directory(&mut self, path: &Path) -> Result<(), Error> {
        let mut above = PathBuf::new();
        for part in path.components() {
            above.push(part);
            if matches!(part, Component::Normal(_)) && self.made.insert(above.clone()) {
                self.archive.add(name(&above), DIRECTORY, 0, &[])?;
            }
        }
        Ok(())
    }

    /// Writes a file, unless there is one of that name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn file(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
        self.entry(path, mode, bytes)
    }

    /// Makes a symbolic link, unless something has that name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        self.entry(path, LINK, target.as_os_str().as_bytes())
    }

    fn entry(&mut self, path: &Path, mode: u32, data: &[u8]) -> Result<(), Error> {
        self.directory(path.parent().unwrap_or(Path::new("/")))?;
        if self.made.insert(path.to_owned()) {
            self.archive.add(name(path), mode, 0, data)?;
        }
        Ok(())
    }

    /// Takes a file or folder of the host as it is; a link that is named itself is followed. A program that is named
    /// itself comes with its shared libraries.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn host(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let real = from.canonicalize().map_err(unreadable(from))?;
        if real.is_dir() {
            return self.tree(&real, to);
        }
        self.copy(&real, to)?;
        for library in libraries(&real) {
            self.copy(&library, &library)?;
        }
        Ok(())
    }

    fn tree(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        self.directory(to)?;
        for entry in fs::read_dir(from).map_err(unreadable(from))? {
            let entry = entry.map_err(unreadable(from))?;
            let (path, inside) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type().map_err(unreadable(&path))?;
            if kind.is_dir() {
                self.tree(&path, &inside)?;
            } else if kind.is_symlink() {
                self.link(&inside, &fs::read_link(&path).map_err(unreadable(&path))?)?;
            } else if kind.is_file() {
                self.copy(&path, &inside)?;
            }
            // Sockets, pipes and devices belong to the machine they are on.
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        if self.made.contains(to) {
            return Ok(());
        }
        let mode = fs::metadata(from).map_err(unreadable(from))?.mode();
        let bytes = fs::read(from).map_err(unreadable(from))?;
        self.file(to, mode, &bytes)
    }

    /// Takes a program found on PATH, with its libraries and, if it is QEMU, its firmware.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn program(&mut self, program: &str) -> Result<(), Error> {
        let path = on_path(program).ok_or_else(|| Error::NoProgram(program.to_owned()))?;
        self.host(&path, &path)?;
        // Its folder may be one that nobody looks in there; and before busybox's of that name.
        self.link(&Path::new("/bin").join(program), &path)?;
        if program.starts_with("qemu-system-") {
            self.firmware_of(&path)?;
        }
        Ok(())
    }

    /// What QEMU reads before the first instruction of a guest, from the folders it names itself (`-L help`).
    fn firmware_of(&mut self, qemu: &Path) -> Result<(), Error> {
        /// Firmware of the machines `pc`, `q35` and `microvm`, and what loads a kernel in them.
        const NEEDED: [&str; 8] = [
            "bios-256k.bin",
            "bios-microvm.bin",
            "qboot.rom",
            "kvmvapic.bin",
            "linuxboot.bin",
            "linuxboot_dma.bin",
            "multiboot_dma.bin",
            "pvh.bin",
        ];
        for folder in lines_of(Command::new(qemu).args(["-L", "help"])) {
            for file in NEEDED {
                let path = Path::new(&folder).join(file);
                if path.is_file() {
                    self.host(&path, &path)?;
                }
            }
        }
        Ok(())
    }

    /// Puts a shell and the usual tools inside, if the host has busybox. Returns whether it has.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn busybox(&mut self) -> Result<bool, Error> {
        let Some(path) = on_path("busybox") else {
            return Ok(false);
        };
        let inside = Path::new("/bin/busybox");
        self.host(&path, inside)?;
        for applet in lines_of(Command::new(&path).arg("--list")) {
            self.link(&Path::new("/bin").join(applet), inside)?;
        }
        Ok(true)
    }

    /// Whether there is something under this name.
    pub fn holds(&self, path: &Path) -> bool {
        self.made.contains(path)
    }

    /// Writes a program anyone may run.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn executable(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.file(path, PROGRAM, bytes)
    }

    /// The archive.
    pub fn finish(self) -> Vec<u8> {
        self.archive.finish()
    }
}

/// An entry's name: the path without its leading slash.
fn name(path: &Path) -> &[u8] {
    path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes()
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    |source| Error::Read { path, source }
}

/// The file a shell would run for this name.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0))
}

/// The shared libraries of a program and its dynamic loader, as ldd(1) finds them. None for a static program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f...)", or "/lib64/ld-linux-x86-64.so.2 (0x7f...)".
    let lines = lines_of(Command::new("ldd").arg(program));
    let paths = lines.iter().filter_map(|line| {
        let path = line.rsplit(" => ").next()?.split(" (").next()?.trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

/// The lines a program of the host prints; none when it fails.
fn lines_of(command: &mut Command) -> Vec<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.trim().to_owned())
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_comes_with_its_libraries() {
        let libraries = libraries(Path::new("/bin/sh"));
        assert!(
            libraries.iter().any(|path| path.to_string_lossy().contains("libc.so")),
            "{libraries:?}"
        );
        assert!(
            libraries.iter().any(|path| path.to_string_lossy().contains("ld-linux")),
            "{libraries:?}"
        );
        let mut initramfs = Initramfs::default();
        initramfs.host(Path::new("/bin/sh"), Path::new("/x/sh")).unwrap();
        assert!(initramfs.holds(Path::new("/x")) && initramfs.holds(Path::new("/x/sh")));
        assert!(initramfs.holds(&libraries[0]));
        assert!(initramfs.finish().starts_with(b"070701"));
    }

    #[test]
    fn a_program_is_found_by_its_name_alone() {
        let mut initramfs = Initramfs::default();
        initramfs.program("env").unwrap();
        assert!(initramfs.holds(Path::new("/bin/env")));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Initramfs::default().program("no-such-program").unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
