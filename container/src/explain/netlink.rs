//! What is asked of the kernel on a netlink socket, in the words of rtnetlink(7).

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

/// The request in these bytes; `None` when it is none that a container's network needs.
pub fn request(bytes: &[u8]) -> Option<String> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?;
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return None;
    };
    Some(match inner {
        RouteNetlinkMessage::NewLink(link) => format!("RTM_NEWLINK {}", interface(&link)),
        RouteNetlinkMessage::SetLink(link) => format!("RTM_SETLINK {}", interface(&link)),
        RouteNetlinkMessage::GetLink(link) => format!("RTM_GETLINK {}", interface(&link)),
        RouteNetlinkMessage::DelLink(link) => format!("RTM_DELLINK {}", interface(&link)),
        RouteNetlinkMessage::NewAddress(address) => format!("RTM_NEWADDR {}", address_of(&address)),
        RouteNetlinkMessage::NewRoute(route) => format!("RTM_NEWROUTE {}", way(&route)),
        _ => return None,
    })
}

/// Its name, its kind, and what is to become of it.
fn interface(link: &LinkMessage) -> String {
    let mut text = String::new();
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => text.insert_str(0, name),
            LinkAttribute::Controller(bridge) => text.push_str(&format!(" into bridge {bridge}")),
            LinkAttribute::NetNsFd(fd) => text.push_str(&format!(" in the namespace of {fd}")),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => text.push_str(&format!(" {kind}")),
                        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) => {
                            text.push_str(&format!(", other end {}", interface(peer)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if link.header.change_mask.contains(LinkFlags::Up) {
        text.push_str(if link.header.flags.contains(LinkFlags::Up) {
            " up"
        } else {
            " down"
        });
    }
    text
}

fn address_of(message: &AddressMessage) -> String {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(address.to_string()),
        _ => None,
    });
    format!(
        "{}/{} on interface {}",
        address.unwrap_or_default(),
        message.header.prefix_len,
        message.header.index
    )
}

fn way(message: &RouteMessage) -> String {
    let gateway = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(gateway.to_string()),
        RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => Some(gateway.to_string()),
        _ => None,
    });
    let to = match message.header.destination_prefix_length {
        0 => "everywhere".to_owned(),
        bits => format!("a network of {bits} bits"),
    };
    format!("to {to} through {}", gateway.unwrap_or_else(|| "nobody".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NetlinkHeader;
    use netlink_packet_route::link::InfoKind;

    fn told(request_of: RouteNetlinkMessage) -> Option<String> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request_of));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        request(&bytes)
    }

    #[test]
    fn a_cable_is_told_with_both_ends() {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![LinkAttribute::IfName("eth0".into()), LinkAttribute::NetNsFd(7)];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName("cable0".into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        assert_eq!(
            told(RouteNetlinkMessage::NewLink(link)).unwrap(),
            "RTM_NEWLINK cable0 veth, other end eth0 in the namespace of 7"
        );
        assert_eq!(request(b"neither"), None);
    }
}
