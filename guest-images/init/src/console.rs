//! The console: what the guest's program finds as standard input and output.

use std::mem::MaybeUninit;

/// Lets output through as it is and echoes nothing. A terminal would put a carriage return before every newline, and the
/// host's own terminal echoes already what is typed there.
pub fn leave_bytes_alone() {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr fills the structure when it succeeds, and only then it is read. A console that is no terminal
    // (none at all, say) has nothing to set.
    unsafe {
        if libc::tcgetattr(libc::STDOUT_FILENO, settings.as_mut_ptr()) == 0 {
            let mut settings = settings.assume_init();
            settings.c_oflag &= !libc::OPOST;
            settings.c_lflag &= !(libc::ECHO | libc::ECHOE | libc::ECHOK | libc::ECHONL);
            libc::tcsetattr(libc::STDOUT_FILENO, libc::TCSANOW, &settings);
        }
    }
}

/// Waits until everything written has left the guest: the kernel sends it a few bytes at a time, and a machine that ends
/// first takes the rest along.
pub fn drain() {
    // SAFETY: takes a number. A console that is no terminal has nothing to wait for.
    unsafe { libc::tcdrain(libc::STDOUT_FILENO) };
}

/// Makes the console the controlling terminal of this process and of all it starts, so that Ctrl-C and job control work
/// in a shell.
///
/// It is this process's, which outlives the others, and not the program's: a terminal hangs up when the process that
/// controls it ends, and what has not been sent by then is thrown away.
pub fn take() {
    // SAFETY: both take numbers only. Where the console is no terminal the second fails, and nothing is lost.
    unsafe {
        libc::setsid();
        libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0);
    }
}
