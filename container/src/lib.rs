//! Isolation by kernel views: a namespace runtime.
//!
//! The same kernel runs the program as runs the host; what makes it a container is which views of that kernel it gets.
//! [`run::run`] is the recipe and the place to start reading. Each of its verbs is one module:
//!
//! | Step | Module |
//! |---|---|
//! | make the cgroup | [`cgroup`] (and [`keeper`], which removes it) |
//! | clone into the namespaces | [`namespaces`], [`clone`] |
//! | map the users | [`users`] |
//! | build the root, pivot | [`rootfs`], [`layered`], [`mounts`], [`devices`], [`network`] |
//! | enter the working directory | [`workdir`] |
//! | drop privileges | [`privileges`], [`capabilities`], [`seccomp`] |
//! | exec | [`program`], [`stone`] |
//! | look after it | [`init`], [`signals`], [`streams`] |
//! | keep images to run | [`image`] |
//! | read what is asked for | [`command_line`] |
//! | tell all of that, show it by taking it away, compare | [`explain`], [`peel`], [`shared`] |

pub mod build;
pub mod capabilities;
pub mod cgroup;
pub mod channel;
pub mod clone;
pub mod command_line;
pub mod config;
pub mod devices;
pub mod engine;
pub mod errno;
pub mod explain;
pub mod image;
pub mod init;
pub mod keeper;
pub mod layered;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod oci;
pub mod peel;
pub mod privileges;
pub mod program;
pub mod rootfs;
pub mod run;
pub mod seccomp;
pub mod shared;
pub mod signals;
pub mod stone;
pub mod streams;
pub mod terminal;
pub mod users;
pub mod volume;
pub mod workdir;

pub use config::Config;
pub use run::{Error, run};
