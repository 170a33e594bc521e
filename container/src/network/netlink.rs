//! Speaking with the kernel about interfaces: rtnetlink(7).
//!
//! A netlink message is a header, a fixed part (which interface, which family) and a list of attributes, each with its
//! length and kind. The crates `netlink-packet-*` write the bytes; this file says what is asked for. Every request
//! asks for an acknowledgement, which carries an errno.
//!
//! A socket speaks for the network namespace it was made in, wherever its process is later.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use thiserror::Error;

use crate::errno::{of, why};

/// A line to the kernel's table of interfaces.
pub struct Netlink {
    socket: Socket,
}

/// What is to become of an answer that says no.
const MAKE: u16 = NLM_F_CREATE | NLM_F_EXCL;

impl Netlink {
    /// Speaks for the network namespace the calling thread is in now.
    pub fn open() -> Result<Netlink, Error> {
        let failed = |error: std::io::Error| Error::Socket(of(&error));
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        Ok(Netlink { socket })
    }

    /// Makes a bridge: a switch in software.
    pub fn make_bridge(&self, name: &str) -> Result<(), Error> {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.ask("make the bridge", name, RouteNetlinkMessage::NewLink(link), MAKE)
            .map(drop)
    }

    /// Makes a virtual cable: what goes in at `name`, here, comes out at `peer`, in the namespace `there`.
    pub fn make_cable(&self, name: &str, peer: &str, there: BorrowedFd<'_>) -> Result<(), Error> {
        let mut other_end = LinkMessage::default();
        other_end.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
            LinkAttribute::NetNsFd(there.as_raw_fd()),
        ];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other_end))),
            ]),
        ];
        self.ask("make the cable", name, RouteNetlinkMessage::NewLink(link), MAKE)
            .map(drop)
    }

    /// Plugs `name` into the bridge with index `bridge`.
    pub fn plug_into(&self, name: &str, bridge: u32) -> Result<(), Error> {
        let mut link = named(name);
        link.attributes.push(LinkAttribute::Controller(bridge));
        self.ask("plug into the bridge", name, RouteNetlinkMessage::SetLink(link), 0)
            .map(drop)
    }

    /// Switches an interface on.
    pub fn raise(&self, name: &str) -> Result<(), Error> {
        let mut link = named(name);
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask("raise", name, RouteNetlinkMessage::SetLink(link), 0).map(drop)
    }

    /// Removes an interface; `Ok(false)` when there is none with this name.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let request = RouteNetlinkMessage::DelLink(named(name));
        absent_is_false(self.ask("remove", name, request, 0))
    }

    /// The number of an interface, if there is one with this name.
    pub fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        match self.ask("find", name, RouteNetlinkMessage::GetLink(named(name)), 0) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(link.header.index)),
            Ok(_) => Ok(None),
            Err(Error::Refused {
                errno: Errno::ENODEV, ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives an interface an address in a network of `prefix` leading bits.
    pub fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let mut request = AddressMessage::default();
        request.header.index = self.index(name)?.ok_or(Error::Refused {
            action: "find",
            name: name.to_owned(),
            errno: Errno::ENODEV,
        })?;
        request.header.prefix_len = prefix;
        request.attributes = match address {
            IpAddr::V4(_) => {
                request.header.family = AddressFamily::Inet;
                vec![AddressAttribute::Local(address), AddressAttribute::Address(address)]
            }
            IpAddr::V6(_) => {
                request.header.family = AddressFamily::Inet6;
                // The lease says that the address is nobody else's. Asking the neighbours once more (duplicate address
                // detection) would keep it unusable for a second.
                request.header.flags = AddressHeaderFlags::Nodad;
                vec![
                    AddressAttribute::Address(address),
                    AddressAttribute::Flags(AddressFlags::Nodad),
                ]
            }
        };
        self.ask(
            "give an address to",
            name,
            RouteNetlinkMessage::NewAddress(request),
            MAKE,
        )
        .map(drop)
    }

    /// Sends everything without a better way through `gateway`.
    pub fn add_default_route(&self, gateway: IpAddr) -> Result<(), Error> {
        let mut route = RouteMessage::default();
        route.header.address_family = match gateway {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Boot;
        route.header.scope = RouteScope::Universe;
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![RouteAttribute::Gateway(gateway.into())];
        let request = RouteNetlinkMessage::NewRoute(route);
        self.ask("set the default route through", &gateway.to_string(), request, MAKE)
            .map(drop)
    }

    /// Sends a request and returns what came before its acknowledgement.
    fn ask(
        &self,
        action: &'static str,
        name: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let failed = |errno| Error::Refused {
            action,
            name: name.to_owned(),
            errno,
        };
        self.socket.send(&bytes, 0).map_err(|error| failed(of(&error)))?;

        let mut answer = None;
        loop {
            let (packet, _) = self.socket.recv_from_full().map_err(|error| failed(of(&error)))?;
            let mut rest = packet.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| Error::Answer(error.to_string()))?;
                // Messages in one packet start at multiples of four bytes.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answer = Some(inner),
                    NetlinkPayload::Error(error) => match error.raw_code() {
                        0 => return Ok(answer),
                        code => return Err(failed(Errno::from_raw(-code))),
                    },
                    _ => {}
                }
            }
        }
    }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    link
}

fn absent_is_false(result: Result<Option<RouteNetlinkMessage>, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Refused {
            errno: Errno::ENODEV, ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why the kernel would not.
#[derive(Debug, Error)]
pub enum Error {
    /// No line to it.
    #[error("cannot open a netlink socket: {}. An outer seccomp filter may forbid it", why(.0))]
    Socket(Errno),
    /// It said no.
    #[error("cannot {action} {name}: {}.{}", why(errno), cure(*errno))]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// Of which interface.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Its answer makes no sense.
    #[error("cannot read the kernel's answer on the netlink socket: {0}")]
    Answer(String),
}

fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => " It needs CAP_NET_ADMIN over this network namespace: run as root",
        Errno::EOPNOTSUPP => " The kernel lacks the driver (CONFIG_BRIDGE, CONFIG_VETH)",
        Errno::EEXIST => " Something with this name or address is there already",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::namespace::NetworkNamespace;
    use std::os::fd::AsFd;

    #[test]
    fn a_cable_between_two_namespaces_carries_bytes() {
        // Both ends in namespaces of this test's own: nothing of the host's is touched.
        let (Ok(here), Ok(there)) = (NetworkNamespace::new(), NetworkNamespace::new()) else {
            eprintln!("skipped: network namespaces need root");
            return;
        };
        let near = here.inside(Netlink::open).unwrap().unwrap();
        let far = there.inside(Netlink::open).unwrap().unwrap();
        near.make_bridge("br0").unwrap();
        let bridge = near.index("br0").unwrap().unwrap();
        near.make_cable("cable0", "eth0", there.as_fd()).unwrap();
        near.plug_into("cable0", bridge).unwrap();
        near.add_address("br0", "192.0.2.1".parse().unwrap(), 24).unwrap();
        far.add_address("eth0", "192.0.2.2".parse().unwrap(), 24).unwrap();
        far.add_address("eth0", "fd00::2".parse().unwrap(), 64).unwrap();
        for (side, name) in [(&near, "br0"), (&near, "cable0"), (&far, "eth0")] {
            side.raise(name).unwrap();
        }
        far.add_default_route("192.0.2.1".parse().unwrap()).unwrap();
        let listener = there
            .inside(|| std::net::TcpListener::bind("192.0.2.2:7").unwrap())
            .unwrap();
        let mut client = here
            .inside(|| std::net::TcpStream::connect("192.0.2.2:7").unwrap())
            .unwrap();
        let (mut server, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut client, b"hello").unwrap();
        let mut read = [0; 5];
        std::io::Read::read_exact(&mut server, &mut read).unwrap();
        assert_eq!(&read, b"hello");

        assert!(matches!(
            near.make_bridge("br0"),
            Err(Error::Refused {
                errno: Errno::EEXIST,
                ..
            })
        ));
        assert!(near.remove("cable0").unwrap());
        assert!(!near.remove("cable0").unwrap());
        assert_eq!(far.index("eth0").unwrap(), None, "both ends go at once");
    }
}
