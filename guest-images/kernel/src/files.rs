//! Files: the initrd as a read-only file system, a few devices, and the program's descriptors.

use kernel::cell::Lone;
use kernel::cpio::{self, Archive, Entry};

use crate::syscalls::errno::*;
use crate::user::PATH_MAX;

/// Descriptors a program can have, and open files.
pub const DESCRIPTORS: usize = 64;
/// Longest name between two slashes, as on Linux.
const NAME_MAX: usize = 255;
/// Symbolic links followed for one path, as on Linux.
const LINKS_MAX: usize = 40;

/// Bits of `st_mode`.
pub mod mode {
    /// All bits that say what kind of file it is.
    pub const KIND: u32 = 0o170000;
    /// Directory.
    pub const DIRECTORY: u32 = 0o040000;
    /// Regular file.
    pub const REGULAR: u32 = 0o100000;
    /// Symbolic link.
    pub const LINK: u32 = 0o120000;
    /// Character device.
    pub const DEVICE: u32 = 0o020000;
    /// Pipe: what the console looks like, a stream without terminal.
    pub const PIPE: u32 = 0o010000;
}

/// Devices the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The host's standard input.
    Input,
    /// The host's standard output.
    Output,
    /// The host's standard error.
    Error,
    /// Reads as empty, swallows what is written.
    Null,
    /// Reads as zeros.
    Zero,
    /// Zeros that cannot be written to: always full.
    Full,
    /// Random bytes from the host.
    Random,
    /// Linux's door for keyboards that are not there: `c` written to it crashes the kernel.
    Trigger,
}

/// What a path leads to.
#[derive(Clone, Copy)]
pub enum Node {
    /// An entry of the initrd.
    Entry(Entry<'static>),
    /// A directory the initrd does not mention but whose files it has; or the root.
    Implied,
    /// A device that is there without the initrd's help.
    Device(Device),
}

/// An open file. `Closed` is all zeros, so that a table of them needs no room in the kernel's image.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Open {
    /// None: this place is free.
    Closed = 0,
    /// A device.
    Device(Device),
    /// A regular file, and the position in it.
    File(Entry<'static>, u64),
    /// A directory: its path (kept in `Files::paths` at the same index), and how far it was listed.
    Directory(Option<Entry<'static>>, u64),
}

/// The file system and the descriptors.
pub struct Files {
    /// None before the initrd is known: all zeros, and no room in the kernel's image.
    initrd: Option<&'static [u8]>,
    /// For each descriptor: index into `open`, plus 1; 0 when it is free.
    descriptors: [u8; DESCRIPTORS],
    /// Open files, and how many descriptors share each.
    open: [(Open, u8); DESCRIPTORS],
    /// Paths of open directories, without a leading slash.
    paths: [([u8; 256], u16); DESCRIPTORS],
    /// The working directory, without a leading slash.
    pub directory: [u8; 256],
    /// Its length.
    pub directory_length: usize,
}

/// Two path buffers: what is resolved so far, and what is left. Statics, so that nobody clears 8 KiB per call.
struct Paths {
    done: [u8; PATH_MAX],
    rest: [u8; PATH_MAX],
}

static PATHS: Lone<Paths> = Lone::new(Paths {
    done: [0; PATH_MAX],
    rest: [0; PATH_MAX],
});

impl Files {
    /// No files.
    pub const fn none() -> Files {
        Files {
            initrd: None,
            descriptors: [0; DESCRIPTORS],
            open: [(Open::Closed, 0); DESCRIPTORS],
            paths: [([0; 256], 0); DESCRIPTORS],
            directory: [0; 256],
            directory_length: 0,
        }
    }

    /// Takes over the initrd and opens the standard descriptors.
    pub fn open_initrd(&mut self, initrd: &'static [u8]) {
        self.initrd = Some(initrd);
        for (i, device) in [Device::Input, Device::Output, Device::Error].into_iter().enumerate() {
            self.open[i] = (Open::Device(device), 1);
            self.descriptors[i] = i as u8 + 1;
        }
    }

    fn archive(&self) -> Archive<'static> {
        Archive::new(self.initrd.unwrap_or(&[]))
    }

    /// The bytes of the program at `path`, if there is one. `found` is given its path without links and without the
    /// leading slash.
    pub fn program(&self, path: &[u8], mut found: impl FnMut(&[u8])) -> Result<Option<&'static [u8]>, cpio::Error> {
        let name = path.strip_prefix(b"/").unwrap_or(path);
        // Most often the path is there as it stands, and one walk finds it.
        if let Some(entry) = self.archive().find(name)?
            && entry.mode() & mode::KIND == mode::REGULAR
        {
            found(name);
            return Ok(Some(entry.data));
        }
        match self.resolve_from(&[], path, true, &mut found) {
            Ok(Node::Entry(entry)) if entry.mode() & mode::KIND == mode::REGULAR => Ok(Some(entry.data)),
            _ => Ok(None),
        }
    }

    /// What `path` leads to from the directory `from`. The last link is followed if `follow`; `found` is given the path
    /// without links.
    pub fn resolve_from(
        &self,
        from: &[u8],
        path: &[u8],
        follow: bool,
        found: impl FnOnce(&[u8]),
    ) -> Result<Node, Errno> {
        PATHS.with(|paths| {
            let Paths { done, rest } = paths;
            let mut done_length = if path.starts_with(b"/") {
                0
            } else {
                copy(done, 0, from)?
            };
            let mut rest_start = PATH_MAX - path.len();
            rest[rest_start..].copy_from_slice(path);
            let mut links = 0;
            let mut node = self.look_up(&done[..done_length])?;
            loop {
                while rest.get(rest_start) == Some(&b'/') {
                    rest_start += 1;
                }
                if rest_start == PATH_MAX {
                    // A trailing slash asks for a directory.
                    if path.ends_with(b"/") && !is_directory(&node) {
                        return Err(ENOTDIR);
                    }
                    found(&done[..done_length]);
                    return Ok(node);
                }
                if !is_directory(&node) {
                    return Err(ENOTDIR);
                }
                let length = rest[rest_start..]
                    .iter()
                    .position(|&byte| byte == b'/')
                    .unwrap_or(PATH_MAX - rest_start);
                if length > NAME_MAX {
                    return Err(ENAMETOOLONG);
                }
                let component = &rest[rest_start..rest_start + length];
                let parent = done_length;
                match component {
                    b"." => {}
                    b".." => done_length = done[..done_length].iter().rposition(|&byte| byte == b'/').unwrap_or(0),
                    _ => {
                        if done_length > 0 {
                            done_length = copy(done, done_length, b"/")?;
                        }
                        done_length = copy(done, done_length, component)?;
                    }
                }
                rest_start += length;
                node = self.look_up(&done[..done_length])?;
                let Node::Entry(entry) = node else { continue };
                if entry.mode() & mode::KIND != mode::LINK || (rest_start == PATH_MAX && !follow) {
                    continue;
                }
                // The link's target stands in for the component; an absolute one starts at the root again.
                links += 1;
                if links > LINKS_MAX {
                    return Err(ELOOP);
                }
                done_length = if entry.data.starts_with(b"/") { 0 } else { parent };
                rest_start = rest_start.checked_sub(entry.data.len()).ok_or(ENAMETOOLONG)?;
                rest[rest_start..rest_start + entry.data.len()].copy_from_slice(entry.data);
                node = self.look_up(&done[..done_length])?;
            }
        })
    }

    /// What has exactly this path.
    fn look_up(&self, path: &[u8]) -> Result<Node, Errno> {
        if path.is_empty() {
            return Ok(Node::Implied);
        }
        let mut implied = false;
        let mut offset = 0;
        while let Some((entry, next)) = self.archive().entry(offset).map_err(|_| EIO)? {
            if entry.name == path {
                return Ok(Node::Entry(entry));
            }
            implied |= entry.name.len() > path.len() && entry.name.starts_with(path) && entry.name[path.len()] == b'/';
            offset = next;
        }
        match (device_at(path), implied || matches!(path, b"dev" | b"proc")) {
            (Some(device), _) => Ok(Node::Device(device)),
            (None, true) => Ok(Node::Implied),
            (None, false) => Err(ENOENT),
        }
    }

    /// The entry of a directory that comes at or after `position`, and the position behind it. Positions are offsets in
    /// the archive.
    pub fn next_in(&self, directory: &[u8], position: usize) -> Option<(Entry<'static>, &'static [u8], usize)> {
        let mut offset = position;
        while let Ok(Some((entry, next))) = self.archive().entry(offset) {
            let inside = match directory {
                [] => Some(entry.name),
                _ => entry
                    .name
                    .strip_prefix(directory)
                    .and_then(|rest| rest.strip_prefix(b"/")),
            };
            if let Some(name) = inside.filter(|name| !name.is_empty() && !name.contains(&b'/')) {
                return Some((entry, name, next));
            }
            offset = next;
        }
        None
    }

    /// The open file behind a descriptor.
    pub fn get(&mut self, descriptor: u64) -> Result<&mut Open, Errno> {
        let index = self.index(descriptor)?;
        Ok(&mut self.open[index].0)
    }

    fn index(&self, descriptor: u64) -> Result<usize, Errno> {
        match usize::try_from(descriptor).ok().and_then(|i| self.descriptors.get(i)) {
            Some(&index) if index > 0 => Ok(index as usize - 1),
            _ => Err(EBADF),
        }
    }

    /// The path of an open directory.
    pub fn path_of(&self, descriptor: u64) -> Result<&[u8], Errno> {
        let index = self.index(descriptor)?;
        match self.open[index] {
            (Open::Directory(..), _) => Ok(&self.paths[index].0[..self.paths[index].1 as usize]),
            _ => Err(ENOTDIR),
        }
    }

    /// Gives an open file the lowest free descriptor. `path` is kept for directories.
    pub fn add(&mut self, open: Open, path: &[u8]) -> Result<u64, Errno> {
        let index = self.open.iter().position(|(_, sharers)| *sharers == 0).ok_or(EMFILE)?;
        let descriptor = self.free_descriptor(0)?;
        let (buffer, length) = &mut self.paths[index];
        buffer.get_mut(..path.len()).ok_or(ENAMETOOLONG)?.copy_from_slice(path);
        *length = path.len() as u16;
        self.open[index] = (open, 1);
        self.descriptors[descriptor] = index as u8 + 1;
        Ok(descriptor as u64)
    }

    fn free_descriptor(&self, from: usize) -> Result<usize, Errno> {
        (from..DESCRIPTORS).find(|&i| self.descriptors[i] == 0).ok_or(EMFILE)
    }

    /// Makes another descriptor for an open file: the lowest free one from `from` on.
    pub fn duplicate(&mut self, descriptor: u64, from: u64) -> Result<u64, Errno> {
        let from = usize::try_from(from)
            .ok()
            .filter(|&from| from < DESCRIPTORS)
            .ok_or(EINVAL)?;
        let index = self.index(descriptor)?;
        let to = self.free_descriptor(from)?;
        self.share(index, to);
        Ok(to as u64)
    }

    /// Makes `to` another descriptor for an open file, closing what it was.
    pub fn duplicate_to(&mut self, descriptor: u64, to: u64) -> Result<u64, Errno> {
        let index = self.index(descriptor)?;
        let place = usize::try_from(to).ok().filter(|&to| to < DESCRIPTORS).ok_or(EBADF)?;
        if to != descriptor {
            let _ = self.close(to);
            self.share(index, place);
        }
        Ok(to)
    }

    fn share(&mut self, index: usize, descriptor: usize) {
        self.open[index].1 += 1;
        self.descriptors[descriptor] = index as u8 + 1;
    }

    /// Closes a descriptor.
    pub fn close(&mut self, descriptor: u64) -> Result<(), Errno> {
        let index = self.index(descriptor)?;
        self.descriptors[descriptor as usize] = 0;
        let (open, sharers) = &mut self.open[index];
        *sharers -= 1;
        if *sharers == 0 {
            *open = Open::Closed;
        }
        Ok(())
    }
}

/// Whether a path may go on behind this.
pub fn is_directory(node: &Node) -> bool {
    match node {
        Node::Entry(entry) => entry.mode() & mode::KIND == mode::DIRECTORY,
        Node::Implied => true,
        Node::Device(_) => false,
    }
}

/// The device a device node of the initrd names (Documentation/admin-guide/devices.txt).
pub fn device_of(entry: &Entry<'_>) -> Result<Device, Errno> {
    match entry.device() {
        (1, 3) => Ok(Device::Null),
        (1, 5) => Ok(Device::Zero),
        (1, 7) => Ok(Device::Full),
        (1, 8 | 9) => Ok(Device::Random),
        (5, 0 | 1) => Ok(Device::Output),
        _ => Err(ENXIO),
    }
}

/// Devices that are there although nobody put nodes for them into the initrd.
fn device_at(path: &[u8]) -> Option<Device> {
    Some(match path {
        b"dev/null" => Device::Null,
        b"dev/zero" => Device::Zero,
        b"dev/full" => Device::Full,
        b"dev/random" | b"dev/urandom" => Device::Random,
        b"dev/stdin" => Device::Input,
        b"dev/stdout" | b"dev/console" => Device::Output,
        b"dev/stderr" => Device::Error,
        b"proc/sysrq-trigger" => Device::Trigger,
        _ => return None,
    })
}

fn copy(to: &mut [u8; PATH_MAX], at: usize, from: &[u8]) -> Result<usize, Errno> {
    to.get_mut(at..at + from.len())
        .ok_or(ENAMETOOLONG)?
        .copy_from_slice(from);
    Ok(at + from.len())
}
