//! A network for both sides, in two namespaces of the lab's own.
//!
//! ```text
//!   host side                                  inside
//!   lo        127.0.0.1     plain process
//!   lab-veth  198.18.0.1 ---- cable ---------- eth0  198.18.0.2     containers
//!   lab-tap   198.18.0.5 ---- VMM ------------ the guest's card  198.18.0.6
//!   the peer listens here
//! ```
//!
//! The addresses are those set apart for benchmarks (RFC 2544, 198.18.0.0/15). No process but the lab's is in either
//! namespace, and no way leads out of them. They are held by open files: whatever ends the lab ends them, the cable and the
//! tap with them.

use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};

use container::network::namespace::NetworkNamespace;
use container::network::netlink::Netlink;
use nix::errno::Errno;
use nix::unistd::geteuid;

use super::apart::Apart;
use super::peer::Peer;
use crate::contenders::Skipped;

const CABLE: &str = "lab-veth";
const TAP: &str = "lab-tap";
/// Two addresses for each wire.
const PREFIX: u8 = 30;
const CABLE_HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CABLE_INSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const TAP_HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 5);
const GUEST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 6);

/// Where a contender's launcher is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Beside the peer.
    Host,
    /// At the other end of the cable.
    Inside,
}

/// The network. It goes with the value.
pub struct Wire {
    host: NetworkNamespace,
    inside: NetworkNamespace,
    peer: Peer,
    /// None on a machine of one processor.
    apart: Option<Apart>,
    tap: Result<(), Skipped>,
}

impl Wire {
    /// Makes it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn make() -> Result<Wire, Skipped> {
        if !geteuid().is_root() {
            return Err(Skipped {
                reason: "a network namespace with a cable or a tap takes root".into(),
                fix: "run as root".into(),
            });
        }
        let namespace = || NetworkNamespace::new().map_err(|error| failed(&error));
        let (host, inside) = (namespace()?, namespace()?);
        let apart = Apart::on_this_machine().map_err(|error| failed(&error))?;
        let (peer, tap) = host
            .inside(|| here(&inside, apart.as_ref()))
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        let wire = Wire {
            host,
            inside,
            peer,
            apart,
            tap: tap.map_err(|error| Skipped {
                reason: format!("no tap can be made: {error}"),
                fix: "load the module tun (`modprobe tun`), and see that /dev/net/tun is there".into(),
            }),
        };
        wire.on(Side::Inside, || raise(&Netlink::open()?, "eth0", CABLE_INSIDE))
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        Ok(wire)
    }

    /// Does something with the calling thread in one of the namespaces; processes it starts are there too.
    ///
    /// # Errors
    /// When it cannot go there, or cannot come back.
    fn on<T>(&self, side: Side, act: impl FnOnce() -> T) -> Result<T, container::network::namespace::Error> {
        let namespace = match side {
            Side::Host => &self.host,
            Side::Inside => &self.inside,
        };
        namespace.inside(act)
    }

    /// Launches something in one of the namespaces, where the peer leaves it a processor.
    ///
    /// # Errors
    /// When the calling thread cannot go there, or cannot come back.
    pub fn launch<T>(&self, side: Side, act: impl FnOnce() -> T) -> io::Result<T> {
        let there = || match &self.apart {
            Some(apart) => apart.as_a_program(act).map_err(io::Error::from),
            None => Ok(act()),
        };
        self.on(side, there).map_err(io::Error::other)?
    }

    /// Who runs on which processor, in words.
    pub fn processors(&self) -> String {
        match &self.apart {
            Some(apart) => format!(
                "The peer has processor {} to itself, the contenders have the others",
                apart.peer()
            ),
            None => "Peer and contenders share the one processor".into(),
        }
    }

    /// The peer, as a program beside it finds it.
    pub fn peer_by_loopback(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.peer.port())
    }

    /// The peer, as a program at the other end of the cable finds it.
    pub fn peer_by_cable(&self) -> SocketAddrV4 {
        SocketAddrV4::new(CABLE_HERE, self.peer.port())
    }

    /// The peer, as a guest on the tap finds it.
    pub fn peer_by_tap(&self) -> SocketAddrV4 {
        SocketAddrV4::new(TAP_HERE, self.peer.port())
    }

    /// The tap's name, and the address and prefix of the guest on it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn tap(&self) -> Result<(&'static str, String), Skipped> {
        self.tap.clone().map(|()| (TAP, format!("{GUEST}/{PREFIX}")))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Its socket holds the namespace. If it cannot be told, the lab's end will.
        let _ = self.host.inside(|| self.peer.stop());
    }
}

type Netlinked<T> = Result<T, Box<dyn std::error::Error>>;

/// Builds the host's side; the calling thread is there.
fn here(inside: &NetworkNamespace, apart: Option<&Apart>) -> Netlinked<(Peer, io::Result<()>)> {
    let netlink = Netlink::open()?;
    netlink.raise("lo")?;
    netlink.make_cable(CABLE, "eth0", inside.as_fd())?;
    raise(&netlink, CABLE, CABLE_HERE)?;
    let tap = make_tap();
    if tap.is_ok() {
        raise(&netlink, TAP, TAP_HERE)?;
    }
    let peer = match apart {
        Some(apart) => apart.as_the_peer(Peer::listen)??,
        None => Peer::listen()?,
    };
    Ok((peer, tap))
}

fn raise(netlink: &Netlink, name: &str, address: Ipv4Addr) -> Netlinked<()> {
    netlink.add_address(name, IpAddr::V4(address), PREFIX)?;
    netlink.raise(name)?;
    Ok(())
}

/// Makes the tap, and has the kernel keep it when the file is closed: the VMM will take it by name (tun(4)).
fn make_tap() -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the first call reads and writes the ifreq it is given, the second takes a number.
    unsafe {
        Errno::result(libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request))?;
        Errno::result(libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1))?;
    }
    Ok(())
}

fn failed(error: &dyn std::fmt::Display) -> Skipped {
    Skipped {
        reason: format!("the network for the lessons cannot be made: {error}"),
        fix: "`lab doctor` tests what network namespaces need".into(),
    }
}
