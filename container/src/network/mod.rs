//! The container's network: which interfaces its network namespace has, and who can reach them.
//!
//! A new network namespace holds one interface, `lo`, and it is down. What is added to it is the choice of
//! `--network`:
//!
//! | Mode | What the container has | Module |
//! |---|---|---|
//! | `none` | `lo`, raised | [`loopback`] |
//! | `bridge` | `lo` and `eth0`: one end of a virtual cable whose other end is plugged into a bridge on the host | [`bridge`], [`netlink`] |
//! | `host` | no namespace of its own: the host's interfaces | |
//! | `container:NAME` | another container's namespace, and so its interfaces and ports | [`namespace`] |
//!
//! Around the bridge: addresses come from a file under a lock ([`leases`]), containers find each other by name because
//! every member's `/etc/hosts` is rewritten when one comes or goes ([`names`]), what leaves the bridge is given the
//! host's address ([`nat`]), and a published port is a small process that copies bytes ([`ports`], [`forward`]).

pub mod bridge;
pub mod forward;
pub mod leases;
pub mod loopback;
pub mod names;
pub mod namespace;
pub mod nat;
pub mod netlink;
pub mod ports;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What `--network` can ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Mode {
    /// A loopback interface and nothing else.
    #[default]
    None,
    /// The host's own network namespace.
    Host,
    /// An interface on the bridge.
    Bridge,
    /// The namespace of the container with this name or id.
    Container(String),
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Mode, UnknownMode> {
        match text {
            "none" => Ok(Mode::None),
            "host" => Ok(Mode::Host),
            "bridge" => Ok(Mode::Bridge),
            other => match other.strip_prefix("container:") {
                Some(name) if !name.is_empty() => Ok(Mode::Container(name.to_owned())),
                _ => Err(UnknownMode(other.to_owned())),
            },
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = UnknownMode;

    fn try_from(text: String) -> Result<Mode, UnknownMode> {
        text.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> String {
        mode.to_string()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::None => f.write_str("none"),
            Mode::Host => f.write_str("host"),
            Mode::Bridge => f.write_str("bridge"),
            Mode::Container(name) => write!(f, "container:{name}"),
        }
    }
}

/// No such mode.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no network mode; there are none, host, bridge and container:NAME")]
pub struct UnknownMode(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_lead_back() {
        for text in ["none", "host", "bridge", "container:web"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        assert!("container:".parse::<Mode>().is_err());
        assert!("lab0".parse::<Mode>().is_err());
    }
}
