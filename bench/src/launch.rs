//! One launch: from the start line to the finish line to the end. Every contender goes through this file and no other.
//!
//! The start line is a reading of CLOCK_MONOTONIC just before the launcher is spawned; the finish line is the same
//! clock when the first byte of the launcher's standard output has arrived here. What happens in between inside the
//! harness is the spawn itself (posix_spawn(3): no copy of the harness's address space) and one poll(2).

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use protocol::marks::monotonic_ns;

use crate::interrupt::Interrupt;
use crate::results::Mark;

/// What is kept of a launcher's output and of its complaints, in bytes. Enough for any message; no flood fills memory.
const KEPT: usize = 64 * 1024;

/// A signal that arrives between the look at its flag and poll(2) does not wake poll: it is seen this much later.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A killed launcher is gone within this, in milliseconds, unless it hangs in the kernel.
const LAST_MOMENTS: u16 = 1000;
/// What watches over a launcher and cleans up after its sudden end gets this long.
const LAST_MOMENTS_OF_HELPERS: Duration = Duration::from_millis(100);

/// Added to the number of the signal that ended a launcher, as a shell does.
const SIGNAL_BASE: i32 = protocol::status::SIGNAL_BASE as i32;

/// What keeps a launch from being a launch. A launcher that starts and fails is an [`Outcome`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launcher could not be executed.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The launcher's path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The harness itself lacks something: descriptors, memory.
    #[error("cannot {what}: {source}")]
    Harness {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Somebody asked the lab to stop.
    #[error("interrupted")]
    Interrupted,
}

/// How a launch went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Start line, nanoseconds on CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// Finish line. None: the launcher never wrote a byte.
    pub first_byte_ns: Option<u64>,
    /// The launcher was reaped.
    pub end_ns: u64,
    /// Exit status, or 128 + n for signal n.
    pub exit_status: i32,
    /// The time limit ended it, not the launcher itself.
    pub timed_out: bool,
    /// The start of its standard output.
    pub stdout: Vec<u8>,
    /// The start of its standard error.
    pub stderr: String,
    /// Its phase marks, when asked for.
    pub marks: Vec<Mark>,
}

impl Outcome {
    /// Whether the workload ran and ended with `status`.
    pub fn reached_the_finish_line(&self, status: i32) -> bool {
        !self.timed_out && self.first_byte_ns.is_some() && self.exit_status == status
    }

    /// Why it did not, in one line or a few, the launcher's own words included.
    pub fn complaint(&self, limit: Duration) -> String {
        let what = if self.timed_out {
            format!("did not end within {} s and was killed", limit.as_secs_f64())
        } else if self.first_byte_ns.is_none() {
            format!(
                "ended with {} before the workload wrote a byte",
                shown_status(self.exit_status)
            )
        } else {
            format!("ended with {}", shown_status(self.exit_status))
        };
        match self.stderr.trim() {
            "" => format!("{what}, and said nothing"),
            words => format!("{what}; it said: {words}"),
        }
    }
}

/// The two ends of the pipe that carries phase marks.
#[derive(Debug)]
pub struct MarksPipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl MarksPipe {
    /// Makes the pipe. Its writing end, alone of all the harness's descriptors, is inherited by the next launch.
    ///
    /// # Errors
    /// When the harness has no descriptors left.
    pub fn new() -> Result<MarksPipe, Error> {
        let (reader, writer) = io::pipe().map_err(harness("make a pipe for marks"))?;
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).map_err(errno("make the marks pipe inheritable"))?;
        Ok(MarksPipe { reader, writer })
    }

    /// The number to pass as `--marks-fd`.
    pub fn number(&self) -> RawFd {
        self.writer.as_raw_fd()
    }
}

/// A launch under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pidfd: OwnedFd,
    stdout: Option<PipeReader>,
    stderr: File,
    marks: Option<PipeReader>,
    limit: Duration,
    interrupt: Interrupt,
    outcome: Outcome,
    reaped: bool,
}

/// Runs `command` from start to end; stops it when `limit` has passed or somebody interrupts.
///
/// # Errors
/// See [`Error`].
pub fn launch(
    command: &mut Command,
    marks: Option<MarksPipe>,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Outcome, Error> {
    let mut running = Running::start(command, marks, limit, interrupt)?;
    running.wait_for_first_byte()?;
    running.wait_for_end()
}

impl Running {
    /// Takes the start line and spawns `command`.
    ///
    /// # Errors
    /// [`Error::Spawn`] or [`Error::Harness`].
    pub fn start(
        command: &mut Command,
        marks: Option<MarksPipe>,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Running, Error> {
        // Everything that is the harness's own business comes before the start line.
        let (stdout, stdout_writer) = io::pipe().map_err(harness("make a pipe for standard output"))?;
        fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(errno("make a pipe non-blocking"))?;
        // A file in memory never makes the launcher wait for a reader, and nobody who inherits it can hold us up.
        let stderr: File = memfd_create(c"launcher-stderr", MFdFlags::MFD_CLOEXEC)
            .map_err(errno("make a memory file for standard error"))?
            .into();
        let stderr_writer = stderr.try_clone().map_err(harness("duplicate a descriptor"))?;
        command.stdin(Stdio::null()).stdout(stdout_writer).stderr(stderr_writer);
        // A group of its own: Ctrl-C reaches the harness only, and a launcher can be killed with all it started.
        command.process_group(0);

        // ANCHOR: start_line
        let start_ns = monotonic_ns();
        let spawned = command.spawn();
        // ANCHOR_END: start_line

        // `command` must not keep the writing ends: the pipe would never report its end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawned.map_err(|source| Error::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        let marks = marks.map(|pipe| pipe.reader);
        let pidfd = match pidfd_open(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                kill_group(&child);
                return Err(error);
            }
        };
        Ok(Running {
            child,
            pidfd,
            stdout: Some(stdout),
            stderr,
            marks,
            limit,
            interrupt: interrupt.clone(),
            outcome: Outcome {
                start_ns,
                first_byte_ns: None,
                end_ns: start_ns,
                exit_status: 0,
                timed_out: false,
                stdout: Vec::new(),
                stderr: String::new(),
                marks: Vec::new(),
            },
            reaped: false,
        })
    }

    /// The launcher's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the finish line. False: the launcher ended, or ran into its time limit, without reaching it.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and failures of poll(2).
    pub fn wait_for_first_byte(&mut self) -> Result<bool, Error> {
        while self.outcome.first_byte_ns.is_none() && self.stdout.is_some() && !self.outcome.timed_out {
            self.step()?;
        }
        Ok(self.outcome.first_byte_ns.is_some())
    }

    /// Asks the launcher to end (SIGTERM); when `patience` has passed it is killed.
    pub fn ask_to_end(&mut self, patience: Duration) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        self.limit = Duration::from_nanos(monotonic_ns() - self.outcome.start_ns) + patience;
    }

    /// Kills the launcher (SIGKILL). Its end is still to be waited for.
    pub fn kill(&self) {
        // Not reaped yet: the number is still its own.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
    }

    /// Waits for the launcher's end and reaps it.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and failures of poll(2) or wait(2).
    pub fn wait_for_end(mut self) -> Result<Outcome, Error> {
        while !self.ended()? {
            self.step()?;
        }
        let status = self.child.wait().map_err(harness("wait for the launcher"))?;
        self.outcome.end_ns = monotonic_ns();
        self.reaped = true;
        self.outcome.exit_status = shell_status(status);
        // What it wrote just before its end may still be in the pipe.
        self.read_stdout()?;
        self.outcome.stderr = self.read_stderr()?;
        if let Some(reader) = self.marks.take() {
            self.outcome.marks = read_marks(reader)?;
        }
        Ok(self.outcome.clone())
    }

    /// Whether the launcher ended (and waits to be reaped).
    fn ended(&self) -> Result<bool, Error> {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::ZERO).map_err(errno("poll the launcher"))?;
        Ok(ready > 0)
    }

    /// Sleeps until there is output, the launcher's end, the time limit or an interruption, and deals with it.
    fn step(&mut self) -> Result<(), Error> {
        if self.interrupt.requested() {
            return Err(Error::Interrupted);
        }
        let Some(left) = self.time_left() else {
            self.outcome.timed_out = true;
            self.end_by_force();
            return Ok(());
        };
        let mut fds = Vec::with_capacity(2);
        if let Some(stdout) = &self.stdout {
            fds.push(PollFd::new(stdout.as_fd(), PollFlags::POLLIN));
        }
        fds.push(PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN));
        // ANCHOR: finish_line
        let polled = poll(&mut fds, left);
        let now = monotonic_ns();
        // ANCHOR_END: finish_line
        match polled {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(errno("wait for the launcher")(error)),
        }
        let launcher_ended = fds.pop().and_then(|fd| fd.any()).unwrap_or(false);
        // ANCHOR: first_byte
        let before = self.outcome.stdout.len();
        self.read_stdout()?;
        if self.outcome.first_byte_ns.is_none() && self.outcome.stdout.len() > before {
            self.outcome.first_byte_ns = Some(now);
        }
        // ANCHOR_END: first_byte
        if launcher_ended {
            // Somebody it left behind may hold the pipe open for ever: with the launcher the run is over.
            self.stdout = None;
        }
        Ok(())
    }

    /// Takes what the pipe holds. At its end, or when the launcher floods it, the pipe is read no more.
    fn read_stdout(&mut self) -> Result<(), Error> {
        let mut chunk = [0; 4096];
        while let Some(pipe) = &mut self.stdout {
            match pipe.read(&mut chunk) {
                Ok(0) => self.stdout = None,
                Ok(n) => {
                    let room = KEPT - self.outcome.stdout.len();
                    self.outcome.stdout.extend_from_slice(&chunk[..n.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(harness("read the launcher's output")(error)),
            }
        }
        Ok(())
    }

    /// Kills the launcher, and after a moment for its helpers to clean up, whatever is left of its process group.
    ///
    /// The launcher is not reaped yet, so neither its number nor its group's can belong to anybody else.
    fn end_by_force(&mut self) {
        let _ = self.child.kill();
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is only shorter.
        let _ = poll(&mut fds, PollTimeout::from(LAST_MOMENTS));
        std::thread::sleep(LAST_MOMENTS_OF_HELPERS);
        kill_group(&self.child);
    }

    fn read_stderr(&mut self) -> Result<String, Error> {
        let read = || harness("read what the launcher said");
        self.stderr.seek(SeekFrom::Start(0)).map_err(read())?;
        let mut bytes = Vec::new();
        let mut start = (&self.stderr).take(KEPT as u64);
        start.read_to_end(&mut bytes).map_err(read())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Until the time limit. None: it has passed.
    fn time_left(&self) -> Option<PollTimeout> {
        let passed = Duration::from_nanos(monotonic_ns() - self.outcome.start_ns);
        let left = self.limit.checked_sub(passed).filter(|left| !left.is_zero())?;
        // Rounded up, or the last wait would be a series of zero-length ones.
        let milliseconds = left.min(LONGEST_WAIT).as_millis() + 1;
        Some(PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX))
    }
}

impl Drop for Running {
    /// An abandoned launch is ended and reaped.
    fn drop(&mut self) {
        if !self.reaped {
            self.end_by_force();
            let _ = self.child.wait();
        }
    }
}

/// A descriptor for the process that poll(2) reports readable when it ends: pidfd_open(2).
fn pidfd_open(child: &Child) -> Result<OwnedFd, Error> {
    let pid = child.id() as libc::pid_t;
    // SAFETY: takes two integers; returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd).map_err(errno("open a descriptor for the launcher's process (pidfd_open)"))?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn kill_group(child: &Child) {
    // The group is the launcher's own (`process_group(0)`), and not reused before the launcher is reaped.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
}

fn shell_status(status: ExitStatus) -> i32 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => SIGNAL_BASE + signal,
        (None, None) => SIGNAL_BASE,
    }
}

/// `status 3`; `status 139 (SIGSEGV)` where the number is a signal's.
fn shown_status(status: i32) -> String {
    match Signal::try_from(status - SIGNAL_BASE) {
        Ok(signal) => format!("status {status} ({})", signal.as_str()),
        Err(_) => format!("status {status}"),
    }
}

/// Reads the marks of a launcher that has ended. Lines that are no marks are a defect of the launcher, and an error.
fn read_marks(mut reader: PipeReader) -> Result<Vec<Mark>, Error> {
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(errno("make the marks pipe non-blocking"))?;
    let mut text = Vec::new();
    match reader.read_to_end(&mut text) {
        Ok(_) => {}
        // Somebody still holds the writing end; what matters is already here.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(harness("read the marks")(error)),
    }
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line).map_err(|source| Error::Harness {
                what: "read a mark: the launcher wrote a line that is none",
                source: source.into(),
            })
        })
        .collect()
}

fn harness(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Harness { what, source }
}

fn errno(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Harness {
        what,
        source: errno.into(),
    }
}
