//! `container`: a program behind kernel views of its own. What has a name, images and volumes is `container-engine`'s,
//! which this one becomes: see [`container::command_line`].

mod cli;

use std::process::ExitCode;

use protocol::marks::monotonic_ns;
use protocol::status;

fn main() -> ExitCode {
    let started = monotonic_ns();
    ExitCode::from(cli::main(started).unwrap_or_else(|error| {
        // Help and version are answers, not failures; they go to standard output.
        let _ = error.print();
        if error.use_stderr() { status::LAUNCHER_FAILED } else { 0 }
    }))
}
