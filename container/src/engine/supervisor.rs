//! The supervisor: the process that looks after one container.
//!
//! It is the parent of the container's first process, so it alone learns its exit status. It holds the other ends of
//! the program's streams, so it alone can keep the log. It has one thread and waits for everything at once: output,
//! the end of the program (a pidfd becomes readable), clients that attach, signals.
//!
//! Nobody depends on it for the truth: while it lives it holds a lock; once it does not, the kernel has ended its
//! container (PR_SET_PDEATHSIG) and lifted the lock, and [`super::settle`] clears away the rest.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::attach::Frame;
use super::launch::{Launched, Launcher};
use super::logs::{self, Stream};
use super::record::{State, Status};
use super::settle;
use super::streams::TYPED_AHEAD;
use super::{Container, Error, attach, filesystem, say_alive};
use crate::run::status_of;
use crate::signals;

/// Output kept for clients that do not take it. Beyond, the program has to wait for them, as for any reader of a pipe.
const KEPT_FOR_CLIENTS: usize = 1 << 20;

/// How long the last words may take to be delivered, once the program has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// The pause before the first restart; it doubles each time, up to the longest. As docker has it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A program that ran so long had started well: the next pause is the first one again.
const RAN_WELL: Duration = Duration::from_secs(10);

/// Somebody at the other end of an attach socket.
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    to_send: Vec<u8>,
    wants_output: bool,
    gone: bool,
}

/// The supervisor of a container.
struct Supervisor {
    container: Container,
    state: State,
    log: logs::Writer,
    listener: UnixListener,
    signals: SignalFd,
    clients: Vec<Client>,
}

/// Supervises until the container has ended for good. Called in a process of its own, with every signal blocked.
///
/// `report` gets one line when the program runs, or the reason why it does not. `first` is a client that is attached
/// from the start, so that it misses nothing; `size` is that of its terminal, lines and characters in each.
pub fn supervise(container: Container, report: UnixStream, first: Option<UnixStream>, size: Option<(u16, u16)>) {
    let mut report = Report(Some(report));
    let outcome = say_alive(&container).and_then(|alive| {
        let mut supervisor = Supervisor::new(container.clone(), first)?;
        let outcome = supervisor.run(&mut report, size);
        supervisor.end(&outcome);
        // Until here it was this process's to write the state.
        drop(alive);
        outcome
    });
    if let Err(error) = outcome {
        report.failed(&error);
    }
}

/// The line to the command that started the container.
struct Report(Option<UnixStream>);

impl Report {
    /// The program runs.
    fn runs(&mut self) {
        self.say(0, "");
    }

    /// It does not.
    fn failed(&mut self, error: &Error) {
        self.say(error.status().max(1), &error.to_string());
    }

    fn say(&mut self, status: u8, message: &str) {
        if let Some(mut stream) = self.0.take() {
            // The command may have been killed meanwhile.
            let _ = stream.write_all(&[&[status], message.as_bytes()].concat());
        }
    }
}

impl Supervisor {
    fn new(container: Container, first: Option<UnixStream>) -> Result<Supervisor, Error> {
        let log = container.file("log.json");
        let mut supervisor = Supervisor {
            state: State::default(),
            log: logs::Writer::open(&log).map_err(Error::io("open", &log))?,
            listener: attach::listen(&container.directory()).map_err(Error::io("listen in", &container.directory()))?,
            signals: SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .map_err(Error::kernel("take charge of signals"))?,
            clients: Vec::new(),
            container,
        };
        supervisor
            .clients
            .extend(first.and_then(|stream| Client::new(stream, true).ok()));
        Ok(supervisor)
    }

    /// Starts the program, and again as the policy has it; returns when it has ended for good.
    fn run(&mut self, report: &mut Report, size: Option<(u16, u16)>) -> Result<u8, Error> {
        let mut launcher = Launcher::prepare(&self.container, size)?;
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let mut launched = launcher.launch()?;
            self.state.status = Status::Running;
            self.state.init = Some(launched.init);
            self.state.ids_from = launcher.ids_from();
            self.state.no_own_users = launcher.no_own_users().map(str::to_owned);
            self.state.started = Some(logs::now());
            self.state.addresses = launched.addresses.clone();
            self.state.gateway = launched.gateway.clone();
            self.state.no_way_out = launched.no_way_out.clone();
            self.container.write_state(&self.state)?;
            report.runs();

            let status = self.look_after(&mut launched)?;
            let oom_killed = launcher.clear_away(launched)?;
            self.state.init = None;
            self.state.finished = Some(logs::now());
            self.state.exit_code = Some(status);
            self.state.oom_killed = oom_killed;
            let policy = self.container.settings.restart;
            if self.is_to_stop() || !policy.again(status, self.state.restarts) {
                return Ok(status);
            }
            self.state.status = Status::Restarting;
            self.state.restarts += 1;
            self.container.write_state(&self.state)?;
            pause = if began.elapsed() > RAN_WELL { FIRST_PAUSE } else { pause };
            self.wait_out(pause)?;
            pause = LONGEST_PAUSE.min(pause * 2);
            if self.is_to_stop() {
                return Ok(status);
            }
        }
    }

    /// Whether somebody asked for the end: `stop`, `rm -f`.
    fn is_to_stop(&self) -> bool {
        self.container.file("stop").exists()
    }

    /// Passes bytes and signals on until the program has ended and all it wrote is in the log; its status.
    fn look_after(&mut self, launched: &mut Launched) -> Result<u8, Error> {
        let mut status = None;
        while status.is_none() || !launched.streams.are_at_their_end() {
            self.wait(Some(launched), status.is_none(), None)?;
            if status.is_none() {
                status = launched.ended()?.map(status_of);
            }
        }
        // A write that fails (a full disk) costs a part of the log, not the container.
        let _ = self.log.finish();
        Ok(status.unwrap_or_default())
    }

    /// Serves clients for a while: there is no program.
    fn wait_out(&mut self, pause: Duration) -> Result<(), Error> {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.is_to_stop() {
            self.wait(
                None,
                false,
                Some(until.min(Instant::now() + Duration::from_millis(100))),
            )?;
        }
        Ok(())
    }

    /// One round: waits until something can be done, and does it.
    fn wait(
        &mut self,
        mut launched: Option<&mut Launched>,
        program_runs: bool,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        let clients_are_behind = self
            .clients
            .iter()
            .any(|client| client.to_send.len() > KEPT_FOR_CLIENTS);
        let program_is_behind = launched
            .as_ref()
            .is_some_and(|launched| launched.streams.typed.len() > TYPED_AHEAD);
        let mut polled = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(launched) = &launched {
            if program_runs {
                polled.push(PollFd::new(launched.pidfd.as_fd(), PollFlags::POLLIN));
            }
            if !clients_are_behind {
                polled.extend(launched.streams.outputs().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            }
            polled.extend(
                launched
                    .streams
                    .wants_to_write()
                    .map(|fd| PollFd::new(fd, PollFlags::POLLOUT)),
            );
        }
        for client in &self.clients {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, !program_is_behind);
            events.set(PollFlags::POLLOUT, !client.to_send.is_empty());
            polled.push(PollFd::new(client.stream.as_fd(), events));
        }
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_millis() as u16;
                PollTimeout::from(left.max(1))
            }
        };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::kernel("wait for the container")(errno)),
        }
        drop(polled);

        while let Ok((stream, _)) = self.listener.accept() {
            self.clients.extend(Client::new(stream, false).ok());
        }
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = signal.ssi_signo as i32;
            if let Some(launched) = &launched
                && [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT].contains(&number)
            {
                launched.signal(number);
            }
        }
        if let Some(launched) = launched.as_deref_mut() {
            if !clients_are_behind {
                let (log, clients) = (&mut self.log, &mut self.clients);
                launched.streams.read(|stream, bytes| {
                    let _ = log.write(stream, bytes);
                    for client in clients.iter_mut().filter(|client| client.wants_output) {
                        client.queue(&match stream {
                            Stream::Stdout => Frame::Stdout(bytes.to_vec()),
                            Stream::Stderr => Frame::Stderr(bytes.to_vec()),
                        });
                    }
                });
            }
            launched.streams.write();
        }
        for client in &mut self.clients {
            client.send();
            if !program_is_behind {
                client.receive();
            }
            while let Some(frame) = client.next() {
                obey(frame, launched.as_deref_mut());
            }
        }
        self.clients.retain(|client| !client.gone);
        Ok(())
    }

    /// Writes down how it ended, clears away, and says goodbye to the clients.
    fn end(&mut self, outcome: &Result<u8, Error>) {
        self.state.status = Status::Exited;
        self.state.init = None;
        if let Err(error) = outcome {
            self.state.exit_code = Some(error.status());
            self.state.error = Some(error.to_string());
            self.state.finished = Some(logs::now());
        }
        let status = self.state.exit_code.unwrap_or_default();
        let _ = self.container.write_state(&self.state);
        let _ = settle::give_back(&self.container);
        filesystem::unmount_root(&self.container);
        // A container that never ran stays to be looked at, unless nobody asked for it to stay.
        if self.container.settings.remove {
            let _ = settle::erase(&self.container);
        }
        for client in &mut self.clients {
            client.queue(&Frame::Exit(status));
        }
        let until = Instant::now() + FAREWELL;
        while self.clients.iter().any(|client| !client.to_send.is_empty()) && Instant::now() < until {
            if self.wait(None, false, Some(until)).is_err() {
                return;
            }
        }
    }
}

/// Does what a client asks for.
fn obey(frame: Frame, launched: Option<&mut Launched>) {
    let Some(launched) = launched else { return };
    match frame {
        Frame::Stdin(bytes) => launched.streams.type_in(&bytes),
        Frame::StdinEnd => launched.streams.end_input(),
        Frame::Resize { rows, columns } => launched.streams.resize(rows, columns),
        Frame::Signal(number) => launched.signal(number),
        Frame::Hello { .. } | Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) => {}
    }
    launched.streams.write();
}

impl Client {
    fn new(stream: UnixStream, wants_output: bool) -> std::io::Result<Client> {
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            received: Vec::new(),
            to_send: Vec::new(),
            wants_output,
            gone: false,
        })
    }

    fn queue(&mut self, frame: &Frame) {
        self.to_send.extend_from_slice(&frame.encode());
    }

    fn send(&mut self) {
        while !self.to_send.is_empty() && !self.gone {
            match self.stream.write(&self.to_send) {
                Ok(length) => drop(self.to_send.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }

    fn receive(&mut self) {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.gone = true,
            Ok(length) => self.received.extend_from_slice(&chunk[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
    }

    /// The next thing it said. Its first words are for the supervisor itself.
    fn next(&mut self) -> Option<Frame> {
        match Frame::take(&mut self.received) {
            Ok(Some(Frame::Hello { output })) => {
                self.wants_output = output;
                self.next()
            }
            Ok(frame) => frame,
            // It does not speak this language.
            Err(_) => {
                self.gone = true;
                None
            }
        }
    }
}

/// Keeps a supervisor from holding what belongs to the command that started it: every descriptor but those in `kept`
/// and the standard streams, which become /dev/null, and the terminal's signals.
pub fn leave_the_command(kept: &[&OwnedFd]) -> Result<(), Error> {
    let null = std::path::Path::new("/dev/null");
    let file = std::fs::File::options().read(true).write(true).open(null);
    let file = file.map_err(Error::io("open", null))?;
    for fd in 0..3 {
        // SAFETY: takes numbers only; replaces the standard streams, which nothing in this process borrows.
        unsafe { libc::dup2(file.as_raw_fd(), fd) };
    }
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: takes numbers only. This process goes on to use the descriptors it keeps and those it opens.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
    std::mem::forget(file);
    signals::leave_the_callers_session().map_err(Error::kernel("start a session"))?;
    // Its name in ps(1): the command line stays that of the command that started it.
    // SAFETY: PR_SET_NAME reads a NUL-terminated string of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"lab-supervisor".as_ptr()) };
    Ok(())
}
