//! What a fuzzer calls with bytes of its own: everything that reads what a guest, or a file, chose.
//!
//! A body fails by panicking; returning an error is what it is for. cargo-fuzz (`fuzz/targets/`) and the bounded run in
//! `tests/fuzz.rs` share them.

pub mod boot;
pub mod io;
pub mod snapshot;
pub mod virtio;

use vm_memory::GuestMemoryMmap;
use vmm::memory;

/// The guest's memory where there is no driver to bring its own.
const MEMORY: u64 = 4 << 20;

thread_local! {
    static RAM: GuestMemoryMmap = memory::reserve(MEMORY).expect("4 MiB");
}
