//! `container run IMAGE`: a container with a name, that can be come back to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use container::command_line::{self, Kind, RunArguments};
use container::engine::client::{Manner, Outcome, relay};
use container::engine::images;
use container::engine::place::Place;
use container::engine::record::{Limits, Mount, Restart, Settings, Users};
use container::engine::statistics::Groups;
use container::engine::{Error, create, settle, start, stop};
use container::explain::{self, Format};
use container::network::ports::Port;
use container::say;
use container::{network, signals, streams};
use protocol::phase::Phase;

use super::{Family, finish, options, shield};

/// `container run`, but for a plain run.
pub const RUN: Family = Family {
    name: "run",
    arguments,
    main,
};

fn kind() -> Kind {
    Kind::of(std::env::args_os().skip(2))
}

fn arguments(command: Command) -> Command {
    match kind() {
        Kind::Named => ImageRunArguments::augment_args(command),
        Kind::Plain | Kind::Explained => RunArguments::augment_args(command),
    }
}

fn main(matches: &ArgMatches, started: u64) -> Result<u8, clap::Error> {
    match kind() {
        Kind::Named => finish(ImageRunArguments::from_arg_matches(matches)?.run()),
        Kind::Plain | Kind::Explained => Ok(explain_plain_run(RunArguments::from_arg_matches(matches)?, started)),
    }
}

/// A run of a directory or of the built-in workload, as `container` does it, with the story of how it was made.
fn explain_plain_run(arguments: RunArguments, started: u64) -> u8 {
    let format = arguments.explain.unwrap_or(Format::Text);
    let config = arguments.into_config();
    streams::close_inherited(config.marks.descriptor());
    config.marks.mark_at(Phase::ProcessStart, started);
    let status = explain::run(&config, format).unwrap_or_else(|error| {
        eprintln!("container: {error}");
        error.status()
    });
    config.marks.mark(Phase::Exit);
    status
}

/// The arguments of `container run IMAGE`.
#[derive(Args)]
#[command(
    override_usage = "container run [OPTIONS] IMAGE [ARGUMENT]...\n       container run --rootfs DIR [OPTIONS] PROGRAM [ARGUMENT]...",
    after_help = "IMAGE is a name from `container image ls`, or `workload`: the built-in image that holds the lab's program alone.\n\
                  With --rootfs a directory is run instead, once, without a name, a log or a supervisor; `container run --rootfs DIR --help` \
                  lists what that takes. `container run workload ...` without any of the options above runs that way too.\n\
                  Ctrl-P Ctrl-Q leaves the terminal of a container that was started with -it; it goes on.\n\
                  The exit status is the program's own, or 128 + n when signal n ended it. 127: no such program; 126: it cannot be \
                  executed; 125: the container could not be made."
)]
struct ImageRunArguments {
    /// Leave it running, and print its id
    #[arg(short, long)]
    detach: bool,
    /// Its name [default: two words drawn by lot]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Remove it when its program ends, with the volumes made for it alone
    #[arg(long)]
    rm: bool,
    /// Keep its standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Environment variable; a name alone takes its value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File of environment variables, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Whom to run the program as: names from the image's /etc/passwd and /etc/group, or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Host name [default: the beginning of the id]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Program to run instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = options::tmpfs)]
    tmpfs: Vec<(String, String)>,
    /// Mount a directory of the host, or a volume by name (made if there is none); one path alone is a new volume
    #[arg(short, long, value_name = "[SOURCE:]DIR[:ro]", value_parser = options::volume)]
    volume: Vec<Mount>,
    /// Publish a port: a process of the host passes on what comes there
    #[arg(short, long, value_name = "[IP:]HOST:CONTAINER[/udp]")]
    publish: Vec<Port>,
    /// none (a loopback interface alone), bridge, host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "none")]
    network: network::Mode,
    /// Whose ids it has: private (its root is nobody on the host) or host (its root is the host's root, less capabilities) [default:
    /// private where the file systems of all it mounts can shift owners, and its network is not the host's]
    #[arg(long, value_name = "private|host", value_parser = options::users, default_value = "", hide_default_value = true)]
    userns: Users,
    /// Memory limit in bytes; K, M and G are powers of 1024
    #[arg(short, long, value_name = "SIZE", value_parser = command_line::memory)]
    memory: Option<u64>,
    /// Processor limit; 0.5 is half of one processor
    #[arg(long, value_name = "N", value_parser = command_line::cpus)]
    cpus: Option<u64>,
    /// Weight against other cgroups while they want the same processor; without it 1024
    #[arg(long, value_name = "2-262144", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    cpu_shares: Option<u64>,
    /// Processors it may run on, by number, as in 0-2,4
    #[arg(long, value_name = "LIST", value_parser = options::processors)]
    cpuset_cpus: Option<String>,
    /// Limit on processes and threads
    #[arg(long, visible_alias = "pids-limit", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pids: Option<u64>,
    /// Share of the disks' time
    #[arg(long, value_name = "10-1000", value_parser = clap::value_parser!(u16).range(10..=1000))]
    blkio_weight: Option<u16>,
    /// Bytes a second to read from a disk
    #[arg(long, value_name = "DEVICE:RATE", value_parser = options::rate)]
    device_read_bps: Vec<(PathBuf, u64)>,
    /// Bytes a second to write to a disk
    #[arg(long, value_name = "DEVICE:RATE", value_parser = options::rate)]
    device_write_bps: Vec<(PathBuf, u64)>,
    /// Reads a second from a disk
    #[arg(long, value_name = "DEVICE:RATE", value_parser = options::rate)]
    device_read_iops: Vec<(PathBuf, u64)>,
    /// Writes a second to a disk
    #[arg(long, value_name = "DEVICE:RATE", value_parser = options::rate)]
    device_write_iops: Vec<(PathBuf, u64)>,
    /// Capability to add, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Capability to drop, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// seccomp=FILE (a profile in the OCI format), seccomp=unconfined, no-new-privileges[=false]
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Resource limit of the process, as in nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = options::ulimit)]
    ulimit: Vec<(String, u64, u64)>,
    /// Label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// When the program ends: no, on-failure or on-failure:N, always or unless-stopped. Its supervisor starts it again; after the machine was off nobody does
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: Restart,
    /// Signal that asks the program to end [default: TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds it then has
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stop_timeout: u64,
    /// Tell how the container is made, system call by system call, on standard error before its program runs [FORMAT: text or
    /// json]
    #[arg(long, value_name = "FORMAT", value_parser = command_line::explain_format, num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    explain: Option<Format>,
    /// The image
    #[arg(value_name = "IMAGE", required = true)]
    image: String,
    /// What its program is given instead of the image's own arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

impl ImageRunArguments {
    /// Makes the container and runs its program; the exit status.
    fn run(self) -> Result<u8, Error> {
        shield()?;
        if self.restart != Restart::No && self.rm {
            return Err(Error::Refused("--rm and --restart contradict each other".into()));
        }
        if self.tty && self.interactive && !self.detach && container::terminal::size(std::io::stdin()).is_none() {
            return Err(Error::Refused(
                "-it needs a terminal as standard input; leave out -t to pass on a pipe or a file".into(),
            ));
        }
        let Some(format) = self.explain else {
            return self.make_and_run();
        };
        let terminal = self.tty;
        let told = explain::run_named(format, terminal, || {
            self.make_and_run().unwrap_or_else(|error| {
                eprintln!("container: {error}");
                error.status()
            })
        });
        told.map_err(|error| Error::Refused(error.to_string()))
    }

    fn make_and_run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        let detach = self.detach;
        let manner = Manner {
            terminal: self.tty,
            input: self.interactive,
            signals: true,
        };
        let made = create::create(&place, self.settings(&place)?)?;
        let locked = made.lock()?;
        if !detach {
            // From before the program's first moment: whoever has seen it run may send a signal that is meant for it.
            signals::block_all().map_err(Error::kernel("take charge of signals"))?;
        }
        let started = start::start(&locked, !detach);
        let name = &made.settings.name;
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                // Nobody asked to keep a container that never ran; its name is free again.
                let _ = stop::remove(locked, true, true);
                return Err(error);
            }
        };
        say_what_is_missing(&made);
        drop(locked);
        let Some(stream) = &started.client else {
            say!("{}", made.id());
            return Ok(0);
        };
        match relay(stream, manner)? {
            Outcome::Ended(status) => {
                started.wait_for_supervisor();
                Ok(status)
            }
            Outcome::Detached => {
                eprintln!("container: {name} goes on; container logs -f {name} shows what it writes");
                Ok(0)
            }
            Outcome::Lost => {
                settle::settle_all(&place)?;
                Err(Error::Refused(format!(
                    "the supervisor of container {name} was killed, and the container with it"
                )))
            }
        }
    }

    fn settings(self, place: &Place) -> Result<Settings, Error> {
        let image = images::find(place, &self.image)?;
        let mut arguments: Vec<String> = Vec::new();
        for argument in self.arguments {
            arguments.push(argument.into_string().map_err(|argument| {
                Error::Refused(format!(
                    "{} is not UTF-8, which the OCI format asks for",
                    argument.display()
                ))
            })?);
        }
        let command = match (&self.entrypoint, arguments.is_empty()) {
            (Some(program), _) => std::iter::once(program.clone())
                .filter(|program| !program.is_empty())
                .chain(arguments)
                .collect(),
            (None, true) => [image.entrypoint.clone(), image.command.clone()].concat(),
            (None, false) => [image.entrypoint.clone(), arguments].concat(),
        };
        if command.is_empty() {
            return Err(Error::Refused(format!(
                "image {} names no program to run, so name one: container run {} PROGRAM",
                self.image, self.image
            )));
        }
        let mut environment = image.environment;
        for file in &self.env_file {
            let text = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
            options::set_variables(&mut environment, options::env_file_lines(&text));
        }
        options::set_variables(&mut environment, self.env.iter().map(String::as_str));
        let mut mounts = self.volume;
        for volume in &image.volumes {
            if !mounts.iter().any(|mount| Path::new(&mount.target) == Path::new(volume)) {
                mounts.push(options::anonymous_volume(volume));
            }
        }
        let (seccomp, may_gain_privileges) = options::security(&self.security_opt)?;
        let stop_signal = self.stop_signal.or(image.stop_signal).unwrap_or_else(|| "TERM".into());
        stop::signal(&stop_signal).map_err(Error::Refused)?;
        let labels = self.label.iter().map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            (name.to_owned(), value.to_owned())
        });
        Ok(Settings {
            name: self.name,
            image: self.image,
            image_digest: image.digest,
            layers: image.layers,
            command,
            environment,
            user: self.user.unwrap_or(image.user),
            workdir: self.workdir.unwrap_or(image.workdir),
            hostname: self.hostname.unwrap_or_default(),
            labels: image.labels.into_iter().chain(labels).collect(),
            terminal: self.tty,
            interactive: self.interactive,
            remove: self.rm,
            read_only: self.read_only,
            mounts,
            tmpfs: self.tmpfs,
            network: self.network,
            users: self.userns,
            ports: self.publish,
            limits: Limits {
                memory: self.memory,
                cpu_thousandths: self.cpus,
                cpu_shares: self.cpu_shares,
                cpuset_cpus: self.cpuset_cpus,
                pids: self.pids,
                blkio_weight: self.blkio_weight,
                device_read_bps: self.device_read_bps,
                device_write_bps: self.device_write_bps,
                device_read_iops: self.device_read_iops,
                device_write_iops: self.device_write_iops,
            },
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            seccomp,
            may_gain_privileges,
            ulimits: self.ulimit,
            restart: self.restart,
            stop_signal,
            stop_timeout: self.stop_timeout,
            ..Settings::default()
        })
    }
}

/// What a container on this host cannot have, said once, by whoever starts it: a way from the bridge to the world, a share of
/// the disks' time, ids of its own.
fn say_what_is_missing(container: &container::engine::Container) {
    let Ok(state) = container.state() else { return };
    let name = &container.settings.name;
    if let Some(reason) = state.no_way_out {
        eprintln!("container: note: {name} reaches the host and its neighbours, nothing beyond: {reason}");
    }
    // Of version 1 and of 2, with the kernel's own disk scheduler and with BFQ.
    let weights = ["blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"];
    let has_weight = container.settings.limits.blkio_weight.is_some();
    if has_weight
        && state
            .init
            .is_some_and(|init| Groups::own(container, init.pid).lack(&weights))
    {
        eprintln!(
            "container: note: {name} has no share of the disks' time: this kernel has nobody to keep shares (none of {})",
            weights.join(", ")
        );
    }
    if let Some(reason) = state.no_own_users {
        eprintln!(
            "container: note: {name} has no user namespace, its root is the host's root (--userns host says that this is meant): {reason}"
        );
    }
}
