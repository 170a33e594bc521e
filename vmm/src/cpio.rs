//! Writing a newc cpio archive, the format of an initrd (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! One addition that stays within the format: the data of every file of a page or more starts on a page boundary, by
//! NULs behind the name. A kernel can then map the file where it lies instead of copying it. The Linux kernel's own
//! usr/gen_init_cpio.c learned the same trick (its option `-a`).

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const HEADER: usize = 110;
const PAGE: usize = 4096;
/// Linux skips an entry whose name, with its NULs, is longer than this.
const NAME_MAX: usize = 4096;
const TRAILER: &[u8] = b"TRAILER!!!";

/// Mode bits of a directory anyone may read.
pub const DIRECTORY: u32 = libc::S_IFDIR | 0o755;
/// Mode bits of a program anyone may run.
pub const PROGRAM: u32 = libc::S_IFREG | 0o755;

/// A directory could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in it could not be read.
    #[error("cannot pack {path} into an initrd: {source}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A size or name the format cannot hold.
    #[error("cannot pack {path} into an initrd: {what} is more than the newc format holds")]
    TooLarge {
        /// What.
        path: PathBuf,
        /// Its size, or its name.
        what: &'static str,
    },
}

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds an entry: a path without a leading slash, its mode (type and permissions), the device it names if it is a
    /// device node, and its content (a symbolic link's is its target).
    pub fn add(&mut self, name: &[u8], mode: u32, device: u64, data: &[u8]) -> Result<(), Error> {
        let too_large = |what| Error::TooLarge {
            path: Path::new(std::ffi::OsStr::from_bytes(name)).into(),
            what,
        };
        let size = u32::try_from(data.len()).map_err(|_| too_large("its size"))?;
        if name.len() >= NAME_MAX {
            return Err(too_large("its name"));
        }
        let mut padding = if data.len() >= PAGE { self.padding_for(name) } else { 0 };
        if name.len() + 1 + padding > NAME_MAX {
            // Too long for one name. A second mention of the root directory takes up some of the distance.
            let part = PAGE / 2;
            self.entry(b".", DIRECTORY, 0, 0, part);
            padding = self.padding_for(name);
        }
        self.entry(name, mode, device, size, padding);
        self.bytes.extend_from_slice(data);
        self.align(4);
        Ok(())
    }

    /// NULs behind `name` that put the data of an entry written here on a page boundary.
    fn padding_for(&self, name: &[u8]) -> usize {
        let unpadded = (self.bytes.len() + HEADER + name.len() + 1).next_multiple_of(4);
        let slack = unpadded - (self.bytes.len() + HEADER + name.len() + 1);
        slack + unpadded.next_multiple_of(PAGE) - unpadded
    }

    fn entry(&mut self, name: &[u8], mode: u32, device: u64, size: u32, padding: usize) {
        self.inode += 1;
        let links = if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 1 };
        let name_size = (name.len() + 1 + padding) as u32;
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device of the file system (2), device named (2), name size, check
        let fields = [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            libc::major(device),
            libc::minor(device),
            name_size,
            0,
        ];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len() + 1 + padding, 0);
        self.align(4);
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, 0, 0, 0);
        self.bytes
    }
}

/// Why an archive does not give a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lookup {
    /// It is cut off.
    #[error("ends in the middle of the entry at byte {0}")]
    Truncated(usize),
    /// Something else stands where an entry should begin.
    #[error("has no newc header at byte {0}")]
    NoHeader(usize),
    /// It is whole, up to its trailer.
    #[error("holds no {0}")]
    Missing(String),
}

/// The content of the file `name` (without a leading slash) in an archive: for each file a header of 13 numbers of 8
/// hexadecimal digits after the magic, the name, the data, name and data each padded to 4 bytes (Linux:
/// Documentation/driver-api/early-userspace/buffer-format.rst).
///
/// # Errors
/// See [`Lookup`].
pub fn find<'a>(archive: &'a [u8], name: &[u8]) -> Result<&'a [u8], Lookup> {
    const FILE_SIZE: usize = 6;
    const NAME_SIZE: usize = 11;
    let mut at = 0usize;
    loop {
        let truncated = || Lookup::Truncated(at);
        let header = archive
            .get(at..)
            .and_then(|rest| rest.get(..HEADER))
            .ok_or_else(truncated)?;
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + 8 * index..][..8]).ok();
            digits.and_then(|digits| usize::from_str_radix(digits, 16).ok())
        };
        // 070702 is the same with checksums.
        let (Some(size), Some(name_size), true) = (field(FILE_SIZE), field(NAME_SIZE), header.starts_with(b"07070"))
        else {
            return Err(Lookup::NoHeader(at));
        };
        // Sums of an offset in memory and two numbers of 32 bits.
        let name_end = at + HEADER + name_size;
        let data_at = name_end.next_multiple_of(4);
        let found = archive.get(at + HEADER..name_end).ok_or_else(truncated)?;
        // The name's length counts its terminating zero, and any more a packer put there to align the data.
        let found = found.split(|&byte| byte == 0).next().unwrap_or_default();
        let data = archive.get(data_at..data_at + size).ok_or_else(truncated)?;
        if found == TRAILER {
            return Err(Lookup::Missing(String::from_utf8_lossy(name).into_owned()));
        }
        // Packers write "bin/x", "./bin/x" or "/bin/x".
        let plain = found.strip_prefix(b".").unwrap_or(found);
        if found == name || plain.strip_prefix(b"/") == Some(name) {
            return Ok(data);
        }
        at = (data_at + size).next_multiple_of(4);
    }
}

/// Packs a directory tree, in sorted order, so that equal trees make equal archives. What is mounted in it stays out:
/// /proc and the like are views of this kernel, not files.
pub fn pack_directory(root: &Path) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::default();
    let metadata = fs::metadata(root).map_err(|source| Error::Read {
        path: root.into(),
        source,
    })?;
    pack_into(&mut archive, root, Path::new(""), metadata.dev())?;
    Ok(archive.finish())
}

fn pack_into(archive: &mut Archive, root: &Path, below: &Path, file_system: u64) -> Result<(), Error> {
    let directory = root.join(below);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let mut names = fs::read_dir(&directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|e| e.file_name()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(failed(&directory))?;
    names.sort();
    for name in names {
        let (inside, path) = (below.join(&name), directory.join(&name));
        let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
        let kind = metadata.file_type();
        let data = if kind.is_symlink() {
            fs::read_link(&path)
                .map_err(failed(&path))?
                .into_os_string()
                .as_bytes()
                .to_vec()
        } else if kind.is_file() {
            fs::read(&path).map_err(failed(&path))?
        } else if kind.is_socket() {
            // A socket without its server is nothing an archive can hold.
            continue;
        } else {
            Vec::new()
        };
        archive.add(inside.as_os_str().as_bytes(), metadata.mode(), metadata.rdev(), &data)?;
        if kind.is_dir() && metadata.dev() == file_system {
            pack_into(archive, root, &inside, file_system)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_start_on_a_page_whatever_comes_before() {
        for before in 0..70 {
            let mut archive = Archive::default();
            archive
                .add(b"small", libc::S_IFREG | 0o644, 0, &vec![b'x'; before * 61])
                .unwrap();
            let data = vec![b'\x07'; PAGE + 1];
            archive.add(b"bin/large", PROGRAM, 0, &data).unwrap();
            let bytes = archive.finish();
            let at = bytes.windows(PAGE).position(|window| window == &data[..PAGE]).unwrap();
            assert_eq!(at % PAGE, 0, "after {before}");
        }
    }

    #[test]
    fn a_file_is_found_however_it_was_written_and_a_broken_archive_says_where() {
        let archive = |names: &[&str]| {
            let mut archive = Archive::default();
            for name in names {
                archive.add(name.as_bytes(), PROGRAM, 0, name.as_bytes()).unwrap();
            }
            archive.finish()
        };
        for spelling in ["bin/x", "./bin/x", "/bin/x"] {
            assert_eq!(find(&archive(&["bin", spelling]), b"bin/x"), Ok(spelling.as_bytes()));
        }
        assert_eq!(
            find(&archive(&[".x", "x"]), b"x"),
            Ok(&b"x"[..]),
            "a dot is part of a name"
        );
        let whole = archive(&["one", "two"]);
        assert_eq!(find(&whole, b"three"), Err(Lookup::Missing("three".into())));
        assert_eq!(find(b"070701 and no number", b"one"), Err(Lookup::Truncated(0)));
        assert_eq!(find(&[b'x'; 200], b"one"), Err(Lookup::NoHeader(0)));
        for length in 0..whole.len() {
            // The second file is the last before the trailer.
            let cut = find(&whole[..length], b"three");
            assert!(matches!(cut, Err(Lookup::Truncated(_))), "{length} bytes: {cut:?}");
        }
        let mut sizes = whole;
        sizes[6 + 8 * 6..][..8].copy_from_slice(b"ffffffff");
        sizes[6 + 8 * 11..][..8].copy_from_slice(b"ffffffff");
        assert_eq!(find(&sizes, b"one"), Err(Lookup::Truncated(0)));
    }

    #[test]
    fn cpio_itself_reads_what_we_write() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        fs::write(root.path().join("bin/large"), vec![b'y'; 3 * PAGE]).unwrap();
        std::os::unix::fs::symlink("large", root.path().join("bin/link")).unwrap();
        let archive = pack_directory(root.path()).unwrap();
        let Ok(mut child) = std::process::Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: cpio is not installed");
            return;
        };
        io::Write::write_all(&mut child.stdin.take().unwrap(), &archive).unwrap();
        let listed = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "bin\nbin/large\nbin/link\n");
    }
}
