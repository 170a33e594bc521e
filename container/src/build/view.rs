//! Looking at an image: its layers, one on top of the other, as one tree.
//!
//! The kernel's overlay puts them together. The mount is a detached one (fsmount(2)): it is in no directory, its
//! descriptor is the only way to it, and with that it is gone. So a build that is killed leaves no mount behind.
//!
//! An ordinary user may mount in a user namespace of his own only. A process makes one, mounts there, hands the
//! descriptor over and ends.

use std::ffi::CString;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir, fchdir, fork, getegid, geteuid};
use thiserror::Error;

use crate::errno::why;

// From `linux/mount.h`; the libc crate has no names for them.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// What an overlay is made of.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Directories that stay as they are, topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory for changes, and one that overlay needs for itself on the same file system.
    pub upper: Option<(PathBuf, PathBuf)>,
}

/// The root of the tree these layers make together.
pub fn look(layers: &Layers) -> Result<OwnedFd, Error> {
    match (layers.lower.as_slice(), &layers.upper) {
        // One layer alone is a directory like any other.
        ([only], None) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            open(only, flags, Mode::empty()).map_err(Error::mount(only))
        }
        _ if geteuid().is_root() => mount(layers, false),
        _ => mount_in_a_user_namespace(layers),
    }
}

/// Mounts the overlay. `for_users`: with notes in `user.*` attributes, since `trusted.*` ones are for the host's root.
pub fn mount(layers: &Layers, for_users: bool) -> Result<OwnedFd, Error> {
    // From Linux 6.5 on, one call for each layer: no limit to the length of all together, no characters to escape.
    let one_by_one: Vec<_> = layers.lower.iter().map(|path| ("lowerdir+", path.clone())).collect();
    match mount_named(&one_by_one, layers.upper.as_ref(), for_users) {
        // How a kernel before that calls a word it does not know.
        Err(Error::Mount {
            errno: Errno::EINVAL, ..
        }) => mount_by_numbers(layers, for_users),
        done => done,
    }
}

/// The same for kernels before 6.5: they take all layers in one string of 256 bytes, with colons between. So each is named by the
/// number of an open descriptor, which in `/proc/self/fd` is a name: that makes room for eighty, and none has characters to escape.
fn mount_by_numbers(layers: &Layers, for_users: bool) -> Result<OwnedFd, Error> {
    let opened = |path: &PathBuf| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty()).map_err(Error::mount(path))
    };
    let number = |directory: &OwnedFd| directory.as_raw_fd().to_string();
    let lower = layers.lower.iter().map(opened).collect::<Result<Vec<_>, _>>()?;
    let joined = lower.iter().map(number).collect::<Vec<_>>().join(":");
    let upper = match &layers.upper {
        Some((upper, work)) => Some((opened(upper)?, opened(work)?)),
        None => None,
    };
    let upper = upper
        .as_ref()
        .map(|(upper, work)| (number(upper).into(), number(work).into()));
    let (here, numbers) = (PathBuf::from("."), Path::new("/proc/self/fd"));
    let here = opened(&here)?;
    chdir(numbers).map_err(Error::mount(numbers))?;
    let mounted = mount_named(&[("lowerdir", joined.into())], upper.as_ref(), for_users);
    fchdir(here).map_err(Error::mount(Path::new(".")))?;
    mounted
}

fn mount_named(
    lower: &[(&str, PathBuf)],
    upper: Option<&(PathBuf, PathBuf)>,
    for_users: bool,
) -> Result<OwnedFd, Error> {
    let failed = Error::mount(lower.first().map_or(Path::new("nothing"), |(_, path)| path));
    // SAFETY: the name is a NUL-terminated literal.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) };
    let context = Errno::result(context).map_err(&failed)?;
    // SAFETY: fsopen just made this descriptor for us.
    let context = unsafe { OwnedFd::from_raw_fd(context as RawFd) };
    for (key, path) in lower {
        configure(context.as_fd(), FSCONFIG_SET_STRING, key, path)?;
    }
    if let Some((upper, work)) = upper {
        configure(context.as_fd(), FSCONFIG_SET_STRING, "upperdir", upper)?;
        configure(context.as_fd(), FSCONFIG_SET_STRING, "workdir", work)?;
    }
    if for_users {
        configure(context.as_fd(), FSCONFIG_SET_FLAG, "userxattr", Path::new(""))?;
    }
    configure(context.as_fd(), FSCONFIG_CMD_CREATE, "", Path::new(""))?;
    let attributes = libc::MOUNT_ATTR_NODEV;
    // SAFETY: takes a descriptor and numbers.
    let tree = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) };
    let tree = Errno::result(tree).map_err(failed)?;
    // SAFETY: fsmount just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(tree as RawFd) })
}

fn configure(context: BorrowedFd<'_>, command: libc::c_uint, key: &str, value: &Path) -> Result<(), Error> {
    let failed = Error::mount(value);
    let c_string = |bytes: &[u8]| CString::new(bytes).map_err(|_| failed(Errno::EINVAL));
    let (name, text) = (c_string(key.as_bytes())?, c_string(value.as_os_str().as_bytes())?);
    let given = |text: &CString, given: bool| if given { text.as_ptr() } else { std::ptr::null() };
    let (name, text) = (
        given(&name, !key.is_empty()).cast::<libc::c_char>(),
        given(&text, command == FSCONFIG_SET_STRING).cast::<libc::c_char>(),
    );
    // SAFETY: key and value are NUL-terminated or null, as each command wants them, and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, name, text, 0) };
    Errno::result(done).map(drop).map_err(failed)
}

/// Makes this process root of a user namespace of its own, in which its files belong to root, and of a mount namespace.
pub fn become_root_of_a_user_namespace() -> Result<(), Error> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Error::Namespace)?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| Error::Namespace(crate::errno::of(&error)))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

fn mount_in_a_user_namespace(layers: &Layers) -> Result<OwnedFd, Error> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.map_err(Error::Helper)?;
    // SAFETY: this process has a single thread, so its copy may do whatever it may.
    match unsafe { fork() }.map_err(Error::Helper)? {
        ForkResult::Child => {
            drop(ours);
            let mounted = become_root_of_a_user_namespace().and_then(|()| mount(layers, true));
            let (text, fds) = match &mounted {
                Ok(tree) => (String::new(), vec![tree.as_raw_fd()]),
                Err(error) => (error.to_string(), vec![]),
            };
            let rights = [ControlMessage::ScmRights(&fds)];
            let control = if fds.is_empty() { &[][..] } else { &rights[..] };
            // A byte in front, since nothing cannot carry a descriptor.
            let payload = [b"!", text.as_bytes()].concat();
            let sent = sendmsg::<()>(
                theirs.as_raw_fd(),
                &[IoSlice::new(&payload)],
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            // SAFETY: ends this process at once; exit handlers are the builder's.
            unsafe { libc::_exit(i32::from(sent.is_err())) }
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut text = [0; 4096];
            let mut control = nix::cmsg_space!(RawFd);
            let mut payload = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(ours.as_raw_fd(), &mut payload, Some(&mut control), flags);
            let message = message.map_err(Error::Helper)?;
            let length = message.bytes;
            let received = message
                .cmsgs()
                .map_err(Error::Helper)?
                .find_map(|control| match control {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
            // SAFETY: the kernel made this descriptor for us when it delivered the message.
            let received = received.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            let _ = waitpid(child, None);
            let said = || String::from_utf8_lossy(text.get(1..length).unwrap_or_default()).into_owned();
            received.ok_or_else(|| Error::There(said()))
        }
    }
}

/// Why an image cannot be looked at.
#[derive(Debug, Error)]
pub enum Error {
    /// The mount was refused.
    #[error(
        "cannot put the image's layers together ({}): {}. The end of dmesg says more; before Linux 6.5 the kernel takes about eighty layers",
        if path.as_os_str().is_empty() { Path::new("all of them") } else { path }.display(),
        why(errno)
    )]
    Mount {
        /// The layer, where one was the matter.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// An ordinary user may not mount.
    #[error(
        "cannot make a user namespace to mount the image's layers in: {}. See user.max_user_namespaces and, where there is one, kernel.apparmor_restrict_unprivileged_userns; or build as root",
        why(.0)
    )]
    Namespace(Errno),
    /// The process that mounts.
    #[error("cannot start a process to mount the image's layers: {}", why(.0))]
    Helper(Errno),
    /// What that process said.
    #[error("{0}")]
    There(String),
}

impl Error {
    fn mount(path: &Path) -> impl Fn(Errno) -> Error {
        let path = path.to_owned();
        move |errno| Error::Mount {
            path: path.clone(),
            errno,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::copy::place;
    use super::super::tree::{Links, Tree};
    use super::*;

    #[test]
    fn layers_make_one_tree_and_paths_in_it_are_its_own() {
        let make = || -> std::io::Result<tempfile::TempDir> {
            let layers = tempfile::tempdir()?;
            fs::create_dir_all(layers.path().join("low/usr/lib"))?;
            fs::create_dir_all(layers.path().join("high/usr/lib/deep"))?;
            std::os::unix::fs::symlink("usr/lib", layers.path().join("high/lib"))?;
            fs::write(layers.path().join("low/usr/lib/file"), "low")?;
            Ok(layers)
        };
        let directory = make().unwrap_or_else(|error| panic!("{error}"));
        let layers = Layers {
            lower: vec![directory.path().join("high"), directory.path().join("low")],
            upper: None,
        };
        let root = look(&layers).unwrap_or_else(|error| panic!("{error}"));
        let tree = Tree::of("the image", root, Links::Rooted);
        let place = |path: &str| place(&tree, Path::new(path)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(place("lib/file"), ("usr/lib/file".into(), Some(false)));
        assert_eq!(place("lib/deep"), ("usr/lib/deep".into(), Some(true)));
        assert_eq!(place("lib/new/er"), ("usr/lib/new/er".into(), None));
        assert_eq!(place(""), ("".into(), Some(true)));
        assert_eq!(tree.walk("lib").map(|nodes| nodes.len()).unwrap_or(0), 3);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        assert!(!mounts.contains("low"), "the mount is nobody else's");
    }

    #[test]
    fn before_linux_6_5_layers_are_named_by_numbers() {
        if !geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let name = |name: &str| directory.path().join(name);
        for path in ["high, and: odd", "low/deep", "upper", "work"] {
            fs::create_dir_all(name(path)).unwrap_or_else(|error| panic!("{error}"));
        }
        let layers = Layers {
            lower: vec![name("high, and: odd"), name("low")],
            upper: Some((name("upper"), name("work"))),
        };
        let before = std::env::current_dir().ok();
        let root = mount_by_numbers(&layers, false).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(std::env::current_dir().ok(), before);
        let inside = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        assert!(inside.join("deep").is_dir());
        fs::write(inside.join("new"), "").unwrap_or_else(|error| panic!("{error}"));
        assert!(name("upper/new").exists());
    }
}
