//! `container run --rootfs DIR` and `container run workload`: one program, behind kernel views of its own.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use container::command_line::RunArguments;
use container::streams;
use protocol::phase::Phase;

/// Describes its arguments.
pub fn arguments(command: Command) -> Command {
    RunArguments::augment_args(command)
}

/// Does it; the exit status.
pub fn main(matches: &ArgMatches, started: u64) -> Result<u8, clap::Error> {
    let config = RunArguments::from_arg_matches(matches)?.into_config();
    streams::close_inherited(config.marks.descriptor());
    config.marks.mark_at(Phase::ProcessStart, started);
    let status = container::run(&config).unwrap_or_else(|error| {
        eprintln!("container: {error}");
        error.status()
    });
    config.marks.mark(Phase::Exit);
    Ok(status)
}
