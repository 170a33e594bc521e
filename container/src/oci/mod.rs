//! An OCI runtime: the same mechanisms, to the words of an engine.
//!
//! `container run` is for people, and one process from beginning to end. Engines (podman, containerd, CRI-O, and this
//! crate's own) want a container in steps, each step a command that does its part and leaves; what a container is made
//! of they write into a bundle's config.json (OCI runtime specification). The command line is that of runc and crun.
//!
//! | Step | Function | Module |
//! |---|---|---|
//! | build the container, up to a first process that waits | [`create()`] | [`create`](mod@create), [`init`] |
//! | have it become the program | [`start()`] | [`start`](mod@start) |
//! | another program in the same namespaces | [`exec()`] | [`exec`](mod@exec) |
//! | a signal | [`kill()`] | [`kill`](mod@kill) |
//! | what has become of it | [`state()`] | [`state`](mod@state) |
//! | remove it | [`delete()`] | [`delete`](mod@delete) |
//!
//! They are functions so that an engine in the same program can call them without starting another:
//!
//! ```no_run
//! use container::oci::{self, StateRoot};
//!
//! let root = StateRoot::new("/run/my-engine");
//! let request = oci::Request { id: "web".into(), bundle: "/run/my-engine/bundles/web".into(), ..Default::default() };
//! oci::create(&root, request)?;               // this process is the parent of the container's first process,
//! oci::start(&root, "web")?;                  // which now is the program:
//! let pid = oci::state(&root, "web")?.pid();  // wait for it with waitpid(2)
//! oci::kill(&root, "web", 15, false)?;
//! oci::delete(&root, "web", true)?;
//! # Ok::<(), oci::Error>(())
//! ```
//!
//! The calling process must have a single thread for [`create()`] and [`exec()`], which clone it. The program gets the
//! caller's standard streams unless [`Request::streams`] has others.

pub mod copy_up;
pub mod create;
pub mod delete;
mod devices;
pub mod events;
pub mod exec;
pub mod features;
pub mod foreground;
pub mod hooks;
pub mod init;
pub mod join;
pub mod kill;
mod labels;
pub mod line;
mod masks;
pub mod pause;
pub mod process;
pub mod rootfs;
pub mod shield;
pub mod spec;
pub mod start;
pub mod state;
pub mod template;
pub mod terminal;
mod treatment;
pub mod update;

pub use create::{Request, create};
pub use delete::delete;
pub use exec::exec;
pub use kill::kill;
pub use start::start;
pub use state::{Container, StateRoot, Status};
use thiserror::Error;

/// The runtime's exit status when it failed, as runc and crun have it. A program that was not found or could not be
/// executed has those of a shell ([`protocol::status`]).
pub const FAILED: u8 = 1;

/// The container `id` as it is now.
pub fn state(root: &StateRoot, id: &str) -> Result<Container, Error> {
    Ok(root.open(id)?)
}

/// What can go wrong with a command.
#[derive(Debug, Error)]
pub enum Error {
    /// `create`.
    #[error(transparent)]
    Create(#[from] create::Error),
    /// `start`.
    #[error(transparent)]
    Start(#[from] start::Error),
    /// `exec`.
    #[error(transparent)]
    Exec(#[from] exec::Error),
    /// `run`, and `exec` that stays.
    #[error(transparent)]
    Foreground(#[from] foreground::Error),
    /// `kill`.
    #[error(transparent)]
    Kill(#[from] kill::Error),
    /// `delete`.
    #[error(transparent)]
    Delete(#[from] delete::Error),
    /// `pause` and `resume`.
    #[error(transparent)]
    Pause(#[from] pause::Error),
    /// `update`.
    #[error(transparent)]
    Update(#[from] update::Error),
    /// `events`.
    #[error(transparent)]
    Events(#[from] events::Error),
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
}

impl Error {
    /// The status to exit with.
    pub fn status(&self) -> u8 {
        match self {
            Error::Create(error) => error.status(),
            Error::Start(error) => error.status(),
            Error::Exec(error) => error.status(),
            Error::Foreground(error) => error.status(),
            _ => FAILED,
        }
    }
}
