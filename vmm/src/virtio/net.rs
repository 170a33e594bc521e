//! A network card on a tap.
//!
//! What the guest writes: frames into the second queue, each behind a header of 12 bytes that says what is left to do on it
//! (a checksum, cutting into segments); empty buffers into the first. What the host answers: it hands frame and header to
//! the [tap] as they are, which reads the header itself, and fills the empty buffers with what the
//! tap has for the guest.
//!
//! What it costs: 3 exits for a frame sent (the notification, and the interrupt's two that says it is gone), 2 for a frame
//! received (an interrupt; the buffers are offered long before, and told of only when none were left). A ping and its answer
//! are 5, or 3 where the answer is there before the first interrupt was taken: 16 pings were 78 exits.

use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
};

use super::Error;
use super::device::{Device, Kept};
use super::queue::{Malformed, Queues};
use super::tap::{self, Tap};
use crate::random;

/// Virtio 1.2, section 5.1.
const ID: u32 = 1;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// What the tap can be handed unfinished: frames without a checksum, and TCP segments as long as a frame can say.
const HOST_FINISHES: u64 = 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_HOST_TSO4 | 1 << VIRTIO_NET_F_HOST_TSO6;
/// What the guest can be handed unfinished: frames without a checksum.
const GUEST_CHECKSUMS: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;

/// The longest frame: 64 KiB of IP, an Ethernet header with a VLAN tag.
const FRAME_MAX: usize = 65536 + 18;
/// The shortest buffer a received frame is given to: header and a frame of 1514 bytes.
const BUFFER_MIN: usize = tap::HEADER + 1514;

/// A card to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The tap's name.
    pub tap: String,
    /// Its hardware address; drawn at random where none is given.
    pub mac: Option<[u8; 6]>,
}

impl FromStr for Spec {
    type Err = String;

    /// `tap=NAME` or `tap=NAME,mac=XX:XX:XX:XX:XX:XX`.
    fn from_str(text: &str) -> Result<Spec, String> {
        let mut spec = Spec {
            tap: String::new(),
            mac: None,
        };
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("tap", name)) => spec.tap = name.into(),
                Some(("mac", mac)) => spec.mac = Some(parse_mac(mac)?),
                _ => return Err(format!("{part:?} is neither tap=NAME nor mac=XX:XX:XX:XX:XX:XX")),
            }
        }
        match spec.tap.is_empty() {
            true => Err("no tap is named: tap=NAME".into()),
            false => Ok(spec),
        }
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2))
        .collect();
    match <[u8; 6]>::try_from(bytes) {
        Ok(mac) if text.len() == 17 && mac[0] & MULTICAST == 0 => Ok(mac),
        Ok(_) => Err(format!(
            "{text} is the address of a group, not of a card: its first byte must be even"
        )),
        Err(_) => Err(format!("{text} is no hardware address, such as 02:00:00:00:00:01")),
    }
}

/// Bits of an address's first byte (IEEE 802): of a group; not from a manufacturer.
const MULTICAST: u8 = 1 << 0;
const LOCAL: u8 = 1 << 1;

/// The device.
pub struct Net {
    tap: Tap,
    mac: [u8; 6],
}

impl Net {
    /// A card on the tap that `spec` names.
    ///
    /// # Errors
    /// When the tap cannot be had, or the host has no random bytes.
    pub fn open(spec: &Spec) -> Result<Net, Error> {
        let mac = match spec.mac {
            Some(mac) => mac,
            None => draw_mac()?,
        };
        Ok(Net::new(Tap::open(&spec.tap)?, mac))
    }

    /// A card with this hardware address on this tap.
    pub fn new(tap: Tap, mac: [u8; 6]) -> Net {
        Net { tap, mac }
    }
}

/// An address no manufacturer gives out.
fn draw_mac() -> Result<[u8; 6], Error> {
    let mut mac = [0; 6];
    random::fill(&mut mac).map_err(Error::Mac)?;
    mac[0] = mac[0] & !MULTICAST | LOCAL;
    Ok(mac)
}

impl Device for Net {
    fn name(&self) -> &'static str {
        "virtio-net"
    }

    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        HOST_FINISHES | GUEST_CHECKSUMS | 1 << VIRTIO_NET_F_MAC
    }

    fn queues(&self) -> &'static [u16] {
        &[256, 256]
    }

    /// `struct virtio_net_config`: the address.
    fn configuration(&self) -> Vec<u8> {
        self.mac.to_vec()
    }

    fn start(&mut self, features: u64) {
        let offloads = match features & GUEST_CHECKSUMS {
            0 => 0,
            _ => tap::CHECKSUMS,
        };
        // A tap that refuses goes on finishing every frame itself, which no guest minds.
        let _ = self.tap.leave(offloads);
    }

    fn serve(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Malformed> {
        if index != TRANSMIT {
            return Ok(());
        }
        for _ in 0..queues.size(TRANSMIT) {
            let Some(mut chain) = queues.take(TRANSMIT)? else { break };
            let length = chain.readable.length();
            if length < tap::HEADER {
                return Err(Malformed("a frame has no header"));
            }
            // A frame the tap does not take, or has no room for, is lost, as frames are.
            if length <= tap::HEADER + FRAME_MAX {
                let _ = self.tap.send(&mut chain.readable);
            }
            queues.give_back(TRANSMIT, &chain, 0)?;
        }
        Ok(())
    }

    fn input_queue(&self) -> Option<usize> {
        Some(RECEIVE)
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.as_fd())
    }

    /// As many frames as there are and the guest has buffers for: then one interrupt serves them all.
    fn receive(&mut self, queues: &mut Queues<'_>) -> Result<(), Malformed> {
        for _ in 0..queues.size(RECEIVE) {
            let Some(mut chain) = queues.take(RECEIVE)? else { break };
            if chain.writable.length() < BUFFER_MIN {
                return Err(Malformed("a buffer is too small for a frame"));
            }
            let Ok(length) = self.tap.receive(&mut chain.writable) else {
                // Nothing more has come.
                queues.put_back(RECEIVE);
                break;
            };
            queues.give_back(RECEIVE, &chain, length)?;
        }
        Ok(())
    }

    fn save(&self) -> Kept {
        Kept::Net(self.mac)
    }

    fn restore(&mut self, kept: &Kept) -> bool {
        let Kept::Net(mac) = *kept else { return false };
        self.mac = mac;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::super::driver::{BUFFERS, Driver};
    use super::*;
    use crate::bus::Device as _;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    /// A card, and the host's side of what stands in for its tap: datagrams keep frames apart as a tap does.
    fn driver() -> (Driver, UnixDatagram) {
        let (tap, host) = UnixDatagram::pair().unwrap();
        tap.set_nonblocking(true).unwrap();
        host.set_nonblocking(true).unwrap();
        (
            Driver::started(Box::new(Net::new(OwnedFd::from(tap).into(), MAC))),
            host,
        )
    }

    #[test]
    fn frames_go_out_with_their_headers() {
        let (mut driver, host) = driver();
        assert_eq!(driver.read(0x100).to_le_bytes(), MAC[..4]);
        driver.put(BUFFERS, &[9; 12 + 60]);
        driver.request(TRANSMIT, &[(BUFFERS, 12), (BUFFERS + 12, 60)], 2);
        assert_eq!(driver.done(TRANSMIT), [(0, 0)]);
        let mut frame = [0; 100];
        assert_eq!(host.recv(&mut frame).unwrap(), 72);
        // Too long to be a frame: lost. Without a header: not a frame at all.
        driver.request(TRANSMIT, &[(0, 12 + FRAME_MAX as u32 + 1)], 1);
        assert_eq!(driver.done(TRANSMIT), [(0, 0)]);
        assert!(host.recv(&mut frame).is_err());
        driver.request(TRANSMIT, &[(BUFFERS, 11)], 1);
        assert!(driver.stopped());
    }

    #[test]
    fn frames_come_in_while_there_are_buffers() {
        let (mut driver, host) = driver();
        assert!(driver.transport.input().is_none(), "no buffers yet");
        driver.request(RECEIVE, &[(BUFFERS, 2000)], 0);
        assert!(driver.transport.input().is_some());
        // Woken for nothing: the buffer stays.
        driver.transport.receive();
        assert_eq!(driver.done(RECEIVE), []);
        host.send(&[5; 72]).unwrap();
        host.send(&[6; 73]).unwrap();
        driver.transport.receive();
        assert_eq!(driver.done(RECEIVE), [(0, 72)]);
        assert_eq!(driver.get(BUFFERS, 73), [&[5; 72][..], &[0]].concat());
        assert!(driver.transport.input().is_none(), "no buffer left");
        driver.request(RECEIVE, &[(BUFFERS, 2000)], 0);
        driver.transport.receive();
        assert_eq!(driver.done(RECEIVE), [(0, 73)]);
        driver.request(RECEIVE, &[(BUFFERS, 100)], 0);
        driver.transport.receive();
        assert!(driver.stopped(), "too small a buffer");
    }

    #[test]
    fn a_card_is_named_with_its_tap() {
        let spec: Spec = "tap=tap0,mac=02:00:00:00:00:0f".parse().unwrap();
        assert_eq!((spec.tap.as_str(), spec.mac), ("tap0", Some([2, 0, 0, 0, 0, 15])));
        assert_eq!("tap=t".parse::<Spec>().unwrap().mac, None);
        for (text, part) in [
            ("mac=02:00:00:00:00:0f", "no tap is named"),
            ("tap0", "neither"),
            ("tap=t,mac=2:0:0:0:0:f", "no hardware address"),
            ("tap=t,mac=03:00:00:00:00:0f", "of a group"),
        ] {
            let error = text.parse::<Spec>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = Net::open(&"tap=no-such-tap".parse().unwrap()).map(drop).unwrap_err();
        assert!(
            error.to_string().contains("ip tuntap add dev no-such-tap mode tap"),
            "{error}"
        );
    }
}
