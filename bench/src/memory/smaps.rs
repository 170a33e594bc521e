//! Which pages processes map, and who else maps them: proc_pid_smaps(5).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The name `vmm` gives to the mapping that is the guest's memory.
const GUEST_MEMORY: &str = "guest-memory";

/// Host kernels without CONFIG_ANON_VMA_NAME take no names. The guest's memory is then the largest mapping, if it is at
/// least this large, in bytes: nothing else of a VMM of a megabyte or two comes near.
const PLAINLY_GUEST_MEMORY: u64 = 16 << 20;

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
    /// The VM's process maps nothing by that name, and nothing of that size.
    #[error("process {0} has no mapping that is plainly guest memory: it is not told apart")]
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
    /// Of them, those no file backs.
    pub anonymous: u64,
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
    // ANCHOR: sum
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
    // ANCHOR_END: sum
}

/// One process's pages by kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Unique and shared.
    pub usage: Usage,
    /// Not backed by a file: gone for everybody else.
    pub anonymous: u64,
    /// Its proportional share of the others, which lie in the page cache.
    pub file: u64,
}

/// Tells the pages of one process apart.
///
/// # Errors
/// When it cannot be looked at.
pub fn pages(pid: u32) -> Result<Pages, Error> {
    let usage = usage(&[pid])?;
    let text = read(format!("/proc/{pid}/smaps_rollup"))?;
    let pss = total(&text, "Pss:");
    let anonymous = total(&text, "Pss_Anon:");
    Ok(Pages {
        usage,
        anonymous,
        file: pss.saturating_sub(anonymous),
    })
}

/// The guest's pages by kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestPages {
    /// What the guest may use.
    pub configured: u64,
    /// Pages of its own.
    pub anonymous: u64,
    /// Pages of the file laid over its memory.
    pub file: u64,
}

/// As [`guest_memory`], its pages told apart.
///
/// # Errors
/// As there.
pub fn guest_pages(pid: u32, file: &Path) -> Result<GuestPages, Error> {
    let text = read(format!("/proc/{pid}/smaps"))?;
    let guest = find_guest(&text, file).ok_or(Error::NoGuestMemory(pid))?;
    Ok(GuestPages {
        configured: guest.configured,
        anonymous: guest.anonymous,
        file: guest.touched - guest.anonymous,
    })
}

/// Finds the guest's memory among the mappings of process `pid`, which lays `file` over parts of it.
///
/// # Errors
/// When the process cannot be looked at, or has no such mapping.
pub fn guest_memory(pid: u32, file: &Path) -> Result<Guest, Error> {
    let text = read(format!("/proc/{pid}/smaps"))?;
    find_guest(&text, file).ok_or(Error::NoGuestMemory(pid))
}

/// The mapping with the guest's name, or of a guest's size, and on both sides of it, without a gap, more of that name or kind and
/// of the file: instead of copying it there, `vmm` lays the lab kernel's initrd over the end of guest memory, most of a Linux over
/// its beginning, and a snapshot over all that was touched. No other file counts: what the loader put behind guest memory may well be the VMM's own program.
fn find_guest(smaps: &str, file: &Path) -> Option<Guest> {
    let mappings = mappings(smaps);
    let named = mappings.iter().position(|mapping| mapping.line.contains(GUEST_MEMORY));
    let large = || {
        let (index, largest) = mappings
            .iter()
            .enumerate()
            .max_by_key(|(_, mapping)| mapping.pages.configured)?;
        (largest.pages.configured >= PLAINLY_GUEST_MEMORY).then_some(index)
    };
    let first = named.or_else(large)?;
    let belongs = |index: usize| {
        let mapping = &mappings[index];
        mapping.line.contains(GUEST_MEMORY) || mapping.maps(file) || mapping.is_promised()
    };
    let follows = |index: usize| mappings[index].is_behind(&mappings[index - 1]);
    let mut start = first;
    while start > 0 && follows(start) && belongs(start - 1) {
        start -= 1;
    }
    let mut end = first + 1;
    while end < mappings.len() && follows(end) && belongs(end) {
        end += 1;
    }
    let mut guest = Guest::default();
    for mapping in &mappings[start..end] {
        guest.configured += mapping.pages.configured;
        guest.touched += mapping.pages.touched;
        guest.anonymous += mapping.pages.anonymous;
    }
    Some(guest)
}

struct Mapping<'a> {
    /// Its first line: addresses, permissions, offset, device, inode, name.
    line: &'a str,
    pages: Guest,
    /// Made with MAP_NORESERVE.
    unreserved: bool,
}

impl Mapping<'_> {
    fn is_behind(&self, other: &Mapping) -> bool {
        let addresses = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            Some((start.to_owned(), end.to_owned()))
        };
        match (addresses(other.line), addresses(self.line)) {
            (Some((_, end)), Some((start, _))) => end == start,
            _ => false,
        }
    }

    /// Memory of no file, and without a name, that was never reserved: of what `vmm` maps, only guest memory is like that.
    fn is_promised(&self) -> bool {
        self.unreserved && self.line.split_whitespace().count() == 5
    }

    /// Five fields stand before the path, which may hold spaces itself.
    fn maps(&self, file: &Path) -> bool {
        file.to_str()
            .is_some_and(|file| self.line.ends_with(&format!(" {file}")))
    }
}

fn mappings(smaps: &str) -> Vec<Mapping<'_>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if !line.split(' ').next().unwrap_or_default().ends_with(':') {
            let pages = Guest::default();
            mappings.push(Mapping {
                line,
                pages,
                unreserved: false,
            });
        } else if let Some(mapping) = mappings.last_mut() {
            mapping.pages.configured += value(line, "Size:").unwrap_or(0);
            mapping.pages.touched += value(line, "Rss:").unwrap_or(0);
            mapping.pages.anonymous += value(line, "Anonymous:").unwrap_or(0);
            mapping.unreserved |= line.starts_with("VmFlags:") && line.split(' ').any(|flag| flag == "nr");
        }
    }
    mappings
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
    fn guest_memory_is_found_by_either_name_with_the_initrd_behind_it() {
        for name in [
            "0 00:00 0   [anon:guest-memory]",
            "0 00:01 7   /memfd:guest-memory (deleted)",
        ] {
            let smaps = format!(
                "7f10-7f20 rw-p {name}\nSize: 64 kB\nRss: 8 kB\nPss: 8 kB\nAnonymous: 8 kB\n\
                 7f20-7f30 rw-p 0 08:01 99   /tmp/initrd.cpio\nSize: 32 kB\nRss: 4 kB\n\
                 7f30-7f40 r-xp 0 08:01 98   /usr/bin/vmm\nSize: 16 kB\nRss: 16 kB\n"
            );
            let expected = Guest {
                configured: 96 * KIBIBYTE,
                touched: 12 * KIBIBYTE,
                anonymous: 8 * KIBIBYTE,
            };
            assert_eq!(find_guest(&smaps, Path::new("/tmp/initrd.cpio")), Some(expected));
            let alone = Guest {
                configured: 64 * KIBIBYTE,
                touched: 8 * KIBIBYTE,
                anonymous: 8 * KIBIBYTE,
            };
            assert_eq!(find_guest(&smaps, Path::new("/tmp/another.cpio")), Some(alone));
        }
    }

    #[test]
    fn guest_memory_without_a_name_is_found_by_its_size_and_the_program_behind_it_is_not_the_guests() {
        let initrd = Path::new("/tmp/initrd.cpio");
        let small = "7f10-7f20 rw-p 0 00:00 0\nSize: 99 kB\nRss: 99 kB\n";
        assert_eq!(find_guest(small, initrd), None);
        let both = format!(
            "{small}7f20-7f30 rw-p 0 00:00 0\nSize: 65536 kB\nRss: 700 kB\n\
             7f30-7f40 r-xp 0 08:01 98   /usr/bin/vmm\nSize: 900 kB\nRss: 640 kB\n"
        );
        let expected = Guest {
            configured: 64 << 20,
            touched: 700 * KIBIBYTE,
            anonymous: 0,
        };
        assert_eq!(find_guest(&both, initrd), Some(expected));
    }

    #[test]
    fn guest_memory_without_a_name_goes_on_below_the_kernel_that_lies_in_it() {
        let size = |kib: u64, flags: &str| format!("Size: {kib} kB\nRss: {kib} kB\nVmFlags: rd wr {flags}\n");
        let smaps = [
            "7f00-7f10 rw-p 0 00:00 0\n".to_owned() + &size(8, "ac"),
            "7f10-7f20 rw-p 0 00:00 0\n".to_owned() + &size(16384, "nr hg"),
            "7f20-7f30 rw-p 0 08:01 99   /tmp/vmlinux\n".to_owned() + &size(6144, "nr"),
            "7f30-7f40 rw-p 0 00:00 0\n".to_owned() + &size(65536, "nr hg"),
        ];
        let found = find_guest(&smaps.concat(), Path::new("/tmp/vmlinux")).unwrap();
        assert_eq!(found.configured, (16384 + 6144 + 65536) * KIBIBYTE);
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
