//! Addresses, leased from a file.
//!
//! There is no daemon that would remember which address is whose. The list is a file, changed only under its lock
//! (flock(2), which the kernel lifts when its holder ends, however it ends). Each lease names its owner: a lease whose
//! owner is gone is nobody's, so that a crash costs no address.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::names::Entry;
use super::nat::Nat;
use crate::errno::{of, why};

/// The first 64 bits of the containers' IPv6 addresses: a private range (RFC 4193) whose "random" part spells `lab`.
const PREFIX_V6: [u16; 4] = [0xfd6c, 0x6162, 0, 0];

/// Leading bits that all IPv6 addresses of the bridge share.
pub const PREFIX_V6_BITS: u8 = 64;

/// A network of IPv4 addresses: the bridge has the first, the containers the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    /// Leading bits all addresses share.
    pub bits: u8,
}

impl Subnet {
    /// Parses `ADDRESS/BITS`.
    pub fn parse(text: &str) -> Result<Subnet, Error> {
        let bad = || Error::Subnet(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        // At least the network, the bridge, one container and the broadcast address; at most a private /8.
        if !(8..=30).contains(&bits) {
            return Err(bad());
        }
        let base = u32::from(address) & (u32::MAX << (32 - bits));
        Ok(Subnet { base, bits })
    }

    /// The bridge's own address.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Addresses for containers, lowest first: not the network's, the bridge's, nor the last, which is broadcast.
    fn candidates(&self) -> impl Iterator<Item = Ipv4Addr> {
        let last = self.base | (u32::MAX >> self.bits);
        (self.base + 2..last).map(Ipv4Addr::from)
    }

    /// The IPv6 address that goes with `address`: the same number at the end.
    pub fn beside(&self, address: Ipv4Addr) -> Ipv6Addr {
        let number = u32::from(address) - self.base;
        let [a, b, c, d] = PREFIX_V6;
        Ipv6Addr::new(a, b, c, d, 0, 0, (number >> 16) as u16, number as u16)
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

/// One address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The container's id.
    pub owner: String,
    /// Its IPv4 address; the IPv6 address follows from it.
    pub address: Ipv4Addr,
    /// Names it answers to.
    pub names: Vec<String>,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The network; empty while nobody is in it.
    pub subnet: String,
    /// The rule that lets containers out, while there is one.
    pub nat: Option<Nat>,
    /// Why there is none.
    pub no_way_out: Option<String>,
    /// Who has which address.
    pub leases: Vec<Lease>,
}

impl Book {
    /// Gives `owner` the lowest free address.
    pub fn lease(&mut self, subnet: &Subnet, owner: &str, names: Vec<String>) -> Result<Lease, Error> {
        let is_free = |address: &Ipv4Addr| !self.leases.iter().any(|lease| lease.address == *address);
        let address = subnet
            .candidates()
            .find(is_free)
            .ok_or_else(|| Error::Full(subnet.to_string()))?;
        let lease = Lease {
            owner: owner.to_owned(),
            address,
            names,
        };
        self.leases.push(lease.clone());
        Ok(lease)
    }

    /// Takes back what `owner` had.
    pub fn give_back(&mut self, owner: &str) -> Option<Lease> {
        let position = self.leases.iter().position(|lease| lease.owner == owner)?;
        Some(self.leases.remove(position))
    }

    /// Everybody in the network but `owner`, as `/etc/hosts` lists them.
    pub fn others(&self, owner: &str, subnet: &Subnet) -> Vec<Entry> {
        let others = self.leases.iter().filter(|lease| lease.owner != owner);
        others.map(|lease| lease.entry(subnet)).collect()
    }
}

impl Lease {
    /// Its line in `/etc/hosts`.
    pub fn entry(&self, subnet: &Subnet) -> Entry {
        Entry {
            addresses: vec![IpAddr::V4(self.address), IpAddr::V6(subnet.beside(self.address))],
            names: self.names.clone(),
        }
    }
}

/// The file, locked: nobody else changes the network until it is dropped.
pub struct LockedBook {
    file: Flock<File>,
    path: PathBuf,
    /// What is in it.
    pub book: Book,
}

impl LockedBook {
    /// Waits for the lock, and reads.
    pub fn open(path: &Path) -> Result<LockedBook, Error> {
        let io = |action, error: std::io::Error| Error::Io {
            action,
            path: path.to_owned(),
            errno: of(&error),
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| io("create the directory of", error))?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| io("open", error))?;
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Io {
            action: "lock",
            path: path.to_owned(),
            errno,
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| io("read", error))?;
        let book = match text.is_empty() {
            true => Book::default(),
            false => serde_json::from_str(&text).map_err(|error| Error::Garbled {
                path: path.to_owned(),
                reason: error.to_string(),
            })?,
        };
        Ok(LockedBook {
            file,
            path: path.to_owned(),
            book,
        })
    }

    /// Writes what `book` says now.
    pub fn save(&mut self) -> Result<(), Error> {
        let text = serde_json::to_string(&self.book).unwrap_or_default();
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|error| Error::Io {
            action: "write",
            path: self.path.clone(),
            errno: of(&error),
        })
    }
}

/// Why there is no address.
#[derive(Debug, Error)]
pub enum Error {
    /// Not a network.
    #[error("{0:?} is no network for containers; it is written ADDRESS/BITS, as in 10.213.77.0/24, with 8 to 30 bits")]
    Subnet(String),
    /// All are taken.
    #[error(
        "every address of {0} is in use; a larger network can be set with CONTAINER_SUBNET before its first container starts"
    )]
    Full(String),
    /// The file.
    #[error("cannot {action} the list of addresses {}: {}", path.display(), why(errno))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Its content.
    #[error("the list of addresses {} cannot be understood ({reason}); with no container running it can be removed", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_once_and_taken_back() {
        let subnet = Subnet::parse("10.1.2.77/29").unwrap();
        assert_eq!(subnet.to_string(), "10.1.2.72/29");
        assert_eq!(subnet.gateway().to_string(), "10.1.2.73");
        let mut book = Book::default();
        let given: Vec<_> = (0..5)
            .map(|number| {
                book.lease(&subnet, &number.to_string(), vec![])
                    .unwrap()
                    .address
                    .octets()[3]
            })
            .collect();
        assert_eq!(given, [74, 75, 76, 77, 78]);
        assert!(matches!(book.lease(&subnet, "late", vec![]), Err(Error::Full(_))));
        assert!(book.give_back("2").is_some() && book.give_back("2").is_none());
        assert_eq!(book.lease(&subnet, "late", vec![]).unwrap().address.octets()[3], 76);
        assert_eq!(book.others("late", &subnet).len(), 4);
        let beside = subnet.beside("10.1.2.76".parse().unwrap());
        assert_eq!(beside.to_string(), "fd6c:6162::4");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["10.0.0.0", "10.0.0.0/31", "10.0.0.0/7", "10.0.0/24", "fd00::/64"] {
            assert!(Subnet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_file_keeps_what_was_saved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks/lab0.json");
        let subnet = Subnet::parse("10.1.2.0/24").unwrap();
        let mut locked = LockedBook::open(&path).unwrap();
        locked.book.lease(&subnet, "one", vec!["web".into()]).unwrap();
        locked.save().unwrap();
        let saved = locked.book.clone();
        drop(locked);
        assert_eq!(LockedBook::open(&path).unwrap().book, saved);
    }
}
