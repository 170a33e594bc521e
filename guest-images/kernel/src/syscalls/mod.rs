//! System calls: what the program asks of its kernel.
//!
//! The numbers are Linux's for x86-64, the meaning too, so that programs run unchanged. A call that is not here gives ENOSYS, as on a Linux too old for it, and is counted.

mod clock;
pub mod errno;
mod file;
mod input_output;
mod memory;
mod number;
mod path;
pub mod process;

use crate::state::{KERNEL, Kernel};
use errno::{ENOSYS, Errno};

/// What a call returns: a value, or an error.
type Answer = Result<u64, Errno>;

/// Entered from `entry::syscall_entry`: six arguments and the number. Returns what the program finds in rax.
pub extern "C" fn system_call(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, number: u64) -> i64 {
    KERNEL.with(|kernel| {
        kernel.statistics.system_calls += 1;
        match dispatch(kernel, number, [a, b, c, d, e, f]) {
            Ok(value) => value as i64,
            Err(Errno(number)) => -i64::from(number),
        }
    })
}

fn dispatch(kernel: &mut Kernel, number: u64, [a, b, c, d, e, f]: [u64; 6]) -> Answer {
    // Arguments that C declares as int come with an undefined upper half.
    let (fd, flags) = (a as u32 as u64, c as u32);
    match number {
        // Input and output.
        number::READ => input_output::read(kernel, fd, b, c),
        number::WRITE => input_output::write(kernel, fd, b, c),
        number::POLL => input_output::poll(kernel, a, b),
        number::IOCTL => input_output::ioctl(kernel, fd),
        number::PREAD64 => input_output::pread(kernel, fd, b, c, d),
        number::READV => input_output::readv(kernel, fd, b, c),
        number::WRITEV => input_output::writev(kernel, fd, b, c),
        // Descriptors.
        number::CLOSE => kernel.files.close(fd).map(|()| 0),
        number::LSEEK => file::lseek(kernel, fd, b as i64, flags),
        number::DUP => kernel.files.duplicate(fd, 0),
        number::DUP2 | number::DUP3 => kernel.files.duplicate_to(fd, b as u32 as u64),
        number::FCNTL => file::fcntl(kernel, fd, b as u32, c),
        number::GETDENTS64 => file::getdents64(kernel, fd, b, c),
        // Paths.
        number::OPEN => path::open(kernel, path::CURRENT, a, b as u32),
        number::STAT => path::stat(kernel, path::CURRENT, a, b, 0),
        number::FSTAT => path::fstat(kernel, fd, b),
        number::LSTAT => path::stat(kernel, path::CURRENT, a, b, path::NO_FOLLOW),
        number::ACCESS => path::access(kernel, path::CURRENT, a, b as u32),
        number::GETCWD => path::getcwd(kernel, a, b),
        number::CHDIR => path::chdir(kernel, a),
        number::READLINK => path::readlink(kernel, path::CURRENT, a, b, c),
        number::OPENAT => path::open(kernel, a, b, flags),
        number::NEWFSTATAT => path::stat(kernel, a, b, c, d as u32),
        number::READLINKAT => path::readlink(kernel, a, b, c, d),
        number::FACCESSAT | number::FACCESSAT2 => path::access(kernel, a, b, flags),
        number::STATX => path::statx(kernel, a, b, flags, e),
        // Memory.
        number::MMAP => memory::mmap(kernel, a, b, c, d, e, f),
        number::MPROTECT => memory::mprotect(kernel, a, b, c),
        number::MUNMAP => memory::munmap(kernel, a, b),
        number::BRK => memory::brk(kernel, a),
        number::MADVISE => Ok(0), // advice, and not taking it is allowed.
        // Time.
        number::NANOSLEEP => clock::nanosleep(kernel, a),
        number::GETTIMEOFDAY => clock::gettimeofday(kernel, a),
        number::TIME => clock::time(kernel, a),
        number::CLOCK_GETTIME => clock::clock_gettime(kernel, a, b),
        number::CLOCK_GETRES => clock::clock_getres(kernel, b),
        number::CLOCK_NANOSLEEP => clock::clock_nanosleep(kernel, a, b, c),
        // The process and its machine.
        number::RT_SIGACTION => process::rt_sigaction(kernel, a, b, c, d),
        number::RT_SIGPROCMASK => process::rt_sigprocmask(kernel, c, d),
        number::SIGALTSTACK => Ok(0), // a stack for handlers, which never run here.
        number::SCHED_YIELD => Ok(0), // there is nobody to yield to.
        number::PAUSE => crate::processor::halt(), // until a signal comes, and none does.
        number::GETPID | number::GETTID => Ok(process::PID),
        number::GETPPID => Ok(0), // nobody started us.
        number::EXIT | number::EXIT_GROUP => process::end(kernel, a as u8),
        number::KILL | number::TKILL => process::kill(kernel, a, b),
        number::TGKILL => process::kill(kernel, b, c),
        number::UNAME => process::uname(kernel, a),
        number::UMASK => Ok(0o022), // there is nothing to create.
        number::GETRLIMIT => process::prlimit(kernel, a, b),
        number::SYSINFO => process::sysinfo(kernel, a),
        number::GETUID | number::GETGID | number::GETEUID | number::GETEGID => Ok(0), // root of a machine of its own.
        number::ARCH_PRCTL => process::arch_prctl(kernel, a, b),
        number::FUTEX => process::futex(kernel, a, b, c),
        number::SCHED_GETAFFINITY => process::sched_getaffinity(kernel, b, c),
        number::SET_TID_ADDRESS => Ok(process::PID),
        number::SET_ROBUST_LIST => Ok(0), // no other thread could hold a lock when we die.
        number::PRLIMIT64 => process::prlimit(kernel, b, d),
        number::GETRANDOM => process::getrandom(kernel, a, b),
        _ => {
            kernel.statistics.unknown_calls += 1;
            kernel.statistics.last_unknown = number;
            Err(ENOSYS)
        }
    }
}
