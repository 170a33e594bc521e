//! The lab kernel: boots in the VM, runs one static Linux program.
//!
//! The library holds what can be tested anywhere; the binary is the kernel.

#![cfg_attr(not(test), no_std)]

pub mod cell;
pub mod command_line;
pub mod cpio;
pub mod elf;
pub mod layout;
pub mod tables;
