// ANCHOR: stub
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
    let line = |&(device, total_ns): &(&str, u64)| Line {
        device: device.to_owned(),
        count: 1,
        total_ns,
    };
    exits.iter().map(line).collect()
}
// ANCHOR_END: stub
