//! `container shared`: what a process or container has in common with the host.

use std::io::Write;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use container::engine::Container;
use container::engine::place::Place;
use container::shared::{compare, default_reference};
use protocol::status;

use super::Family;

/// Its place on the command line.
pub const SHARED: Family = Family {
    name: "shared",
    arguments: |command: Command| SharedArguments::augment_args(command),
    main,
};

/// Compare what a process shares with the host, and what it has to itself
///
/// Namespaces by inode, kernel, cgroup, mounts, capabilities, seccomp, security label and user ids, side by side with
/// those of the host's first process.
#[derive(Args)]
struct SharedArguments {
    /// Process id, as the host counts; or a container's name, for its first process
    #[arg(value_name = "PID|NAME")]
    process: String,
    /// Process to compare with [default: 1, or this one where that is not ours to look at]
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    with: Option<i32>,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Who is meant.
fn process(word: &str) -> Result<i32, container::engine::Error> {
    match word.parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Ok(Container::find(&Place::configured()?, word)?.init()?.pid),
    }
}

fn main(matches: &ArgMatches, _started: u64) -> Result<u8, clap::Error> {
    let arguments = SharedArguments::from_arg_matches(matches)?;
    let process = match process(&arguments.process) {
        Ok(process) => process,
        Err(error) => {
            eprintln!("container: {error}");
            return Ok(error.status());
        }
    };
    Ok(
        match compare(process, arguments.with.unwrap_or_else(default_reference)) {
            Ok(comparison) => {
                let text = match arguments.json {
                    true => format!("{}\n", comparison.json()),
                    false => comparison.text(),
                };
                // A reader that went away has seen enough.
                let _ = std::io::stdout().write_all(text.as_bytes());
                0
            }
            Err(error) => {
                eprintln!("container: {error}");
                status::LAUNCHER_FAILED
            }
        },
    )
}
