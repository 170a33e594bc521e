//! The initrd: the file system the guest starts with, an archive at the top of its memory.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::machine::Kind;
use crate::vm::Start;
use crate::{cpio, layout, mapped, memory};

/// Where the guest's file system comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The workload inside this binary, as `/bin/workload`.
    Workload,
    /// A newc cpio archive.
    Archive(PathBuf),
    /// A directory, packed on the way.
    Directory(PathBuf),
}

/// Where the initrd lies in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Guest-physical address, page-aligned.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

/// The initrd could not be made or placed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive could not be read.
    #[error("cannot read the initrd {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error(
        "{0} is not a newc cpio archive. Make one with `find . | cpio -o -H newc > FILE`, or give the directory itself with --rootfs"
    )]
    NotAnArchive(PathBuf),
    /// The directory could not be packed.
    #[error(transparent)]
    Pack(#[from] cpio::Error),
    /// Not enough memory.
    #[error(
        "the initrd of {initrd} KiB does not fit between the kernel's end at {kernel_end:#x} and the end of {memory} MiB of guest memory. Give the guest more with --memory"
    )]
    TooBig {
        /// Size of the initrd in KiB.
        initrd: u64,
        /// First address behind the kernel.
        kernel_end: u64,
        /// The guest's memory in MiB.
        memory: u64,
    },
    /// Mapping failed.
    #[error(transparent)]
    Map(#[from] memory::Error),
    /// Copying failed.
    #[error("cannot copy the initrd into guest memory: {0}")]
    Copy(#[from] GuestMemoryError),
}

/// Where the lab's init lies in a guest's file system.
pub const INIT_PATH: &[u8] = b"/.lab/init";

/// Puts the initrd at the top of guest memory, above the kernel that ends at `kernel_end`; behind it, where `start` asks
/// for one, an archive with the lab's init. A kernel unpacks archives one after the other, as if they were one.
///
/// The lab kernel reads an archive where it lies, so its pages are mapped from the file. Linux unpacks it once and then has its pages
/// for free memory, after it has overwritten each: pages of the file would be copied then, one by one, at the price of some exits
/// each. So on a PC it is read.
pub fn place(
    memory: &GuestMemoryMmap,
    source: &Source,
    start: &Start,
    machine: Kind,
    kernel_end: u64,
) -> Result<Placed, Error> {
    let init = if start.init { init_archive(start)? } else { Vec::new() };
    match source {
        Source::Archive(path) => {
            let failed = |source| Error::Read {
                path: path.clone(),
                source,
            };
            let (mut file, size) = open_archive(path)?;
            // NULs between archives are passed over, so a second may start at the next page.
            let whole = if start.init {
                size.next_multiple_of(layout::PAGE)
            } else {
                size
            };
            let placed = find_room(memory, whole + init.len() as u64, kernel_end)?;
            match machine {
                Kind::Bare => {
                    mapped::INITRD.expect().map_err(failed)?;
                    memory::map_file(memory, placed.address, &file, 0, size, &mapped::INITRD)?;
                }
                Kind::Pc => memory.read_exact_volatile_from(GuestAddress(placed.address), &mut file, size as usize)?,
            }
            memory.write_slice(&init, GuestAddress(placed.address + whole))?;
            Ok(placed)
        }
        Source::Directory(path) => copy(memory, &[cpio::pack_directory(path)?, init].concat(), kernel_end),
        Source::Workload => copy(memory, &[workload_archive()?, init].concat(), kernel_end),
    }
}

/// An archive that holds the lab's init, what it is to run, and what it needs to begin: places to mount on, and a console.
pub fn init_archive(start: &Start) -> Result<Vec<u8>, cpio::Error> {
    const CONSOLE: u64 = libc::makedev(5, 1);
    let words = std::iter::once(&start.program).chain(&start.arguments);
    let words: Vec<_> = words.map(|word| word.as_bytes()).collect();
    let mut archive = cpio::Archive::default();
    for directory in [&b".lab"[..], b"dev", b"proc", b"sys", b"tmp"] {
        archive.add(directory, cpio::DIRECTORY, 0, &[])?;
    }
    archive.add(b"dev/console", libc::S_IFCHR | 0o600, CONSOLE, &[])?;
    archive.add(&INIT_PATH[1..], cpio::PROGRAM, 0, guest_images::INIT)?;
    archive.add(b".lab/command", libc::S_IFREG | 0o644, 0, &words.join(&0))?;
    Ok(archive.finish())
}

/// An archive that holds the embedded workload and nothing else.
pub fn workload_archive() -> Result<Vec<u8>, cpio::Error> {
    let mut archive = cpio::Archive::default();
    archive.add(b"bin", cpio::DIRECTORY, 0, &[])?;
    archive.add(b"bin/workload", cpio::PROGRAM, 0, guest_images::WORKLOAD)?;
    Ok(archive.finish())
}

fn open_archive(path: &Path) -> Result<(File, u64), Error> {
    let failed = |source| Error::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::NotAnArchive(path.into()));
    }
    let mut magic = [0u8; 5];
    match std::os::unix::fs::FileExt::read_exact_at(&file, &mut magic, 0) {
        Ok(()) if &magic == b"07070" => Ok((file, metadata.len())),
        Ok(()) => Err(Error::NotAnArchive(path.into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::NotAnArchive(path.into())),
        Err(error) => Err(failed(error)),
    }
}

fn copy(memory: &GuestMemoryMmap, archive: &[u8], kernel_end: u64) -> Result<Placed, Error> {
    let placed = find_room(memory, archive.len() as u64, kernel_end)?;
    memory.write_slice(archive, GuestAddress(placed.address))?;
    Ok(placed)
}

/// The highest page-aligned place that holds `size` bytes, below the device hole and above the kernel.
fn find_room(memory: &GuestMemoryMmap, size: u64, kernel_end: u64) -> Result<Placed, Error> {
    let top = memory::size(memory).min(layout::DEVICE_HOLE);
    let whole = size.next_multiple_of(layout::PAGE);
    match top.checked_sub(whole) {
        Some(address) if address >= kernel_end => Ok(Placed { address, size }),
        _ => Err(Error::TooBig {
            initrd: size.div_ceil(1024),
            kernel_end,
            memory: memory::size(memory) >> 20,
        }),
    }
}
