//! `container ps`, `container inspect`, `container logs`.

use std::io::{self, Write};
use std::time::SystemTime;

use clap::{ArgMatches, Args, FromArgMatches};
use container::engine::logs::{self, Selection, Stream};
use container::engine::place::Place;
use container::engine::record::{State, Status};
use container::engine::statistics::Groups;
use container::engine::{Container, Error, naming, settle};
use container::say;
use serde_json::{Value, json};

use super::lifecycle::{names, names_only};
use super::table::Columns;
use super::{Family, each, finish};

/// `container ps`.
pub const PS: Family = Family {
    name: "ps",
    arguments: PsArguments::augment_args,
    main: |matches, _| finish(PsArguments::from_arg_matches(matches)?.run()),
};

/// `container inspect`.
pub const INSPECT: Family = Family {
    name: "inspect",
    arguments: names_only,
    main: |matches, _| finish(inspect(matches)),
};

/// `container logs`.
pub const LOGS: Family = Family {
    name: "logs",
    arguments: LogsArguments::augment_args,
    main: |matches, _| finish(LogsArguments::from_arg_matches(matches)?.run()),
};

#[derive(Args)]
struct PsArguments {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl PsArguments {
    fn run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        settle::settle_all(&place)?;
        let mut table = Columns::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"]);
        for container in Container::all(&place)? {
            let Ok(state) = container.state() else { continue };
            let status = container.status(&state);
            let runs = matches!(status, Status::Running | Status::Restarting);
            if !runs && !self.all {
                continue;
            }
            let settings = &container.settings;
            if self.quiet {
                table.line(naming::short(container.id()));
            } else if self.json {
                table.line(&summary(&container, &state).to_string());
            } else {
                let ports: Vec<String> = settings.ports.iter().map(ToString::to_string).collect();
                table.row([
                    naming::short(container.id()).to_owned(),
                    settings.image.clone(),
                    shorten(&settings.command.join(" ")),
                    format!("{} ago", age(Some(&settings.created))),
                    describe(status, &state),
                    ports.join(", "),
                    settings.name.clone(),
                ]);
            }
        }
        table.print(!self.quiet && !self.json);
        Ok(0)
    }
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 30;
    match text.chars().count() > LONGEST {
        true => text.chars().take(LONGEST - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

fn describe(status: Status, state: &State) -> String {
    match status {
        Status::Created => "created".into(),
        Status::Running => format!("up {}", age(state.started.as_ref())),
        Status::Restarting => format!(
            "restarting ({}), {} times",
            state.exit_code.unwrap_or(0),
            state.restarts
        ),
        Status::Exited => {
            format!(
                "exited ({}) {} ago",
                state.exit_code.unwrap_or(0),
                age(state.finished.as_ref())
            )
        }
    }
}

/// How long ago, in its largest unit.
fn age(time: Option<&String>) -> String {
    let then = time.and_then(|time| humantime::parse_rfc3339(time).ok());
    let seconds = then
        .and_then(|then| SystemTime::now().duration_since(then).ok())
        .map_or(0, |age| age.as_secs());
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn summary(container: &Container, state: &State) -> Value {
    let settings = &container.settings;
    json!({
        "Id": settings.id,
        "Name": settings.name,
        "Image": settings.image,
        "Command": settings.command,
        "Created": settings.created,
        "Status": container.status(state).word(),
        "ExitCode": state.exit_code,
        "Ports": settings.ports,
        "Labels": settings.labels,
    })
}

fn inspect(matches: &ArgMatches) -> Result<u8, Error> {
    let place = Place::configured()?;
    settle::settle_all(&place)?;
    let mut all = Vec::new();
    let status = each(&names(matches), |name| {
        let container = Container::find(&place, name)?;
        let state = container.state()?;
        let status = container.status(&state);
        let groups = state.init.map(|init| Groups::own(&container, init.pid).directories());
        all.push(json!({
            "Id": container.settings.id,
            "Name": container.settings.name,
            "Created": container.settings.created,
            "State": {
                "Status": status.word(),
                "Running": status == Status::Running,
                "Pid": state.init.map_or(0, |init| init.pid),
                "SupervisorPid": container.supervisor().unwrap_or(0),
                "ExitCode": state.exit_code,
                "Error": state.error,
                "OOMKilled": state.oom_killed,
                "StartedAt": state.started,
                "FinishedAt": state.finished,
                "RestartCount": state.restarts,
            },
            "NetworkSettings": {
                "Mode": container.settings.network,
                "Addresses": state.addresses,
                "Gateway": state.gateway,
                "Ports": container.settings.ports,
                "NoWayOut": state.no_way_out,
            },
            "UserNamespace": {
                "IdsFrom": state.ids_from,
                "WhyNone": state.no_own_users,
            },
            "Cgroups": groups,
            "LogPath": container.file("log.json"),
            "Directory": container.directory(),
            "Settings": container.settings,
        }));
        Ok(())
    })?;
    say!("{}", serde_json::to_string_pretty(&all).unwrap_or_default());
    Ok(status)
}

#[derive(Args)]
struct LogsArguments {
    /// Go on as long as the container runs
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Only what was written since then: a time (2026-11-25T13:00:00Z), or how long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = logs::since)]
    since: Option<SystemTime>,
    /// Put the time in front of each line
    #[arg(short, long)]
    timestamps: bool,
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
}

impl LogsArguments {
    fn run(self) -> Result<u8, Error> {
        let container = Container::find(&Place::configured()?, &self.name)?;
        let selection = Selection {
            tail: self.tail,
            since: self.since,
        };
        let path = container.file("log.json");
        let show = |line: &logs::Line| -> io::Result<()> {
            let time = if self.timestamps {
                format!("{} ", line.time)
            } else {
                String::new()
            };
            match line.stream {
                Stream::Stdout => write!(io::stdout(), "{time}{}", line.log),
                Stream::Stderr => write!(io::stderr(), "{time}{}", line.log),
            }
        };
        match logs::read(&path, &selection, show, || {
            self.follow && container.supervisor().is_some()
        }) {
            Ok(()) => Ok(0),
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }
}
