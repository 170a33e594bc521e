//! Isolation by virtual hardware: a tiny KVM hypervisor.
//!
//! Read [`vm`] first: it is the whole story on one page. The other files are its verbs.

pub mod boot;
pub mod bus;
pub mod command_line;
pub mod cpio;
pub mod cpuid;
pub mod doorbell;
pub mod empty;
pub mod footprint;
pub mod gdt;
pub mod i8042;
pub mod initrd;
pub mod input;
pub mod interrupts;
pub mod kernel;
pub mod kernel_file;
pub mod layout;
pub mod ledger;
pub mod listing;
pub mod machine;
pub mod mapped;
pub mod memory;
pub mod mptable;
pub mod paging;
pub mod permission;
pub mod ports;
pub mod probe;
pub mod processors;
pub mod pvh;
pub mod random;
pub mod registers;
pub mod restore;
pub mod sandbox;
pub mod serial;
pub mod snapshot;
pub mod steps;
pub mod vcpu;
pub mod virtio;
pub mod vm;
pub mod watch;
