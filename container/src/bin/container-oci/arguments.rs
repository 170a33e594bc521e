//! The command line, as runc and crun have it: engines depend on every word.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI runtime: creates and runs containers from bundles
///
/// For engines (podman --runtime, containerd, CRI-O) and for looking at what they do. People use `container`.
#[derive(Parser)]
#[command(name = "container-oci", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// Where the state of containers is kept [default: /run/container-oci, or $XDG_RUNTIME_DIR/container-oci]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File to append messages to, instead of standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How messages are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Say more
    #[arg(long, global = true)]
    pub debug: bool,
    /// Have systemd make the cgroups: not supported, and refused
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// What engines give runc (`true`, `false`, `auto`); rights are found out by trying
    #[arg(long, value_name = "MODE", hide = true)]
    pub rootless: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// An object a line, with `level`, `msg` and `time`.
    Json,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Create a container, up to a first process that waits to be started
    Create(CreateArguments),
    /// Run the program of a created container
    Start(Id),
    /// Create a container, run its program, stay with it and delete it
    Run(RunArguments),
    /// Run another program in a container that runs
    Exec(Box<ExecArguments>),
    /// Print a container's state as JSON
    State(Id),
    /// Send a signal to a container's first process
    Kill(KillArguments),
    /// Remove a container
    Delete(DeleteArguments),
    /// List containers
    List(ListArguments),
    /// List a container's processes
    Ps(PsArguments),
    /// Stop every process of a container where it is
    Pause(Id),
    /// Have the processes of a paused container go on
    Resume(Id),
    /// Change a container's limits
    Update(Box<UpdateArguments>),
    /// Report what a container uses, as JSON lines
    Events(EventsArguments),
    /// Write a config.json to start from
    Spec(SpecArguments),
    /// Print what this runtime can do, as JSON
    Features,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The arguments of `list`.
#[derive(Args)]
pub struct ListArguments {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// Names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// The arguments of `ps`.
#[derive(Args)]
pub struct PsArguments {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// Options for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS-OPTION")]
    pub options: Vec<String>,
}

/// The arguments of `update`: runc's.
#[derive(Args)]
pub struct UpdateArguments {
    /// File with `resources` as in config.json, or - for standard input; then nothing else counts
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Memory in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Memory below which the kernel takes elsewhere first
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Period in which the processor quota counts, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Processor time in a period, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processor time that may be saved up, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_burst: Option<u64>,
    /// Share of the processors against other cgroups
    #[arg(long, visible_alias = "cpu-share", value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Processors to run on, as in 0-3,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Share of the disks, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// The arguments of `events`.
#[derive(Args)]
pub struct EventsArguments {
    /// One report, and no more
    #[arg(long)]
    pub stats: bool,
    /// Time between two reports
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub interval: humantime::Duration,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// The arguments of `spec`.
#[derive(Args)]
pub struct SpecArguments {
    /// Directory to write config.json to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    pub rootless: bool,
}

/// A container.
#[derive(Args)]
pub struct Id {
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// The arguments of `create`.
#[derive(Args)]
pub struct CreateArguments {
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Local socket that gets the terminal's master
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// File to write the first process's id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Change the root without pivot_root(2), on hosts that run from an initial ramfs
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// The arguments of `run`.
#[derive(Args)]
pub struct RunArguments {
    /// Leave when the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container when the program has ended
    #[arg(long)]
    pub keep: bool,
    /// What `create` takes too.
    #[command(flatten)]
    pub create: CreateArguments,
}

/// The arguments of `exec`.
#[derive(Args)]
pub struct ExecArguments {
    /// File with the program's description, as in config.json; then no program is named here
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Leave when the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Local socket that gets the terminal's master
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// File to write the process's id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The program's working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// An environment variable for the program
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Whom to run the program as
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// An additional group
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// A capability more than the container's program has
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Not to gain privileges by executing a program
    #[arg(long)]
    pub no_new_privs: bool,
    /// Also in a container that is paused
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub program: Vec<String>,
}

/// The arguments of `kill`.
#[derive(Args)]
pub struct KillArguments {
    /// To every process of the container
    #[arg(short, long)]
    pub all: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// A signal, by name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub signal: String,
}

/// The arguments of `delete`.
#[derive(Args)]
pub struct DeleteArguments {
    /// Kill it first; no error if there is none
    #[arg(short, long)]
    pub force: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}
