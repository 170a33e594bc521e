//! `container run`: one program, behind kernel views of its own.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use container::Config;
use container::capabilities::KEPT;
use container::cgroup::Limits;
use container::engine::images;
use container::engine::place::Place;
use container::explain::{self, Format};
use container::image::store;
use container::layered::{Layers, Upper};
use container::namespaces::{Namespace, Namespaces};
use container::program::{DEFAULT_PATH, Program, WORKLOAD};
use container::rootfs::Image;
use container::streams;
use container::users::User;
use protocol::marks::Marks;
use protocol::phase::Phase;

use super::Family;
use super::container_run::ImageRunArguments;

/// Its place on the command line.
pub const RUN: Family = Family {
    name: "run",
    about: "Run a program in a container of its own",
    arguments,
    main,
};

fn arguments(command: Command) -> Command {
    match is_plain() {
        true => RunArguments::augment_args(command),
        false => ImageRunArguments::augment_args(command),
    }
}

/// Whether the command line asks for a plain run: a directory, or the built-in workload with nothing that needs more.
///
/// Such a run is raced: the other's fifty options are not even described for it. Its own are few, so that it can be told
/// from them where the program's name stands.
fn is_plain() -> bool {
    let mut words = std::env::args_os().skip(2);
    let mut plain = false;
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else { return plain };
        if text == "--" {
            return plain || words.next().is_some_and(|program| program == WORKLOAD);
        }
        if !text.starts_with('-') {
            return plain || text == WORKLOAD;
        }
        let name = text.split('=').next().unwrap_or_default();
        match name {
            "--explain" => plain = true,
            "--rootfs" | "--without" | "--marks-fd" => plain = true,
            "--memory" | "--cpus" | "--pids" | "--hostname" | "--env" | "--workdir" | "--user" => {}
            _ => return plain,
        }
        if name.len() == text.len() && name != "--explain" {
            words.next();
        }
    }
    plain
}

fn main(matches: &ArgMatches, started: u64) -> Result<u8, clap::Error> {
    if !is_plain() {
        return super::finish(ImageRunArguments::from_arg_matches(matches)?.run());
    }
    let arguments = RunArguments::from_arg_matches(matches)?;
    let explain = arguments.explain;
    let may_be_image = explain.is_some() && arguments.rootfs.is_none();
    let mut config = arguments.into_config();
    streams::close_inherited(config.marks.descriptor());
    if may_be_image {
        config = explained_image(config);
    }
    config.marks.mark_at(Phase::ProcessStart, started);
    let status = match explain {
        None => container::run(&config).unwrap_or_else(|error| {
            eprintln!("container: {error}");
            error.status()
        }),
        Some(format) => explain::run(&config, format).unwrap_or_else(|error| {
            eprintln!("container: {error}");
            error.status()
        }),
    };
    config.marks.mark(Phase::Exit);
    Ok(status)
}

/// The same for an image of the store's, where the program's name is that of one: what is told of is a run of its layers
/// without a name, a log or a supervisor, for those are not what makes a container.
fn explained_image(mut config: Config) -> Config {
    let Some((name, arguments)) = config.program.arguments.split_first() else {
        return config;
    };
    let name = name.to_string_lossy();
    let found = match name == WORKLOAD {
        true => None,
        // What is no image's name is a program's, as ever.
        false => store::default_root().ok().and_then(|store| {
            let place = Place::configured().ok()?;
            let image = images::find(&place, &name).ok()?;
            Some((store, image))
        }),
    };
    let Some((store, image)) = found else { return config };
    let c_string = |text: String| CString::new(text).unwrap_or_default();
    let given = arguments.to_vec();
    let command = if given.is_empty() { image.command } else { Vec::new() };
    let program = image.entrypoint.into_iter().chain(command).map(c_string);
    config.program.arguments = program.chain(given).collect();
    // The program's own first: of two with one name getenv(3) finds the first.
    config.program.environment.rotate_left(1);
    config
        .program
        .environment
        .splice(0..0, image.environment.into_iter().map(c_string));
    if config.workdir == Path::new("/") && !image.workdir.is_empty() {
        config.workdir = image.workdir.into();
    }
    let relative = |layer: &PathBuf| layer.strip_prefix(&store).map_or_else(|_| layer.clone(), PathBuf::from);
    config.image = Image::Layers(Layers {
        lower: image.layers.iter().map(relative).collect(),
        upper: Upper::Throwaway,
        store,
    });
    config
}

/// Run a program in a container of its own
///
/// The exit status is the program's own, or 128 + n when signal n ended it. 127: no such program; 126: it cannot be
/// executed; 125: the container could not be made.
#[derive(Args)]
struct RunArguments {
    /// Directory that becomes the container's root; it stays as it is, changes are thrown away. Without it the
    /// container holds the program `workload` alone
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Namespaces to leave out: user, mount, pid, net, uts, ipc, cgroup
    #[arg(long, value_name = "NS,...", value_delimiter = ',')]
    without: Vec<Namespace>,
    /// Memory limit in bytes; K, M and G are powers of 1024
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Processor limit; 0.5 is half of one processor
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u64>,
    /// Limit on processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pids: Option<u64>,
    /// Host name inside [default: lab-container]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Environment variable for the program, which gets PATH and nothing else from elsewhere
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<CString>,
    /// The program's working directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    workdir: PathBuf,
    /// Whom to run the program as, inside
    #[arg(long, value_name = "UID[:GID]", value_parser = user, default_value = "0:0")]
    user: User,
    /// File descriptor to report the phases of the start to, as JSON lines
    #[arg(long, value_name = "FD", value_parser = open_descriptor)]
    marks_fd: Option<RawFd>,
    /// Tell how the container is made, system call by system call, on standard error [FORMAT: text or json]. In the place
    /// of the program may be an image, with arguments for its program
    #[arg(long, value_name = "FORMAT", value_parser = explain_format, num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    explain: Option<Format>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl RunArguments {
    /// The container they describe.
    fn into_config(self) -> Config {
        // Arguments of a process are C strings: none contains NUL.
        let c_string = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
        let path = CString::new(DEFAULT_PATH).unwrap_or_default();
        Config {
            image: self.rootfs.map_or(Image::Workload, Image::Directory),
            namespaces: Namespaces::without(&self.without),
            limits: Limits {
                memory: self.memory,
                cpu_thousandths: self.cpus,
                pids: self.pids,
            },
            hostname: self.hostname,
            workdir: self.workdir,
            user: self.user,
            groups: Vec::new(),
            capabilities: KEPT,
            program: Program {
                arguments: self.program.into_iter().map(c_string).collect(),
                environment: std::iter::once(path).chain(self.env).collect(),
            },
            marks: Marks::new(self.marks_fd, "container"),
        }
    }
}

/// Bytes.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|error| error.to_string())?;
    // One page could not even hold the program's first one.
    if bytes < 4096 {
        Err("less than one page of memory (4096 bytes)".into())
    } else {
        Ok(bytes)
    }
}

/// Thousandths of a processor. The kernel takes no quota below one millisecond in a period of a hundred.
pub(super) fn cpus(text: &str) -> Result<u64, String> {
    let cpus: f64 = text
        .parse()
        .map_err(|_| "not a number; half of one processor is 0.5".to_owned())?;
    if !(0.01..=100_000.0).contains(&cpus) {
        return Err("must be at least 0.01, one hundredth of a processor (and at most 100000)".into());
    }
    Ok((cpus * 1000.0).round() as u64)
}

fn variable(text: &str) -> Result<CString, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => CString::new(text).map_err(|error| error.to_string()),
        _ => Err("must be NAME=VALUE".into()),
    }
}

fn user(text: &str) -> Result<User, String> {
    let id = |text: &str| {
        // The largest value means "no id" to the kernel.
        text.parse()
            .ok()
            .filter(|&id| id != u32::MAX)
            .ok_or_else(|| format!("{text:?} is no id; user and group are numbers, as in 1000:1000"))
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    Ok(User {
        uid: id(uid)?,
        gid: id(gid)?,
    })
}

fn explain_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("must be text or json".into()),
    }
}

fn open_descriptor(text: &str) -> Result<RawFd, String> {
    let fd = text
        .parse()
        .map_err(|_| "not a file descriptor, which is a whole number".to_owned())?;
    // SAFETY: F_GETFD looks at a descriptor and changes nothing; one that is not open is reported by EBADF.
    match nix::errno::Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) }) {
        Ok(_) => Ok(fd),
        Err(errno) => Err(format!(
            "{}; the caller must leave it open across exec",
            container::errno::why(&errno)
        )),
    }
}
