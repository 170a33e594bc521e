//! What is remembered of a container: what was asked for, and how it stands.
//!
//! Two files in the container's directory. `settings.json` is written once, when the container is made. `state.json`
//! changes with every step of its life; it is replaced as a whole (written beside, then renamed), so that a reader sees
//! the old state or the new one, whatever is killed in between.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::network::{self, ports::Port};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// 64 hexadecimal digits, drawn by lot.
    pub id: String,
    /// Unique among the containers that exist.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// The image as it was named.
    pub image: String,
    /// The image's digest, which keeps meaning the same when the name is given to another one.
    pub image_digest: String,
    /// The directories of its layers, the topmost first, as overlay takes them.
    pub layers: Vec<PathBuf>,
    /// Program and arguments, the entry point included.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// `USER[:GROUP]`, by name or number; empty is root.
    pub user: String,
    /// Working directory inside.
    pub workdir: String,
    /// Host name inside.
    pub hostname: String,
    /// `NAME=VALUE` pairs of no meaning to the runtime.
    pub labels: BTreeMap<String, String>,
    /// Whether the program has a terminal.
    pub terminal: bool,
    /// Whether its standard input is kept open for whoever attaches.
    pub interactive: bool,
    /// Whether the container goes when its program does.
    pub remove: bool,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Directories of the host and volumes.
    pub mounts: Vec<Mount>,
    /// Paths that get a tmpfs, with its options.
    pub tmpfs: Vec<(String, String)>,
    /// The network.
    pub network: network::Mode,
    /// Whose ids the container's are.
    pub users: Users,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Limits.
    pub limits: Limits,
    /// Capabilities more than the default, by name without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities less.
    pub cap_drop: Vec<String>,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Whether a set-user-id program may gain privileges.
    pub may_gain_privileges: bool,
    /// Resource limits of the process: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// What happens when the program ends.
    pub restart: Restart,
    /// The signal that asks the program to end.
    pub stop_signal: String,
    /// Seconds it has before it is killed.
    pub stop_timeout: u64,
}

/// Something of the host's that appears inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What appears.
    pub source: Source,
    /// Where, inside: an absolute path.
    pub target: String,
    /// Whether it can be changed from inside.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A directory or file of the host.
    Host(PathBuf),
    /// A volume by name. `anonymous` ones go with their container when that is removed with its volumes.
    Volume {
        /// Its name.
        name: String,
        /// Whether nobody named it.
        anonymous: bool,
    },
}

/// What a container may use. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processor time in thousandths of one processor.
    pub cpu_thousandths: Option<u64>,
    /// Weight against other cgroups while they want the same processor, 2 to 262144; without it 1024.
    pub cpu_shares: Option<u64>,
    /// Numbers of the processors it may run on, as in `0-2,4` (cpuset(7), "List format").
    pub cpuset_cpus: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Share of the disks' time, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Device (`/dev/NAME`) and bytes a second it may be read at.
    pub device_read_bps: Vec<(PathBuf, u64)>,
    /// Device and bytes a second it may be written at.
    pub device_write_bps: Vec<(PathBuf, u64)>,
    /// Device and reads a second.
    pub device_read_iops: Vec<(PathBuf, u64)>,
    /// Device and writes a second.
    pub device_write_iops: Vec<(PathBuf, u64)>,
}

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// This runtime's own.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in the OCI runtime specification's format.
    Profile(serde_json::Value),
}

/// Whose ids a container of root's has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Users {
    /// Its own, if all its files can be shifted to them and its network is not the host's; else the host's.
    #[default]
    Auto,
    /// Its own, or there is no container.
    Private,
    /// The host's.
    Host,
}

/// What happens when the program ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// It is started again when its status is not 0, so many times at most (`None`: without end).
    OnFailure(Option<u32>),
    /// It is started again, whatever its status, unless it was stopped.
    Always,
    /// The same; the two differ for a daemon that comes up with the machine, and there is none here.
    UnlessStopped,
}

impl FromStr for Restart {
    type Err = UnknownRestart;

    fn from_str(text: &str) -> Result<Restart, UnknownRestart> {
        match text {
            "no" => Ok(Restart::No),
            "always" => Ok(Restart::Always),
            "unless-stopped" => Ok(Restart::UnlessStopped),
            "on-failure" => Ok(Restart::OnFailure(None)),
            other => other
                .strip_prefix("on-failure:")
                .and_then(|count| count.parse().ok())
                .map(|count| Restart::OnFailure(Some(count)))
                .ok_or_else(|| UnknownRestart(other.to_owned())),
        }
    }
}

impl TryFrom<String> for Restart {
    type Error = UnknownRestart;

    fn try_from(text: String) -> Result<Restart, UnknownRestart> {
        text.parse()
    }
}

impl From<Restart> for String {
    fn from(restart: Restart) -> String {
        match restart {
            Restart::No => "no".into(),
            Restart::Always => "always".into(),
            Restart::UnlessStopped => "unless-stopped".into(),
            Restart::OnFailure(None) => "on-failure".into(),
            Restart::OnFailure(Some(count)) => format!("on-failure:{count}"),
        }
    }
}

impl Restart {
    /// Whether a program that ended with `status` is started again, after `restarts` times before.
    pub fn again(self, status: u8, restarts: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::Always | Restart::UnlessStopped => true,
            Restart::OnFailure(most) => status != 0 && most.is_none_or(|most| restarts < most),
        }
    }
}

/// No such policy.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no restart policy; there are no, on-failure[:N], always and unless-stopped")]
pub struct UnknownRestart(String);

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    #[default]
    Created,
    /// Its program runs, or is just being started.
    Running,
    /// Its program ended and will be started again after a pause.
    Restarting,
    /// Its program ended.
    Exited,
}

impl Status {
    /// As `ps` and `inspect` say it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
        }
    }
}

/// A process, told from a later one with the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id, as the host sees it.
    pub pid: i32,
    /// Clock ticks from the machine's start to its own (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl Process {
    /// The process with this id now.
    pub fn of(pid: i32) -> Option<Process> {
        Process::look(pid).map(|(process, _)| process)
    }

    /// The same, and whether it has ended and waits for its parent to ask for its status.
    fn look(pid: i32) -> Option<(Process, bool)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in brackets, and may contain both spaces and brackets.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut rest = rest.split_whitespace();
        let state = rest.next()?;
        // Field 3 was the state; field 22 is the 19th after it.
        let started = rest.nth(18)?.parse().ok()?;
        Some((Process { pid, started }, state == "Z" || state == "X"))
    }

    /// Whether it is still there.
    pub fn is_alive(self) -> bool {
        Process::look(self.pid) == Some((self, false))
    }
}

/// How a container stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where it is in its life, as last written. [`super::Container::status`] checks it.
    pub status: Status,
    /// The container's first process.
    pub init: Option<Process>,
    /// When the program was last started (RFC 3339).
    pub started: Option<String>,
    /// When it last ended.
    pub finished: Option<String>,
    /// Its status then: as a shell reports it.
    pub exit_code: Option<u8>,
    /// Why it could not be started, or what happened to its supervisor.
    pub error: Option<String>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// How often the restart policy started it again.
    pub restarts: u32,
    /// Its addresses on the bridge.
    pub addresses: Vec<String>,
    /// The bridge's own.
    pub gateway: Option<String>,
    /// Why nothing beyond the host is reached from there, if that is so.
    pub no_way_out: Option<String>,
    /// The host's id of its root; `None` when its ids are the host's own, or an ordinary user's one.
    pub ids_from: Option<u32>,
    /// Why they are the host's own, where nobody asked for that.
    pub no_own_users: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_lead_back_and_decide() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert_eq!(String::from(text.parse::<Restart>().unwrap()), text);
        }
        assert!("sometimes".parse::<Restart>().is_err());
        assert!(!Restart::OnFailure(Some(2)).again(1, 2) && Restart::OnFailure(Some(2)).again(1, 1));
        assert!(!Restart::OnFailure(None).again(0, 0) && Restart::Always.again(0, 99));
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Process::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(
            !Process {
                started: me.started + 1,
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn old_files_without_newer_fields_are_read() {
        let settings: Settings = serde_json::from_str(r#"{"id":"ab","name":"web"}"#).unwrap();
        assert_eq!((settings.name.as_str(), settings.network), ("web", network::Mode::None));
        let state: State = serde_json::from_str("{}").unwrap();
        assert_eq!(state.status, Status::Created);
    }
}
