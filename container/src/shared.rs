//! `container shared`: what a process has in common with the host, and what it has to itself.
//!
//! The kernel tells all of it in /proc. A namespace is the same when its link names the same inode; kernel and boot id
//! are the same for every process there is, which is what a container is not a VM by.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde_json::{Value, json};
use thiserror::Error;

use crate::capabilities;
use crate::errno::{of, why};
use crate::namespaces::Namespace;

/// Columns of the two values in the table.
const COLUMN: usize = 24;

/// Columns of the first word.
const NAME: usize = 20;

/// What can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Of the process that is asked about; `None` where the kernel does not tell.
    pub own: Option<String>,
    /// Of the reference.
    pub reference: Option<String>,
}

impl Fact {
    /// Whether both have the same; `None` where the kernel tells only one of them, or none.
    pub fn is_shared(&self) -> Option<bool> {
        Some(self.own.as_ref()? == self.reference.as_ref()?)
    }
}

/// Two processes side by side.
pub struct Comparison {
    /// Who is asked about.
    pub process: i32,
    /// With whom it is compared.
    pub reference: i32,
    /// Everything that was looked at.
    pub facts: Vec<Fact>,
}

/// Whom to compare with unless somebody is named: the host's first process, or this one where that is not ours to look at.
/// A process with more capabilities than root has here, in a virtual machine for instance, keeps its namespaces to itself.
pub fn default_reference() -> i32 {
    match fs::read_link("/proc/1/ns/user") {
        Ok(_) => 1,
        Err(_) => std::process::id() as i32,
    }
}

/// Compares `process` with `reference`.
pub fn compare(process: i32, reference: i32) -> Result<Comparison, Error> {
    let (own, theirs) = (View::of(process)?, View::of(reference)?);
    let facts = own
        .facts
        .into_iter()
        .zip(theirs.facts)
        .map(|((name, own), (_, reference))| Fact { name, own, reference });
    Ok(Comparison {
        process,
        reference,
        facts: facts.collect(),
    })
}

/// What /proc says about one process, in an order that is the same for all.
struct View {
    facts: Vec<(String, Option<String>)>,
}

impl View {
    fn of(process: i32) -> Result<View, Error> {
        let directory = PathBuf::from(format!("/proc/{process}"));
        let status = read(&directory.join("status"))?;
        let mut facts = Vec::new();
        for namespace in Namespace::ALL {
            facts.push((format!("namespace {namespace}"), link(&directory, namespace)));
        }
        // Through the process's own root: not what is true by definition, but what it can see.
        let seen = |path: &str| read(&directory.join("root/proc/sys/kernel").join(path)).ok();
        facts.push(("kernel release".into(), seen("osrelease")));
        facts.push(("boot id".into(), seen("random/boot_id")));
        facts.push(("cgroup".into(), Some(cgroups(&read(&directory.join("cgroup"))?))));
        let mounts = read(&directory.join("mountinfo")).ok();
        facts.push((
            "mounts".into(),
            mounts.as_ref().map(|mounts| mounts.lines().count().to_string()),
        ));
        facts.push(("root is on".into(), mounts.as_deref().and_then(root)));
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        for (name, key) in [("may have at most", "CapBnd"), ("may do now", "CapEff")] {
            let set = field(key).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            facts.push((name.into(), set.map(capability_words)));
        }
        let mode = field("Seccomp").map(|mode| match mode {
            "0" => "off".to_owned(),
            "1" => "strict".to_owned(),
            _ => format!("filter, {} of them", field("Seccomp_filters").unwrap_or("?")),
        });
        facts.push(("seccomp".into(), mode));
        facts.push((
            "no_new_privs".into(),
            field("NoNewPrivs").map(|set| if set == "1" { "set" } else { "not set" }.into()),
        ));
        let label = read(&directory.join("attr/current"))
            .ok()
            .map(|label| label.trim_matches('\0').trim().to_owned());
        facts.push(("security label".into(), label.filter(|label| !label.is_empty())));
        for (name, file) in [("user ids", "uid_map"), ("group ids", "gid_map")] {
            facts.push((name.into(), Some(id_map(&read(&directory.join(file))?))));
        }
        Ok(View { facts })
    }
}

/// The namespace's inode; another user's is not told.
fn link(directory: &Path, namespace: Namespace) -> Option<String> {
    let link = fs::read_link(directory.join("ns").join(namespace.proc_name())).ok()?;
    // `net:[4026531840]`: the inode is what counts.
    let link = link.to_string_lossy().into_owned();
    Some(
        link.split_once('[')
            .map_or(link.clone(), |(_, inode)| inode.trim_end_matches(']').to_owned()),
    )
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(Error::read(path))
}

/// `controllers:path` of every hierarchy; paths that are the same are told once.
fn cgroups(list: &str) -> String {
    let mut by_path: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in list.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let controllers = if controllers.is_empty() { "v2" } else { controllers };
        match by_path.iter_mut().find(|(known, _)| *known == path) {
            Some((_, names)) => names.push(controllers),
            None => by_path.push((path, vec![controllers])),
        }
    }
    match by_path.as_slice() {
        [(path, _)] => (*path).to_owned(),
        several => {
            let each = several
                .iter()
                .map(|(path, names)| format!("{}:{path}", names.join(",")));
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

/// `TYPE, device MAJOR:MINOR` of what is mounted on /, the last of it if there are several.
fn root(mounts: &str) -> Option<String> {
    let line = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let device = line.split(' ').nth(2)?;
    let kind = line.split_once(" - ")?.1.split(' ').next()?;
    Some(format!("{kind}, device {device}"))
}

/// Names while there are few.
fn capability_words(set: u64) -> String {
    let names = capabilities::names(set);
    match names.len() {
        0 => "nothing".into(),
        count if count > 14 => format!("{count} capabilities"),
        _ => names.join(" "),
    }
}

/// `0 is 524288, and 65535 more`.
fn id_map(map: &str) -> String {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace();
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let more = count.parse::<u64>().ok()?.saturating_sub(1);
        Some(match more {
            0 => format!("{inside} is {outside}"),
            _ => format!("{inside} is {outside}, and {more} more"),
        })
    };
    let lines: Vec<_> = map.lines().filter_map(line).collect();
    if lines.is_empty() {
        "none".into()
    } else {
        lines.join("; ")
    }
}

impl Comparison {
    /// A table of 80 columns. What does not fit its column continues below.
    pub fn text(&self) -> String {
        let named = |pid: i32| match pid {
            pid if pid == std::process::id() as i32 => format!("this process, {pid}"),
            pid => format!("process {pid}"),
        };
        let mut text = row("", &named(self.process), &named(self.reference), "");
        for fact in &self.facts {
            let word = match fact.is_shared() {
                None => "unknown",
                Some(true) => "shared",
                Some(false) => "own",
            };
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            text.push_str(&row(&fact.name, &value(&fact.own), &value(&fact.reference), word));
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let fact = |fact: &Fact| json!({ "name": fact.name, "own": fact.own, "reference": fact.reference, "shared": fact.is_shared() });
        json!({
            "process": self.process,
            "reference": self.reference,
            "facts": self.facts.iter().map(fact).collect::<Vec<_>>(),
        })
    }
}

fn row(name: &str, own: &str, reference: &str, word: &str) -> String {
    let (own, reference) = (pieces(own), pieces(reference));
    let mut text = String::new();
    for i in 0..own.len().max(reference.len()) {
        let at = |list: &[String]| list.get(i).cloned().unwrap_or_default();
        let (name, word) = if i == 0 { (name, word) } else { ("", "") };
        let line = format!(
            "{name:<NAME$}{:<COLUMN$}  {:<COLUMN$}  {word}",
            at(&own),
            at(&reference)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Cut at spaces, or anywhere if there is none in time.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for word in text.split(' ') {
        let mut word = word;
        while let Some(last) = pieces.last_mut() {
            let room = COLUMN.saturating_sub(last.chars().count() + usize::from(!last.is_empty()));
            if word.chars().count() <= room {
                if !last.is_empty() {
                    last.push(' ');
                }
                last.push_str(word);
                break;
            }
            if last.is_empty() {
                let cut = word.char_indices().nth(COLUMN).map_or(word.len(), |(cut, _)| cut);
                last.push_str(&word[..cut]);
                word = &word[cut..];
            }
            pieces.push(String::new());
        }
    }
    pieces
}

/// Why there is no comparison.
#[derive(Debug, Error)]
pub enum Error {
    /// The process is not there, or not ours to look at.
    #[error("cannot read {}: {}. {}", path.display(), why(errno), cure(*errno))]
    Read {
        /// Of /proc.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Read {
            path: path.to_owned(),
            errno: of(&error),
        }
    }
}

fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT | Errno::ESRCH => "No such process is there (any more)",
        _ => "Another user's process can be looked at by root only",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shares_everything_with_itself() {
        let me = std::process::id() as i32;
        let comparison = compare(me, me).unwrap();
        assert!(comparison.facts.iter().all(|fact| fact.is_shared() != Some(false)));
        assert!(
            comparison.text().lines().all(|line| line.chars().count() <= 80),
            "{}",
            comparison.text()
        );
    }

    #[test]
    fn long_values_go_on_below() {
        assert_eq!(pieces("short"), ["short"]);
        assert_eq!(pieces(&"x".repeat(COLUMN + 3)), ["x".repeat(COLUMN), "xxx".into()]);
        assert_eq!(
            pieces("KILL NET_BIND_SERVICE AUDIT_WRITE"),
            ["KILL NET_BIND_SERVICE", "AUDIT_WRITE"]
        );
    }

    #[test]
    fn cgroups_with_one_path_are_told_once() {
        assert_eq!(cgroups("4:pids:/a\n3:memory:/a\n0::/a"), "/a");
        assert_eq!(cgroups("4:pids:/a/b\n0::/a"), "pids:/a/b; v2:/a");
    }

    #[test]
    fn the_root_is_the_last_mount_on_it() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / / rw - overlay overlay rw\n3 2 0:9 / /proc rw - proc proc rw";
        assert_eq!(root(mounts).unwrap(), "overlay, device 0:50");
    }
}
