//! The command line: what this program does itself, one command to a file, and the way to the other program for the rest.
//!
//! `container run` is started hundreds of times in a race, and every option that is described to the parser costs it some
//! microseconds. So a command's arguments are described only once its name was read.

mod engine;
mod peel;
mod run;

use std::ffi::OsString;

use clap::{ArgMatches, Command};
use container::command_line::{COMMANDS, Kind};

/// Reads the command line and does what it says; the exit status. The number is when this process started, on
/// CLOCK_MONOTONIC in nanoseconds. The error is for the user: help he asked for, or what is wrong with his words.
pub fn main(started: u64) -> Result<u8, clap::Error> {
    let words = without_help_command(std::env::args_os().collect());
    if is_for_the_engine(&words) {
        return Ok(engine::become_it(&words));
    }
    let container = Command::new("container")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs programs in containers")
        .subcommand_required(true)
        .arg_required_else_help(true);
    let container = COMMANDS.iter().fold(container, |container, &(name, about)| {
        let command = Command::new(name).about(about);
        container.subcommand(match name {
            "run" => command.defer(run::arguments),
            "peel" => command.defer(peel::arguments),
            _ => command,
        })
    });
    let matches: ArgMatches = container.try_get_matches_from(words)?;
    match matches.subcommand() {
        Some(("run", matches)) => run::main(matches, started),
        Some(("peel", matches)) => peel::main(matches),
        // The others went to the engine, and the parser answers an empty command line itself, with the help.
        _ => Ok(0),
    }
}

/// Whether the command is one of the other program's.
fn is_for_the_engine(words: &[OsString]) -> bool {
    match words.get(1).and_then(|word| word.to_str()) {
        Some("peel") => false,
        Some("run") => Kind::of(&words[2..]) != Kind::Plain,
        Some(word) => COMMANDS.iter().any(|&(name, _)| name == word),
        None => false,
    }
}

/// `container help COMMAND` as `container COMMAND --help`, which is then answered by the program whose command it is.
fn without_help_command(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.len() > 2 && words[1] == "help" {
        words.remove(1);
        words.push("--help".into());
    }
    words
}
