//! Labels by which a security module of the kernel confines a program: AppArmor's profile, SELinux's label.
//!
//! Both are asked for before execve(2) and hold from it on. The kernel takes them through a file of the process itself,
//! /proc/thread-self/attr (proc_pid_attr(5)). A label that is asked for where its module is not switched on is refused:
//! the program would run without what its engine counts on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::Process;
use thiserror::Error;

use crate::errno::{of, why};

/// What the program is to be confined by.
#[derive(Debug, Default)]
pub struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
    /// The kernel's files, open, and what to write to each.
    files: Vec<(File, String)>,
}

impl Labels {
    /// Those `process` asks for, whose modules must be on.
    pub fn of(process: &Process) -> Result<Labels, Error> {
        let wanted = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
        let labels = Labels {
            apparmor: wanted(process.apparmor_profile()),
            selinux: wanted(process.selinux_label()),
            files: Vec::new(),
        };
        // Looked at only where it matters: most programs have no label.
        let missing = |field, label: &Option<String>, module, is_on: fn() -> bool| match label {
            Some(label) if !is_on() => Err(Error::Off {
                field,
                label: label.clone(),
                module,
            }),
            _ => Ok(()),
        };
        missing("process.apparmorProfile", &labels.apparmor, "AppArmor", has_apparmor)?;
        missing("process.selinuxLabel", &labels.selinux, "SELinux", has_selinux)?;
        Ok(labels)
    }

    /// Opens the kernel's files for this process, while it may: they belong to root where it has hidden itself.
    pub fn open(&mut self) -> Result<(), Error> {
        let directory = Path::new("/proc/thread-self/attr");
        let open = |path: &Path| {
            let file = File::options().write(true).open(path);
            file.map_err(|error| Error::Refused {
                label: path.display().to_string(),
                errno: of(&error),
            })
        };
        if let Some(profile) = &self.apparmor {
            // Its own file since Linux 5.8; before, modules took turns at one.
            let own = directory.join("apparmor/exec");
            let path = if own.exists() { own } else { directory.join("exec") };
            self.files.push((open(&path)?, format!("exec {profile}")));
        }
        if let Some(label) = &self.selinux {
            self.files.push((open(&directory.join("exec"))?, label.clone()));
        }
        Ok(())
    }

    /// Has them hold from the next execve(2) on.
    pub fn set(&self) -> Result<(), Error> {
        for (file, text) in &self.files {
            let mut file = file;
            file.write_all(text.as_bytes()).map_err(|error| Error::Refused {
                label: text.clone(),
                errno: of(&error),
            })?;
        }
        Ok(())
    }
}

/// Whether the kernel has AppArmor and it is switched on.
pub fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}

/// Whether SELinux is switched on: then its file system is known, and has a policy.
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/policy").exists()
}

/// Why a label does not hold.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody would look at it.
    #[error(
        "{field} is {label:?}, and {module} is not switched on here: the program would run unconfined. Leave it out (podman: --security-opt), or boot with {module}"
    )]
    Off {
        /// Where it stands.
        field: &'static str,
        /// The label.
        label: String,
        /// Whose it is.
        module: &'static str,
    },
    /// The module does not know it, or does not allow it.
    #[error(
        "cannot have the program confined ({label}): {}. The profile must be loaded (aa-status, seinfo), and this process allowed to change to it",
        why(errno)
    )]
    Refused {
        /// What was written, or the file.
        label: String,
        /// The kernel's answer.
        errno: Errno,
    },
}
