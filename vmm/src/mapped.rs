//! Files in guest memory, and what happens when somebody cuts one short meanwhile.
//!
//! A snapshot, an initrd that is an archive, and most of a kernel are mapped and not copied ([`crate::memory::map_file`]). The host fetches a
//! page of such a file when it is first touched; where the file then no longer reaches that far, or its disk cannot be read,
//! there is no page to be had. Whoever touched it finds out in his own way. The VMM gets SIGBUS (mmap(2)), whose default action
//! would end it without a word. For the guest, KVM_RUN fails with EFAULT; or, where KVM interprets the guest's kernel, the
//! address is taken for a device's, or the guest stumbles over code that is gone. So there is one handler, and the vCPU loop
//! has it called ([`check`]) wherever a guest's end, or its access to nothing, may have this cause: one message, and the exit
//! status that says which file it was.
//!
//! A file in use is therefore replaced by renaming another over it, never by writing into it: `vmm snapshot` does so, and the script
//! that builds a Linux for guests.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use protocol::status;

use crate::layout;

/// A file that guest memory is mapped from, and where: null until it is.
#[derive(Debug)]
pub struct File {
    status: u8,
    message: &'static str,
    /// Its first page in our memory.
    first: AtomicPtr<u8>,
    /// Its last: whatever is cut off a file, that goes too.
    last: AtomicPtr<u8>,
}

/// A file's message is put together by the compiler: a signal handler cannot format.
macro_rules! file {
    ($name:literal, $status:expr) => {
        File {
            status: $status,
            message: concat!(
                "vmm: a page of the ",
                $name,
                " cannot be had: the file was cut short while the guest's memory was mapped from it, or its disk cannot be \
read. The guest is ended. Never write into a file in use: rename a new one over it\n"
            ),
            first: AtomicPtr::new(ptr::null_mut()),
            last: AtomicPtr::new(ptr::null_mut()),
        }
    };
}

/// The snapshot of a clone.
pub static SNAPSHOT: File = file!("snapshot", status::BAD_SNAPSHOT);
/// The archive that is a guest's initrd.
pub static INITRD: File = file!("initrd", status::BAD_INITRD);

/// The file a guest's kernel is in.
pub static KERNEL: File = file!("kernel", status::NOT_A_KERNEL);

/// All there can be.
static FILES: [&File; 3] = [&SNAPSHOT, &INITRD, &KERNEL];

impl File {
    /// This file is about to be mapped: from now on a page that cannot be had ends the process with a message.
    ///
    /// # Errors
    /// sigaction(2)'s.
    pub fn expect(&'static self) -> io::Result<()> {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = bus_error;
        // SAFETY: all zeros is a valid sigaction, and the handler has the form SA_SIGINFO asks for.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut())
        };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A piece of it lies from the page `first` to the page `last` in our memory. Whoever made the file ordered the pieces.
    pub fn lies(&self, first: *mut u8, last: *mut u8) {
        // Whoever maps does so alone, before the guest runs.
        let lowest = self.first.load(Ordering::Acquire);
        if lowest.is_null() || first < lowest {
            self.first.store(first, Ordering::Release);
        }
        // Null is below every page.
        if last > self.last.load(Ordering::Acquire) {
            self.last.store(last, Ordering::Release);
        }
    }

    /// Whether this address is between its first page and its last.
    fn holds(&self, address: usize) -> bool {
        let first = self.first.load(Ordering::Acquire).addr();
        let last = self.last.load(Ordering::Acquire).addr();
        first != 0 && (first..last + layout::PAGE as usize).contains(&address)
    }
}

/// Touches the end of every file that is mapped: when one is no longer there, this does not return.
pub fn check() {
    for file in FILES {
        let last = file.last.load(Ordering::Acquire);
        if !last.is_null() {
            // SAFETY: a page of guest memory, which stays mapped while a vCPU runs; volatile, for the value is not what matters.
            unsafe { last.read_volatile() };
        }
    }
}

/// Says what is missing and ends the process. Runs in a thread that may have been in the middle of anything: no allocation, no
/// lock, and only calls that every filter of the sandbox allows.
extern "C" fn bus_error(_: libc::c_int, information: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a siginfo_t, for SIGBUS with an address.
    let (code, address) = unsafe { ((*information).si_code, (*information).si_addr().addr()) };
    let file = FILES.into_iter().find(|file| file.holds(address));
    let (message, status) = match file {
        // No such page; any other code is the host's own memory failing.
        Some(file) if code == libc::BUS_ADRERR => (file.message, file.status),
        _ => (
            "vmm: bus error (SIGBUS): the host's memory has failed\n",
            status::SIGNAL_BASE + libc::SIGBUS as u8,
        ),
    };
    // SAFETY: pointer and length of bytes that outlive the call.
    unsafe { libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len()) };
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(status.into()) };
}
