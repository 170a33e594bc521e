//! What can be wrong with a layer, and how it is said.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

use super::archive;
use crate::errno::why;

/// A name from an archive, fit to be shown: control characters could write to the terminal.
pub fn shown(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name)
        .chars()
        .take(300)
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    if name.len() > text.len() { text + "..." } else { text }
}

/// Why a layer could not be unpacked.
#[derive(Debug, Error)]
pub enum Error {
    /// There is nowhere to unpack to.
    #[error("cannot open {} to unpack a layer: {}", path.display(), why(errno))]
    Open {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The archive is broken.
    #[error("the layer's archive cannot be read after {before}: {error}")]
    Archive {
        /// The last member that could.
        before: String,
        /// What is wrong.
        error: archive::Error,
    },
    /// A member is.
    #[error("the layer's member {name:?}: {fault}")]
    Member {
        /// Its name.
        name: String,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a member.
#[derive(Debug, Error)]
pub enum Fault {
    /// More members than allowed.
    #[error("is one too many: more than {0} are refused; --max-layer-files raises the limit")]
    TooMany(u64),
    /// More bytes than allowed.
    #[error("is too much: more than {0} bytes of files in a layer are refused; --max-layer-bytes raises the limit")]
    TooLarge(u64),
    /// A path with `..` in it.
    #[error("its path climbs out of the directory it is in (\"..\"): refused")]
    Climbs,
    /// A path the kernel cannot take.
    #[error("has a NUL in its name: refused")]
    Nul,
    /// The root directory is a file.
    #[error("stands for the root directory, but is none")]
    Root,
    /// A device.
    #[error(
        "is a device ({0}:{1}): refused, since it would open the host's. Containers get their devices from the runtime; --skip-devices unpacks the layer without"
    )]
    Device(u32, u32),
    /// A whiteout of nothing.
    #[error("is a whiteout without a name")]
    Whiteout,
    /// A hard link that climbs.
    #[error("is a hard link to {0:?}, which climbs out of the layer: refused")]
    LinkOut(String),
    /// A hard link to nothing.
    #[error("is a hard link to {0:?}, which is no file of this layer (so far)")]
    LinkTarget(String),
    /// An attribute with which overlay would be told to show something else.
    #[error("has the attribute {0:?}, which is overlay's own: refused")]
    OverlayXattr(String),
    /// An owner that none can be.
    #[error("belongs to id {0}, which no user or group can have")]
    Id(u64),
    /// Its bytes could not be read.
    #[error("its bytes cannot be read: {0}")]
    Read(io::Error),
    /// The kernel refused something.
    #[error("cannot {verb}: {}{}", why(errno), cure(errno))]
    System {
        /// What was tried.
        verb: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Fault {
    /// The kernel refused a step.
    pub(super) fn step(verb: &'static str) -> impl Fn(Errno) -> Fault {
        move |errno| Fault::System {
            verb: verb.to_owned(),
            errno,
        }
    }

    /// The kernel refused a step with `object`.
    pub(super) fn system(verb: &'static str, object: &[u8]) -> impl Fn(Errno) -> Fault {
        let verb = format!("{verb} {:?}", shown(object));
        move |errno| Fault::System {
            verb: verb.clone(),
            errno,
        }
    }

    /// The kernel refused to make the member.
    pub(super) fn made(errno: Errno) -> Fault {
        Fault::step("make it")(errno)
    }
}

fn cure(errno: &Errno) -> &'static str {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => ". The store's file system is full; container image prune may help",
        Errno::ELOOP => ". A symbolic link is in its way, or links lead in a circle",
        Errno::ENOTDIR | Errno::EEXIST => ". Something that is no directory is in its way",
        _ => "",
    }
}
