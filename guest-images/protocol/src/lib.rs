//! The contract between guest and host, and between the launchers and the harness.
//!
//! One definition each of the I/O ports a guest may ring ([`ports`]), the requests it leaves in memory for them
//! ([`doorbell`]), the phases both sides report ([`phase`]) and the exit statuses of the launchers ([`status`]).
//! With the `std` feature, [`marks`] writes phases to the file descriptor a harness asked for.

#![cfg_attr(not(feature = "std"), no_std)]

pub mod doorbell;
#[cfg(feature = "std")]
pub mod marks;
pub mod phase;
pub mod ports;
pub mod status;
