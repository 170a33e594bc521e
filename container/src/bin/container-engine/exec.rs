//! `container exec`: one more program in a container that runs.

use std::fs::File;
use std::io::{stderr, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use clap::{Args, FromArgMatches};
use container::engine::place::Place;
use container::engine::{Container, Error, account, filesystem, runtime, specification};
use container::oci::{self, exec, foreground};
use container::signals;

use super::{Family, finish, options, shield};

/// `container exec`.
pub const EXEC: Family = Family {
    name: "exec",
    arguments: ExecArguments::augment_args,
    main: |matches, _| finish(ExecArguments::from_arg_matches(matches)?.run()),
};

#[derive(Args)]
struct ExecArguments {
    /// Leave it running
    #[arg(short, long)]
    detach: bool,
    /// Pass on standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Environment variable besides the container's; a name alone takes its value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Whom to run it as [default: the container's user]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    program: Vec<String>,
}

impl ExecArguments {
    fn run(self) -> Result<u8, Error> {
        shield()?;
        let container = Container::find(&Place::configured()?, &self.name)?;
        let init = container.init()?;
        if self.tty && self.interactive && container::terminal::size(std::io::stdin()).is_none() {
            return Err(Error::Refused(
                "-it needs a terminal as standard input; leave out -t to pass on a pipe or a file".into(),
            ));
        }
        let root = runtime::state_root(&container);
        let mut process = exec::process_like(&root, container.id()).map_err(runtime_error)?;
        process.set_terminal(Some(self.tty)).set_args(Some(self.program));
        let mut environment = process.env().clone().unwrap_or_default();
        if self.tty && !environment.iter().any(|variable| variable.starts_with("TERM=")) {
            environment.push("TERM=xterm".into());
        }
        options::set_variables(&mut environment, self.env.iter().map(String::as_str));
        process.set_env(Some(environment));
        if let Some(directory) = self.workdir {
            process.set_cwd(directory.into());
        }
        if let Some(user) = &self.user {
            let files = filesystem::open_root(Path::new(&format!("/proc/{}/root", init.pid)))?;
            let account = account::find(files.as_fd(), user).map_err(Error::Refused)?;
            specification::run_as(&mut process, &container.settings, &account).map_err(Error::Refused)?;
        }
        if !self.detach {
            let ids_from = container.state()?.ids_from;
            let user = process.user();
            let owner = ids_from.map(|from| (from + user.uid(), from + user.gid()));
            container::streams::prepare(owner).map_err(|error| Error::Refused(error.to_string()))?;
        }
        let streams = match (self.tty, self.detach) {
            (true, _) => None,
            (false, true) => Some([null()?, null()?, null()?]),
            (false, false) if !self.interactive => Some([null()?, again(stdout())?, again(stderr())?]),
            (false, false) => None,
        };
        let request = exec::Request {
            id: container.id().to_owned(),
            process,
            streams,
            ..Default::default()
        };
        if self.detach {
            // Nobody is left to want its status: the container's first process inherits it.
            exec::exec(&root, request).map_err(runtime_error)?;
            return Ok(0);
        }
        signals::block_all().map_err(Error::kernel("take charge of signals"))?;
        foreground::exec(&root, request).map_err(runtime_error)
    }
}

fn runtime_error(error: impl Into<oci::Error>) -> Error {
    Error::from(error.into())
}

fn null() -> Result<OwnedFd, Error> {
    let path = Path::new("/dev/null");
    let file = File::options().read(true).write(true).open(path);
    Ok(file.map_err(Error::io("open", path))?.into())
}

/// One of our own streams, for the program.
fn again(stream: impl AsFd) -> Result<OwnedFd, Error> {
    let copy = stream.as_fd().try_clone_to_owned();
    copy.map_err(Error::io("copy", Path::new("a standard stream")))
}
