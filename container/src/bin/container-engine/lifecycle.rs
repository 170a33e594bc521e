//! `container start | stop | restart | kill | rm | wait`.

use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use container::engine::client::{Manner, Outcome, relay};
use container::engine::place::Place;
use container::engine::{Container, Error, attach, client, settle, start, stop};
use container::say;
use container::signals;

use super::{Family, each, finish, shield};

/// `container start`.
pub const START: Family = Family {
    name: "start",
    arguments: StartArguments::augment_args,
    main: |matches, _| finish(StartArguments::from_arg_matches(matches)?.run()),
};

/// `container stop`.
pub const STOP: Family = Family {
    name: "stop",
    arguments: StopArguments::augment_args,
    main: |matches, _| finish(StopArguments::from_arg_matches(matches)?.run(false)),
};

/// `container restart`.
pub const RESTART: Family = Family {
    name: "restart",
    arguments: StopArguments::augment_args,
    main: |matches, _| finish(StopArguments::from_arg_matches(matches)?.run(true)),
};

/// `container kill`.
pub const KILL: Family = Family {
    name: "kill",
    arguments: KillArguments::augment_args,
    main: |matches, _| finish(KillArguments::from_arg_matches(matches)?.run()),
};

/// `container rm`.
pub const RM: Family = Family {
    name: "rm",
    arguments: RmArguments::augment_args,
    main: |matches, _| finish(RmArguments::from_arg_matches(matches)?.run()),
};

/// `container wait`.
pub const WAIT: Family = Family {
    name: "wait",
    arguments: names_only,
    main: |matches, _| finish(wait(matches)),
};

#[derive(Args)]
struct StartArguments {
    /// Watch what it writes, and end when it does
    #[arg(short, long)]
    attach: bool,
    /// The containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl StartArguments {
    fn run(self) -> Result<u8, Error> {
        shield()?;
        let place = Place::configured()?;
        if !self.attach {
            return each(&self.names, |name| {
                start::start(&Container::find(&place, name)?.lock()?, false)?;
                say!("{name}");
                Ok(())
            });
        }
        let [name] = &self.names[..] else {
            return Err(Error::Refused("-a watches one container".into()));
        };
        let locked = Container::find(&place, name)?.lock()?;
        let manner = Manner {
            terminal: locked.settings.terminal,
            input: locked.settings.interactive,
            signals: true,
        };
        // From before the program's first moment: whoever has seen it run may send a signal that is meant for it.
        signals::block_all().map_err(Error::kernel("take charge of signals"))?;
        let started = start::start(&locked, true)?;
        drop(locked);
        match started
            .client
            .as_ref()
            .map(|client| relay(client, manner))
            .transpose()?
        {
            Some(Outcome::Ended(status)) => {
                started.wait_for_supervisor();
                Ok(status)
            }
            Some(Outcome::Detached) | None => Ok(0),
            Some(Outcome::Lost) => Err(Error::Refused(format!("the supervisor of container {name} was killed"))),
        }
    }
}

#[derive(Args)]
struct StopArguments {
    /// Seconds they have before they are killed [default: the container's own, 10]
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u64>,
    /// The signal to ask with [default: the container's own, TERM]
    #[arg(short, long, value_name = "SIGNAL", value_parser = stop::signal)]
    signal: Option<i32>,
    /// The containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl StopArguments {
    fn run(self, and_start: bool) -> Result<u8, Error> {
        if and_start {
            shield()?;
        }
        let place = Place::configured()?;
        each(&self.names, |name| {
            let locked = Container::find(&place, name)?.lock()?;
            let own = stop::signal(&locked.settings.stop_signal).unwrap_or(libc::SIGTERM);
            let time = Duration::from_secs(self.time.unwrap_or(locked.settings.stop_timeout));
            stop::stop(&locked, self.signal.unwrap_or(own), time)?;
            if and_start {
                start::start(&locked, false)?;
            }
            say!("{name}");
            Ok(())
        })
    }
}

#[derive(Args)]
struct KillArguments {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", value_parser = stop::signal, default_value = "KILL")]
    signal: i32,
    /// The containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl KillArguments {
    fn run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        each(&self.names, |name| {
            stop::kill(&Container::find(&place, name)?, self.signal)?;
            say!("{name}");
            Ok(())
        })
    }
}

#[derive(Args)]
struct RmArguments {
    /// Also those that run: they are killed
    #[arg(short, long)]
    force: bool,
    /// Also the volumes that were made for them alone
    #[arg(short, long)]
    volumes: bool,
    /// The containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl RmArguments {
    fn run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        settle::settle_all(&place)?;
        each(&self.names, |name| {
            stop::remove(Container::find(&place, name)?.lock()?, self.force, self.volumes)?;
            say!("{name}");
            Ok(())
        })
    }
}

/// A command with names and nothing else.
pub(super) fn names_only(command: Command) -> Command {
    command.arg(
        clap::Arg::new("names")
            .required(true)
            .num_args(1..)
            .value_name("CONTAINER")
            .help("The containers, by name or id"),
    )
}

/// The names of such a command.
pub(super) fn names(matches: &ArgMatches) -> Vec<String> {
    matches.get_many("names").into_iter().flatten().cloned().collect()
}

fn wait(matches: &ArgMatches) -> Result<u8, Error> {
    let place = Place::configured()?;
    each(&names(matches), |name| {
        let container = Container::find(&place, name)?;
        let told = match attach::connect(&container.directory(), false) {
            Ok(stream) => client::wait(&stream).ok().flatten(),
            // Nobody listens: it does not run.
            Err(_) => None,
        };
        let status = match told {
            Some(status) => status,
            None => {
                settle::settle_all(&place)?;
                container.state()?.exit_code.unwrap_or_default()
            }
        };
        say!("{status}");
        Ok(())
    })
}
