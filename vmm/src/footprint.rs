//! The VMM's own pages: most of its program builds a machine, and serves no purpose once the guest runs in it.
//!
//! The kernel maps a program's pages as they are touched, and sixteen at a time, since its neighbours are often wanted next
//! (`fault_around_bytes`). So behind a machine that is built lie nearly two MiB of code and tables, the kernel's and the
//! workload's image among them, that nothing will touch again. They are clean pages of a file: taken out of our address space they
//! are the page cache's alone, and one that is wanted after all is mapped again, without reading anything.
//!
//! Done for a PC, whose guest takes a second to start. The lab kernel on a bare machine is at its program within a millisecond or
//! two, and would pay more in page faults than it gains.

use libc::{c_int, c_void, dl_phdr_info, size_t};

use crate::layout;

/// Takes what was mapped of the program's code and constants out of this process's address space.
///
/// Its variables stay, and so does every content: only pages that nobody can write to are forgotten.
pub fn forget_set_up() {
    // SAFETY: the callback has the form dl_iterate_phdr(3) asks for, and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

/// Forgets the segments of one object, and ends the iteration: the first is the program, what follows are its libraries.
unsafe extern "C" fn forget(object: *mut dl_phdr_info, _: size_t, _: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr hands over a valid description, with as many headers as it says.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, count))
    };
    let constant = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(constant) {
        let start = (base + header.p_vaddr) & !(layout::PAGE - 1);
        let end = (base + header.p_vaddr + header.p_memsz).next_multiple_of(layout::PAGE);
        // SAFETY: a segment of this program that nobody writes to, so that the file holds all there is of it; at the next touch
        // the kernel maps it from there. If it refuses, nothing is lost but memory.
        unsafe { libc::madvise(start as *mut c_void, (end - start) as usize, libc::MADV_DONTNEED) };
    }
    1
}
