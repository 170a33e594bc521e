//! A container's files: the image's layers below, its own changes above.
//!
//! The overlay is mounted in a mount namespace of the supervisor's own. When the last process in it ends, whatever ends
//! it, the mounts are gone: there is never one to find and remove on the host. What the container changed stays, as
//! plain files in its `upper` directory.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, getegid, geteuid};

use super::own_users::OwnUsers;
use super::{Container, Error};
use crate::layered::{self, MAX_LAYERS};

/// Where a container's directory has links to its layers.
pub const LAYERS: &str = "layers";

const NO_DATA: Option<&str> = None;

/// Moves this process, which has one thread, into a mount namespace of its own. An ordinary user gets a user namespace
/// along with it, in which he is root and nobody else exists: only there may he mount anything.
pub fn leave_the_hosts_mounts() -> Result<(), Error> {
    let (uid, gid) = (geteuid(), getegid());
    match uid.is_root() {
        true => unshare(CloneFlags::CLONE_NEWNS).map_err(Error::kernel("make a mount namespace"))?,
        false => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Error::kernel(
                "make a user namespace, without which an ordinary user has no containers (see sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)",
            ))?;
            let write =
                |path: &str, text: String| std::fs::write(path, text).map_err(Error::io("write", Path::new(path)));
            write("/proc/self/setgroups", "deny".into())?;
            write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        }
    }
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NO_DATA, "/", NO_DATA, flags, NO_DATA).map_err(Error::kernel("make the mounts private"))
}

/// Mounts the container's root file system; where it is. In a mount namespace of this process's own.
///
/// The options of a mount have one page, 4096 bytes, and commas and colons mean something in them. So the layers are
/// named from within the directory of the links [`super::create`] put there: `0` is the topmost. For a container with a
/// user namespace of its own, shifted mounts cover the links.
pub fn mount_root(container: &Container, rootless: bool, users: Option<&OwnUsers>) -> Result<PathBuf, Error> {
    let directory = container.directory();
    let count = container.settings.layers.len();
    if count > MAX_LAYERS {
        return Err(Error::Refused(layered::Error::TooMany(count).to_string()));
    }
    let lower: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    // Overlay keeps its notes in extended attributes: trusted.* by default, which a user namespace may not write.
    let attributes = if rootless { ",userxattr" } else { "" };
    let changes = if users.is_some() { CHANGES } else { ".." };
    // ANCHOR: options
    let options = format!(
        "lowerdir={},upperdir={changes}/upper,workdir={changes}/work{attributes}",
        lower.join(":")
    );
    // ANCHOR_END: options
    let layers = directory.join(LAYERS);
    let shifted = users.map_or(Ok(()), |users| shift_layers(container, &layers, users));
    chdir(&layers).map_err(Error::kernel("enter the container's directory"))?;
    // ANCHOR: mount
    let mount_overlay = || {
        mount(
            Some("overlay"),
            &directory.join("root"),
            Some("overlay"),
            MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
    };
    // ANCHOR_END: mount
    let mounted = shifted.and_then(|()| match users {
        Some(users) => users.as_root_inside(mount_overlay),
        None => Ok(mount_overlay()),
    });
    chdir("/").map_err(Error::kernel("leave the container's directory"))?;
    if users.is_some() {
        // The overlay holds what it needs of them.
        let _ = umount2(&layers, MntFlags::MNT_DETACH);
    }
    mounted?.map_err(Error::kernel(
        "mount the container's layers as an overlay (CONTAINER_STATE must be on a file system that can hold its upper directory: not on another overlay, nor on a network)",
    ))?;
    Ok(directory.join("root"))
}

/// Where the container's own directory is among the shifted layers.
const CHANGES: &str = "changes";

/// Covers `stage` with a tmpfs, in it each layer by its number, and the container's own directory, all by mounts that
/// shift owners. An overlay cannot be shifted itself, its layers can, since Linux 5.19.
fn shift_layers(container: &Container, stage: &Path, users: &OwnUsers) -> Result<(), Error> {
    let tmpfs = Some("tmpfs");
    mount(tmpfs, stage, tmpfs, MsFlags::MS_NODEV, Some("mode=700"))
        .map_err(Error::kernel("mount a tmpfs for the container's layers"))?;
    let layers = container.settings.layers.iter().cloned().enumerate();
    let numbered = layers.map(|(number, layer)| (number.to_string(), layer));
    for (name, path) in numbered.chain([(CHANGES.to_owned(), container.directory())]) {
        let target = stage.join(name);
        std::fs::create_dir(&target).map_err(Error::io("create", &target))?;
        users
            .shifted(&path, false)?
            .place_on(open_root(&target)?.as_fd())
            .map_err(Error::kernel("mount a layer with shifted owners"))?;
    }
    Ok(())
}

/// Undoes [`mount_root`]: what is mounted on cannot be removed. Not mounted is as good.
pub fn unmount_root(container: &Container) {
    let _ = umount2(&container.file("root"), MntFlags::MNT_DETACH);
}

/// Opens `path` as a process whose root is `root` would: `..` and links, absolute ones too, stay inside (openat2(2)).
pub fn open_inside(root: BorrowedFd<'_>, path: &Path, flags: i32) -> Result<OwnedFd, Errno> {
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: open_how is plain integers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    loop {
        // SAFETY: the path is NUL-terminated, and the structure has the size that is given.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                c_path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match Errno::result(fd) {
            // SAFETY: the kernel just made this descriptor for us.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            // Something was renamed meanwhile, so that the kernel cannot be sure that the way stays inside.
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Opens a directory to start from.
pub fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    let mut file = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut file, libc::O_PATH | libc::O_DIRECTORY);
    Ok(file.read(true).open(path).map_err(Error::io("open", path))?.into())
}
