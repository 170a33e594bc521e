//! The command line: one family of subcommands to a file.
//!
//! `container run` is started hundreds of times in a race, and every option that is described to the parser costs it some
//! microseconds. So a family's arguments are described only once its name was read.

mod build;
mod image;
mod peel;
mod run;

use clap::{ArgMatches, Command};

/// A subcommand of `container`, or a family of them.
pub struct Family {
    /// The word after `container`.
    pub name: &'static str,
    /// What `container --help` says about it, in one line.
    pub about: &'static str,
    /// Adds its arguments, and its own subcommands.
    pub arguments: fn(Command) -> Command,
    /// Does it; the exit status. The number is when this process started, on CLOCK_MONOTONIC in nanoseconds.
    pub main: fn(&ArgMatches, u64) -> Result<u8, clap::Error>,
}

/// In the order in which `container --help` lists them.
const FAMILIES: &[Family] = &[run::RUN, image::IMAGE, peel::PEEL];

/// Reads the command line and does what it says; the exit status. The error is for the user: help he asked for, or what
/// is wrong with his words.
pub fn main(started: u64) -> Result<u8, clap::Error> {
    let container = Command::new("container")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs programs in containers")
        .subcommand_required(true)
        .arg_required_else_help(true);
    let container = FAMILIES.iter().fold(container, |container, family| {
        container.subcommand(Command::new(family.name).about(family.about).defer(family.arguments))
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
