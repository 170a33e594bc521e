//! `container peel`: one namespace after another taken away.

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use container::namespaces::Namespace;
use container::peel::rung::{self, Rung};
use container::peel::{ORDER, Peel, ladder, peel};
use container::program::{DEFAULT_PATH, Program};
use container::rootfs::Image;
use protocol::status;

/// Describes its arguments.
pub fn arguments(command: Command) -> Command {
    PeelArguments::augment_args(command)
}

/// Show what each namespace hides, by taking one after the other away
///
/// Runs PROGRAM in a container, then without one namespace, then without two, until there is none left, and shows what
/// comes into view each time, and what each namespace costs.
#[derive(Args)]
struct PeelArguments {
    /// Namespaces in the order in which they are taken away [default: net,pid,uts,cgroup,user,mount,ipc]
    #[arg(long, value_name = "NS,...", value_delimiter = ',')]
    order: Vec<Namespace>,
    /// Directory that becomes the container's root, as for `container run`
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Open a shell (or PROGRAM) on every rung instead, to look around in
    #[arg(long, conflicts_with = "json")]
    shell: bool,
    /// Run PROGRAM once with these namespaces new and nothing else of a container: one rung of `lab ladder`. Empty: none
    #[arg(long, value_name = "NS,...", hide = true, conflicts_with_all = ["order", "shell", "json"], requires = "program")]
    new: Option<String>,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
    /// The program and its arguments; without one, the embedded workload tells what it sees
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Does it; the exit status.
pub fn main(matches: &ArgMatches) -> Result<u8, clap::Error> {
    let arguments = PeelArguments::from_arg_matches(matches)?;
    if let Some(new) = &arguments.new {
        let new = new.split(',').filter(|name| !name.is_empty()).map(str::parse);
        let ran = new
            .collect::<Result<Vec<Namespace>, _>>()
            .map_err(|error| error.to_string());
        let ran = ran.and_then(|new| {
            rung::run(&Rung {
                new,
                image: arguments.rootfs.map(Image::Directory),
                program: program(arguments.program),
            })
            .map_err(|error| error.to_string())
        });
        return Ok(ran.unwrap_or_else(|error| {
            eprintln!("container: {error}");
            status::LAUNCHER_FAILED
        }));
    }
    let what = Peel {
        order: if arguments.order.is_empty() {
            ORDER.to_vec()
        } else {
            arguments.order
        },
        rootfs: arguments.rootfs,
        program: arguments.program,
    };
    let shown = if arguments.shell {
        ladder::shells(&what, |line| eprintln!("\ncontainer: {line}")).map(|()| String::new())
    } else {
        peel(&what).map(|report| match arguments.json {
            true => format!("{}\n", report.json()),
            false => report.text(),
        })
    };
    Ok(match shown {
        Ok(text) => {
            // A reader that went away has seen enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            0
        }
        Err(error) => {
            eprintln!("container: {error}");
            status::LAUNCHER_FAILED
        }
    })
}

fn program(words: Vec<OsString>) -> Program {
    // Arguments of a process are C strings: none contains NUL.
    let c_string = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
    Program {
        arguments: words.into_iter().map(c_string).collect(),
        environment: vec![CString::new(DEFAULT_PATH).unwrap_or_default()],
    }
}
