//! `container-oci`: the OCI runtime, for engines. See [`container::oci`].

mod arguments;
mod log;
mod print;

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use container::oci::{self, StateRoot};
use container::say;
use oci_spec::runtime::{Capabilities, Capability, LinuxResources};

use arguments::{Cli, Command, ExecArguments, RunArguments, SpecArguments, UpdateArguments};
use log::Log;

fn main() -> ExitCode {
    // These bring a process of this program's into a container. Looked for before the command line is understood, which
    // is then done once only; a word that stands for something else costs no more than time.
    let enters = |word: std::ffi::OsString| ["create", "run", "exec"].iter().any(|verb| word == *verb);
    if std::env::args_os().skip(1).any(enters)
        && let Err(error) = oci::shield::raise()
    {
        eprintln!("container-oci: {error}");
        return ExitCode::from(oci::FAILED);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not failures; they go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { oci::FAILED } else { 0 });
        }
    };
    let log = Log::new(cli.log.clone(), cli.log_format, cli.debug);
    match run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            log.error(&format!("{error:#}"));
            ExitCode::from(
                error
                    .downcast_ref::<oci::Error>()
                    .map_or(oci::FAILED, oci::Error::status),
            )
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    if cli.systemd_cgroup {
        bail!(
            "--systemd-cgroup is not supported: this runtime makes cgroups itself and asks no other process to. Use the engine's cgroupfs driver (podman --cgroup-manager cgroupfs; SystemdCgroup = false in containerd)"
        );
    }
    let root = cli.root.map(StateRoot::new).unwrap_or_default();
    match cli.command {
        Command::Create(arguments) => oci::create(&root, arguments.into_request()).map_err(oci::Error::from)?,
        Command::Start(container) => oci::start(&root, &container.id).map_err(oci::Error::from)?,
        Command::Run(RunArguments {
            detach: true, create, ..
        }) => {
            oci::foreground::run_detached(&root, create.into_request()).map_err(oci::Error::from)?;
        }
        Command::Run(RunArguments { keep, create, .. }) => {
            return Ok(oci::foreground::run(&root, create.into_request(), keep).map_err(oci::Error::from)?);
        }
        Command::Exec(arguments) => return exec(&root, *arguments),
        Command::State(container) => {
            let state = oci::state(&root, &container.id)?.oci_state();
            say!("{}", serde_json::to_string_pretty(&state)?);
        }
        Command::Kill(arguments) => {
            let number = oci::kill::signal_number(&arguments.signal)
                .with_context(|| format!("{:?} is no signal; `kill -l` lists them", arguments.signal))?;
            oci::kill(&root, &arguments.id, number, arguments.all).map_err(oci::Error::from)?;
        }
        Command::Delete(arguments) => oci::delete(&root, &arguments.id, arguments.force).map_err(oci::Error::from)?,
        Command::List(arguments) => print::list(&root, &arguments)?,
        Command::Ps(arguments) => print::processes(&root, &arguments)?,
        Command::Pause(container) => oci::pause::pause(&root, &container.id).map_err(oci::Error::from)?,
        Command::Resume(container) => oci::pause::resume(&root, &container.id).map_err(oci::Error::from)?,
        Command::Update(arguments) => {
            let limits = limits(&arguments)?;
            oci::update::update(&root, &arguments.id, &limits).map_err(oci::Error::from)?;
        }
        Command::Events(arguments) if arguments.stats => {
            say!(
                "{}",
                oci::events::stats(&root, &arguments.id).map_err(oci::Error::from)?
            );
        }
        Command::Events(arguments) => {
            let out = &mut std::io::stdout();
            oci::events::follow(&root, &arguments.id, *arguments.interval, out).map_err(oci::Error::from)?;
        }
        Command::Spec(arguments) => write_spec(&arguments)?,
        Command::Features => say!("{}", serde_json::to_string_pretty(&oci::features::features())?),
    }
    Ok(0)
}

fn write_spec(arguments: &SpecArguments) -> anyhow::Result<()> {
    let own = arguments
        .rootless
        .then(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    let path = arguments.bundle.join("config.json");
    let mut file = File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
    writeln!(file, "{}", serde_json::to_string_pretty(&oci::template::config(own))?)?;
    Ok(())
}

/// What `update` is to set: a `resources` object, or one made of the arguments.
fn limits(arguments: &UpdateArguments) -> anyhow::Result<LinuxResources> {
    if let Some(path) = &arguments.resources {
        let bytes = match path.as_os_str() == "-" {
            true => {
                let mut bytes = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut bytes)
                    .context("cannot read standard input")?;
                bytes
            }
            false => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        };
        return serde_json::from_slice(&bytes).context("cannot understand the resources");
    }
    let limits = serde_json::json!({
        "memory": {
            "limit": arguments.memory,
            "reservation": arguments.memory_reservation,
            "swap": arguments.memory_swap,
        },
        "cpu": {
            "period": arguments.cpu_period,
            "quota": arguments.cpu_quota,
            "burst": arguments.cpu_burst,
            "shares": arguments.cpu_shares,
            "cpus": arguments.cpuset_cpus,
            "mems": arguments.cpuset_mems,
        },
        "blockIO": { "weight": arguments.blkio_weight },
        "pids": arguments.pids_limit.map(|limit| serde_json::json!({ "limit": limit })),
    });
    Ok(serde_json::from_value(limits)?)
}

fn exec(root: &StateRoot, arguments: ExecArguments) -> anyhow::Result<u8> {
    let detach = arguments.detach;
    let request = exec_request(root, arguments)?;
    if detach {
        oci::exec(root, request).map_err(oci::Error::from)?;
        return Ok(0);
    }
    Ok(oci::foreground::exec(root, request).map_err(oci::Error::from)?)
}

/// What to run: described by a file, or like the container's own program with what the arguments change.
fn exec_request(root: &StateRoot, arguments: ExecArguments) -> anyhow::Result<oci::exec::Request> {
    let mut process = match &arguments.process {
        Some(path) => oci::exec::read_process(path).map_err(oci::Error::from)?,
        None => {
            let mut process = oci::exec::process_like(root, &arguments.id).map_err(oci::Error::from)?;
            process.set_args(Some(arguments.program));
            process
        }
    };
    if arguments.tty {
        process.set_terminal(Some(true));
    }
    if let Some(cwd) = arguments.cwd {
        process.set_cwd(cwd);
    }
    if !arguments.env.is_empty() {
        process.env_mut().get_or_insert_default().extend(arguments.env);
    }
    if let Some(user) = arguments.user {
        let id = |text: &str| {
            text.parse::<u32>()
                .with_context(|| format!("{text:?} is no id: users and groups are numbers here"))
        };
        let (uid, gid) = user.split_once(':').unwrap_or((&user, "0"));
        process.user_mut().set_uid(id(uid)?).set_gid(id(gid)?);
    }
    if !arguments.additional_gids.is_empty() {
        process.user_mut().set_additional_gids(Some(arguments.additional_gids));
    }
    if arguments.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !arguments.cap.is_empty() {
        let mut capabilities = process.capabilities().clone().unwrap_or_default();
        for name in &arguments.cap {
            let capability: Capability = serde_json::from_value(name.to_ascii_uppercase().into())
                .with_context(|| format!("{name:?} is no capability; they are named CAP_..."))?;
            let with = |set: &Option<Capabilities>| {
                let mut set = set.clone().unwrap_or_default();
                set.insert(capability);
                Some(set)
            };
            let sets = [
                capabilities.bounding(),
                capabilities.effective(),
                capabilities.permitted(),
            ]
            .map(with);
            let [bounding, effective, permitted] = sets;
            capabilities
                .set_bounding(bounding)
                .set_effective(effective)
                .set_permitted(permitted);
        }
        process.set_capabilities(Some(capabilities));
    }
    Ok(oci::exec::Request {
        id: arguments.id,
        process,
        console_socket: arguments.console_socket,
        pid_file: arguments.pid_file,
        preserve_fds: arguments.preserve_fds,
        streams: None,
        ignore_paused: arguments.ignore_paused,
    })
}

impl arguments::CreateArguments {
    fn into_request(self) -> oci::Request {
        oci::Request {
            die_with_caller: false,
            id: self.id,
            bundle: self.bundle,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            preserve_fds: self.preserve_fds,
            streams: None,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
        }
    }
}
