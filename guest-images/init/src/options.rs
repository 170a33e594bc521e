//! What the kernel command line asks of us: every `lab.` option in it.

use std::fs;

use crate::{disk, network};

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
