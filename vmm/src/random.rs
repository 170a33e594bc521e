//! Random bytes from the host's kernel.

use std::io;

/// Fills `bytes` (256 at most, which getrandom(2) gives whole or not at all).
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    // The system call itself, not libc's function of that name: std refers to that one weakly, and in a static program
    // with link-time optimization the weak reference wins and is null.
    // SAFETY: the pointer and length are those of `bytes`.
    let got = unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) };
    if got == bytes.len() as i64 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
