use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A line of the summary.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Name of the device.
    pub device: String,
    /// How many exits it had.
    pub count: u64,
    /// What they took together, in nanoseconds.
    pub total_ns: u64,
}

/// Sums up exits, given as device and nanoseconds: the most expensive device first, equals by name.
pub fn summary(exits: &[(&str, u64)]) -> Vec<Line> {
    let mut devices: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for &(device, ns) in exits {
        let (count, total) = devices.entry(device).or_default();
        *count += 1;
        *total += ns;
    }
    let line = |(device, (count, total_ns)): (&str, (u64, u64))| Line {
        device: device.to_owned(),
        count,
        total_ns,
    };
    let mut lines: Vec<Line> = devices.into_iter().map(line).collect();
    // A stable sort: equals stay in the order of the map, which is that of their names.
    lines.sort_by_key(|line| Reverse(line.total_ns));
    lines
}
