//! Detached mounts: made first, fitted while nobody can reach them, placed last.
//!
//! mount(2) takes a path and acts at once: between two calls a hostile image may have changed where the path leads, and
//! a bind has to be made writable before it can be made read-only. The newer calls split the act into its parts, and
//! every part takes a descriptor: fsopen(2) or open_tree(2) make a mount that is nowhere yet, mount_setattr(2) fits it,
//! move_mount(2) puts it on a directory that was opened before, whatever its name has come to mean since.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use thiserror::Error;

use crate::errno::why;

// Commands of fsconfig(2) and the flag of fsopen(2) (`linux/mount.h`); the libc crate has no names for them.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// fsconfig(2) takes values of at most this length, with the closing NUL (`strndup_user` in `fs/fsopen.c`).
const LONGEST_VALUE: usize = 255;

/// A mount that is nowhere in the tree of directories yet. It vanishes with this value unless it is placed.
#[derive(Debug)]
pub struct Tree(OwnedFd);

/// What to change about a mount: bits of `MOUNT_ATTR_*`, and a propagation type (`MS_PRIVATE` and so on; 0 keeps it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear, before those to set are set.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
}

impl Attributes {
    /// Whether nothing is to be changed.
    pub fn is_empty(self) -> bool {
        self == Attributes::default()
    }
}

impl Tree {
    /// A new file system of type `kind`. Each option is a word or `key=value`; `attributes` are bits of `MOUNT_ATTR_*`.
    pub fn new_file_system(kind: &str, source: &str, options: &[String], attributes: u64) -> Result<Tree, Error> {
        let c_string = |text: &str| CString::new(text).map_err(|_| Error::refused(kind, Errno::EINVAL, String::new()));
        let name = c_string(kind)?;
        // SAFETY: the name is NUL-terminated; the call keeps no pointer.
        let context = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
        let context = match Errno::result(context) {
            // SAFETY: fsopen just made this descriptor for us.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd as i32) },
            Err(errno) => return Err(Error::refused(kind, errno, String::new())),
        };
        let refused = |errno| Error::refused(kind, errno, last_words(context.as_fd()));
        let configure = |command: libc::c_uint, key: Option<&CString>, value: Option<&CString>| {
            let pointer = |text: Option<&CString>| text.map_or(std::ptr::null(), |text| text.as_ptr());
            // SAFETY: key and value are NUL-terminated or null, as each command wants them.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_fsconfig,
                    context.as_raw_fd(),
                    command,
                    pointer(key),
                    pointer(value),
                    0,
                )
            };
            Errno::result(done).map(drop).map_err(refused)
        };
        if !source.is_empty() {
            configure(
                FSCONFIG_SET_STRING,
                Some(&c_string("source")?),
                Some(&c_string(source)?),
            )?;
        }
        for option in options {
            match option.split_once('=') {
                Some((_, value)) if value.len() > LONGEST_VALUE => {
                    return Err(Error::TooLong {
                        kind: kind.to_owned(),
                        option: option.clone(),
                    });
                }
                Some((key, value)) => configure(FSCONFIG_SET_STRING, Some(&c_string(key)?), Some(&c_string(value)?))?,
                None => configure(FSCONFIG_SET_FLAG, Some(&c_string(option)?), None)?,
            }
        }
        configure(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: takes numbers only.
        let made = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                context.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes as u32,
            )
        };
        // SAFETY: fsmount just made this descriptor for us.
        Errno::result(made)
            .map(|fd| Tree(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
            .map_err(refused)
    }

    /// A copy of what is mounted at `path`, as a bind makes one; `recursive` with the mounts beneath it.
    pub fn copy_of(path: &std::path::Path, recursive: bool) -> Result<Tree, Errno> {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
        open_tree(libc::AT_FDCWD, &path, recursive, 0)
    }

    /// A copy of the mount of an open file or directory.
    pub fn copy_of_open(file: BorrowedFd<'_>, recursive: bool) -> Result<Tree, Errno> {
        open_tree(file.as_raw_fd(), c"", recursive, libc::AT_EMPTY_PATH)
    }

    /// Changes the mount, `recursive` with those beneath it.
    pub fn change(&self, attributes: Attributes, recursive: bool) -> Result<(), Errno> {
        set_attributes(self.0.as_fd(), attributes, recursive, None)
    }

    /// Shifts the owners of its files by the id maps of the user namespace `namespace` ("idmapped mount").
    pub fn shift_owners(&self, namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
        let attributes = Attributes {
            set: libc::MOUNT_ATTR_IDMAP,
            ..Attributes::default()
        };
        set_attributes(self.0.as_fd(), attributes, recursive, Some(namespace))
    }

    /// Puts the mount on `target`, a file or directory that was opened before (`O_PATH` will do).
    pub fn place_on(&self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        let empty = c"".as_ptr();
        let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
        // SAFETY: both paths are NUL-terminated literals; empty, they mean the descriptors themselves.
        let moved = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                empty,
                target.as_raw_fd(),
                empty,
                flags,
            )
        };
        Errno::result(moved).map(drop)
    }
}

impl AsFd for Tree {
    /// Its root directory; once it is placed, the same at its place.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Changes the mount that `mount` is a descriptor of.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    recursive: bool,
    owners: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let arguments = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: owners.map_or(0, |owners| owners.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path means the descriptor itself; the attributes are a valid mount_attr of the size given.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const arguments,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(set).map(drop)
}

fn open_tree(directory: i32, path: &std::ffi::CStr, recursive: bool, flags: i32) -> Result<Tree, Errno> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | flags as libc::c_uint
        | if recursive {
            libc::AT_RECURSIVE as libc::c_uint
        } else {
            0
        };
    // SAFETY: the path is NUL-terminated, and the call keeps no pointer to it.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) };
    // SAFETY: open_tree just made this descriptor for us.
    Errno::result(tree).map(|fd| Tree(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// What the file system itself says about the refusal: read(2) on the context gives its messages.
fn last_words(context: BorrowedFd<'_>) -> String {
    let mut words = String::new();
    let mut message = [0; 512];
    while let Ok(length) = nix::unistd::read(context, &mut message) {
        // "e ", "w " or "i ": how serious it is.
        let text = String::from_utf8_lossy(message.get(2..length).unwrap_or_default());
        words.push_str(". The kernel says: ");
        words.push_str(text.trim());
    }
    words
}

/// Why there is no new file system.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused it.
    #[error("cannot make a file system of type {kind}: {}{words}", why(errno))]
    Refused {
        /// Its type.
        kind: String,
        /// The kernel's answer.
        errno: Errno,
        /// And its words.
        words: String,
    },
    /// An option does not fit into fsconfig(2).
    #[error(
        "cannot make a file system of type {kind}: the value of its option {option:?} is longer than {LONGEST_VALUE} bytes"
    )]
    TooLong {
        /// Its type.
        kind: String,
        /// The option.
        option: String,
    },
}

impl Error {
    fn refused(kind: &str, errno: Errno, words: String) -> Error {
        Error::Refused {
            kind: kind.to_owned(),
            errno,
            words,
        }
    }

    /// The kernel's answer.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Refused { errno, .. } => *errno,
            Error::TooLong { .. } => Errno::EINVAL,
        }
    }
}
