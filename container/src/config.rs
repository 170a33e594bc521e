//! What to run and how: everything `container run` can be asked for.

use std::path::PathBuf;

use protocol::marks::Marks;

use crate::cgroup::Limits;
use crate::namespaces::Namespaces;
use crate::program::Program;
use crate::rootfs::Image;
use crate::users::User;

/// A container to be.
#[derive(Clone)]
pub struct Config {
    /// What its root file system is made of.
    pub image: Image,
    /// Which namespaces it gets new.
    pub namespaces: Namespaces,
    /// What it may use.
    pub limits: Limits,
    /// Its host name; when `None`, one that tells it from the host, or the host's without a UTS namespace.
    pub hostname: Option<String>,
    /// The program's working directory, in the container.
    pub workdir: PathBuf,
    /// Whom the program runs as.
    pub user: User,
    /// Its further groups.
    pub groups: Vec<u32>,
    /// Which capabilities the program keeps if that is root, as a bit mask: [`crate::capabilities::KEPT`] unless there is
    /// a reason for more.
    pub capabilities: u64,
    /// The program, its arguments and its environment.
    pub program: Program,
    /// Where phases are reported.
    pub marks: Marks,
}
