/// One launch: readings of a clock, in nanoseconds.
pub struct Launch {
    /// Right before the launcher was started.
    pub start: u64,
    /// When the first byte of output was there; None if it never was.
    pub first_byte: Option<u64>,
}

/// How long the launch took to start, in nanoseconds.
pub fn startup(launch: &Launch) -> Option<u64> {
    launch.first_byte?.checked_sub(launch.start)
}
