//! The program: found in the container's files, started as a child of the container's first process.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{fs, io::Write};

use nix::errno::Errno;
use nix::sched::{CloneFlags, clone};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, getppid};
use protocol::marks::Marks;
use protocol::phase::Phase;
use protocol::status;
use thiserror::Error;

use crate::errno::{of, why};
use crate::privileges::Rights;
use crate::stone::{self, Stone};
use crate::{privileges, signals};

/// Where programs are looked for unless `--env PATH=` says otherwise: the value every engine sets.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The name that means the embedded workload.
pub const WORKLOAD: &str = "workload";

/// Stack of the process between clone and execve: a few frames of its own and of libc.
const STACK_BYTES: usize = 64 << 10;

/// What to run, as execve takes it.
#[derive(Clone)]
pub struct Program {
    /// The program as the user named it, and its arguments.
    pub arguments: Vec<CString>,
    /// `NAME=VALUE` strings.
    pub environment: Vec<CString>,
}

/// A program that was found.
pub enum Executable {
    /// At this path.
    Path(CString),
    /// At this path, and to be executed by a stone: whoever runs it owns the launcher's file.
    ByStone(CString, Stone),
    /// In memory: the embedded workload in a container that sees the host's files.
    Memory(OwnedFd),
}

impl Executable {
    /// The same, with a stone in front where that makes a difference: no link in an image leads from a path in memory.
    pub fn by_stone(self) -> Result<Executable, stone::Error> {
        match self {
            Executable::Path(path) => Ok(Executable::ByStone(path, Stone::lay()?)),
            other => Ok(other),
        }
    }

    /// The descriptors that are needed up to execve. -1 is none.
    fn descriptors(&self, marks: Marks) -> [RawFd; 3] {
        let marks = marks.descriptor().unwrap_or(-1);
        match self {
            Executable::Path(_) => [marks, -1, -1],
            Executable::ByStone(_, stone) => {
                let [program, reporter] = stone.descriptors();
                [marks, program, reporter]
            }
            Executable::Memory(program) => [marks, program.as_raw_fd(), -1],
        }
    }
}

impl Program {
    /// Finds the program as execvp(3) would, in the container's files and by the container's PATH.
    pub fn find(&self) -> Result<Executable, Error> {
        let name = self.name();
        if name.as_bytes().contains(&b'/') {
            return Ok(Executable::Path(c_string(name.as_bytes())));
        }
        let mut not_executable = None;
        for directory in self.path().split(|&byte| byte == b':') {
            let candidate = Path::new(OsStr::from_bytes(directory)).join(name);
            match fs::metadata(&candidate) {
                Ok(metadata) if !metadata.is_file() => {}
                Ok(metadata) if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 == 0 => {
                    not_executable = Some(candidate);
                }
                Ok(_) => return Ok(Executable::Path(c_string(candidate.as_os_str().as_bytes()))),
                Err(_) => {}
            }
        }
        Err(match not_executable {
            Some(path) => Error::Exec {
                path: path.display().to_string(),
                errno: Errno::EACCES,
            },
            None => Error::NotFound {
                name: name.display().to_string(),
                path: String::from_utf8_lossy(self.path()).into_owned(),
            },
        })
    }

    /// The embedded workload, when it is meant and the container has no root file system of its own to hold it.
    pub fn find_in_memory(&self) -> Result<Option<Executable>, Error> {
        if self.name() != WORKLOAD {
            return Ok(None);
        }
        let make = || -> std::io::Result<OwnedFd> {
            let fd = memfd_create(WORKLOAD, MFdFlags::MFD_CLOEXEC)?;
            fs::File::from(fd.try_clone()?).write_all(guest_images::WORKLOAD)?;
            Ok(fd)
        };
        make()
            .map(Executable::Memory)
            .map(Some)
            .map_err(|error| Error::Memory { errno: of(&error) })
    }

    /// Starts the program and returns its process id as seen here. `tied`: it is to end with this process.
    ///
    /// The new process shares this one's memory until execve, and this one waits until then, as with vfork(2): no page
    /// table is copied, and a failure comes back as a plain value. With a `stone`, execve is left to that, and this
    /// process waits until it is done.
    pub fn start(
        &self,
        executable: Executable,
        rights: Rights,
        mask: &SigSet,
        marks: Marks,
        tied: bool,
    ) -> Result<Pid, Error> {
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        let mut stack = vec![0; STACK_BYTES];
        let tied_to = tied.then(Pid::this);
        let mut outcome: Result<(), Error> = Ok(());
        let run = || {
            // Returns only when something failed.
            outcome = become_program(&executable, &arguments, &environment, rights, mask, marks, tied_to);
            isize::from(status::LAUNCHER_FAILED)
        };
        // SAFETY: the child runs on a stack of its own in memory this process does not touch while CLONE_VFORK keeps
        // it waiting, and ends by execve or by returning from the closure.
        let child = unsafe {
            clone(
                Box::new(run),
                &mut stack,
                CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK,
                Some(libc::SIGCHLD),
            )
        };
        let child = child.map_err(|errno| Error::Start { errno })?;
        outcome.map_err(|error| error.unless_absent(&executable))?;
        if let Executable::ByStone(path, stone) = executable {
            stone.cross().map_err(|errno| {
                let path_text = path.to_string_lossy().into_owned();
                Error::Exec { path: path_text, errno }.unless_absent(&Executable::Path(path))
            })?;
        }
        Ok(child)
    }

    /// Makes this process the program, which was found before. Returns only when that failed.
    pub fn replace_with(&self, executable: &Executable) -> Result<std::convert::Infallible, Error> {
        Err(execute(
            executable,
            &pointers(&self.arguments),
            &pointers(&self.environment),
        ))
    }

    fn name(&self) -> &OsStr {
        self.arguments
            .first()
            .map_or(OsStr::new(""), |name| OsStr::from_bytes(name.as_bytes()))
    }

    /// The container's PATH: the last one in the environment, as `--env` comes after the default.
    fn path(&self) -> &[u8] {
        self.environment
            .iter()
            .rev()
            .find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="))
            .unwrap_or(b"")
    }
}

/// The new process's own steps. On success this does not return.
fn become_program(
    executable: &Executable,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    rights: Rights,
    mask: &SigSet,
    marks: Marks,
    tied_to: Option<Pid>,
) -> Result<(), Error> {
    privileges::drop_for_program(rights)?;
    if let Some(parent) = tied_to {
        privileges::die_with_parent()?;
        // It may have been killed just before: then nobody is left to run for.
        if getppid() != parent {
            return Err(Error::Orphaned);
        }
    }
    signals::leave_the_callers_session().map_err(|errno| Error::Session { errno })?;
    close_all_but(3, &executable.descriptors(marks)).map_err(|errno| Error::Descriptors { errno })?;
    marks.mark(Phase::PrivilegesDropped);
    // Before signals are as the program wants them: a reader of marks that went away must not end it by SIGPIPE.
    marks.mark(Phase::Exec);
    signals::restore_for_program(mask).map_err(|errno| Error::Signals { errno })?;
    Err(execute(executable, arguments, environment))
}

/// Replaces this process's program. Returns only when that failed.
fn execute(executable: &Executable, arguments: &[*const libc::c_char], environment: &[*const libc::c_char]) -> Error {
    // SAFETY: path, arguments and environment are NUL-terminated strings in NULL-terminated arrays, all alive.
    unsafe {
        match executable {
            Executable::Path(path) => {
                libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            }
            Executable::ByStone(path, stone) => {
                let words: Vec<_> = std::iter::once(path.as_ptr())
                    .chain(arguments.iter().copied())
                    .collect();
                stone.step(&words, environment);
            }
            Executable::Memory(fd) => {
                let (fd, empty) = (fd.as_raw_fd(), c"".as_ptr());
                libc::syscall(
                    libc::SYS_execveat,
                    fd,
                    empty,
                    arguments.as_ptr(),
                    environment.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
            }
        }
    }
    let errno = Errno::last();
    let path = match executable {
        Executable::Path(path) | Executable::ByStone(path, _) => path.to_string_lossy().into_owned(),
        Executable::Memory(_) => WORKLOAD.into(),
    };
    Error::Exec { path, errno }
}

/// Closes every descriptor from `first` on but those in `kept`, which close at exec: the harness's, the launcher's, the
/// caller's. Closed, not only to be closed at exec: the program's own path can lead through one that is open until then,
/// `/proc/self/fd/7/bin/sh`, to a program of the host's, whose file would then be in reach (CVE-2024-21626, "3b").
pub(crate) fn close_all_but(first: u32, kept: &[RawFd]) -> Result<(), Errno> {
    let close = |from: u32, to: u32, flags: u32| match from > to {
        true => Ok(()),
        false => {
            // SAFETY: takes numbers only. The caller is about to execute, and uses no other descriptor any more.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, from, to, flags) };
            Errno::result(closed).map(drop)
        }
    };
    let mut next = first;
    // Few, so that looking for the lowest again and again is cheaper than to sort.
    while let Some(kept) = kept
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .filter(|&fd| fd >= next)
        .min()
    {
        if kept > next {
            close(next, kept - 1, 0)?;
        }
        close(kept, kept, libc::CLOSE_RANGE_CLOEXEC)?;
        next = kept + 1;
    }
    close(next, u32::MAX, 0)
}

/// Whether ENOENT means the program itself, and not the interpreter its first line or its ELF header names.
fn is_absent(path: &CStr, errno: Errno) -> bool {
    errno == Errno::ENOENT && fs::symlink_metadata(OsStr::from_bytes(path.to_bytes())).is_err()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Both parts come from C strings or from the command line, which cannot contain NUL.
fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// Why the program does not run.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such program.
    #[error(
        "cannot find the program {name} in the container (PATH: {path}). The container's own files are searched, not the host's; without --rootfs they are the embedded `workload` alone"
    )]
    NotFound {
        /// As it was named.
        name: String,
        /// Where it was looked for.
        path: String,
    },
    /// It is there and cannot be executed.
    #[error("cannot execute {path}: {}. {}", why(errno), exec_cure(*errno))]
    Exec {
        /// Its path in the container.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No process for it.
    #[error(
        "cannot start a process for the program: {}. A pids limit must leave room for two: the container's first process and the program",
        why(errno)
    )]
    Start {
        /// The kernel's answer.
        errno: Errno,
    },
    /// No memory for the embedded workload.
    #[error("cannot keep the workload in memory: {}", why(errno))]
    Memory {
        /// The kernel's answer.
        errno: Errno,
    },
    /// Descriptors would have leaked.
    #[error(
        "cannot close the launcher's file descriptors: {}. CLOSE_RANGE_CLOEXEC needs Linux 5.11",
        why(errno)
    )]
    Descriptors {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The first process has been killed meanwhile.
    #[error("the container's first process ended before the program was started")]
    Orphaned,
    /// The program could have signalled its launcher's process group.
    #[error(
        "cannot start a session for the program: {}. An outer seccomp filter must not forbid setsid(2)",
        why(errno)
    )]
    Session {
        /// The kernel's answer.
        errno: Errno,
    },
    /// Signals would have stayed blocked.
    #[error("cannot restore the signal mask: {}", why(errno))]
    Signals {
        /// The kernel's answer.
        errno: Errno,
    },
    /// No stone.
    #[error(transparent)]
    Stone(#[from] stone::Error),
    /// Privileges would have stayed.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
}

impl Error {
    /// The same, or that there is no such file, where that is why it could not be executed.
    fn unless_absent(self, executable: &Executable) -> Error {
        match (self, executable) {
            (Error::Exec { errno, .. }, Executable::Path(path)) if is_absent(path, errno) => Error::NotFound {
                name: path.to_string_lossy().into_owned(),
                path: "not searched, since the name has a slash".into(),
            },
            (error, _) => error,
        }
    }

    /// The launcher's exit status for this.
    pub fn status(&self) -> u8 {
        match self {
            Error::NotFound { .. } => status::NOT_FOUND,
            Error::Exec { .. } => status::NOT_EXECUTABLE,
            _ => status::LAUNCHER_FAILED,
        }
    }
}

fn exec_cure(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => {
            "The file is there; the interpreter it names (the dynamic loader of an ELF program, the first line of a script) is not: add it to the image, or link the program statically"
        }
        Errno::EACCES => {
            "It must be a regular file with execute permission for the container's user, in directories that user may enter"
        }
        Errno::ENOEXEC => "It is neither an ELF program for this processor nor a script that starts with #!",
        Errno::ENOTDIR => "A part of the path is not a directory",
        _ => "See execve(2)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_closed_but_what_is_kept() {
        let open = |fd: i32| {
            // SAFETY: F_GETFD looks at a descriptor and changes nothing.
            unsafe { libc::fcntl(fd, libc::F_GETFD) }
        };
        // In a process of its own: the tests beside this one need their descriptors.
        // SAFETY: the child makes system calls only, and ends without running anything of the test's.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: takes numbers only.
            (100..110).for_each(|fd| unsafe { assert_eq!(libc::dup2(2, fd), fd) });
            let closed = close_all_but(102, &[-1, 105, 2, 103]).is_ok();
            let is_open: Vec<i32> = (100..110).filter(|&fd| open(fd) >= 0).collect();
            let at_exec = [105, 103].into_iter().all(|fd| open(fd) == libc::FD_CLOEXEC);
            let right = closed && is_open == [100, 101, 103, 105] && at_exec && open(2) == 0;
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(i32::from(!right)) };
        }
        let mut status = 0;
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
    }
}
