//! Copying into and out of a container, and what it changed.
//!
//! A path in a container must be followed the way the container's own programs follow it: a link to `/etc` is a link to
//! the container's. So a process that has the container's root as its own (chroot(2)) does that half of the work, and
//! the bytes travel as a tar archive through a pipe to the other half, which stays outside.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{ForkResult, chdir, chroot, fchdir, fork, pipe2};
use serde::Serialize;

use super::{Container, Error, filesystem};
use crate::privileges;

/// A container's files, to be worked on by a process that has them as its own.
struct Root {
    directory: OwnedFd,
    /// The user namespace in which an ordinary user may change his root, and root is the container's root: the
    /// container's. `None` where he, or root, is that already.
    users: Option<OwnedFd>,
    /// Whether ids of the host's have to be given up to be root there.
    shifted: bool,
}

impl Root {
    /// The running container's root as it is, mounts included; that of one which does not run is mounted, in a mount
    /// namespace this process moves into for good.
    fn of(container: &Container) -> Result<Root, Error> {
        let rootless = !nix::unistd::geteuid().is_root();
        if let Ok(init) = container.init() {
            let path = PathBuf::from(format!("/proc/{}/ns/user", init.pid));
            let shifted = container.state()?.ids_from.is_some();
            let users = match rootless || shifted {
                true => Some(File::open(&path).map_err(Error::io("open", &path))?.into()),
                false => None,
            };
            let directory = filesystem::open_root(Path::new(&format!("/proc/{}/root", init.pid)))?;
            return Ok(Root {
                directory,
                users,
                shifted,
            });
        }
        filesystem::leave_the_hosts_mounts()?;
        let directory = filesystem::open_root(&filesystem::mount_root(container, rootless, None)?)?;
        Ok(Root {
            directory,
            users: None,
            shifted: false,
        })
    }

    /// Makes them this process's root, for good.
    fn enter(&self) -> io::Result<()> {
        if let Some(users) = &self.users {
            setns(users, CloneFlags::CLONE_NEWUSER)?;
        }
        if self.shifted {
            privileges::become_root_inside(&[]).map_err(io::Error::other)?;
        }
        fchdir(self.directory.as_fd())?;
        chroot(".")?;
        Ok(chdir("/")?)
    }
}

/// Copies `inside`, a path in the container, to `outside`, and returns when it is there.
pub fn out(container: &Container, inside: &Path, outside: &Path) -> Result<(), Error> {
    let root = Root::of(container)?;
    let pack = |pipe: File| pack(inside, pipe);
    through(root, Half::Inside(&pack), |pipe| unpack(pipe, outside))
}

/// Copies `outside` to `inside`, a path in the container.
pub fn into(container: &Container, outside: &Path, inside: &Path) -> Result<(), Error> {
    let root = Root::of(container)?;
    if let Err(error) = fs::symlink_metadata(outside) {
        return Err(Error::io("copy", outside)(error));
    }
    let unpack = |pipe: File| unpack(pipe, inside);
    through(root, Half::InsideReads(&unpack), |pipe| pack(outside, pipe))
}

/// What the process inside does with its end of the pipe.
enum Half<'a> {
    /// It writes.
    Inside(&'a dyn Fn(File) -> io::Result<()>),
    /// It reads.
    InsideReads(&'a dyn Fn(File) -> io::Result<()>),
}

/// Runs one half in a process whose root is `root`, the other here. The error of either is told, the inner one first.
fn through(root: Root, inner: Half<'_>, outer: impl FnOnce(File) -> io::Result<()>) -> Result<(), Error> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(Error::kernel("make a pipe"));
    let (reader, writer) = pipe()?;
    let (complaint, mut complain) = pipe().map(|(reader, writer)| (File::from(reader), File::from(writer)))?;
    let (work, inner_end, outer_end) = match inner {
        Half::Inside(work) => (work, writer, reader),
        Half::InsideReads(work) => (work, reader, writer),
    };
    // SAFETY: this process has one thread, so that its copy may do whatever it may.
    match unsafe { fork() }.map_err(Error::kernel("start a process in the container's root"))? {
        ForkResult::Child => {
            drop((outer_end, complaint));
            let worked = root.enter().and_then(|()| work(File::from(inner_end)));
            if let Err(error) = &worked {
                let _ = complain.write_all(error.to_string().as_bytes());
            }
            // SAFETY: ends this process at once. The command's exit handlers are not ours to run.
            unsafe { libc::_exit(i32::from(worked.is_err())) }
        }
        ForkResult::Parent { child } => {
            drop((inner_end, complain));
            let worked = outer(File::from(outer_end));
            let mut said = String::new();
            let mut complaint = complaint;
            let _ = complaint.read_to_string(&mut said);
            let _ = nix::sys::wait::waitpid(child, None);
            match (said.is_empty(), worked) {
                (false, _) => Err(Error::Refused(format!("in the container: {said}"))),
                (true, Err(error)) => Err(Error::Refused(error.to_string())),
                (true, Ok(())) => Ok(()),
            }
        }
    }
}

/// Writes `path`, and what is below it, as an archive whose first entry is `path` itself, by its last name.
fn pack(path: &Path, pipe: File) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let name = match path.components().next_back() {
        Some(Component::Normal(name)) => PathBuf::from(name),
        // `/`, `..`: the content is what is meant.
        _ => PathBuf::from("."),
    };
    // A link that is named itself, with no slash behind it, is copied as a link.
    let kind = fs::symlink_metadata(path).map_err(named)?.file_type();
    let mut archive = tar::Builder::new(io::BufWriter::new(pipe));
    archive.follow_symlinks(false);
    match kind.is_dir() {
        true => archive.append_dir_all(&name, path).map_err(named)?,
        false if kind.is_socket() || kind.is_fifo() => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is a pipe or a socket, of which there is no copy", path.display()),
            ));
        }
        false => archive.append_path_with_name(path, &name).map_err(named)?,
    }
    archive.into_inner()?.flush()
}

/// Unpacks what [`pack`] wrote: into `target` if that is a directory, else under its name.
fn unpack(pipe: File, target: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", target.display()));
    let into_directory = target.is_dir();
    let slash = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !into_directory && slash {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is no directory", target.display()),
        ));
    }
    let mut archive = tar::Archive::new(io::BufReader::new(pipe));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(nix::unistd::geteuid().is_root());
    let mut top: Option<PathBuf> = None;
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let top = top.get_or_insert_with(|| path.clone());
        let place = match into_directory {
            true => target.join(&path),
            false => match path.strip_prefix(&*top) {
                Ok(rest) if rest.as_os_str().is_empty() => target.to_owned(),
                Ok(rest) => target.join(rest),
                Err(_) => continue,
            },
        };
        // The archive comes from the other half, which a program in the container may be changing files under: no
        // entry may lead out of where it belongs.
        if path
            .components()
            .any(|part| matches!(part, Component::ParentDir | Component::RootDir))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} leads elsewhere", path.display()),
            ));
        }
        // A program that renames while it is copied can have a directory be followed by a link of the same name, and what
        // was in the directory then go where the link leads, outside.
        let below = place.strip_prefix(target).unwrap_or(Path::new(""));
        let on_the_way = below.ancestors().skip(1).filter(|part| !part.as_os_str().is_empty());
        if on_the_way.map(|part| target.join(part)).any(|part| part.is_symlink()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} leads through a link that came with it", path.display()),
            ));
        }
        if entry.header().entry_type().is_dir() {
            if place != target && place.is_symlink() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is a link and a directory", path.display()),
                ));
            }
            fs::create_dir_all(&place).map_err(named)?;
            directories.push((
                place,
                entry.header().mode()?,
                entry.header().uid()?,
                entry.header().gid()?,
            ));
        } else {
            entry.unpack(&place).map_err(named)?;
        }
    }
    // Last, the innermost first: a directory that may not be written to could not be filled.
    for (path, mode, uid, gid) in directories.iter().rev() {
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(*uid as u32), Some(*gid as u32)).map_err(named)?;
        }
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(*mode)).map_err(named)?;
    }
    Ok(())
}

/// How a path differs from the image's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Not in the image.
    Added,
    /// In both: the whole file was copied up before its first change.
    Changed,
    /// In the image, covered by a whiteout: a character device 0:0, or an attribute.
    Deleted,
}

impl Change {
    /// As docker's `diff` marks it.
    pub fn letter(self) -> char {
        match self {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        }
    }
}

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How.
    pub change: Change,
    /// The path in the container.
    pub path: PathBuf,
    /// Bytes of it in the container's own directory: what this container has that others do not share.
    pub own_bytes: u64,
    /// Bytes of the image's file that was copied up; 0 when none was.
    pub copied_up_bytes: u64,
}

/// What the container changed, by path, and how many bytes of its files it shares with its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Path by path.
    pub differences: Vec<Difference>,
    /// Bytes in the container's own directory.
    pub own_bytes: u64,
    /// Bytes of the image that the container still reads from the image's layers.
    pub shared_bytes: u64,
}

/// Compares the container's `upper` directory with the image's layers.
pub fn differences(container: &Container) -> Result<Differences, Error> {
    let upper = container.file("upper");
    let layers = &container.settings.layers;
    let mut found = Vec::new();
    walk(&upper, Path::new(""), layers, &mut found)?;
    found.sort_by(|one, other| one.path.cmp(&other.path));
    let total = image_bytes(layers);
    let hidden: u64 = found.iter().map(|difference| difference.copied_up_bytes).sum();
    let deleted: u64 = found
        .iter()
        .filter(|difference| difference.change == Change::Deleted)
        .filter_map(|difference| difference.path.strip_prefix("/").ok())
        .map(|path| bytes_below(layers, path))
        .sum();
    Ok(Differences {
        own_bytes: found.iter().map(|difference| difference.own_bytes).sum(),
        shared_bytes: total.saturating_sub(hidden + deleted),
        differences: found,
    })
}

fn walk(upper: &Path, below: &Path, layers: &[PathBuf], found: &mut Vec<Difference>) -> Result<(), Error> {
    let directory = upper.join(below);
    for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
        let entry = entry.map_err(Error::io("list", &directory))?;
        let path = below.join(entry.file_name());
        let metadata = entry.metadata().map_err(Error::io("look at", &entry.path()))?;
        let image = lookup(layers, &path);
        let is_whiteout = is_whiteout(&entry.path(), &metadata);
        let change = match (&image, is_whiteout) {
            (Some(_), true) => Change::Deleted,
            // It covers what another layer had covered already.
            (None, true) => continue,
            (Some(_), false) => Change::Changed,
            (None, false) => Change::Added,
        };
        let is_file = metadata.is_file();
        let was_file = image.as_ref().filter(|image| image.is_file());
        found.push(Difference {
            change,
            path: Path::new("/").join(&path),
            own_bytes: if is_file && !is_whiteout { metadata.len() } else { 0 },
            copied_up_bytes: match change {
                Change::Changed => was_file.map_or(0, std::fs::Metadata::len),
                Change::Added | Change::Deleted => 0,
            },
        });
        if metadata.is_dir() {
            walk(upper, &path, layers, found)?;
        }
    }
    Ok(())
}

/// What the image has at `path`: the topmost layer that says something about it decides.
pub(super) fn lookup(layers: &[PathBuf], path: &Path) -> Option<fs::Metadata> {
    for layer in layers {
        let mut parent = PathBuf::new();
        for part in path.components() {
            parent.push(part);
            let here = layer.join(&parent);
            let Ok(metadata) = fs::symlink_metadata(&here) else {
                break;
            };
            if is_whiteout(&here, &metadata) {
                return None;
            }
            if parent == path {
                return Some(metadata);
            }
            if !metadata.is_dir() || is_opaque(&here) && fs::symlink_metadata(layer.join(path)).is_err() {
                return None;
            }
        }
    }
    None
}

/// A character device with the number 0:0, or, where a user may not make one, an empty file with an attribute (kernel
/// document `filesystems/overlayfs`, "whiteouts and opaque directories").
fn is_whiteout(path: &Path, metadata: &fs::Metadata) -> bool {
    let kind = metadata.file_type();
    (kind.is_char_device() && metadata.rdev() == 0)
        || (kind.is_file() && metadata.len() == 0 && has_attribute(path, c"user.overlay.whiteout"))
}

/// A directory that hides the same directory of every layer below.
fn is_opaque(path: &Path) -> bool {
    has_attribute(path, c"trusted.overlay.opaque") || has_attribute(path, c"user.overlay.opaque")
}

fn has_attribute(path: &Path, name: &std::ffi::CStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both strings are NUL-terminated; with size 0 nothing is written.
    unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

/// Bytes of the files the image shows: each path counts in the topmost layer that has it.
fn image_bytes(layers: &[PathBuf]) -> u64 {
    bytes_below(layers, Path::new(""))
}

/// The same, of `path` and what is below it.
fn bytes_below(layers: &[PathBuf], path: &Path) -> u64 {
    let is_directory = path.as_os_str().is_empty() || lookup(layers, path).is_some_and(|metadata| metadata.is_dir());
    if !is_directory {
        return lookup(layers, path)
            .filter(fs::Metadata::is_file)
            .map_or(0, |metadata| metadata.len());
    }
    let mut names = std::collections::BTreeSet::new();
    for layer in layers {
        let entries = fs::read_dir(layer.join(path)).into_iter().flatten().flatten();
        names.extend(entries.map(|entry| entry.file_name()));
    }
    names.iter().map(|name| bytes_below(layers, &path.join(name))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program that swaps a directory for a link while it is copied brings about.
    #[test]
    fn an_archive_cannot_lead_out_through_its_own_link() {
        let (bait, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (second, kind) in [
            ("top/link/file", tar::EntryType::Regular),
            ("top/link", tar::EntryType::Directory),
        ] {
            let path = work.path().join("archive");
            let mut archive = tar::Builder::new(File::create(&path).unwrap());
            let mut append = |name: &str, kind, link: Option<&Path>, data: &[u8]| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(data.len() as u64);
                header.set_mode(0o777);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                match link {
                    Some(link) => archive.append_link(&mut header, name, link).unwrap(),
                    None => archive.append_data(&mut header, name, data).unwrap(),
                }
            };
            append("top", tar::EntryType::Directory, None, b"");
            append("top/link", tar::EntryType::Symlink, Some(bait.path()), b"");
            append(second, kind, None, if kind.is_file() { b"attacked" } else { b"" });
            drop(archive.into_inner().unwrap());
            let before = fs::metadata(bait.path()).unwrap();
            for target in ["new", "."] {
                let said = unpack(File::open(&path).unwrap(), &work.path().join(target))
                    .unwrap_err()
                    .to_string();
                assert!(said.contains("link"), "{said}");
                let _ = fs::remove_dir_all(work.path().join("new"));
                let _ = fs::remove_dir_all(work.path().join("top"));
            }
            assert_eq!(fs::read_dir(bait.path()).unwrap().count(), 0);
            assert_eq!(before.mode(), fs::metadata(bait.path()).unwrap().mode());
        }
    }

    #[test]
    fn the_topmost_layer_decides_what_the_image_has() {
        let directory = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "bottom"]
            .iter()
            .map(|name| directory.path().join(name))
            .collect();
        fs::create_dir_all(layers[0].join("etc")).unwrap();
        fs::create_dir_all(layers[1].join("etc")).unwrap();
        fs::write(layers[1].join("etc/motd"), "12345").unwrap();
        fs::write(layers[1].join("etc/hosts"), "123").unwrap();
        fs::write(layers[0].join("etc/motd"), "1").unwrap();
        assert_eq!(lookup(&layers, Path::new("etc/motd")).unwrap().len(), 1);
        assert_eq!(lookup(&layers, Path::new("etc/hosts")).unwrap().len(), 3);
        assert!(lookup(&layers, Path::new("etc/none")).is_none());
        assert_eq!(image_bytes(&layers), 4);
    }

    #[test]
    fn what_is_packed_is_unpacked_where_it_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        std::os::unix::fs::symlink("/etc/shadow", from.join("link")).unwrap();
        fs::create_dir(directory.path().join("existing")).unwrap();
        let copy = |target: &str| {
            let archive = directory.path().join("archive");
            pack(&from, File::create(&archive).unwrap()).unwrap();
            unpack(File::open(&archive).unwrap(), &directory.path().join(target))
        };
        copy("existing").unwrap();
        copy("new").unwrap();
        for place in ["existing/from", "new"] {
            let place = directory.path().join(place);
            assert_eq!(fs::read_to_string(place.join("sub/file")).unwrap(), "content");
            assert_eq!(fs::read_link(place.join("link")).unwrap(), Path::new("/etc/shadow"));
        }
        assert!(copy("none/").is_err());
    }
}
