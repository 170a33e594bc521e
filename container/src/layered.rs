//! A root file system made of an image's layers: one overlay over many directories.
//!
//! ```text
//! upperdir   what the container writes: a directory that goes with it, or one that is kept
//! lowerdir   layer n : ... : layer 1     each shared, read-only, with every container on top of it
//! ```
//!
//! Three things are less simple than they look. The kernel takes the options of mount(2) as one page, which some fifty
//! paths with digests in them fill: so each layer gets a link with a number for a name, and 500 of them, as many as
//! overlay takes (OVL_MAX_STACK in fs/overlayfs), fit in half a page. In a user namespace the owners of the files must be
//! shifted, and an overlay cannot be: so the store is mounted once, shifted as a whole, and all layers are below that
//! one mount. And the store is closed to the container's ids: they never walk to it, they are given the mount.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, mkdir, symlinkat};
use thiserror::Error;

use crate::errno::why;
use crate::namespaces::{Namespace, Namespaces};
use crate::rootfs;

/// Where, on the tmpfs, the store is mounted.
const STORE: &CStr = c"/tmp/store";
/// Where the links to the layers are.
const LINKS: &str = "/tmp/layers";
/// From the links to the store.
const STORE_FROM_LINKS: &str = "../store";
/// An image may have no layer at all, an overlay must have one.
const NO_LAYER: &str = "/tmp/layers/0";

/// As many lower directories as overlay takes (OVL_MAX_STACK).
pub const MAX_LAYERS: usize = 500;

/// What a root is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The store's directory.
    pub store: PathBuf,
    /// The unpacked layers, topmost first, relative to the store.
    pub lower: Vec<PathBuf>,
    /// Where changes go.
    pub upper: Upper,
}

/// Where what the container writes goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// Memory that goes with the container.
    Throwaway,
    /// The directories `upper` and `work` in this directory, relative to the store. They are there already.
    Kept(PathBuf),
}

impl Layers {
    /// Whether anything in the store is written to.
    pub fn is_read_only(&self) -> bool {
        self.upper == Upper::Throwaway
    }
}

/// Mounts the overlay on `base`, a tmpfs that `mount_base` mounts there. `shifted` is the store with shifted owners,
/// where they must be.
pub fn enter<E: From<Error>>(
    layers: &Layers,
    shifted: Option<BorrowedFd<'_>>,
    namespaces: Namespaces,
    base: &str,
    mount_base: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    if layers.lower.len() > MAX_LAYERS {
        return Err(Error::TooMany(layers.lower.len()).into());
    }
    if shifted.is_none() {
        // Before the tmpfs covers it, should it be there.
        chdir(&layers.store).map_err(Error::step("enter", &layers.store))?;
    }
    mount_base()?;
    Ok(mount_overlay(layers, shifted, namespaces, base)?)
}

fn mount_overlay(
    layers: &Layers,
    shifted: Option<BorrowedFd<'_>>,
    namespaces: Namespaces,
    base: &str,
) -> Result<(), Error> {
    let directory =
        |path: &str| mkdir(path, Mode::from_bits_truncate(0o755)).map_err(Error::step("create", Path::new(path)));
    let store = Path::new("/tmp/store");
    directory("/tmp/store")?;
    match shifted {
        Some(tree) => rootfs::place(tree.as_raw_fd(), STORE),
        None => mount(Some("."), store, None::<&str>, MsFlags::MS_BIND, None::<&str>),
    }
    .map_err(Error::step("mount the store on", store))?;
    directory(LINKS)?;
    chdir(LINKS).map_err(Error::step("enter", Path::new(LINKS)))?;
    for (number, layer) in layers.lower.iter().enumerate() {
        let target = Path::new(STORE_FROM_LINKS).join(layer);
        symlinkat(&target, nix::fcntl::AT_FDCWD, number.to_string().as_str())
            .map_err(Error::step("make a link to", &target))?;
    }
    if layers.lower.is_empty() {
        directory(NO_LAYER)?;
    }
    let lower: Vec<_> = (0..layers.lower.len().max(1))
        .map(|number| number.to_string())
        .collect();
    let changes = match &layers.upper {
        Upper::Throwaway => {
            directory("/tmp/upper")?;
            directory("/tmp/work")?;
            PathBuf::from("..")
        }
        Upper::Kept(path) => {
            // By a short name too: a path may have what separates options in it.
            symlinkat(&Path::new(STORE_FROM_LINKS).join(path), nix::fcntl::AT_FDCWD, "changes")
                .map_err(Error::step("make a link to", path))?;
            PathBuf::from("changes")
        }
    };
    let (lower, changes) = (lower.join(":"), changes.display());
    // Overlay keeps its notes in extended attributes: trusted.* by default, which a user namespace may not write.
    let notes = match namespaces.has(Namespace::User) {
        true => ",userxattr",
        false => "",
    };
    let options = format!("lowerdir={lower},upperdir={changes}/upper,workdir={changes}/work{notes}");
    mount(
        Some("overlay"),
        base,
        Some("overlay"),
        MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(|errno| Error::Overlay {
        layers: layers.lower.len(),
        errno,
    })
}

/// Why the layers are no root.
#[derive(Debug, Error)]
pub enum Error {
    /// More layers than overlay can stack.
    #[error(
        "the image has {0} layers; overlay takes {MAX_LAYERS}. Build it with fewer instructions that change files, or squash it"
    )]
    TooMany(usize),
    /// The overlay was refused.
    #[error(
        "cannot mount an overlay of {layers} layers: {}. The kernel needs CONFIG_OVERLAY_FS and, for one in a user namespace, Linux 5.11; the store must be on a file system that can be shifted (mount_setattr(2)) and be a layer, not on another overlay (see the end of dmesg)",
        why(errno)
    )]
    Overlay {
        /// How many.
        layers: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// One of the steps before.
    #[error("cannot {verb} {} while stacking the image's layers: {}", path.display(), why(errno))]
    Step {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    fn step(verb: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
        let path = path.to_owned();
        move |errno| Error::Step {
            verb,
            path: path.clone(),
            errno,
        }
    }
}
