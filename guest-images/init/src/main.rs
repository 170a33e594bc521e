//! The first process of a Linux guest.
//!
//! A kernel starts one program and panics when it ends. So that any program can be run in a Linux guest and its exit status
//! comes back, this one goes first: it mounts what programs expect and what the kernel command line asks for, starts the program, reaps orphans as process 1 must,
//! and at the end tells the hypervisor the status through the same port the lab kernel uses. In a clone of a snapshot it first makes
//! the kernel's random numbers differ from every other clone's.

mod clone;
mod console;
mod disk;
mod host;
mod mounts;
mod network;
mod options;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use host::Host;
use protocol::phase::Phase;
use protocol::status;

/// The program and its arguments, separated by NULs. The hypervisor puts it there.
const COMMAND: &str = "/.lab/command";
/// Where programs without a slash in their name are looked for, unless the kernel command line says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn main() {
    if let Err(error) = mounts::leave_the_first_root() {
        eprintln!(
            "init: cannot move off the first root file system: {error}. No container can be started in this guest"
        );
    }
    mounts::mount_all();
    console::leave_bytes_alone();
    console::take();
    match Host::open() {
        Ok(host) => {
            let status = options::obey()
                .map_err(|message| Failure {
                    status: status::LAUNCHER_FAILED,
                    message,
                })
                .and_then(|()| run(&host))
                .unwrap_or_else(|error| {
                    eprintln!("init: {}", error.message);
                    error.status
                });
            disk::sync();
            console::drain();
            host.end(status);
            // No hypervisor of ours, then.
            if let Some((port, value)) = options::switch() {
                host.write_elsewhere(port, value);
            }
        }
        Err(error) => eprintln!(
            "init: cannot reach the host: {error}. The guest's kernel needs CONFIG_DEVPORT or CONFIG_X86_IOPL_IOPERM"
        ),
    }
    host::restart()
}

/// The program did not run.
struct Failure {
    status: u8,
    message: String,
}

fn run(host: &Host) -> Result<u8, Failure> {
    let words = fs::read(COMMAND).map_err(|error| Failure {
        status: status::LAUNCHER_FAILED,
        message: format!("cannot read {COMMAND}: {error}"),
    })?;
    let failed = |error| Failure {
        status: status::LAUNCHER_FAILED,
        message: format!("cannot open a device: {error}"),
    };
    let mut words = words.split(|&byte| byte == 0).map(OsStr::from_bytes);
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words);
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", PATH);
    }
    let (host, pool) = (
        host.try_clone().map_err(failed)?,
        File::open("/dev/urandom").map_err(failed)?,
    );
    // Not every kernel has one.
    let source = File::open(clone::SOURCE).ok();
    // SAFETY: between fork and exec the closure makes system calls and nothing else.
    unsafe {
        command.pre_exec(move || {
            // Here a snapshot may be taken. Who goes on behind this line may be a clone.
            host.mark(Phase::UserModeEntry);
            clone::diverge(&host, &pool, source.as_ref())
        });
    }
    let child = command.spawn().map_err(|error| Failure {
        status: match error.kind() {
            io::ErrorKind::NotFound => status::NOT_FOUND,
            _ => status::NOT_EXECUTABLE,
        },
        message: format!(
            "cannot run {} in the guest: {error}. The guest's own files are searched, not the host's: see --rootfs and --initrd",
            program.display()
        ),
    })?;
    Ok(wait_for(child.id() as libc::pid_t))
}

/// Waits until `program` has ended, reaping whoever else ends before, and returns its status as a shell would.
fn wait_for(program: libc::pid_t) -> u8 {
    loop {
        let mut raw = 0;
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        let ended = unsafe { libc::waitpid(-1, &raw mut raw, 0) };
        if ended == program {
            return if libc::WIFSIGNALED(raw) {
                status::SIGNAL_BASE + libc::WTERMSIG(raw) as u8
            } else {
                libc::WEXITSTATUS(raw) as u8
            };
        }
        if ended < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            // No children left, and ours was never seen to end: cannot be, while we are its parent.
            return status::LAUNCHER_FAILED;
        }
    }
}
