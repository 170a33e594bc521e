//! The bridge: containers that reach each other, the host, and what lies behind it.
//!
//! A bridge is a switch in software. Each container gets a virtual cable (veth(4)): one end, `eth0`, in its namespace,
//! the other plugged into the bridge. The bridge itself has an address on the host, which is the containers' way out.
//!
//! The first container makes the bridge, the last takes it away. A container that crashed cannot, so whoever comes
//! next, to join, to leave or to look, first strikes from the list those that are gone. Cables need no such care: an
//! interface ends with its namespace, and takes its other end along.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::leases::{self, Lease, LockedBook, PREFIX_V6_BITS, Subnet};
use super::names::{self, Entry};
use super::namespace::{self, NetworkNamespace};
use super::nat;
use super::netlink::{self, Netlink};
use crate::users;

/// The bridge's name unless `CONTAINER_BRIDGE` says otherwise.
const DEFAULT_NAME: &str = "lab0";

/// The containers' network unless `CONTAINER_SUBNET` says otherwise: a corner of the private range 10.0.0.0/8
/// (RFC 1918) that home routers, Docker (172.17.0.0/16) and podman (10.88.0.0/16) leave alone.
const DEFAULT_SUBNET: &str = "10.213.77.0/24";

/// The longest name of an interface (IFNAMSIZ, less the NUL).
const LONGEST_NAME: usize = 15;

/// A container's interface on the bridge.
const INTERFACE: &str = "eth0";

/// The bridge, as this user's containers know it.
pub struct Bridge {
    /// Its name.
    pub name: String,
    subnet: Subnet,
    book: PathBuf,
}

/// A container's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    pub address_v6: Ipv6Addr,
    /// The bridge's address, through which everything else is reached.
    pub gateway: Ipv4Addr,
    /// Why nothing beyond the host is reached, if that is so.
    pub no_way_out: Option<String>,
}

/// What the bridge must know of the containers it serves.
pub trait Members {
    /// Whether the container with this id still holds its address.
    fn is_there(&self, id: &str) -> bool;
    /// Where the file lies that is its `/etc/hosts`.
    fn hosts_file(&self, id: &str) -> PathBuf;
}

impl Bridge {
    /// The bridge the environment asks for; its book is kept in `directory`.
    pub fn configured(directory: &Path) -> Result<Bridge, Error> {
        let name = std::env::var("CONTAINER_BRIDGE").unwrap_or_else(|_| DEFAULT_NAME.to_owned());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
            return Err(Error::Name(name));
        }
        let subnet = std::env::var("CONTAINER_SUBNET").unwrap_or_else(|_| DEFAULT_SUBNET.to_owned());
        Ok(Bridge {
            subnet: Subnet::parse(&subnet)?,
            book: directory.join(format!("{name}.json")),
            name,
        })
    }

    /// Gives the container `id` an interface in `namespace`, an address, and everybody its names.
    pub fn join(
        &self,
        id: &str,
        names: Vec<String>,
        namespace: &NetworkNamespace,
        members: &dyn Members,
    ) -> Result<Membership, Error> {
        if !users::is_host_root() {
            return Err(Error::Rootless);
        }
        let mut locked = LockedBook::open(&self.book)?;
        locked
            .book
            .leases
            .retain(|lease| lease.owner != id && members.is_there(&lease.owner));
        let host = Netlink::open()?;
        let subnet = self.make_sure_it_is_there(&mut locked, &host)?;
        let lease = locked.book.lease(&subnet, id, names)?;
        // On disk before it is on the wire: a crash in between leaves a lease to strike, never an address used twice.
        locked.save()?;
        let joined = self.plug_in(&lease, &subnet, namespace, &host);
        if joined.is_err() {
            locked.book.give_back(id);
            self.close_if_empty(&mut locked, &host)?;
        }
        joined?;
        self.tell_names(&locked, &subnet, members);
        Ok(Membership {
            address: lease.address,
            address_v6: subnet.beside(lease.address),
            gateway: subnet.gateway(),
            no_way_out: locked.book.no_way_out.clone(),
        })
    }

    /// Takes back what the container `id` had; with the last one the bridge goes. Also strikes those that are gone.
    pub fn leave(&self, id: &str, members: &dyn Members) -> Result<(), Error> {
        if !self.book.exists() {
            return Ok(());
        }
        let mut locked = LockedBook::open(&self.book)?;
        let before = locked.book.leases.len();
        locked
            .book
            .leases
            .retain(|lease| lease.owner != id && members.is_there(&lease.owner));
        if locked.book.leases.len() == before {
            return Ok(());
        }
        let host = Netlink::open()?;
        // The kernel takes a namespace apart at leisure; nobody should see a cable without a container meanwhile.
        host.remove(&cable(id))?;
        if !self.close_if_empty(&mut locked, &host)? {
            let subnet = Subnet::parse(&locked.book.subnet)?;
            self.tell_names(&locked, &subnet, members);
        }
        Ok(())
    }

    fn make_sure_it_is_there(&self, locked: &mut LockedBook, host: &Netlink) -> Result<Subnet, Error> {
        let was_ours = !locked.book.subnet.is_empty();
        match (host.index(&self.name)?, was_ours) {
            (Some(_), true) => return Ok(Subnet::parse(&locked.book.subnet)?),
            (Some(_), false) => return Err(Error::NotOurs(self.name.clone())),
            (None, _) => {}
        }
        let subnet = self.subnet;
        locked.book.subnet = subnet.to_string();
        locked.save()?;
        host.make_bridge(&self.name)?;
        host.add_address(&self.name, IpAddr::V4(subnet.gateway()), subnet.bits)?;
        // A host may have IPv6 switched off; the containers then have IPv4 alone.
        let gateway_v6 = subnet.beside(subnet.gateway());
        let _ = host.add_address(&self.name, IpAddr::V6(gateway_v6), PREFIX_V6_BITS);
        host.raise(&self.name)?;
        match nat::let_out(&self.name, &locked.book.subnet) {
            Ok(nat) => (locked.book.nat, locked.book.no_way_out) = (Some(nat), None),
            Err(reason) => (locked.book.nat, locked.book.no_way_out) = (None, Some(reason)),
        }
        Ok(subnet)
    }

    fn plug_in(
        &self,
        lease: &Lease,
        subnet: &Subnet,
        namespace: &NetworkNamespace,
        host: &Netlink,
    ) -> Result<(), Error> {
        let bridge = host
            .index(&self.name)?
            .ok_or_else(|| Error::NotOurs(self.name.clone()))?;
        let name = cable(&lease.owner);
        // Left by a container that was killed a moment ago, whose namespace the kernel has not taken apart yet.
        host.remove(&name)?;
        // ANCHOR: cable
        host.make_cable(&name, INTERFACE, namespace.as_fd())?;
        host.plug_into(&name, bridge)?;
        host.raise(&name)?;
        let inside = namespace.inside(Netlink::open)??;
        inside.raise("lo")?;
        inside.add_address(INTERFACE, IpAddr::V4(lease.address), subnet.bits)?;
        let _ = inside.add_address(INTERFACE, IpAddr::V6(subnet.beside(lease.address)), PREFIX_V6_BITS);
        inside.raise(INTERFACE)?;
        Ok(inside.add_default_route(IpAddr::V4(subnet.gateway()))?)
        // ANCHOR_END: cable
    }

    /// Removes the bridge when nobody is on it; says whether it did.
    fn close_if_empty(&self, locked: &mut LockedBook, host: &Netlink) -> Result<bool, Error> {
        let empty = locked.book.leases.is_empty();
        if empty {
            if let Some(nat) = locked.book.nat.take() {
                nat::undo(&nat, &self.name, &locked.book.subnet);
            }
            host.remove(&self.name)?;
            locked.book = leases::Book::default();
        }
        locked.save()?;
        Ok(empty)
    }

    /// Writes every member's `/etc/hosts`. One that cannot be written is one whose container is just going.
    fn tell_names(&self, locked: &LockedBook, subnet: &Subnet, members: &dyn Members) {
        for lease in &locked.book.leases {
            let own: Entry = lease.entry(subnet);
            let text = names::hosts(&own, &locked.book.others(&lease.owner, subnet));
            let _ = names::rewrite(&members.hosts_file(&lease.owner), &text);
        }
    }
}

/// The name of the host's end of a container's cable: what fits of its id.
fn cable(id: &str) -> String {
    let id = id.get(..12).unwrap_or(id);
    format!("ve-{id}")
}

/// Why a container is not on the bridge.
#[derive(Debug, Error)]
pub enum Error {
    /// Not root.
    #[error(
        "--network bridge needs root: a bridge and the host's end of a cable belong to the host's network namespace. Without root there are --network none (published ports work with it) and --network host; a user-mode network stack (slirp4netns, pasta) would give a way out, and this runtime has none"
    )]
    Rootless,
    /// Somebody else's.
    #[error(
        "there is an interface {0} that no container of this state directory is known to be on; set CONTAINER_BRIDGE to another name, or remove it (ip link delete {0})"
    )]
    NotOurs(String),
    /// Not a name.
    #[error("{0:?} (CONTAINER_BRIDGE) is no name for a bridge: 1 to {LONGEST_NAME} letters, digits, - and _")]
    Name(String),
    /// The addresses.
    #[error(transparent)]
    Leases(#[from] leases::Error),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The namespace.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    struct Everybody {
        directory: tempfile::TempDir,
        there: RefCell<BTreeSet<String>>,
    }

    impl Members for Everybody {
        fn is_there(&self, id: &str) -> bool {
            self.there.borrow().contains(id)
        }

        fn hosts_file(&self, id: &str) -> PathBuf {
            self.directory.path().join(id)
        }
    }

    #[test]
    fn the_bridge_lives_from_the_first_member_to_the_last() {
        let Ok(host) = NetworkNamespace::new() else {
            eprintln!("skipped: network namespaces need root");
            return;
        };
        let everybody = Everybody {
            directory: tempfile::tempdir().unwrap(),
            there: RefCell::default(),
        };
        let bridge = Bridge {
            name: "lab0".into(),
            subnet: Subnet::parse("10.9.8.0/24").unwrap(),
            book: everybody.directory.path().join("lab0.json"),
        };
        // Everything below happens in a network namespace of this test's own.
        let play = || {
            let (one, two) = (NetworkNamespace::new().unwrap(), NetworkNamespace::new().unwrap());
            let join = |id: &str, namespace| {
                everybody.there.borrow_mut().insert(id.to_owned());
                bridge
                    .join(id, vec![format!("name-{id}")], namespace, &everybody)
                    .unwrap()
            };
            let first = join("one", &one);
            let second = join("two", &two);
            assert_eq!((first.address.octets()[3], second.address.octets()[3]), (2, 3));
            let hosts = std::fs::read_to_string(everybody.hosts_file("one")).unwrap();
            assert!(hosts.contains("10.9.8.3\tname-two"), "{hosts}");
            assert!(hosts.contains("fd6c:6162::3\tname-two"), "{hosts}");
            let listener = two
                .inside(|| std::net::TcpListener::bind("10.9.8.3:80").unwrap())
                .unwrap();
            let v6 = two
                .inside(|| std::net::TcpListener::bind("[fd6c:6162::3]:80").unwrap())
                .unwrap();
            one.inside(|| std::net::TcpStream::connect("10.9.8.3:80").unwrap())
                .unwrap();
            one.inside(|| std::net::TcpStream::connect("[fd6c:6162::3]:80").unwrap())
                .unwrap();
            drop((listener, v6));

            // The first one crashes: nobody calls leave for it.
            everybody.there.borrow_mut().remove("one");
            bridge.leave("two", &everybody).unwrap();
            assert_eq!(Netlink::open().unwrap().index("lab0").unwrap(), None);
            assert_eq!(Netlink::open().unwrap().index("ve-two").unwrap(), None);

            // And a bridge of somebody else's is left alone.
            Netlink::open().unwrap().make_bridge("lab0").unwrap();
            assert!(matches!(
                bridge.join("three", vec![], &one, &everybody),
                Err(Error::NotOurs(_))
            ));
        };
        host.inside(play).unwrap();
    }
}
