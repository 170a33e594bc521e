//! Guest memory: a stretch of our own address space that the guest takes for its RAM.
//!
//! The memory is reserved, not touched: the host gives a page only when somebody, guest or VMM, first uses it.
//! "A VM with 64 MiB" is a promise, not a cost.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

use crate::{layout, mapped};

/// What a process listing calls guest memory (`/proc/PID/smaps`: `[anon:guest-memory]`), where the host's kernel
/// keeps names of anonymous memory.
const NAME: &CStr = c"guest-memory";

/// Guest memory could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A size outside what the machine can have.
    #[error(
        "a guest cannot have {0} bytes of memory: the least is {least} MiB, the most {most} GiB. Give --memory a size between them, such as 64M",
        least = layout::MEMORY_MIN >> 20,
        most = layout::MEMORY_MAX >> 30
    )]
    Size(u64),
    /// The host refused the address space.
    #[error(
        "cannot reserve {bytes} bytes of address space for the guest: {source}. A limit on address space (ulimit -v) or strict overcommit (vm.overcommit_memory=2) refuses it; raise the limit or lower --memory"
    )]
    Reserve {
        /// How much was asked for.
        bytes: u64,
        /// Why not.
        source: FromRangesError,
    },
    /// KVM refused the memory.
    #[error("KVM refused guest memory at {address:#x} ({bytes} bytes): {source}")]
    Slot {
        /// Guest-physical address.
        address: u64,
        /// Length.
        bytes: u64,
        /// KVM's errno.
        source: kvm_ioctls::Error,
    },
    /// A file could not be mapped over guest memory.
    #[error("cannot map a file into guest memory: {0}")]
    Map(io::Error),
    /// Pages could not be made.
    #[error(
        "cannot prefault guest memory: {0}. It needs Linux 5.14 (MADV_POPULATE_WRITE), and memory for every page of the snapshot"
    )]
    Populate(io::Error),
    /// An address that is not guest memory.
    #[error("guest address {0:#x} is not memory")]
    Address(u64),
}

/// Reserves `size` bytes of guest memory, rounded up to whole pages.
pub fn reserve(size: u64) -> Result<GuestMemoryMmap, Error> {
    let (_, ranges) = ranges(size)?;
    let memory = GuestMemoryMmap::from_ranges(&ranges).map_err(|source| Error::Reserve { bytes: size, source })?;
    for region in memory.iter() {
        name(&region.get_mmap());
    }
    Ok(memory)
}

/// Reserves guest memory that the host may back with huge pages, for a kernel that will touch much of it.
///
/// Whoever first touches a page leaves the guest, for the second level of page tables has no entry there yet: a Linux that
/// starts does so some four thousand times. A huge page is 512 of these exits in one. KVM can use it only where guest-physical
/// and host-virtual address agree in their lowest 21 bits, which mmap(2) does not see to by itself; and many a host gives
/// huge pages only to those who ask (MADV_HUGEPAGE). What it costs: memory is touched in steps of 2 MiB.
///
/// The mapping stays until the process ends.
pub fn reserve_huge(size: u64) -> Result<GuestMemoryMmap, Error> {
    let (size, ranges) = ranges(size)?;
    let mut regions = Vec::with_capacity(ranges.len());
    for (address, length) in ranges {
        let failed = |source| Error::Reserve { bytes: size, source };
        let mapping = map_aligned(length).map_err(|source| failed(FromRangesError::MmapRegion(source)))?;
        name(&mapping);
        let region = GuestRegionMmap::new(mapping, address);
        regions.push(region.ok_or(failed(FromRangesError::InvalidGuestRegion))?);
    }
    GuestMemoryMmap::from_regions(regions).map_err(|_| Error::Size(size))
}

/// A private mapping of `length` bytes that starts where a huge page may, and asks for such pages.
fn map_aligned(length: usize) -> Result<MmapRegion, MmapRegionError> {
    const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    const ACCESS: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
    let whole = length + layout::HUGE_PAGE as usize;
    // SAFETY: a mapping at an address of the kernel's choice touches nothing that is there.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), whole, ACCESS, FLAGS, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(MmapRegionError::Mmap(io::Error::last_os_error()));
    }
    let skip = start.addr().next_multiple_of(layout::HUGE_PAGE as usize) - start.addr();
    // SAFETY: `skip` is less than a huge page, so `length` bytes from there on are inside the mapping made above, which nobody
    // else knows of; what is unmapped lies before and behind them, and the rest nobody unmaps. The advice changes no content; a
    // kernel without huge pages refuses it, and nothing is lost.
    unsafe {
        let aligned = start.byte_add(skip);
        // Most often there is nothing before them, and munmap(2) refuses a length of 0 (EINVAL).
        if skip > 0 {
            libc::munmap(start, skip);
        }
        libc::munmap(aligned.byte_add(length), layout::HUGE_PAGE as usize - skip);
        libc::madvise(aligned, length, libc::MADV_HUGEPAGE);
        MmapRegion::build_raw(aligned.cast(), length, ACCESS, FLAGS)
    }
}

/// The size in whole pages, and where in guest-physical memory they lie.
#[allow(clippy::type_complexity, reason = "what from_ranges takes")]
fn ranges(size: u64) -> Result<(u64, Vec<(GuestAddress, usize)>), Error> {
    if !(layout::MEMORY_MIN..=layout::MEMORY_MAX).contains(&size) {
        return Err(Error::Size(size));
    }
    let size = size.next_multiple_of(layout::PAGE);
    let below = size.min(layout::DEVICE_HOLE);
    let mut ranges = vec![(GuestAddress(0), below as usize)];
    if size > below {
        ranges.push((GuestAddress(layout::ABOVE_4G), (size - below) as usize));
    }
    Ok((size, ranges))
}

/// Reserves a single page at address 0, for a machine with nothing in it.
pub fn reserve_page() -> Result<GuestMemoryMmap, Error> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), layout::PAGE as usize)]).map_err(|source| Error::Reserve {
        bytes: layout::PAGE,
        source,
    })
}

/// All of the guest's memory, in bytes.
pub fn size(memory: &GuestMemoryMmap) -> u64 {
    memory.iter().map(|region| region.len()).sum()
}

/// Where guest memory lies, region by region: below the device hole, and above 4 GiB.
pub fn regions(memory: &GuestMemoryMmap) -> impl Iterator<Item = Range<u64>> + '_ {
    memory.iter().map(|region| {
        let start = region.start_addr().0;
        start..start + region.len()
    })
}

/// Tells KVM where guest memory lies in our address space, one slot per region.
// ANCHOR: give_to
pub fn give_to(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Error> {
    for (slot, region) in memory.iter().enumerate() {
        let mapping = region.get_mmap();
        let slot_description = kvm_userspace_memory_region {
            slot: slot as u32,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: mapping.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the mapping is `memory`'s, and whoever runs a vCPU of this VM keeps `memory` until it has stopped.
        unsafe { vm.set_user_memory_region(slot_description) }.map_err(|source| Error::Slot {
            address: region.start_addr().0,
            bytes: region.len(),
            source,
        })?;
    }
    Ok(())
}
// ANCHOR_END: give_to

/// Names a mapping for whoever reads our smaps. A kernel without CONFIG_ANON_VMA_NAME says no, and nothing is lost.
fn name(mapping: &MmapRegion) {
    // SAFETY: prctl only attaches a name to a mapping that is ours; the name is NUL-terminated and static.
    unsafe {
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            mapping.as_ptr(),
            mapping.size(),
            NAME.as_ptr(),
        );
    }
}

/// Puts `length` bytes of `file` from `offset` on into guest memory at `address` without copying them. Both are
/// page-aligned. `role` is what the file is to the guest, and expected already ([`mapped::File::expect`]).
///
/// A private mapping: the guest reads the host's page cache, shared with every other VM that maps the file, until it
/// writes, which gets it a copy of that page. The file never changes.
pub fn map_file(
    memory: &GuestMemoryMmap,
    address: u64,
    file: &File,
    offset: u64,
    length: u64,
    role: &mapped::File,
) -> Result<(), Error> {
    let whole = length.next_multiple_of(layout::PAGE);
    let slice = memory
        .get_slice(GuestAddress(address), whole as usize)
        .map_err(|_| Error::Address(address))?;
    // ANCHOR: map_file
    // SAFETY: the range is inside one region of guest memory, as get_slice checked, so that MAP_FIXED replaces nothing
    // but guest memory nobody uses yet.
    let start = unsafe {
        libc::mmap(
            slice.ptr_guard_mut().as_ptr().cast(),
            whole as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            // Below any file's size.
            offset as libc::off_t,
        )
    };
    // ANCHOR_END: map_file
    if start == libc::MAP_FAILED {
        return Err(Error::Map(io::Error::last_os_error()));
    }
    if whole > 0 {
        // SAFETY: inside the mapping that was just made.
        let last = unsafe { start.cast::<u8>().add((whole - layout::PAGE) as usize) };
        role.lies(start.cast(), last);
    }
    Ok(())
}

/// Gives guest memory from `address` on pages of its own now, as if each had been written to.
pub fn populate(memory: &GuestMemoryMmap, address: u64, length: u64) -> Result<(), Error> {
    let slice = memory
        .get_slice(GuestAddress(address), length as usize)
        .map_err(|_| Error::Address(address))?;
    // SAFETY: the range is guest memory, as get_slice checked; its content stays as it is.
    let done = unsafe {
        libc::madvise(
            slice.ptr_guard_mut().as_ptr().cast(),
            length as usize,
            libc::MADV_POPULATE_WRITE,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Error::Populate(io::Error::last_os_error())),
    }
}

/// Page faults of this process until now that needed no reading from a disk (getrusage(2)). KVM's on behalf of a guest are
/// among them.
pub fn faults_so_far() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the structure; all zeros is a valid one if it does not.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_minflt as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::Bytes;

    #[test]
    fn a_mapped_file_reads_as_memory_and_never_changes() {
        let memory = reserve(4 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"from the file").unwrap();
        map_file(&memory, 0x20_0000, &file, 0, 13, &mapped::INITRD).unwrap();
        let mut read = [0u8; 14];
        memory.read_slice(&mut read, GuestAddress(0x20_0000)).unwrap();
        assert_eq!(&read, b"from the file\0");
        memory.write_slice(b"FROM", GuestAddress(0x20_0000)).unwrap();
        let mut again = [0u8; 4];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut again, 0).unwrap();
        assert_eq!(&again, b"from");
    }

    #[test]
    fn memory_above_three_gib_goes_around_the_devices() {
        let memory = reserve(4 << 30).unwrap();
        let regions: Vec<_> = memory.iter().map(|r| (r.start_addr().0, r.len())).collect();
        assert_eq!(regions, [(0, 3 << 30), (4 << 30, 1 << 30)]);
        assert!(matches!(reserve(4096), Err(Error::Size(4096))));
    }
}
