//! Loading a kernel: an ELF file (the lab kernel, a Linux `vmlinux`) or a Linux `bzImage`.
//!
//! Both say in their own headers where in guest-physical memory they want to lie and where execution starts.
//! linux-loader reads the headers and then the bytes, most of which [`kernel_file`](crate::kernel_file) maps instead.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{self, BzImage, Elf, KernelLoader, KernelLoaderResult};
use vm_memory::{GuestAddress, GuestMemoryMmap, ReadVolatile};

use crate::kernel_file::KernelFile;
use crate::layout;

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// Distance from a bzImage's load address to its 64-bit entry point (boot.rst, "64-bit Boot Protocol").
const BZIMAGE_ENTRY_64: u64 = 0x200;

/// Which kernel to boot.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// The lab kernel inside this binary.
    Lab,
    /// A file.
    File(PathBuf),
}

/// The state in which a kernel wants the processor at its first instruction, and where that is (guest-physical).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit mode with paging on, RSI at the zero page: the Linux 64-bit boot protocol.
    Linux64(u64),
    /// 32-bit protected mode, RBX at the start info: PVH.
    Pvh(u64),
}

/// A kernel in guest memory.
pub struct Loaded {
    /// Its first instruction.
    pub entry: Entry,
    /// First address behind it.
    pub end: u64,
    /// What a bzImage says of itself; its boot parameters start from this.
    pub setup_header: Option<setup_header>,
}

/// A kernel could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the kernel {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no kernel.
    #[error(
        "{path} is not a kernel this machine can boot: {source}. It takes a 64-bit ELF file (a Linux vmlinux, the lab kernel) or a Linux bzImage; leave out --kernel for the lab kernel"
    )]
    NotAKernel {
        /// Which file.
        path: PathBuf,
        /// What the loader says.
        source: loader::Error,
    },
    /// Nothing of the file belongs into memory.
    #[error(
        "{0} is an ELF file of which nothing belongs into memory (it has no loadable segment), so there is no kernel in it to boot"
    )]
    Empty(PathBuf),
    /// No PVH entry.
    #[error(
        "{0} has no PVH entry point: a kernel says it in an ELF note (Linux: CONFIG_PVH=y, and a vmlinux, not a bzImage). Leave out --pvh to enter it by the Linux boot protocol"
    )]
    NoPvh(PathBuf),
    /// The kernel does not fit.
    #[error(
        "{path} does not fit into {memory} MiB of guest memory, or is cut short. Give the guest more with --memory"
    )]
    TooBig {
        /// Which file.
        path: PathBuf,
        /// The guest's memory in MiB.
        memory: u64,
    },
}

/// Puts `kernel` where it wants to lie in guest memory; `pvh` asks for its PVH entry.
pub fn load(memory: &GuestMemoryMmap, kernel: &Kernel, pvh: bool) -> Result<Loaded, Error> {
    match kernel {
        Kernel::Lab => load_image(
            memory,
            &mut Cursor::new(guest_images::KERNEL),
            Path::new("the lab kernel"),
            pvh,
        ),
        Kernel::File(path) => {
            let file = File::open(path).and_then(|file| KernelFile::new(file, memory));
            let mut file = file.map_err(|source| Error::Read {
                path: path.clone(),
                source,
            })?;
            load_image(memory, &mut file, path, pvh)
        }
    }
}

/// Puts the kernel in `image` where it wants to lie; `path` is what messages call it.
pub fn load_image<F: Read + ReadVolatile + Seek>(
    memory: &GuestMemoryMmap,
    image: &mut F,
    path: &Path,
    pvh: bool,
) -> Result<Loaded, Error> {
    let mut magic = [0u8; 4];
    // A file shorter than a magic number is no kernel either, and the loader below will say so.
    match image.read(&mut magic) {
        Ok(_) => {}
        Err(source) => {
            return Err(Error::Read {
                path: path.into(),
                source,
            });
        }
    }
    let highest = Some(GuestAddress(layout::HIGH_RAM));
    let result = if magic == ELF_MAGIC {
        Elf::load(memory, None, image, highest)
    } else {
        BzImage::load(memory, None, image, highest)
    };
    match result {
        Ok(KernelLoaderResult {
            kernel_load,
            kernel_end,
            setup_header,
            pvh_boot_cap,
        }) => {
            if kernel_end == 0 {
                return Err(Error::Empty(path.into()));
            }
            let entry = match (pvh, pvh_boot_cap, setup_header) {
                (true, PvhBootCapability::PvhEntryPresent(address), _) => Entry::Pvh(address.0),
                (true, _, _) => return Err(Error::NoPvh(path.into())),
                (false, _, Some(_)) => Entry::Linux64(kernel_load.0 + BZIMAGE_ENTRY_64),
                (false, _, None) => Entry::Linux64(kernel_load.0),
            };
            // A bzImage unpacks itself to where it likes best, and says how much room that takes.
            let unpacked = setup_header.map_or(0, |header| header.pref_address.saturating_add(header.init_size.into()));
            Ok(Loaded {
                entry,
                end: kernel_end.max(unpacked),
                setup_header,
            })
        }
        Err(
            loader::Error::Elf(loader::elf::Error::ReadKernelImage)
            | loader::Error::Bzimage(loader::bzimage::Error::ReadBzImageCompressedKernel),
        ) => Err(Error::TooBig {
            path: path.into(),
            memory: crate::memory::size(memory) >> 20,
        }),
        Err(source) => Err(Error::NotAKernel {
            path: path.into(),
            source,
        }),
    }
}
