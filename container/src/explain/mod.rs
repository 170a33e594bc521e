//! `container run --explain`: the set-up tells its own story.
//!
//! Nothing here is a list of what the set-up is supposed to do. The launcher is started as always, under ptrace(2), and
//! every system call it and its children make until the program's execve is read, timed and told: in order, grouped by
//! the verbs of [`crate::run`](mod@crate::run) and [`crate::init`], each with the word the course has for it. Then the tracer lets go,
//! and the program runs as fast as without.

mod address;
mod cost;
mod decode;
mod descriptors;
mod named;
mod names;
mod netlink;
mod ptrace;
mod tell;
mod trace;
mod verbs;

use std::io::Write;

use nix::errno::Errno;
use nix::unistd::Pid;
use protocol::status;
use thiserror::Error;

use crate::errno::why;
use crate::run::status_of;
use crate::{Config, signals};

/// How the story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object on one line.
    Json,
}

/// Runs a container as [`crate::run`](fn@crate::run) does, and tells on standard error how it was made before its program runs.
///
/// The calling process must have a single thread.
pub fn run(config: &Config, format: Format) -> Result<u8, Error> {
    let untraced = cost::of_phases(config)?;
    let processor = trace::OneProcessor::confine()?;
    let watching_ns = cost::of_watching()?;
    let rehearsed = cost::of_rehearsed_calls(config, watching_ns)?;
    let (launcher, mut trace) = trace::watch(trace::What::Plain, trace::Voice::Heard, || launch(config))?;
    cost::settle(&mut trace.calls, &rehearsed, watching_ns);
    let story = tell::Story {
        trace: &trace,
        watched: cost::WATCHED,
        watching_ns,
        untraced: &untraced,
    };
    let text = story.told(format);
    finish(launcher, trace, &processor, &text)
}

/// Makes a container with a name as `work` does, which is all of a `container run IMAGE` with its exit status, and tells
/// how it was made before its program runs. `terminal`: the program has one, and this process's own may be raw meanwhile.
///
/// Nothing is rehearsed: a second container would take addresses and fill volumes. So each cost is that of one call.
///
/// The calling process must have a single thread.
pub fn run_named(format: Format, terminal: bool, work: impl FnOnce() -> u8) -> Result<u8, Error> {
    let processor = trace::OneProcessor::confine()?;
    let watching_ns = cost::of_watching()?;
    let (launcher, mut trace) = trace::watch(trace::What::Named, trace::Voice::Heard, work)?;
    cost::settle(&mut trace.calls, &[], watching_ns);
    let story = tell::Story {
        trace: &trace,
        watched: 1,
        watching_ns,
        untraced: &[],
    };
    let mut text = story.told(format);
    if terminal {
        // A raw terminal does not return the carriage by itself.
        text = text.replace('\n', "\r\n");
    }
    finish(launcher, trace, &processor, &text)
}

/// Tells the story, lets the program run and waits for the launcher's end.
fn finish(launcher: Pid, trace: trace::Trace, processor: &trace::OneProcessor, text: &str) -> Result<u8, Error> {
    // A reader that went away is no reason to keep the program from running.
    let _ = std::io::stderr().write_all(text.as_bytes());
    // The launcher has its own copy of these; open here, they would keep the program's reader from seeing the end.
    // SAFETY: takes numbers only. Nothing in this process reads or prints to them from here on.
    unsafe { libc::syscall(libc::SYS_close_range, 0, 1, 0) };
    signals::block_all().map_err(Error::Signals)?;
    trace.release(processor)?;
    match trace.end {
        trace::End::Launcher(raw) => Ok(status_of(raw)),
        trace::End::Program(_) => wait_for(launcher),
    }
}

/// The launcher's whole life, as `main` has it.
fn launch(config: &Config) -> u8 {
    crate::run(config).unwrap_or_else(|error| {
        eprintln!("container: {error}");
        error.status()
    })
}

/// Waits for the launcher, passing on what somebody sends to this process in its stead. What the kernel sends for a key
/// on the terminal goes to the whole job, and so to the launcher too.
fn wait_for(launcher: Pid) -> Result<u8, Error> {
    loop {
        let mut raw = 0;
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        let waited = unsafe { libc::waitpid(launcher.as_raw(), &raw mut raw, libc::WNOHANG) };
        match Errno::result(waited) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(status_of(raw)),
            Err(errno) => return Err(Error::Trace(errno)),
        }
        let arrival = signals::wait().map_err(Error::Signals)?;
        if arrival.number != libc::SIGCHLD && !arrival.from_kernel {
            signals::send(launcher, arrival.number);
        }
    }
}

/// Why there is no story, and no container.
#[derive(Debug, Error)]
pub enum Error {
    /// A process was refused.
    #[error("cannot start the launcher to be explained: {}. The limit on processes may be reached (ulimit -u)", why(.0))]
    Fork(Errno),
    /// A pipe failed.
    #[error("cannot talk to the launcher to be explained: {0}. The limit on open files may be reached (ulimit -n)")]
    Pipe(std::io::Error),
    /// Tracing is not permitted.
    #[error("cannot trace the launcher: {}. {cure}", why(errno))]
    Seize {
        /// The kernel's answer.
        errno: Errno,
        /// What to do on this machine.
        cure: &'static str,
    },
    /// Tracing failed half way.
    #[error("cannot follow the launcher with ptrace(2): {}. --explain needs Linux 5.3", why(.0))]
    Trace(Errno),
    /// The processors stayed as they were.
    #[error("cannot watch on one processor: {}. See sched_setaffinity(2)", why(.0))]
    Processor(Errno),
    /// Signals.
    #[error("cannot take charge of signals: {}", why(.0))]
    Signals(Errno),
}

impl Error {
    fn seize(errno: Errno) -> Error {
        let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let cure = match scope.as_deref().map(str::trim) {
            Ok("3") => "kernel.yama.ptrace_scope=3 forbids it to everybody until the next boot",
            Ok("2") => "kernel.yama.ptrace_scope=2 leaves it to root: run as root, or set it to 1",
            _ => "A seccomp filter or a security module may forbid ptrace(2), or somebody traces this process already",
        };
        Error::Seize { errno, cure }
    }

    /// The launcher's exit status for this.
    pub fn status(&self) -> u8 {
        status::LAUNCHER_FAILED
    }
}
