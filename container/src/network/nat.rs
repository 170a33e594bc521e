//! The way out of the bridge: network address translation.
//!
//! A container's address means nothing beyond the bridge. So the host forwards its packets and puts its own address in
//! their place (masquerading). The kernel does the work; which packets it is to do it for is a rule, and rules are
//! installed by `nft` or `iptables`: speaking nftables' netlink dialect by hand would be a project of its own.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// The kernel's switch for passing packets on between interfaces, of this network namespace.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What was done to let containers out, to be undone when the bridge goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Who holds the rule.
    pub tool: Tool,
    /// Whether forwarding was off before.
    pub forwarding_was_off: bool,
}

/// A program that installs rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// nftables' own.
    Nft,
    /// The older one.
    Iptables,
}

/// Lets what comes from `subnet` out of every interface but `bridge`. `Err` is the reason why not, for the user: the
/// containers can still reach each other and the host.
pub fn let_out(bridge: &str, subnet: &str) -> Result<Nat, String> {
    let tool = install(bridge, subnet)?;
    let before = fs::read_to_string(FORWARDING).unwrap_or_default();
    let forwarding_was_off = before.trim() == "0";
    if forwarding_was_off && let Err(error) = fs::write(FORWARDING, "1") {
        remove_rule(tool, bridge, subnet);
        return Err(format!("cannot switch on {FORWARDING}: {error}"));
    }
    Ok(Nat {
        tool,
        forwarding_was_off,
    })
}

/// Undoes [`let_out`].
pub fn undo(nat: &Nat, bridge: &str, subnet: &str) {
    remove_rule(nat.tool, bridge, subnet);
    if nat.forwarding_was_off {
        // Read-only only where it could not have been switched on either.
        let _ = fs::write(FORWARDING, "0");
    }
}

fn install(bridge: &str, subnet: &str) -> Result<Tool, String> {
    let table = table(bridge);
    // ANCHOR: rule
    let rules = format!(
        "table ip {table} {{\n chain out {{\n type nat hook postrouting priority srcnat;\n ip saddr {subnet} oifname != \"{bridge}\" masquerade\n }}\n}}\n"
    );
    // ANCHOR_END: rule
    let nft = match feed("nft", &["-f", "-"], &rules) {
        Ok(()) => return Ok(Tool::Nft),
        Err(reason) => reason,
    };
    let append = [
        "-t",
        "nat",
        "-A",
        "POSTROUTING",
        "-s",
        subnet,
        "!",
        "-o",
        bridge,
        "-j",
        "MASQUERADE",
    ];
    match feed("iptables", &append, "") {
        Ok(()) => Ok(Tool::Iptables),
        Err(iptables) => Err(format!("{nft}; {iptables}")),
    }
}

fn remove_rule(tool: Tool, bridge: &str, subnet: &str) {
    // Gone already is as good.
    let _ = match tool {
        Tool::Nft => feed("nft", &["delete", "table", "ip", &table(bridge)], ""),
        Tool::Iptables => {
            let delete = [
                "-t",
                "nat",
                "-D",
                "POSTROUTING",
                "-s",
                subnet,
                "!",
                "-o",
                bridge,
                "-j",
                "MASQUERADE",
            ];
            feed("iptables", &delete, "")
        }
    };
}

/// Names of tables are letters, digits and `_`.
fn table(bridge: &str) -> String {
    let safe = bridge.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    format!("isolation_lab_{}", safe.collect::<String>())
}

/// Runs a tool with `input`; its own words when it fails.
fn feed(tool: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("{tool} is not installed"),
            _ => format!("{tool} does not start: {error}"),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have failed before it read anything; then its message counts.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{tool}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{tool} says: {}",
        said.lines().next().unwrap_or("nothing").trim()
    ))
}
