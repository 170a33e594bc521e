//! A kernel's file as the loader reads it: most of it is not read but mapped.
//!
//! Most of a kernel is code, and the guest writes to little of that. So where a whole huge page of the file belongs to a whole
//! huge page of guest memory, the file is mapped there ([`memory::map_file`]): nothing is copied, and every VM with this kernel
//! reads the same pages of the host's page cache. The loader asks for bytes and finds them in place.
//!
//! Only whole huge pages: each page of a file is mapped for the guest when it is first touched, at the price of an exit, and copied
//! when it is first written to, at the price of more. A kernel's variables, which it all writes to, are cheaper as one huge page of
//! the guest's own; they and all other ends of segments are read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{
    GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, ReadVolatile, VolatileMemoryError, VolatileSlice,
};

use crate::{layout, mapped, memory};

/// A kernel's file on its way into guest memory.
pub struct KernelFile<'a> {
    file: File,
    length: u64,
    memory: &'a GuestMemoryMmap,
}

impl<'a> KernelFile<'a> {
    /// This file, on its way into this memory.
    ///
    /// # Errors
    /// fstat(2)'s and sigaction(2)'s.
    pub fn new(file: File, memory: &'a GuestMemoryMmap) -> io::Result<KernelFile<'a>> {
        mapped::KERNEL.expect()?;
        let length = file.metadata()?.len();
        Ok(KernelFile { file, length, memory })
    }

    /// Guest-physical address of `bytes`, if it is guest memory they are in.
    fn address<B: BitmapSlice>(&self, bytes: &VolatileSlice<B>) -> Option<u64> {
        let place = bytes.ptr_guard().as_ptr().addr();
        self.memory.iter().find_map(|region| {
            let offset = place.checked_sub(region.get_mmap().as_ptr().addr())? as u64;
            (offset < region.len()).then(|| region.start_addr().0 + offset)
        })
    }

    /// Maps the file's bytes from `offset` on to the huge page at `address`, if both begin at a page and so many are there and wanted.
    fn map(&self, address: u64, offset: u64, wanted: u64) -> io::Result<bool> {
        let there = self.length.saturating_sub(offset).min(wanted) >= layout::HUGE_PAGE;
        let aligned = address.is_multiple_of(layout::HUGE_PAGE) && offset.is_multiple_of(layout::PAGE);
        if !(there && aligned) {
            return Ok(false);
        }
        memory::map_file(
            self.memory,
            address,
            &self.file,
            offset,
            layout::HUGE_PAGE,
            &mapped::KERNEL,
        )
        .map_err(io::Error::other)?;
        Ok(true)
    }
}

impl ReadVolatile for KernelFile<'_> {
    fn read_volatile<B: BitmapSlice>(&mut self, bytes: &mut VolatileSlice<B>) -> Result<usize, VolatileMemoryError> {
        let Some(address) = self.address(bytes) else {
            return self.file.read_volatile(bytes);
        };
        let mut offset = self.file.stream_position().map_err(VolatileMemoryError::IOError)?;
        let mut done = 0;
        while done < bytes.len() {
            let here = address + done as u64;
            let rest = bytes.len() - done;
            let mapped = self
                .map(here, offset, rest as u64)
                .map_err(VolatileMemoryError::IOError)?;
            let length = if mapped {
                layout::HUGE_PAGE as usize
            } else {
                let to_next = (here + 1).next_multiple_of(layout::HUGE_PAGE) - here;
                let mut piece = bytes.subslice(done, rest.min(to_next as usize))?;
                self.file
                    .seek(SeekFrom::Start(offset))
                    .map_err(VolatileMemoryError::IOError)?;
                self.file.read_volatile(&mut piece)?
            };
            if length == 0 {
                break;
            }
            done += length;
            offset += length as u64;
        }
        Ok(done)
    }
}

impl Read for KernelFile<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for KernelFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const BLOCK: usize = layout::HUGE_PAGE as usize;
    const AT: GuestAddress = GuestAddress(layout::HUGE_PAGE);

    /// A file of two huge pages and a bit.
    fn file() -> (File, Vec<u8>) {
        let content = vec![1; 2 * BLOCK + 10];
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        file.rewind().unwrap();
        (file, content)
    }

    #[test]
    fn whole_huge_pages_are_the_files_own_and_the_rest_is_a_copy() {
        let memory = memory::reserve(16 << 20).unwrap();
        let (file, mut content) = file();
        let mut kernel = KernelFile::new(file.try_clone().unwrap(), &memory).unwrap();
        memory.read_exact_volatile_from(AT, &mut kernel, content.len()).unwrap();
        let mut read = vec![0; content.len()];
        memory.read_slice(&mut read, AT).unwrap();
        assert!(read == content);
        // What is mapped follows the file.
        for place in [0, BLOCK, 2 * BLOCK] {
            file.write_all_at(&[2], place as u64).unwrap();
        }
        (content[0], content[BLOCK]) = (2, 2);
        memory.read_slice(&mut read, AT).unwrap();
        assert!(read == content);
    }

    #[test]
    fn what_is_not_aligned_alike_is_copied_and_what_is_not_there_is_missed() {
        let memory = memory::reserve(16 << 20).unwrap();
        let (file, content) = file();
        let mut kernel = KernelFile::new(file, &memory).unwrap();
        kernel.seek(SeekFrom::Start(1)).unwrap();
        memory.read_exact_volatile_from(AT, &mut kernel, BLOCK).unwrap();
        let mut read = vec![0; BLOCK];
        memory.read_slice(&mut read, AT).unwrap();
        assert!(read == content[1..][..BLOCK]);
        kernel.rewind().unwrap();
        assert!(
            memory
                .read_exact_volatile_from(AT, &mut kernel, content.len() + 1)
                .is_err()
        );
    }
}
