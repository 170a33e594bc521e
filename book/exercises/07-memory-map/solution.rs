use std::ops::Range;

/// End of the RAM that lies below the hole of the first MiB.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// Where RAM goes on after that hole.
pub const HIGH_RAM: u64 = 0x10_0000;
/// Where the devices begin: 3 GiB.
pub const DEVICE_HOLE: u64 = 0xc000_0000;
/// Where RAM goes on after the devices: 4 GiB.
pub const ABOVE_4G: u64 = 0x1_0000_0000;

/// Which addresses are RAM in a machine with `size` bytes of it (2 MiB or more). What would lie below the first MiB's hole is lost; what
/// would lie among the devices goes above 4 GiB.
pub fn ram(size: u64) -> Vec<Range<u64>> {
    let below = size.min(DEVICE_HOLE);
    let mut ranges = vec![0..LOW_RAM_END, HIGH_RAM..below];
    if size > below {
        ranges.push(ABOVE_4G..ABOVE_4G + size - below);
    }
    ranges
}
