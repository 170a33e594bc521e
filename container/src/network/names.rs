//! Names: `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container.
//!
//! They are files of the container's own directory, bound over those of its image. When a container joins the bridge
//! or leaves it, every member's `hosts` is written anew: whoever looks a name up next finds it. The file stays the same
//! file (same inode), since the bind mount shows the file and not its name.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

/// What a container answers to, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its names.
    pub names: Vec<String>,
}

/// The text of `/etc/hosts` for a container that has `own` and shares a network with `others`.
pub fn hosts(own: &Entry, others: &[Entry]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let loopback = Entry {
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
        names: own.names.clone(),
    };
    // Without a network a program still expects to find its own host name.
    let own = if own.addresses.is_empty() { &loopback } else { own };
    for entry in std::iter::once(own).chain(others) {
        for address in &entry.addresses {
            text.push_str(&format!("{address}\t{}\n", entry.names.join(" ")));
        }
    }
    text
}

/// Replaces the text of a file that is mounted elsewhere: written in place, never renamed.
pub fn rewrite(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    // In one write, then cut: a reader sees the old lines or the new ones, not half an address.
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// The text of `/etc/resolv.conf`: the host's, less what only the host can reach.
///
/// A server at 127.0.0.53 is the host's own loopback; the container has another.
pub fn resolver(host: &str, shares_host_network: bool) -> String {
    let keep = |line: &&str| {
        let server = line
            .trim()
            .strip_prefix("nameserver")
            .and_then(|rest| rest.trim().parse::<IpAddr>().ok());
        shares_host_network || !server.is_some_and(|address| address.is_loopback())
    };
    host.lines()
        .filter(keep)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The host's `/etc/resolv.conf`; empty where it has none.
pub fn host_resolver() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_listed_with_every_address() {
        let entry = |address: &str, name: &str| Entry {
            addresses: vec![address.parse().unwrap()],
            names: vec![name.to_owned()],
        };
        let text = hosts(
            &entry("10.0.0.2", "web"),
            &[entry("10.0.0.3", "db"), entry("fd00::3", "db")],
        );
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(lines, ["10.0.0.2\tweb", "10.0.0.3\tdb", "fd00::3\tdb"]);
        let alone = Entry {
            addresses: vec![],
            names: vec!["box".into()],
        };
        assert!(hosts(&alone, &[]).ends_with("127.0.0.1\tbox\n"));
    }

    #[test]
    fn rewriting_keeps_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        rewrite(&path, "a long first text\n").unwrap();
        let held = File::open(&path).unwrap();
        rewrite(&path, "short\n").unwrap();
        assert_eq!(std::io::read_to_string(held).unwrap(), "short\n");
    }

    #[test]
    fn servers_on_the_hosts_loopback_are_left_out() {
        let host = "search lab\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n";
        assert_eq!(resolver(host, false), "search lab\nnameserver 192.0.2.1\n");
        assert_eq!(resolver(host, true), host);
    }
}
