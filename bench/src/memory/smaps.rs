//! Which pages processes map, and who else maps them: proc_pid_smaps(5).

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// The name `vmm` gives to the mapping that is the guest's memory.
const GUEST_MEMORY: &str = "guest-memory";

const KIBIBYTE: u64 = 1024;

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No permission, or it is gone.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The VM's process maps nothing by that name.
    #[error("process {0} has no mapping named {GUEST_MEMORY}: guest memory is not told apart")]
    NoGuestMemory(u32),
}

/// Pages of a set of processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Mapped by one process only.
    pub unique: u64,
    /// The proportional share of pages that several processes map.
    pub shared: u64,
}

/// The guest's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// What the guest may use.
    pub configured: u64,
    /// The pages that exist.
    pub touched: u64,
}

/// `root` and every process descended from it, as far as they are alive.
pub fn with_descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next]).unwrap_or_default());
        next += 1;
    }
    found
}

/// Adds up the pages of `processes`.
///
/// # Errors
/// When one of them cannot be looked at: a sum that lacks one would be a wrong number.
pub fn usage(processes: &[u32]) -> Result<Usage, Error> {
    let mut sum = Usage::default();
    for pid in processes {
        let text = read(format!("/proc/{pid}/smaps_rollup"))?;
        let unique = ["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"]
            .iter()
            .map(|name| total(&text, name))
            .sum();
        sum.unique += unique;
        // Pss is rounded down to a page's fraction, and may come out a little below the private pages.
        sum.shared += total(&text, "Pss:").saturating_sub(unique);
    }
    Ok(sum)
}

/// Finds the guest's memory among the mappings of process `pid`.
///
/// # Errors
/// When the process cannot be looked at, or has no such mapping.
pub fn guest_memory(pid: u32) -> Result<Guest, Error> {
    let text = read(format!("/proc/{pid}/smaps"))?;
    sum_guest(&text).ok_or(Error::NoGuestMemory(pid))
}

fn sum_guest(smaps: &str) -> Option<Guest> {
    let mut guest: Option<Guest> = None;
    let mut inside = false;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            // A mapping's first line ends with its name: `[anon:guest-memory]` or `/memfd:guest-memory (deleted)`.
            inside = line.contains(GUEST_MEMORY);
        } else if inside {
            let sum = guest.get_or_insert_default();
            sum.configured += value(line, "Size:").unwrap_or(0);
            sum.touched += value(line, "Rss:").unwrap_or(0);
        }
    }
    guest
}

fn total(text: &str, name: &str) -> u64 {
    text.lines().filter_map(|line| value(line, name)).sum()
}

/// The bytes in a line `Name:   123 kB`.
fn value(line: &str, name: &str) -> Option<u64> {
    let number = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
    Some(number.trim().parse::<u64>().ok()? * KIBIBYTE)
}

/// Field 4 of proc_pid_stat(5). Field 2, the name, may hold anything, so counting starts behind its last parenthesis.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn read(path: String) -> Result<String, Error> {
    fs::read_to_string(&path).map_err(|source| Error::Read { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_found_by_either_name() {
        let smaps = "7f00-7f10 rw-p 0 00:00 0   [anon:guest-memory]\nSize: 64 kB\nRss: 8 kB\nPss: 8 kB\n\
                     7f10-7f20 rw-p 0 00:00 0   [heap]\nSize: 99 kB\nRss: 99 kB\n\
                     7f20-7f30 rw-s 0 00:01 7   /memfd:guest-memory (deleted)\nSize: 32 kB\nRss: 4 kB\n";
        let expected = Guest {
            configured: 96 * KIBIBYTE,
            touched: 12 * KIBIBYTE,
        };
        assert_eq!(sum_guest(smaps), Some(expected));
        assert_eq!(sum_guest("7f10-7f20 rw-p 0 00:00 0 [heap]\nSize: 99 kB\n"), None);
    }

    #[test]
    fn our_own_pages_are_counted() {
        let usage = usage(&[std::process::id()]).unwrap();
        assert!(usage.unique > 0);
    }

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = with_descendants(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()));
    }
}
