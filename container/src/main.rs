//! `container run`: one program, behind kernel views of its own.

mod arguments;

use std::process::ExitCode;

use clap::Parser;
use protocol::marks::monotonic_ns;
use protocol::phase::Phase;
use protocol::status;

fn main() -> ExitCode {
    let started = monotonic_ns();
    let arguments = match arguments::Cli::try_parse() {
        Ok(arguments::Cli {
            command: arguments::Command::Run(arguments),
        }) => arguments,
        Err(error) => {
            // Help and version are answers, not failures; they go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { status::LAUNCHER_FAILED } else { 0 });
        }
    };
    let config = arguments.into_config();
    config.marks.mark_at(Phase::ProcessStart, started);
    let status = container::run(&config).unwrap_or_else(|error| {
        eprintln!("container: {error}");
        error.status()
    });
    config.marks.mark(Phase::Exit);
    ExitCode::from(status)
}
