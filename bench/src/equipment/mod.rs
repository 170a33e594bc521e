//! What a lesson needs besides a processor and memory: a disk ([`disk`]), a network ([`wire`]) with somebody at its other
//! end ([`peer`]).
//!
//! Everything here is made for one study and goes with it. None of it is the host's own: the disk is a folder among the
//! temporary files, the network lies in namespaces that no other process is in.

pub mod apart;
pub mod disk;
pub mod peer;
pub mod wire;

pub use disk::Disk;
pub use wire::Wire;

/// What a contender's workload is given.
#[derive(Clone, Copy)]
pub enum Equipment<'a> {
    /// A file on the host's disk: directly, behind an overlay, or inside the file system of a raw disk.
    Disk(&'a Disk),
    /// A way to a peer: loopback, a virtual cable, or a tap.
    Net(&'a Wire),
}
