//! `container-engine`: containers with names, and the images and volumes they are made from; and what is told about them.
//!
//! Nobody calls it by this name: `container` becomes it, for everything but a plain run and `container peel`. See
//! [`container::command_line`]. One family of commands to a file.

mod build;
mod exec;
mod files;
mod image;
mod lifecycle;
mod options;
mod ps;
mod run;
mod shared;
mod stats;
mod table;
mod volume;

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use container::command_line;
use container::engine::Error;
use protocol::marks::monotonic_ns;
use protocol::status;

/// A command of `container`, or a family of them.
pub struct Family {
    /// The word after `container`.
    pub name: &'static str,
    /// Adds its arguments, and its own subcommands.
    pub arguments: fn(Command) -> Command,
    /// Does it; the exit status. The number is when this process started, on CLOCK_MONOTONIC in nanoseconds.
    pub main: fn(&ArgMatches, u64) -> Result<u8, clap::Error>,
}

const FAMILIES: &[Family] = &[
    run::RUN,
    ps::PS,
    exec::EXEC,
    ps::LOGS,
    lifecycle::STOP,
    lifecycle::START,
    lifecycle::RESTART,
    lifecycle::KILL,
    lifecycle::WAIT,
    lifecycle::RM,
    ps::INSPECT,
    stats::STATS,
    stats::TOP,
    files::CP,
    files::DIFF,
    files::COMMIT,
    volume::VOLUME,
    image::IMAGE,
    shared::SHARED,
];

fn main() -> ExitCode {
    let started = monotonic_ns();
    ExitCode::from(obey(started).unwrap_or_else(|error| {
        // Help and version are answers, not failures; they go to standard output.
        let _ = error.print();
        if error.use_stderr() { status::LAUNCHER_FAILED } else { 0 }
    }))
}

/// Reads the command line and does what it says; the exit status. The error is for the user: help he asked for, or what
/// is wrong with his words.
fn obey(started: u64) -> Result<u8, clap::Error> {
    // In the words of the program that became this one.
    let container = Command::new("container")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs programs in containers")
        .subcommand_required(true)
        .arg_required_else_help(true);
    let container = FAMILIES.iter().fold(container, |container, family| {
        let command = Command::new(family.name).about(command_line::about(family.name));
        container.subcommand(command.defer(family.arguments))
    });
    let matches = container.try_get_matches()?;
    match matches.subcommand() {
        Some((name, matches)) => FAMILIES
            .iter()
            .find(|family| family.name == name)
            .map_or(Ok(0), |family| (family.main)(matches, started)),
        // The parser answers an empty command line itself, with the help.
        None => Ok(0),
    }
}

/// The exit status of a command on containers, whose error is told here.
fn finish(result: Result<u8, Error>) -> Result<u8, clap::Error> {
    Ok(result.unwrap_or_else(|error| {
        eprintln!("container: {error}");
        error.status()
    }))
}

/// Has this process run from a file that nothing it starts could change. First thing in every command that starts a
/// program in a container.
fn shield() -> Result<(), Error> {
    container::oci::shield::raise().map_err(|error| Error::Refused(error.to_string()))
}

/// Does something with each of several containers. One that fails is told and does not keep the others; the status is
/// 1 then.
fn each(names: &[String], mut act: impl FnMut(&str) -> Result<(), Error>) -> Result<u8, Error> {
    let mut failed = false;
    for name in names {
        if let Err(error) = act(name) {
            eprintln!("container: {error}");
            failed = true;
        }
    }
    Ok(u8::from(failed))
}
