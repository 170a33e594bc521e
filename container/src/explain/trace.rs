//! The watching itself: from the launcher's first step to the program's execve, every system call of every process.

use std::collections::BTreeMap;
use std::io::{Read, Write, pipe};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::{ForkResult, Pid, fork};
use protocol::marks::monotonic_ns;

use super::Error;
use super::decode::{self, Decoded};
use super::descriptors::Descriptors;
use super::names;
use super::ptrace::{self, Memory, Stop};
use super::verbs::Verb;
use super::{named, verbs};

/// While a set-up is watched, tracer and tracees share one processor: a switch between two of them costs the same then,
/// whoever makes it, and can be taken off. Waking a process on another processor takes two to three times as long.
pub struct OneProcessor {
    before: CpuSet,
}

impl OneProcessor {
    /// Confines this process, and those it will start, to the processor it is on.
    pub fn confine() -> Result<OneProcessor, Error> {
        let before = sched_getaffinity(ME).map_err(Error::Processor)?;
        let mut one = CpuSet::new();
        one.set(sched_getcpu().map_err(Error::Processor)?)
            .map_err(Error::Processor)?;
        sched_setaffinity(ME, &one).map_err(Error::Processor)?;
        Ok(OneProcessor { before })
    }

    /// Gives a process all the processors back that were there before.
    pub fn free(&self, process: Pid) -> Result<(), Error> {
        match sched_setaffinity(process, &self.before) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::Processor(errno)),
        }
    }
}

/// How sched_setaffinity(2) names the caller.
pub const ME: Pid = Pid::from_raw(0);

/// Which process of the set-up this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Outside: `container run` itself.
    Launcher,
    /// Outside: the process that looks after a container with a name.
    Supervisor,
    /// Outside: a helper of the launcher, such as the keeper that cleans up.
    Helper,
    /// Inside: the container's first process.
    Inside,
    /// Inside: the process that becomes the program.
    Program,
}

impl Role {
    /// The label in the story.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Launcher => "launcher",
            Role::Supervisor => "supervisor",
            Role::Helper => "helper",
            Role::Inside => "inside",
            Role::Program => "program",
        }
    }

    fn of_child(self, call: Option<&Decoded>, what: What) -> Role {
        let new = call.map_or(0, |call| call.namespaces & names::NEW_NAMESPACES);
        let user_alone = new == names::bit(names::CLONE, "CLONE_NEWUSER");
        match (self, what) {
            (Role::Inside | Role::Program, _) => Role::Program,
            // A process that holds the container's user namespace until there is one in it.
            (_, What::Named) if user_alone => Role::Helper,
            _ if new != 0 => Role::Inside,
            (Role::Launcher, What::Named) => Role::Supervisor,
            _ => Role::Helper,
        }
    }
}

/// One system call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it is.
    pub decoded: Decoded,
    /// The bare registers.
    pub registers: [u64; 6],
    /// What it returned; `None` for a call that had not when the watching ended, as the execve.
    pub result: Option<i64>,
    /// Time from being let into the call until its end was seen, in nanoseconds.
    pub spent_ns: u64,
    /// Into how many pieces stops cut it; each carries the cost of one stop.
    pub pieces: u32,
    /// The call's own time, in nanoseconds, once [`super::cost`] has made it out.
    pub cost_ns: u64,
    /// What it belongs to.
    pub verb: Verb,
    /// Which process made it, as the host counts.
    pub process: Pid,
    /// Which of the set-up's processes that is.
    pub role: Role,
}

impl Call {
    /// Whether its time is mostly another process's.
    pub fn waits(&self) -> bool {
        let vfork = self.decoded.arguments.iter().any(|text| text.contains("CLONE_VFORK"));
        vfork
            || matches!(
                self.decoded.name.as_str(),
                "recvmsg" | "poll" | "wait4" | "waitid" | "rt_sigtimedwait" | "accept4" | "flock" | "epoll_wait"
            )
            || self.decoded.name == "read"
                && self
                    .decoded
                    .arguments
                    .first()
                    .is_some_and(|from| from.contains("pair") || from.contains("reading end"))
    }
}

/// How the watching ended.
pub enum End {
    /// The program is about to run; it is held until [`Trace::release`].
    Program(Pid),
    /// The launcher has ended without one; what wait(2) says.
    Launcher(i32),
}

/// Everything that was seen.
pub struct Trace {
    /// In the order in which the calls began.
    pub calls: Vec<Call>,
    /// How it ended.
    pub end: End,
    /// The set-up's processes that are still there.
    pub processes: Vec<Pid>,
    /// Whether the memory of every process could be read.
    pub readable: bool,
}

impl Trace {
    /// Lets the program go, and gives every process its processors back before.
    pub fn release(&self, processor: &OneProcessor) -> Result<(), Error> {
        for &process in &self.processes {
            processor.free(process)?;
        }
        match self.end {
            End::Program(pid) => match ptrace::detach(pid, 0) {
                // Killed while it was held.
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(errno) => Err(Error::Trace(errno)),
            },
            End::Launcher(_) => Ok(()),
        }
    }
}

struct Tracee {
    role: Role,
    memory: Memory,
    descriptors: Descriptors,
    verb: Verb,
    /// The call it is in, as an index.
    within: Option<usize>,
    resumed: u64,
}

/// Whether what the set-up has to say on standard error is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// It is.
    Heard,
    /// A rehearsal's would be said over and over again.
    Silent,
}

/// What is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A container as [`crate::run`](fn@crate::run) makes it.
    Plain,
    /// One with a name, as [`crate::engine`] makes it: with a supervisor, networks and volumes.
    Named,
}

impl What {
    /// What comes first.
    const fn first(self) -> Verb {
        match self {
            What::Plain => Verb::Check,
            What::Named => Verb::Record,
        }
    }
}

/// Sends this process's standard error to nowhere.
pub fn silence() {
    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        // SAFETY: takes numbers only; standard error is nobody's in this process but its own.
        unsafe { libc::dup2(nowhere.as_raw_fd(), libc::STDERR_FILENO) };
    }
}

/// Starts `work` in a child process that is watched from its first instruction, and watches until a program runs.
pub fn watch(what: What, voice: Voice, work: impl FnOnce() -> u8) -> Result<(Pid, Trace), Error> {
    let (mut gate, mut opener) = pipe().map_err(Error::Pipe)?;
    let gate_fd = gate.as_raw_fd();
    // SAFETY: this process has a single thread, so that its copy may do whatever it may.
    match unsafe { fork() }.map_err(Error::Fork)? {
        ForkResult::Child => {
            drop(opener);
            // Whoever ends the tracer ends the container, as for any launcher.
            if voice == Voice::Silent {
                silence();
            }
            let tied = crate::privileges::die_with_parent().is_ok() && gate.read_exact(&mut [0]).is_ok();
            drop(gate);
            let status = if tied {
                work()
            } else {
                protocol::status::LAUNCHER_FAILED
            };
            // SAFETY: ends this process at once: it shares its exit handlers with its parent.
            unsafe { libc::_exit(status.into()) }
        }
        ForkResult::Parent { child } => {
            ptrace::seize(child).map_err(Error::seize)?;
            ptrace::interrupt(child).map_err(Error::Trace)?;
            drop(gate);
            opener.write_all(&[0]).map_err(Error::Pipe)?;
            Ok((child, Watcher::new(what, child, gate_fd).watch()?))
        }
    }
}

struct Watcher {
    what: What,
    launcher: Pid,
    tracees: BTreeMap<Pid, Tracee>,
    /// Stopped before its parent's stop told of it.
    early: Vec<Pid>,
    calls: Vec<Call>,
    /// The descriptor the launcher closes right before its work begins.
    gate: Option<i32>,
    readable: bool,
    /// What wait(2) said about the launcher, if it has ended.
    ended: Option<i32>,
}

impl Watcher {
    fn new(what: What, launcher: Pid, gate: i32) -> Watcher {
        let memory = Memory::of(launcher);
        let tracee = Tracee {
            role: Role::Launcher,
            descriptors: Descriptors::standard(),
            verb: what.first(),
            within: None,
            resumed: 0,
            memory,
        };
        Watcher {
            what,
            launcher,
            tracees: BTreeMap::from([(launcher, tracee)]),
            early: Vec::new(),
            calls: Vec::new(),
            gate: Some(gate),
            readable: true,
            ended: None,
        }
    }

    fn watch(mut self) -> Result<Trace, Error> {
        loop {
            let (pid, stop) = ptrace::wait().map_err(Error::Trace)?;
            let now = monotonic_ns();
            if let Stop::Ended(status) = stop {
                self.tracees.remove(&pid);
                if pid == self.launcher {
                    return Ok(self.finish(End::Launcher(status)));
                }
                continue;
            }
            if !self.tracees.contains_key(&pid) {
                self.early.push(pid);
                continue;
            }
            self.account(pid, now);
            match stop {
                Stop::Entry { number, arguments } => self.enter(pid, number, arguments),
                Stop::Exit { result } => self.leave(pid, result),
                Stop::Child(child) => self.adopt(pid, child)?,
                // Not the program yet: what comes between the launcher and it.
                Stop::Exec if self.steps_on_the_stone(pid) => {
                    if let Some(tracee) = self.tracees.get_mut(&pid) {
                        tracee.memory = Memory::of(pid);
                    }
                }
                Stop::Exec if self.tracees[&pid].role == Role::Program || self.tracees[&pid].role == Role::Inside => {
                    // What other processes began since then is no part of the set-up.
                    self.calls
                        .truncate(self.tracees[&pid].within.map_or(usize::MAX, |execve| execve + 1));
                    self.let_others_go(pid)?;
                    let end = self.ended.map_or(End::Program(pid), End::Launcher);
                    return Ok(self.finish(end));
                }
                Stop::Exec => {
                    // A helper that becomes another program is no part of the set-up's own calls any more.
                    self.tracees.remove(&pid);
                    ptrace::detach(pid, 0).map_err(Error::Trace)?;
                    continue;
                }
                Stop::JobControl => {
                    ptrace::listen(pid).map_err(Error::Trace)?;
                    continue;
                }
                Stop::Interrupted | Stop::Signal(_) | Stop::Ended(_) => {}
            }
            let signal = if let Stop::Signal(number) = stop { number } else { 0 };
            self.resume(pid, signal)?;
        }
    }

    fn steps_on_the_stone(&self, pid: Pid) -> bool {
        let call = self.tracees.get(&pid).and_then(|tracee| self.calls.get(tracee.within?));
        call.is_some_and(|call| call.verb == Verb::Step)
    }

    fn finish(self, end: End) -> Trace {
        Trace {
            calls: self.calls,
            end,
            processes: self.tracees.into_keys().collect(),
            readable: self.readable,
        }
    }

    /// The time since the process was let go belongs to the call it is in.
    fn account(&mut self, pid: Pid, now: u64) {
        let Some(tracee) = self.tracees.get(&pid) else { return };
        if let Some(call) = tracee.within.and_then(|index| self.calls.get_mut(index)) {
            call.spent_ns += now.saturating_sub(tracee.resumed);
            call.pieces += 1;
        }
    }

    fn resume(&mut self, pid: Pid, signal: i32) -> Result<(), Error> {
        if let Some(tracee) = self.tracees.get_mut(&pid) {
            tracee.resumed = monotonic_ns();
        }
        match ptrace::resume(pid, signal) {
            // Killed meanwhile: its end is the next thing to hear of.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::Trace(errno)),
        }
    }

    fn enter(&mut self, pid: Pid, number: u64, registers: [u64; 6]) {
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            return;
        };
        let decoded = decode::decode(number, registers, &tracee.memory, &tracee.descriptors);
        let announced = match (self.what, tracee.role) {
            (What::Named, Role::Launcher | Role::Supervisor | Role::Helper) => named::announced,
            (What::Named, Role::Inside | Role::Program) => named::announced_inside,
            (What::Plain, _) => verbs::announced,
        };
        tracee.verb = announced(&decoded, tracee.role, tracee.verb).unwrap_or(tracee.verb);
        tracee.within = Some(self.calls.len());
        self.calls.push(Call {
            decoded,
            registers,
            result: None,
            spent_ns: 0,
            pieces: 0,
            cost_ns: 0,
            verb: tracee.verb,
            process: pid,
            role: tracee.role,
        });
    }

    fn leave(&mut self, pid: Pid, result: i64) {
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            return;
        };
        // A new child's first stop is the exit of the clone its parent made.
        let Some(index) = tracee.within.take() else { return };
        let Some(call) = self.calls.get_mut(index) else { return };
        call.result = Some(result);
        let memory = &tracee.memory;
        let pair = |address| {
            let [both] = memory.words::<1>(address)?;
            Some([both as i32, (both >> 32) as i32])
        };
        tracee.descriptors.after(&call.decoded, &call.registers, result, pair);
        let opened = |gate| call.decoded.name == "close" && call.registers[0] == gate as u64;
        if self.gate.is_some_and(opened) {
            // What came before was the waiting for the tracer.
            self.gate = None;
            self.calls.clear();
            tracee.verb = self.what.first();
        }
    }

    fn adopt(&mut self, parent: Pid, child: Pid) -> Result<(), Error> {
        let Some(tracee) = self.tracees.get(&parent) else {
            return Ok(());
        };
        let call = tracee.within.and_then(|index| self.calls.get(index));
        let role = tracee.role.of_child(call.map(|call| &call.decoded), self.what);
        let shares = call.is_some_and(|call| call.decoded.arguments.iter().any(|text| text.contains("CLONE_VM")));
        let memory = if shares {
            tracee.memory.clone()
        } else {
            Memory::of(child)
        };
        self.readable &= memory.is_readable();
        let adopted = Tracee {
            role,
            memory,
            descriptors: tracee.descriptors.clone(),
            verb: tracee.verb,
            within: None,
            resumed: 0,
        };
        self.tracees.insert(child, adopted);
        if let Some(index) = self.early.iter().position(|&early| early == child) {
            self.early.swap_remove(index);
            self.resume(child, 0)?;
        }
        Ok(())
    }

    /// Stops every process but `program` once more, to let it go for good.
    fn let_others_go(&mut self, program: Pid) -> Result<(), Error> {
        let mut others: Vec<Pid> = self.tracees.keys().copied().filter(|&pid| pid != program).collect();
        for &pid in &others {
            // One that has ended meanwhile is reported below.
            let _ = ptrace::interrupt(pid);
        }
        while !others.is_empty() {
            let (pid, stop) = ptrace::wait().map_err(Error::Trace)?;
            // Any other stop may have woken it from a call that it will make again: what that returned is not told.
            if let Stop::Ended(status) = stop {
                others.retain(|&other| other != pid);
                if pid == self.launcher {
                    self.ended = Some(status);
                }
                continue;
            }
            let signal = if let Stop::Signal(number) = stop { number } else { 0 };
            if others.contains(&pid) {
                match ptrace::detach(pid, signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(Error::Trace(errno)),
                }
                others.retain(|&other| other != pid);
            }
        }
        Ok(())
    }
}
