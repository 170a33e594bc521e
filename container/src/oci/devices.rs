//! /dev as config.json has it: the devices every container has, those it lists, and the usual links.
//!
//! Where nodes cannot be made, in a user namespace, the host's own are bound. Which of them may be used is the device
//! cgroup's business.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknodat};
use nix::unistd::{Gid, Uid, chown, symlinkat};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, Mount};

use super::rootfs::Error;
use crate::errno::of;
use crate::mounts::target::{Missing, Root};
use crate::mounts::tree::Tree;

/// The devices every container has, whatever config.json says (config-linux, "Default Devices").
const DEFAULT_DEVICES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links in /dev, and where they lead (config-linux, "Dev symbolic links").
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes what config.json lists and what every container has, and the links.
pub fn make(root: &Root, linux: &Linux, mounts: &[Mount], may_make_nodes: bool) -> Result<(), Error> {
    let listed = linux.devices().as_deref().unwrap_or_default();
    for device in listed {
        make_node(root, device, may_make_nodes)?;
    }
    for (path, major, minor) in DEFAULT_DEVICES {
        if listed.iter().any(|device| device.path() == Path::new(path)) {
            continue;
        }
        let mut device = LinuxDevice::default();
        device
            .set_path(path.into())
            .set_typ(LinuxDeviceType::C)
            .set_major(major)
            .set_minor(minor)
            .set_file_mode(Some(0o666));
        make_node(root, &device, may_make_nodes)?;
    }
    let dev = root.open_or_make(Path::new("/dev"), Missing::Directory)?;
    let link = |name: &str, to: &str| match symlinkat(to, dev.as_fd(), name) {
        // What the image has is the image's own business.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::step("link", &Path::new("/dev").join(name))(errno)),
    };
    for (name, to) in LINKS {
        link(name, to)?;
    }
    if mounts.iter().any(|mount| mount.destination() == Path::new("/dev/pts")) {
        // An image's own node would be the host's multiplexer.
        let _ = nix::unistd::unlinkat(dev.as_fd(), "ptmx", nix::unistd::UnlinkatFlags::NoRemoveDir);
        link("ptmx", "pts/ptmx")?;
    }
    Ok(())
}

fn make_node(root: &Root, device: &LinuxDevice, may_make_nodes: bool) -> Result<(), Error> {
    let path = device.path();
    let failed = Error::step("create the device", path);
    if !may_make_nodes {
        // The host's own node, by the same name; it has its owner and mode from there.
        let tree = Tree::copy_of(path, false).map_err(&failed)?;
        let target = root.open_or_make(path, Missing::File)?;
        return tree.place_on(target.as_fd()).map_err(failed);
    }
    let (parent, name) = root.parent_of(path)?;
    let kind = match device.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        _ => SFlag::S_IFCHR,
    };
    let number = makedev(device.major() as u64, device.minor() as u64);
    match mknodat(parent.as_fd(), name.as_os_str(), kind, Mode::empty(), number) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    // Made by the image, perhaps. It must be the one that is meant, and it itself: a link would be followed from the
    // host's root, since this process is there still, and a file of the host's would get the device's mode and owner.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = openat(parent.as_fd(), name.as_os_str(), flags, Mode::empty()).map_err(&failed)?;
    let stat = fstat(&node).map_err(&failed)?;
    if stat.st_mode & libc::S_IFMT != kind.bits() || (kind != SFlag::S_IFIFO && stat.st_rdev != number) {
        return Err(failed(Errno::EEXIST));
    }
    // Named by the descriptor, so that it is that node whatever its name means by now. By calls of their own: mknod
    // is subject to the umask.
    let node_path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&node));
    let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    if owner != (0, 0) {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        chown(node_path.as_str(), Some(uid), Some(gid)).map_err(&failed)?;
    }
    let mode = fs::Permissions::from_mode(device.file_mode().unwrap_or(0o666) & 0o7777);
    fs::set_permissions(&node_path, mode).map_err(|error| failed(of(&error)))
}
