//! What a call costs, as honestly as it can be said: being watched costs more than most calls do.
//!
//! Two figures bracket the truth. A traced call's time has two stops in it, each a switch to the tracer and back; what
//! that adds is measured on getpid(2), which does nothing else, and taken off. And the phases of the same set-up are
//! measured without any tracer, in rehearsals whose program cannot be executed.

use std::collections::BTreeMap;
use std::io::{Read, pipe};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, fork};
use protocol::marks::{Marks, monotonic_ns};
use protocol::phase::Phase;
use serde_json::Value;

use super::Error;
use super::ptrace::{self, Stop};
use super::trace::{self, Call, End};
use super::verbs::Verb;
use crate::{Config, signals};

/// Calls the calibration is the median of.
pub const CALIBRATION_CALLS: usize = 300;

/// Watched set-ups the median of a call's time is taken from, the real one included: a single one has outliers whenever
/// the machine does something else.
pub const WATCHED: usize = 7;

/// Untraced set-ups the medians of the phases come from: an odd number, some 3 ms each.
pub const REHEARSALS: usize = 11;

/// A directory every root has: execve(2) refuses it with EACCES, at the very end of a set-up that is otherwise whole.
const NO_PROGRAM: &std::ffi::CStr = c"/";

/// What being watched adds to one piece of a call, in nanoseconds: the median over calls of getpid(2).
pub fn of_watching() -> Result<u64, Error> {
    let getpid = || {
        // SAFETY: takes nothing; not the C library's, which could remember the answer.
        unsafe { libc::syscall(libc::SYS_getpid) }
    };
    let began = monotonic_ns();
    for _ in 0..CALIBRATION_CALLS {
        getpid();
    }
    let untraced = (monotonic_ns() - began) / CALIBRATION_CALLS as u64;

    let (mut gate, opener) = pipe().map_err(Error::Pipe)?;
    // SAFETY: this process has a single thread, so that its copy may do whatever it may.
    let child = match unsafe { fork() }.map_err(Error::Fork)? {
        ForkResult::Child => {
            drop(opener);
            let _ = gate.read(&mut [0]);
            for _ in 0..CALIBRATION_CALLS {
                getpid();
            }
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => child,
    };
    ptrace::seize(child).map_err(Error::seize)?;
    ptrace::interrupt(child).map_err(Error::Trace)?;
    drop((gate, opener));
    let traced = median(&mut time_calls(child, libc::SYS_getpid as u64)?);
    Ok(traced.saturating_sub(untraced))
}

/// Runs a tracee to its end; the time each call of this number took.
fn time_calls(child: Pid, wanted: u64) -> Result<Vec<u64>, Error> {
    let mut times = Vec::new();
    let (mut resumed, mut within) = (0, false);
    loop {
        let (_, stop) = ptrace::wait().map_err(Error::Trace)?;
        let now = monotonic_ns();
        match stop {
            Stop::Ended(_) => return Ok(times),
            Stop::Entry { number, .. } => within = number == wanted,
            Stop::Exit { .. } if within => times.push(now - resumed),
            _ => {}
        }
        resumed = monotonic_ns();
        match ptrace::resume(child, 0) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::Trace(errno)),
        }
    }
}

/// Which call of which process, so that those of two set-ups can be told to be the same: the role, the call's name, and
/// how many of both there were.
type Place = (&'static str, String, usize);

/// Each call's own time in one set-up.
type Times = BTreeMap<Place, u64>;

/// What the calls of `config`'s set-up cost in watched set-ups without a program at their end.
pub fn of_rehearsed_calls(config: &Config, watching_ns: u64) -> Result<Vec<Times>, Error> {
    let config = without_program(config);
    let rehearse = || {
        let (launcher, trace) = trace::watch(trace::What::Plain, trace::Voice::Silent, || {
            crate::run(&config).unwrap_or_else(|error| error.status())
        })?;
        if let End::Program(_) = trace.end {
            // A directory was executed: no kernel does that, and what came of it is not to run.
            signals::send(launcher, libc::SIGKILL);
        }
        Ok(times(&trace.calls, watching_ns))
    };
    (1..WATCHED).map(|_| rehearse()).collect()
}

/// Gives every call its cost: the median over this set-up and those of `rehearsed` that made the same call there.
pub fn settle(calls: &mut [Call], rehearsed: &[Times], watching_ns: u64) {
    let mut next = BTreeMap::new();
    for call in calls {
        let place = place(call, &mut next);
        let same = rehearsed.iter().filter_map(|times| times.get(&place).copied());
        // A rehearsal's execve fails, and costs something else.
        let same = same.filter(|_| call.verb != Verb::Exec);
        let mut all: Vec<u64> = std::iter::once(own(call, watching_ns)).chain(same).collect();
        call.cost_ns = median(&mut all);
    }
}

fn times(calls: &[Call], watching_ns: u64) -> Times {
    let mut next = BTreeMap::new();
    calls
        .iter()
        .map(|call| (place(call, &mut next), own(call, watching_ns)))
        .collect()
}

fn own(call: &Call, watching_ns: u64) -> u64 {
    call.spent_ns.saturating_sub(u64::from(call.pieces) * watching_ns)
}

fn place(call: &Call, next: &mut BTreeMap<(&'static str, String), usize>) -> Place {
    let (role, name) = (call.role.name(), call.decoded.name.clone());
    let count = next.entry((role, name.clone())).or_insert(0);
    *count += 1;
    (role, name, *count)
}

/// The same container, with nothing to run in it.
fn without_program(config: &Config) -> Config {
    let mut config = config.clone();
    config.program.arguments = vec![NO_PROGRAM.to_owned()];
    config.marks = Marks::new(None, "container");
    config
}

/// A phase of the set-up, and the median time from the phase before it, in nanoseconds, in untraced set-ups.
pub struct UntracedPhase {
    /// What is complete at its end.
    pub phase: Phase,
    /// Nanoseconds since the phase before.
    pub median_ns: u64,
}

/// The phases of `config`'s set-up without a tracer. Empty when the set-up fails: the traced one will say why.
pub fn of_phases(config: &Config) -> Result<Vec<UntracedPhase>, Error> {
    let mut runs = Vec::new();
    for _ in 0..REHEARSALS {
        let marks = rehearse(config)?;
        if marks.last().is_none_or(|&(phase, _)| phase != Phase::Exec) {
            return Ok(Vec::new());
        }
        runs.push(marks);
    }
    let first = runs.first().cloned().unwrap_or_default();
    let median_between = |before: Phase, phase: Phase| {
        let at = |run: &[(Phase, u64)], wanted| run.iter().find(|&&(phase, _)| phase == wanted).map(|&(_, ns)| ns);
        let between = |run: &Vec<(Phase, u64)>| Some(at(run, phase)?.saturating_sub(at(run, before)?));
        median(&mut runs.iter().filter_map(between).collect::<Vec<_>>())
    };
    Ok(first
        .windows(2)
        .map(|pair| UntracedPhase {
            phase: pair[1].0,
            median_ns: median_between(pair[0].0, pair[1].0),
        })
        .collect())
}

/// One set-up without a program at its end. Its marks, sorted by time.
fn rehearse(config: &Config) -> Result<Vec<(Phase, u64)>, Error> {
    let (mut reader, writer) = pipe().map_err(Error::Pipe)?;
    // SAFETY: this process has a single thread, so that its copy may do whatever it may.
    let child = match unsafe { fork() }.map_err(Error::Fork)? {
        ForkResult::Child => {
            drop(reader);
            let mut config = without_program(config);
            config.marks = Marks::new(Some(writer.as_raw_fd()), "container");
            if crate::privileges::die_with_parent().is_ok() {
                trace::silence();
                config.marks.mark(Phase::ProcessStart);
                // It fails, as it is meant to.
                let _ = crate::run(&config);
            }
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => child,
    };
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).map_err(Error::Pipe)?;
    nix::sys::wait::waitpid(child, None).map_err(Error::Trace)?;
    let mark = |line: &str| {
        let mark: Value = serde_json::from_str(line).ok()?;
        Some((Phase::from_name(mark["name"].as_str()?)?, mark["ns"].as_u64()?))
    };
    let mut marks: Vec<_> = text.lines().filter_map(mark).collect();
    marks.sort_by_key(|&(_, ns)| ns);
    Ok(marks)
}

/// The middle one; 0 of none.
fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
