//! Files in guest memory, and what happens when somebody cuts one short meanwhile.
//!
//! A snapshot, and an initrd that is an archive, are mapped and not copied ([`crate::memory::map_file`]). The kernel fetches a
//! page of such a file when it is first touched; where the file then no longer reaches that far, or its disk cannot be read,
//! there is no page to be had. Whoever touched it finds out in his own way. The VMM gets SIGBUS (mmap(2)), whose default action
//! would end it without a word. For the guest, KVM_RUN fails with EFAULT; or, where KVM interprets the guest's kernel, the
//! address is taken for a device's, or the guest stumbles over code that is gone. So there is one handler, and the vCPU loop
//! has it called ([`check`]) wherever a guest's end, or its access to nothing, may have this cause: one message, and the exit
//! status that says which file it was.
//!
//! A snapshot in use is therefore replaced by renaming another over it, never by writing into it: `vmm snapshot` does so.

use std::io;
use std::sync::atomic::{AtomicPtr, Ordering};

use protocol::status;

/// A file that guest memory is mapped from.
#[derive(Debug)]
pub struct File {
    status: u8,
    message: &'static str,
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
        }
    };
}

/// The snapshot of a clone.
pub static SNAPSHOT: File = file!("snapshot", status::BAD_SNAPSHOT);
/// The archive that is a guest's initrd.
pub static INITRD: File = file!("initrd", status::BAD_INITRD);

/// The file there is; null when none is mapped. The handler can be given nothing else.
static IN_USE: AtomicPtr<File> = AtomicPtr::new(std::ptr::null_mut());
/// Its last page in our memory: whatever is cut off a file, that goes too.
static LAST: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

impl File {
    /// This file is about to be mapped: from now on a page that cannot be had ends the process with a message.
    ///
    /// # Errors
    /// sigaction(2)'s.
    pub fn expect(&'static self) -> io::Result<()> {
        IN_USE.store(std::ptr::from_ref(self).cast_mut(), Ordering::Release);
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
}

/// The last page mapped so far.
pub fn ends_at(page: *mut u8) {
    LAST.store(page, Ordering::Release);
}

/// Touches the end of the file that is mapped, if there is one: when it is no longer there, this does not return.
pub fn check() {
    let last = LAST.load(Ordering::Acquire);
    if !IN_USE.load(Ordering::Acquire).is_null() && !last.is_null() {
        // SAFETY: a page of guest memory, which stays mapped while a vCPU runs; volatile, for the value is not what matters.
        unsafe { last.read_volatile() };
    }
}

/// Says what is missing and ends the process. Runs in a thread that may have been in the middle of anything: no allocation, no
/// lock, and only calls that every filter of the sandbox allows.
extern "C" fn bus_error(_: libc::c_int, information: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a siginfo_t.
    let code = unsafe { (*information).si_code };
    // SAFETY: null, or one of the statics above.
    let file = unsafe { IN_USE.load(Ordering::Acquire).as_ref() };
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
