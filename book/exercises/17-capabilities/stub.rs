/// The first capabilities by number (`linux/capability.h`).
pub const NAMES: [&str; 14] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
];

// ANCHOR: stub
/// The names of the capabilities in a line of `/proc/PID/status`, such as `CapEff:\t00000000000000a1`. The number is
/// hexadecimal, and bit n stands for `NAMES[n]`. None if the line is no such line.
pub fn capabilities(line: &str) -> Option<Vec<&'static str>> {
    let number = line.strip_prefix("CapEff:")?.trim();
    let mask: u64 = number.parse().ok()?;
    Some(NAMES.iter().enumerate().filter(|(bit, _)| mask & *bit as u64 != 0).map(|(_, name)| *name).collect())
}
// ANCHOR_END: stub
