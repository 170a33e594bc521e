use std::net::Ipv4Addr;

/// The lowest address of a network that a new container can have. None where all are taken.
///
/// `network` is the network's first address, `bits` the length of its prefix. Never given are the network's own address, the
/// bridge's, which is the one after it, the last one, to which broadcasts go, and those in `taken`.
pub fn lowest_free(network: Ipv4Addr, bits: u32, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let first = u32::from(network);
    let broadcast = first + (1 << (32 - bits)) - 1;
    (first + 2..broadcast).map(Ipv4Addr::from).find(|address| !taken.contains(address))
}
