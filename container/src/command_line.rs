//! The words of `container`'s command line that both its programs know.
//!
//! `container` is started hundreds of times in a race, and a program of many parts is slow to start and large to hold: its
//! relocations are written into memory page by page, and of its code comes in more than is run. So the program of that
//! name does what a container is made of and no more: a run of a directory or of the built-in workload, and
//! `container peel`. All that remembers something (names, images, volumes) or watches is the other program's,
//! `container-engine`, which `container` becomes.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::Args;
use protocol::marks::Marks;

use crate::Config;
use crate::capabilities::KEPT;
use crate::cgroup::Limits;
use crate::explain::Format;
use crate::namespaces::{Namespace, Namespaces};
use crate::program::{DEFAULT_PATH, Program, WORKLOAD};
use crate::rootfs::Image;
use crate::users::User;

/// The program for all that `container` does not do itself; it lies beside it.
pub const ENGINE: &str = "container-engine";

/// The words that may follow `container`, in the order in which `container --help` lists them, and what it says of each.
pub const COMMANDS: [(&str, &str); 20] = [
    ("run", "Run a program in a container of its own"),
    ("ps", "List containers"),
    ("exec", "Run one more program in a running container"),
    ("logs", "Show what a container's program wrote"),
    ("stop", "Ask containers to end, and kill those that do not in time"),
    ("start", "Start containers that were made before"),
    ("restart", "Stop containers and start them again"),
    ("kill", "Send a signal to the programs of containers"),
    (
        "wait",
        "Wait until containers have ended, and print their exit statuses",
    ),
    ("rm", "Remove containers"),
    ("inspect", "Show everything about containers, as JSON"),
    ("stats", "Show what running containers use"),
    ("top", "List the processes of a container"),
    ("cp", "Copy files into or out of a container, whether it runs or not"),
    (
        "diff",
        "Show what a container changed in its image's files, and what it still shares",
    ),
    (
        "commit",
        "Make an image of a container: its own, and what was changed as one layer more",
    ),
    ("volume", "Directories with a name that outlive containers"),
    ("image", "Build, import, export, list, inspect and remove images"),
    (
        "peel",
        "Show what each namespace hides, by taking one after the other away",
    ),
    (
        "shared",
        "Compare what a process shares with the host, and what it has to itself",
    ),
];

/// What `--help` says about a command, in one line.
pub fn about(name: &str) -> &'static str {
    COMMANDS
        .iter()
        .find(|command| command.0 == name)
        .map_or("", |command| command.1)
}

/// What kind of run the words after `container run` ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory, or the built-in workload with nothing that needs more: once, without a name, a log or a supervisor.
    Plain,
    /// Such a one, told system call by system call.
    Explained,
    /// A container with a name, from an image.
    Named,
}

impl Kind {
    /// Tells it from the words. A plain run's options are few, so that it can be told from the others where the program's
    /// name stands, or from the first option that only the others have.
    pub fn of<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Kind {
        let mut words = words.into_iter();
        let (mut plain, mut explained) = (false, false);
        while let Some(word) = words.next() {
            let Some(text) = word.as_ref().to_str() else { break };
            if text == "--" {
                plain |= words.next().is_some_and(|program| program.as_ref() == WORKLOAD);
                break;
            }
            if !text.starts_with('-') {
                plain |= text == WORKLOAD;
                break;
            }
            let name = text.split('=').next().unwrap_or_default();
            match name {
                "--explain" => explained = true,
                "--rootfs" | "--without" | "--marks-fd" => plain = true,
                "--memory" | "--cpus" | "--pids" | "--hostname" | "--env" | "--workdir" | "--user" => {}
                _ => break,
            }
            if name.len() == text.len() && name != "--explain" {
                words.next();
            }
        }
        match (plain, explained) {
            (true, false) => Kind::Plain,
            (true, true) => Kind::Explained,
            (false, _) => Kind::Named,
        }
    }
}

/// Run a program in a container of its own
///
/// The exit status is the program's own, or 128 + n when signal n ended it. 127: no such program; 126: it cannot be
/// executed; 125: the container could not be made.
#[derive(Args)]
pub struct RunArguments {
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
    /// Tell how the container is made, system call by system call, on standard error [FORMAT: text or json]
    #[arg(long, value_name = "FORMAT", value_parser = explain_format, num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub explain: Option<Format>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl RunArguments {
    /// The container they describe.
    pub fn into_config(self) -> Config {
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
pub fn memory(text: &str) -> Result<u64, String> {
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
pub fn cpus(text: &str) -> Result<u64, String> {
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

/// How the story of a set-up is to be told.
pub fn explain_format(text: &str) -> Result<Format, String> {
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
            crate::errno::why(&errno)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_run_is_told_by_its_words() {
        let of = |line: &str| Kind::of(line.split_whitespace());
        for line in [
            "--rootfs d sh",
            "--memory 1M --rootfs=d -- sh -d",
            "workload --explain",
            "-- workload",
            "--rootfs d --help",
        ] {
            assert_eq!(of(line), Kind::Plain, "{line}");
        }
        for line in [
            "--explain workload",
            "--explain=json --rootfs d sh",
            "--rootfs d --explain sh",
        ] {
            assert_eq!(of(line), Kind::Explained, "{line}");
        }
        for line in [
            "",
            "--help",
            "busybox",
            "--explain busybox",
            "-d workload",
            "--memory workload x",
            "-- busybox workload",
        ] {
            assert_eq!(of(line), Kind::Named, "{line}");
        }
    }
}
