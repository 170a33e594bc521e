//! What a container uses: read from its cgroups, and from its own view of its interfaces.
//!
//! Both versions say the same things in different files and units (kernel documents `admin-guide/cgroup-v1` and
//! `admin-guide/cgroup-v2`); below they become one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::{Container, Error};
use crate::cgroup::hierarchy;

/// One look at a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Processor time used since the start, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory in use, in bytes, less what the kernel could drop at once (inactive file pages).
    pub memory_bytes: Option<u64>,
    /// The limit; `None` when there is none.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Read from disks, in bytes.
    pub block_read_bytes: Option<u64>,
    /// Written to disks.
    pub block_written_bytes: Option<u64>,
    /// Received on all interfaces but the loopback, in bytes.
    pub network_received_bytes: Option<u64>,
    /// Sent.
    pub network_sent_bytes: Option<u64>,
}

/// A limit of version 1 that is none: the largest multiple of a page a counter can hold, or near it.
const NO_LIMIT_V1: u64 = 1 << 62;

/// Looks at a container that runs.
pub fn look(container: &Container) -> Result<Statistics, Error> {
    let init = container.init()?;
    let groups = Groups::own(container, init.pid);
    let number = |controller: &str, v1: &str, v2: &str| groups.read(controller, v1, v2)?.trim().parse::<u64>().ok();
    let cpu_ns = match number("cpuacct", "cpuacct.usage", "") {
        Some(ns) => Some(ns),
        None => groups.field("cpu", "", "cpu.stat", "usage_usec").map(|us| us * 1000),
    };
    let reclaimable = groups.field("memory", "memory.stat", "memory.stat", "total_inactive_file");
    let reclaimable = reclaimable.or_else(|| groups.field("memory", "", "memory.stat", "inactive_file"));
    let memory = number("memory", "memory.usage_in_bytes", "memory.current");
    let (read, written) = groups.block_bytes();
    let network = fs::read_to_string(format!("/proc/{}/net/dev", init.pid))
        .map(|text| interfaces(&text))
        .ok();
    Ok(Statistics {
        cpu_ns,
        memory_bytes: memory.map(|used| used.saturating_sub(reclaimable.unwrap_or(0))),
        memory_limit_bytes: number("memory", "memory.limit_in_bytes", "memory.max")
            .filter(|&limit| limit < NO_LIMIT_V1),
        pids: number("pids", "pids.current", "pids.current"),
        block_read_bytes: read,
        block_written_bytes: written,
        network_received_bytes: network.map(|(received, _)| received),
        network_sent_bytes: network.map(|(_, sent)| sent),
    })
}

/// How often the kernel killed a process of the container because its memory limit was reached.
pub fn oom_kills(groups: &Groups) -> u64 {
    groups
        .field("memory", "memory.oom_control", "memory.events", "oom_kill")
        .unwrap_or(0)
}

/// Processor use between two looks, in hundredths of one processor.
pub fn cpu_percent(before: (&Statistics, Instant), after: (&Statistics, Instant)) -> Option<f64> {
    let used = after.0.cpu_ns?.checked_sub(before.0.cpu_ns?)?;
    let passed = after.1.duration_since(before.1).as_nanos() as f64;
    (passed > 0.0).then(|| used as f64 * 100.0 / passed)
}

/// The cgroups of a process.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Version 1: controllers and directory.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// Version 2.
    v2: Option<PathBuf>,
}

impl Groups {
    /// Those of process `pid`; none when it has ended.
    pub fn of(pid: i32) -> Groups {
        let text = |path: String| fs::read_to_string(path).unwrap_or_default();
        let memberships = text(format!("/proc/{pid}/cgroup"));
        let mut groups = Groups::default();
        for found in hierarchy::parse(&memberships, &text("/proc/self/mountinfo".into())) {
            match found.is_v2() {
                true => groups.v2 = Some(found.own.clone()),
                false => groups.v1.push((found.controllers().to_vec(), found.own.clone())),
            }
        }
        groups
    }

    /// Those of container `container`, whose first process is `pid`. An ordinary user's container has none of its own where
    /// he may make none: it stays in its starter's, whose figures are not its own.
    pub fn own(container: &Container, pid: i32) -> Groups {
        let name = super::launch::cgroup_name(container.id());
        let is_own = |directory: &Path| directory.file_name().is_some_and(|last| last == name.as_str());
        let mut groups = Groups::of(pid);
        groups.v1.retain(|(_, directory)| is_own(directory));
        groups.v2 = groups.v2.filter(|directory| is_own(directory));
        groups
    }

    /// Every directory, by the controllers it is for.
    pub fn directories(&self) -> std::collections::BTreeMap<String, PathBuf> {
        let v1 = self
            .v1
            .iter()
            .map(|(names, directory)| (names.join(","), directory.clone()));
        v1.chain(self.v2.iter().map(|directory| ("v2".to_owned(), directory.clone())))
            .collect()
    }

    /// Whether none of these control files is in any of the directories, which are there.
    pub fn lack(&self, files: &[&str]) -> bool {
        let directories = self.directories();
        let mut there = directories.values().filter(|directory| directory.is_dir()).peekable();
        there.peek().is_some() && !there.any(|directory| files.iter().any(|file| directory.join(file).exists()))
    }

    /// The text of a control file: `v1` where a hierarchy of version 1 has the controller, else `v2`.
    fn read(&self, controller: &str, v1: &str, v2: &str) -> Option<String> {
        let has = |(controllers, _): &&(Vec<String>, PathBuf)| controllers.iter().any(|name| name == controller);
        let path = match self.v1.iter().find(has) {
            Some((_, directory)) if !v1.is_empty() => directory.join(v1),
            None if !v2.is_empty() => self.v2.as_ref()?.join(v2),
            _ => return None,
        };
        fs::read_to_string(path).ok()
    }

    /// The number after `name` in a file of `NAME NUMBER` lines.
    fn field(&self, controller: &str, v1: &str, v2: &str, name: &str) -> Option<u64> {
        let text = self.read(controller, v1, v2)?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn block_bytes(&self) -> (Option<u64>, Option<u64>) {
        if let Some(text) = self.read("blkio", "blkio.throttle.io_service_bytes_recursive", "") {
            // `MAJOR:MINOR Read BYTES`.
            return (Some(sum_words(&text, "Read")), Some(sum_words(&text, "Write")));
        }
        match self.read("io", "", "io.stat") {
            // `MAJOR:MINOR rbytes=N wbytes=N ...`.
            Some(text) => (Some(sum_pairs(&text, "rbytes=")), Some(sum_pairs(&text, "wbytes="))),
            None => (None, None),
        }
    }
}

fn sum_words(text: &str, kind: &str) -> u64 {
    let number = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == kind).then(|| words.next()?.parse::<u64>().ok())?
    };
    text.lines().filter_map(number).sum()
}

fn sum_pairs(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
        .sum()
}

/// Bytes received and sent, by `/proc/net/dev`.
fn interfaces(text: &str) -> (u64, u64) {
    let counts = text.lines().filter_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts
            .split_whitespace()
            .filter_map(|count| count.parse().ok())
            .collect();
        // Eight counters of what came in, then those of what went out.
        (name.trim() != "lo").then_some((*counts.first()?, *counts.get(8)?))
    });
    counts.fold((0, 0), |(received, sent), (more, most)| (received + more, sent + most))
}

/// A process of the container, as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its id on the host.
    pub pid: i32,
    /// Its id in the container.
    pub inside: i32,
    /// Its user's id on the host.
    pub uid: u32,
    /// Processor time used, in seconds.
    pub seconds: u64,
    /// Program and arguments.
    pub command: String,
}

/// Every process in the container's pid namespace, in the order of their ids.
pub fn processes(container: &Container) -> Result<Vec<Row>, Error> {
    let init = container.init()?;
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(init.pid);
    let directory = Path::new("/proc");
    let mut rows = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))?.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && namespace(pid) == wanted
            && wanted.is_some()
        {
            rows.extend(row(pid));
        }
    }
    rows.sort_by_key(|row| row.pid);
    Ok(rows)
}

/// `None` when it has ended meanwhile.
fn row(pid: i32) -> Option<Row> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Fields 14 and 15 of the whole line: user and system time, in ticks of which there are 100 a second.
    let ticks: u64 = [11, 12]
        .into_iter()
        .filter_map(|at| fields.get(at)?.parse::<u64>().ok())
        .sum();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = arguments
        .split(|&byte| byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument))
        .collect::<Vec<_>>()
        .join(" ");
    Some(Row {
        pid,
        inside: field("NSpid:")?.split_whitespace().last()?.parse().ok()?,
        uid: field("Uid:")?.split_whitespace().next()?.parse().ok()?,
        seconds: ticks / 100,
        command: match command.is_empty() {
            // A process without arguments of its own shows its name.
            true => format!("[{}]", field("Name:")?.trim()),
            false => command,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_count_the_same_bytes() {
        let v1 = "8:0 Read 4096\n8:0 Write 100\n8:16 Read 4\n8:0 Total 4196\nTotal 4200\n";
        assert_eq!((sum_words(v1, "Read"), sum_words(v1, "Write")), (4100, 100));
        let v2 = "8:0 rbytes=4096 wbytes=100 rios=1\n8:16 rbytes=4 wbytes=0\n";
        assert_eq!((sum_pairs(v2, "rbytes="), sum_pairs(v2, "wbytes=")), (4100, 100));
    }

    #[test]
    fn the_loopback_is_not_counted() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 70 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n";
        assert_eq!(interfaces(text), (70, 30));
    }

    #[test]
    fn processor_use_is_the_share_of_the_time_that_passed() {
        let look = |ns| Statistics {
            cpu_ns: Some(ns),
            ..Statistics::default()
        };
        let then = Instant::now();
        let now = then + std::time::Duration::from_secs(2);
        let percent = cpu_percent((&look(0), then), (&look(1_000_000_000), now));
        assert_eq!(percent, Some(50.0));
        assert_eq!(cpu_percent((&Statistics::default(), then), (&look(1), now)), None);
    }
}
