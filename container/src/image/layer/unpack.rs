//! Unpacking a layer: members of an archive become files below one directory, in the form overlay takes as lower layer.
//!
//! A layer says what changed, and so it must be able to say "gone". In the archive that is an empty file `.wh.NAME`, and
//! `.wh..wh..opq` for "everything below this directory" (OCI image specification, layer.md, "Whiteouts"); for overlay it
//! is a character device 0:0 and an extended attribute. The translation is here and in [`super::pack`].
//!
//! Whoever built the archive is not trusted. [`super::tree`] keeps every path inside, [`Limits`] bound size and number,
//! and what has no place in a layer is refused by name.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, geteuid, linkat, mkfifoat, symlinkat};

use super::archive::{Archive, Kind, Member};
pub use super::fault::{Error, Fault, shown};
use super::stream::LayerStream;
use super::tree::{self, Tree};
use super::xattrs;
use crate::errno::of;

// ANCHOR: whiteouts
/// What marks a name as gone.
pub const WHITEOUT: &[u8] = b".wh.";
/// What marks everything below a directory as gone.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
// ANCHOR_END: whiteouts
/// Other names that start like this are notes aufs made for itself; every engine drops them.
const AUFS: &[u8] = b".wh..wh.";

/// Bytes of archive in one layer, unless told otherwise. The largest layers in use, with models or tool chains in them,
/// have some 10 GB; a gzip bomb makes 1000 times that of what it takes to send.
pub const MAX_BYTES: u64 = 32 << 30;
/// Members in one layer, unless told otherwise. A whole distribution has some 100,000 files; every one takes an inode,
/// which the disk may have fewer of than bytes.
pub const MAX_MEMBERS: u64 = 2_000_000;

/// What a layer may take, and whether devices in it are left out or refused.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes, as archive and as files (holes of sparse files included).
    pub bytes: u64,
    /// Members of the archive.
    pub members: u64,
    /// Leave devices out instead of refusing the layer. A container gets its devices from the runtime in any case.
    pub skip_devices: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: MAX_BYTES,
            members: MAX_MEMBERS,
            skip_devices: false,
        }
    }
}

/// What is in an unpacked layer, and what could not be kept of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Members of the archive.
    pub members: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Files that belong to the unpacking user now, who may not give them to their owner.
    pub owners_squashed: u64,
    /// Extended attributes that this user may not set, or this file system does not have.
    pub xattrs_dropped: u64,
    /// Devices left out.
    pub devices_skipped: u64,
}

/// Unpacks an archive into an empty directory.
///
/// `below` are the directories of the layers beneath, topmost first: a directory the archive does not mention but has
/// files in takes mode and owner from there.
pub fn unpack(stream: &mut LayerStream, into: &Path, below: &[PathBuf], limits: Limits) -> Result<Tally, Error> {
    let failed = |errno| Error::Open {
        path: into.to_owned(),
        errno,
    };
    let below = below
        .iter()
        .map(|path| {
            Tree::open(path).map_err(|errno| Error::Open {
                path: path.clone(),
                errno,
            })
        })
        .collect::<Result<_, _>>()?;
    let mut unpacker = Unpacker {
        tree: Tree::open(into).map_err(failed)?,
        below,
        limits,
        keep_owners: geteuid().is_root(),
        tally: Tally::default(),
        directories: BTreeMap::new(),
    };
    let mut archive = Archive::new(stream);
    // The name of the member before tells where in the archive it broke.
    let mut before = String::from("the start");
    loop {
        let member = archive.next_member().map_err(|error| Error::Archive {
            before: before.clone(),
            error,
        })?;
        let Some(member) = member else { break };
        let name = shown(&member.path);
        unpacker.add(&member, &mut archive).map_err(|fault| Error::Member {
            name: name.clone(),
            fault,
        })?;
        before = name;
    }
    unpacker.finish()
}

struct Unpacker {
    tree: Tree,
    below: Vec<Tree>,
    limits: Limits,
    keep_owners: bool,
    tally: Tally,
    /// Mode and time of the directories, which are set at the end: filling them changes the time, and a mode may
    /// forbid to fill them. This alone grows with the layer, by some 100 bytes for each directory.
    directories: BTreeMap<Vec<u8>, (u32, (i64, u32))>,
}

impl Unpacker {
    fn add<R: BufRead>(&mut self, member: &Member, archive: &mut Archive<R>) -> Result<(), Fault> {
        self.tally.members += 1;
        if self.tally.members > self.limits.members {
            return Err(Fault::TooMany(self.limits.members));
        }
        self.tally.bytes = self.tally.bytes.saturating_add(member.size);
        if self.tally.bytes > self.limits.bytes {
            return Err(Fault::TooLarge(self.limits.bytes));
        }
        let path = inside(&member.path)?;
        let (parent_path, name) = split(&path);
        if name.is_empty() {
            return self.add_root(member);
        }
        if name == OPAQUE {
            return self.make_opaque(parent_path);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if name.starts_with(AUFS) {
                return Ok(());
            }
            return self.white_out(parent_path, hidden);
        }
        if matches!(member.kind, Kind::CharDevice | Kind::BlockDevice) {
            if !self.limits.skip_devices {
                return Err(Fault::Device(member.device.0, member.device.1));
            }
            self.tally.devices_skipped += 1;
            return Ok(());
        }
        // Looked up before the parent is borrowed: the two share one cache.
        let target = match member.kind {
            Kind::HardLink => Some(self.link_target(&member.link)?),
            _ => None,
        };
        let whiteout = self.make_room(parent_path, name, member.kind)?;
        let uid = id(member.uid)?;
        let gid = id(member.gid)?;
        let keep_owners = self.keep_owners;
        let mut squashed = false;
        let parent = self.parent(parent_path)?;
        match member.kind {
            Kind::HardLink => {
                if let Some((directory, target)) = target {
                    linkat(directory.as_fd(), target.as_slice(), parent, name, AtFlags::empty())
                        .map_err(Fault::system("link it to", &member.link))?;
                }
                return Ok(());
            }
            Kind::Directory => {
                match mkdirat(parent, name, Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(Fault::made(errno)),
                }
                let directory = tree::open_directory(parent, name).map_err(Fault::made)?;
                if whiteout {
                    xattrs::set_opaque(directory.as_fd()).map_err(Fault::step("mark it opaque"))?;
                }
                squashed = own(directory.as_fd(), keep_owners, uid, gid)?;
                let dropped = set_xattrs(&member.xattrs, keep_owners, |name, value| {
                    xattrs::set(directory.as_fd(), name, value)
                })?;
                self.tally.xattrs_dropped += dropped;
                self.directories.insert(path.clone(), (member.mode, member.mtime));
            }
            Kind::File => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let file = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(Fault::made)?;
                let file = std::fs::File::from(file);
                write_data(&file, member, archive)?;
                squashed = own(file.as_fd(), keep_owners, uid, gid)?;
                let dropped = set_xattrs(&member.xattrs, keep_owners, |name, value| {
                    xattrs::set(file.as_fd(), name, value)
                })?;
                // After the owner, whose change takes away the set-user-id bit (chown(2)).
                fchmod(&file, mode(member.mode)).map_err(Fault::step("set its mode"))?;
                let time = time(member.mtime);
                futimens(&file, &time, &time).map_err(Fault::step("set its time"))?;
                self.tally.xattrs_dropped += dropped;
            }
            Kind::Symlink | Kind::Fifo => {
                match member.kind {
                    Kind::Symlink => symlinkat(member.link.as_slice(), parent, name),
                    _ => mkfifoat(parent, name, Mode::S_IRUSR | Mode::S_IWUSR),
                }
                .map_err(Fault::made)?;
                if keep_owners {
                    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                        .map_err(Fault::step("set its owner"))?;
                } else {
                    squashed = !is_own(uid, gid);
                }
                let dropped = set_xattrs(&member.xattrs, keep_owners, |attribute, value| {
                    xattrs::set_at(parent, name, attribute, value)
                })?;
                if member.kind == Kind::Fifo {
                    // It was made here, as a pipe, in a directory nobody else can reach.
                    nix::sys::stat::fchmodat(
                        parent,
                        name,
                        mode(member.mode),
                        nix::sys::stat::FchmodatFlags::FollowSymlink,
                    )
                    .map_err(Fault::step("set its mode"))?;
                }
                let time = time(member.mtime);
                utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
                    .map_err(Fault::step("set its time"))?;
                self.tally.xattrs_dropped += dropped;
            }
            Kind::CharDevice | Kind::BlockDevice => {}
        }
        self.tally.owners_squashed += u64::from(squashed);
        Ok(())
    }

    /// The root directory itself, `./` in most archives.
    fn add_root(&mut self, member: &Member) -> Result<(), Fault> {
        if member.kind != Kind::Directory {
            return Err(Fault::Root);
        }
        let squashed = own(self.tree.root(), self.keep_owners, id(member.uid)?, id(member.gid)?)?;
        let root = self.tree.root();
        let dropped = set_xattrs(&member.xattrs, self.keep_owners, |name, value| {
            xattrs::set(root, name, value)
        })?;
        self.tally.owners_squashed += u64::from(squashed);
        self.tally.xattrs_dropped += dropped;
        self.directories.insert(Vec::new(), (member.mode, member.mtime));
        Ok(())
    }

    /// The directory a member belongs in. One the archive does not mention is the one below, seen through: it gets
    /// what that one has.
    fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Fault> {
        let (below, keep_owners) = (&self.below, self.keep_owners);
        let directories = &mut self.directories;
        let mut made = |path: &[u8], directory: BorrowedFd<'_>| {
            let found = below.iter().find_map(|layer| layer.directory(path).ok());
            let (mode, mtime) = match found.map(|found| tree::status(found.as_fd())).transpose()? {
                Some(status) => {
                    if keep_owners {
                        let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
                        fchown(directory, Some(uid), Some(gid))?;
                    }
                    (status.st_mode & 0o7777, (status.st_mtime, status.st_mtime_nsec as u32))
                }
                None => (0o755, (0, 0)),
            };
            directories.insert(path.to_owned(), (mode, mtime));
            Ok(())
        };
        self.tree
            .parent(path, &mut made)
            .map_err(Fault::system("enter its directory", path))
    }

    /// Removes what has the name already; says whether that was a whiteout, which then must not get lost. A directory
    /// stays for a directory.
    fn make_room(&mut self, parent_path: &[u8], name: &[u8], kind: Kind) -> Result<bool, Fault> {
        let parent = self.parent(parent_path)?;
        let Some(there) = tree::look(parent, name).map_err(Fault::made)? else {
            return Ok(false);
        };
        if tree::is(&there, SFlag::S_IFDIR) && kind == Kind::Directory {
            return Ok(false);
        }
        tree::remove(parent, name).map_err(Fault::step("replace what had its name"))?;
        self.forget(parent_path, name, &there);
        Ok(tree::is_whiteout(&there))
    }

    fn forget(&mut self, parent_path: &[u8], name: &[u8], removed: &FileStat) {
        self.tree.forget_last();
        if tree::is(removed, SFlag::S_IFDIR) {
            let path = join(parent_path, name);
            let beneath = join(&path, b"");
            self.directories
                .retain(|directory, _| *directory != path && !directory.starts_with(&beneath));
        }
    }

    fn white_out(&mut self, parent_path: &[u8], hidden: &[u8]) -> Result<(), Fault> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::Whiteout);
        }
        let parent = self.parent(parent_path)?;
        match tree::look(parent, hidden).map_err(Fault::made)? {
            None => tree::make_whiteout(parent, hidden).map_err(Fault::made),
            // The layer has that name itself. A whiteout is about what is below: a file hides that by being there, a
            // directory must be told to.
            Some(there) if tree::is(&there, SFlag::S_IFDIR) => {
                let directory = tree::open_directory(parent, hidden).map_err(Fault::made)?;
                xattrs::set_opaque(directory.as_fd()).map_err(Fault::step("mark it opaque"))
            }
            Some(_) => Ok(()),
        }
    }

    fn make_opaque(&mut self, path: &[u8]) -> Result<(), Fault> {
        let directory = self.parent(path)?;
        xattrs::set_opaque(directory).map_err(Fault::step("mark its directory opaque"))
    }

    /// Directory and name of what a hard link leads to.
    fn link_target(&mut self, link: &[u8]) -> Result<(std::os::fd::OwnedFd, Vec<u8>), Fault> {
        let path = inside(link).map_err(|_| Fault::LinkOut(shown(link)))?;
        let (parent, name) = split(&path);
        let missing = || Fault::LinkTarget(shown(link));
        let directory = self.tree.directory(parent).map_err(|_| missing())?;
        let there = tree::look(directory.as_fd(), name)
            .map_err(|_| missing())?
            .ok_or_else(missing)?;
        if name.is_empty() || tree::is(&there, SFlag::S_IFDIR) || tree::is_whiteout(&there) {
            return Err(missing());
        }
        Ok((directory, name.to_owned()))
    }

    /// Modes and times of the directories, from the deepest up.
    fn finish(mut self) -> Result<Tally, Error> {
        let directories = std::mem::take(&mut self.directories);
        for (path, (bits, mtime)) in directories.iter().rev() {
            let set = || {
                // The archive may have put a link or file in the place of a directory since.
                let (parent, name) = split(path);
                let parent = self.tree.directory(parent)?;
                let directory = match name {
                    b"" => parent,
                    name => match tree::open_directory(parent.as_fd(), name) {
                        Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT) => return Ok(()),
                        other => other?,
                    },
                };
                fchmod(directory.as_fd(), mode(*bits))?;
                let time = time(*mtime);
                futimens(directory.as_fd(), &time, &time)
            };
            set().map_err(|errno| Error::Member {
                name: shown(path),
                fault: Fault::step("set mode and time of the directory")(errno),
            })?;
        }
        Ok(self.tally)
    }
}

/// The path as it is inside the layer: components separated by one slash. A path from the root is one from the layer's
/// root, as `tar` has it; one that climbs is nobody's mistake.
pub fn inside(path: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut clean: Vec<u8> = Vec::with_capacity(path.len());
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(Fault::Climbs),
            _ if component.contains(&0) => return Err(Fault::Nul),
            component => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(component);
            }
        }
    }
    Ok(clean)
}

/// Directory and name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_owned(),
        parent => [parent, b"/", name].concat(),
    }
}

fn write_data<R: BufRead>(mut file: &std::fs::File, member: &Member, archive: &mut Archive<R>) -> Result<(), Fault> {
    use std::os::unix::fs::FileExt;
    let mut data = archive.data();
    let read = |error: io::Error| Fault::Read(error);
    let write = |error: io::Error| Fault::step("write it")(of(&error));
    let Some(parts) = &member.parts else {
        loop {
            let there = data.fill_buf().map_err(read)?;
            if there.is_empty() {
                return Ok(());
            }
            file.write_all(there).map_err(write)?;
            let size = there.len();
            data.consume(size);
        }
    };
    // What is not written is a hole; the size makes one of the end.
    file.set_len(member.size).map_err(write)?;
    for &(mut offset, mut length) in parts {
        while length > 0 {
            let there = data.fill_buf().map_err(read)?;
            if there.is_empty() {
                return Err(Fault::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let size = there.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            file.write_all_at(&there[..size], offset).map_err(write)?;
            data.consume(size);
            offset += size as u64;
            length -= size as u64;
        }
    }
    Ok(())
}

/// Gives an open file to its owner, if that is for this process to do; says whether the owner was lost.
fn own(file: BorrowedFd<'_>, keep: bool, uid: u32, gid: u32) -> Result<bool, Fault> {
    if !keep {
        return Ok(!is_own(uid, gid));
    }
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(Fault::step("set its owner"))?;
    Ok(false)
}

/// In a user namespace that maps one id, the unpacking user is the image's root: nothing is lost of what root owns.
fn is_own(uid: u32, gid: u32) -> bool {
    (uid, gid) == (0, 0)
}

/// Sets attributes; says how many had to be dropped.
fn set_xattrs(
    attributes: &[(Vec<u8>, Vec<u8>)],
    as_root: bool,
    set: impl Fn(&std::ffi::CStr, &[u8]) -> Result<(), Errno>,
) -> Result<u64, Fault> {
    let mut dropped = 0;
    for (name, value) in attributes {
        if xattrs::is_overlays(name) {
            return Err(Fault::OverlayXattr(shown(name)));
        }
        let c_name = CString::new(name.as_slice()).map_err(|_| Fault::Nul)?;
        match set(&c_name, value) {
            Ok(()) => {}
            // Not on this file system, or not this kind of file.
            Err(Errno::EOPNOTSUPP) => dropped += 1,
            // Capabilities of files and the like are root's to give; labels are the security module's.
            Err(Errno::EPERM | Errno::EINVAL) if !as_root || name.starts_with(b"security.selinux") => dropped += 1,
            Err(errno) => return Err(Fault::system("set its attribute", name)(errno)),
        }
    }
    Ok(dropped)
}

fn id(id: u64) -> Result<u32, Fault> {
    // The largest means "leave it" to chown(2).
    u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(Fault::Id(id))
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

fn time((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, nanoseconds.into())
}
