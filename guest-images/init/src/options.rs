//! What the kernel command line asks of us: every `lab.` option in it.

use std::fs;

use crate::{disk, network};

/// What is written to which port to switch the machine off: `lab.off=PORT,VALUE`, both hexadecimal with `0x`. For hypervisors
/// that start a guest again when it restarts.
pub fn switch() -> Option<(u16, u8)> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    let mut words = line.split_whitespace().take_while(|&word| word != "--");
    let (port, value) = words.find_map(|word| word.strip_prefix("lab.off="))?.split_once(',')?;
    let port = u16::from_str_radix(port.strip_prefix("0x")?, 16).ok()?;
    let value = u8::from_str_radix(value.strip_prefix("0x")?, 16).ok()?;
    Some((port, value))
}

/// Does what is asked, in the order of the words.
pub fn obey() -> Result<(), String> {
    let line = fs::read_to_string("/proc/cmdline").map_err(|error| format!("cannot read /proc/cmdline: {error}"))?;
    // What stands behind `--` is not for us.
    for word in line.split_whitespace().take_while(|&word| word != "--") {
        match word.split_once('=') {
            Some(("lab.disk", option)) => disk::mount(option)?,
            Some(("lab.ip", option)) => network::configure(option)?,
            _ => {}
        }
    }
    Ok(())
}
