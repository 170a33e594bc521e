//! Published ports: what `-p [ip:]host:container[/tcp|udp]` means.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The host's address to listen on; `None` is all of them, IPv4 and IPv6.
    pub ip: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The container's.
    pub container: u16,
    /// TCP or UDP.
    pub transport: Transport,
}

impl Port {
    /// The addresses to listen on.
    pub fn listen_on(&self) -> Vec<SocketAddr> {
        match self.ip {
            Some(ip) => vec![SocketAddr::new(ip, self.host)],
            None => vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.host),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.host),
            ],
        }
    }
}

impl FromStr for Port {
    type Err = Error;

    fn from_str(text: &str) -> Result<Port, Error> {
        let bad = || Error(text.to_owned());
        let (addresses, transport) = match text.rsplit_once('/') {
            None => (text, Transport::Tcp),
            Some((rest, "tcp")) => (rest, Transport::Tcp),
            Some((rest, "udp")) => (rest, Transport::Udp),
            Some(_) => return Err(bad()),
        };
        let (front, container) = addresses.rsplit_once(':').ok_or_else(bad)?;
        let (ip, host) = match front.rsplit_once(':') {
            None => (None, front),
            Some((ip, host)) => {
                // An IPv6 address has colons of its own, so it stands in brackets.
                let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
                (Some(ip.parse().map_err(|_| bad())?), host)
            }
        };
        let number = |text: &str| text.parse().ok().filter(|&port: &u16| port > 0).ok_or_else(bad);
        Ok(Port {
            ip,
            host: number(host)?,
            container: number(container)?,
            transport,
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        match self.ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}->{}/{transport}", self.host, self.container)
    }
}

/// Not a port mapping.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no port mapping; it is written [ip:]host:container[/tcp|udp], as in 8080:80 or 127.0.0.1:5353:53/udp, an IPv6 address in brackets"
)]
pub struct Error(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let show = |text: &str| text.parse::<Port>().map(|port| port.to_string());
        assert_eq!(show("8080:80").unwrap(), "8080->80/tcp");
        assert_eq!(show("127.0.0.1:5353:53/udp").unwrap(), "127.0.0.1:5353->53/udp");
        assert_eq!(show("[::1]:8080:80/tcp").unwrap(), "[::1]:8080->80/tcp");
        for bad in [
            "80",
            "a:80",
            "0:80",
            "80:0",
            "80:80/sctp",
            "300.0.0.1:80:80",
            "70000:80",
        ] {
            assert!(show(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_an_address_both_families_listen() {
        let port: Port = "8080:80".parse().unwrap();
        assert_eq!(port.listen_on().len(), 2);
    }
}
