//! `lab overhead`: what the harness itself adds to every start it times.
//!
//! The same program is started by turns in two ways. Bare: a pipe, posix_spawn(3), a blocking read of the first byte; no
//! more is needed to start a program and hear from it. And as every contender is: [`crate::launch`], with its group, its
//! memory file for complaints, its descriptor for the process and its poll(2). Both are timed from just before the spawn to
//! the first byte, and the difference is in every figure of the lab, for all contenders alike. The whole of a launch, with
//! set-up before the start line and everything until it is reaped, is compared too: it limits how fast launches can follow
//! each other.

use std::ffi::CString;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use protocol::marks::monotonic_ns;
use serde::Serialize;

use crate::conditions::{Conditions, Reading};
use crate::contenders;
use crate::image::{self, Image};
use crate::interrupt::Interrupt;
use crate::launch;
use crate::stats::percentile::median;
use crate::table::{self, Paper};
use crate::words;

/// Launches that fill caches before anything counts.
const WARMUPS: u32 = 10;
/// Longest a launch may take.
const LIMIT: Duration = Duration::from_secs(30);
/// What the harness may add to a launch. A container here takes some 2 ms: this is 5% of it.
const BUDGET_NS: f64 = 100_000.0;

/// Options of `lab overhead`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Launches of each kind.
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Idle time before each launch, in milliseconds.
    #[arg(long, default_value_t = 5, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub gap_ms: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What keeps it from being measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The harness could not launch.
    #[error(transparent)]
    Launch(#[from] launch::Error),
    /// The bare way failed.
    #[error("cannot {what}: {source}")]
    Bare {
        /// The step.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("interrupted before the last launch: there is no figure")]
    Interrupted,
}

/// Medians, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Overhead {
    /// Launches of each kind.
    pub n: u32,
    /// Start line to first byte, bare.
    pub bare_ns: f64,
    /// The same through the harness.
    pub harness_ns: f64,
    /// Median of the differences between neighbours.
    pub difference_ns: f64,
    /// From before the set-up until reaped, bare.
    pub bare_whole_ns: f64,
    /// The same through the harness.
    pub harness_whole_ns: f64,
    /// Median of the differences between neighbours.
    pub whole_difference_ns: f64,
    /// What else the machine did meanwhile.
    pub conditions: Conditions,
}

impl fmt::Display for Overhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |ns: f64| match ns < 0.0 {
            true => format!("-{}", words::duration(-ns as u64)),
            false => words::duration(ns as u64),
        };
        let paper = Paper::of_stdout();
        let heading = format!(
            "The workload as a plain process, {} launches each way by turns, medians:",
            self.n
        );
        write!(f, "{}", table::paragraph(&heading, 0, paper))?;
        let header = ["", "bare posix_spawn", "harness", "difference"];
        let mut table = table::table(paper, &header, |index| index > 0);
        for (name, bare, harness, difference) in [
            (
                "start line to first byte",
                self.bare_ns,
                self.harness_ns,
                self.difference_ns,
            ),
            (
                "whole launch",
                self.bare_whole_ns,
                self.harness_whole_ns,
                self.whole_difference_ns,
            ),
        ] {
            let figures = [bare, harness, difference].map(shown);
            table.add_row(std::iter::once(name.to_owned()).chain(figures));
        }
        write!(f, "{}", table::lines(&table))?;
        let verdict = match self.whole_difference_ns < BUDGET_NS {
            true => "within",
            false => "beyond",
        };
        let told = format!(
            "The harness adds {} per launch, {verdict} its {}.",
            shown(self.whole_difference_ns),
            shown(BUDGET_NS)
        );
        let told = table::paragraph(&told, 0, paper)
            + &self
                .conditions
                .note()
                .map_or(String::new(), |note| table::paragraph(&note, 0, paper));
        f.write_str(told.trim_end())
    }
}

/// From just before the spawn to the first byte, and from before the set-up until reaped: nanoseconds.
type Times = (u64, u64);

/// Measures both ways by turns.
///
/// # Errors
/// See [`Error`].
pub fn measure(arguments: &Arguments, interrupt: &Interrupt) -> Result<Overhead, Error> {
    let image = Image::build()?;
    let program = image.program();
    let gap = Duration::from_millis(arguments.gap_ms);
    let before = Reading::now();
    let (mut bare, mut harness) = (Vec::new(), Vec::new());
    for round in 0..arguments.runs + WARMUPS {
        // Either way first as often as the other.
        for turn in 0..2 {
            if interrupt.pause(gap) {
                return Err(Error::Interrupted);
            }
            if (round + turn) % 2 == 0 {
                bare.push(start_barely(&program)?);
            } else {
                harness.push(start_as_a_contender(&program, interrupt)?);
            }
        }
    }
    let bare = &bare[WARMUPS as usize..];
    let harness = &harness[WARMUPS as usize..];
    let of = |times: &[Times], pick: fn(&Times) -> u64| {
        let mut picked: Vec<u64> = times.iter().map(pick).collect();
        median(&mut picked).unwrap_or(f64::NAN)
    };
    let difference = |pick: fn(&Times) -> u64| {
        let mut pairs: Vec<f64> = bare
            .iter()
            .zip(harness)
            .map(|(bare, harness)| pick(harness) as f64 - pick(bare) as f64)
            .collect();
        pairs.sort_unstable_by(f64::total_cmp);
        crate::stats::percentile::percentile(&pairs, 0.5).unwrap_or(f64::NAN)
    };
    Ok(Overhead {
        n: arguments.runs,
        bare_ns: of(bare, |times| times.0),
        harness_ns: of(harness, |times| times.0),
        difference_ns: difference(|times| times.0),
        bare_whole_ns: of(bare, |times| times.1),
        harness_whole_ns: of(harness, |times| times.1),
        whole_difference_ns: difference(|times| times.1),
        conditions: before.until_now(&[]),
    })
}

fn start_as_a_contender(program: &Path, interrupt: &Interrupt) -> Result<Times, Error> {
    let begun = monotonic_ns();
    let mut command: Command = contenders::command(program);
    command.arg("hello");
    let outcome = launch::launch(&mut command, None, LIMIT, interrupt)?;
    let whole = monotonic_ns() - begun;
    let first_byte = outcome.first_byte_ns.ok_or_else(|| Error::Bare {
        what: "hear from the workload",
        source: io::Error::other(outcome.complaint(LIMIT)),
    })?;
    Ok((first_byte - outcome.start_ns, whole))
}

fn start_barely(program: &Path) -> Result<Times, Error> {
    let bare = |what| move |source| Error::Bare { what, source };
    let begun = monotonic_ns();
    let (mut reader, writer) = io::pipe().map_err(bare("make a pipe"))?;
    // A path on this machine holds no NUL: the kernel ends it there.
    let path = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    let arguments = [
        path.as_ptr().cast_mut(),
        c"hello".as_ptr().cast_mut(),
        std::ptr::null_mut(),
    ];
    let environment = [std::ptr::null_mut()];
    let mut actions = std::mem::MaybeUninit::<libc::posix_spawn_file_actions_t>::uninit();
    let mut pid: libc::pid_t = 0;
    // SAFETY: the actions are initialized before they are used and destroyed after; every pointer is to a live, terminated
    // string or array; the descriptors are open.
    let (start, spawned) = unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), writer.as_raw_fd(), libc::STDOUT_FILENO);
        let start = monotonic_ns();
        let spawned = libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            actions.as_ptr(),
            std::ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        (start, spawned)
    };
    if spawned != 0 {
        return Err(bare("spawn the workload")(io::Error::from_raw_os_error(spawned)));
    }
    drop(writer);
    let mut bytes = [0; 4096];
    let read = reader.read(&mut bytes).map_err(bare("read from the workload"));
    let first_byte = monotonic_ns();
    let mut status = 0;
    // SAFETY: the child is ours and not reaped yet; the kernel writes the status to the integer.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let source = io::Error::last_os_error();
        if source.kind() != io::ErrorKind::Interrupted {
            return Err(bare("wait for the workload")(source));
        }
    }
    let whole = monotonic_ns() - begun;
    if read? == 0 || status != 0 {
        return Err(bare("run the workload")(io::Error::other("it failed, or said nothing")));
    }
    Ok((first_byte - start, whole))
}
