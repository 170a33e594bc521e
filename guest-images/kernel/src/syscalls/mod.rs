//! System calls: what the program asks of its kernel.
//!
//! The numbers are Linux's for x86-64 (arch/x86/entry/syscalls/syscall_64.tbl), the meaning too, so that programs run
//! unchanged. A call that is not here gives ENOSYS, as on a Linux too old for it, and is counted.

mod clock;
pub mod errno;
mod file;
mod input_output;
mod memory;
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
        0 => input_output::read(kernel, fd, b, c),
        1 => input_output::write(kernel, fd, b, c),
        7 => input_output::poll(kernel, a, b),
        16 => input_output::ioctl(kernel, fd),
        17 => input_output::pread(kernel, fd, b, c, d),
        19 => input_output::readv(kernel, fd, b, c),
        20 => input_output::writev(kernel, fd, b, c),
        // Descriptors.
        3 => kernel.files.close(fd).map(|()| 0),
        8 => file::lseek(kernel, fd, b as i64, flags),
        32 => kernel.files.duplicate(fd, 0),
        33 | 292 => kernel.files.duplicate_to(fd, b as u32 as u64),
        72 => file::fcntl(kernel, fd, b as u32, c),
        217 => file::getdents64(kernel, fd, b, c),
        // Paths.
        2 => path::open(kernel, path::CURRENT, a, b as u32),
        4 => path::stat(kernel, path::CURRENT, a, b, 0),
        5 => path::fstat(kernel, fd, b),
        6 => path::stat(kernel, path::CURRENT, a, b, path::NO_FOLLOW),
        21 => path::access(kernel, path::CURRENT, a, b as u32),
        79 => path::getcwd(kernel, a, b),
        80 => path::chdir(kernel, a),
        89 => path::readlink(kernel, path::CURRENT, a, b, c),
        257 => path::open(kernel, a, b, flags),
        262 => path::stat(kernel, a, b, c, d as u32),
        267 => path::readlink(kernel, a, b, c, d),
        269 | 439 => path::access(kernel, a, b, flags),
        332 => path::statx(kernel, a, b, flags, e),
        // Memory.
        9 => memory::mmap(kernel, a, b, c, d, e, f),
        10 => memory::mprotect(kernel, a, b, c),
        11 => memory::munmap(kernel, a, b),
        12 => memory::brk(kernel, a),
        28 => Ok(0), // madvise: advice, and not taking it is allowed.
        // Time.
        35 => clock::nanosleep(kernel, a),
        96 => clock::gettimeofday(kernel, a),
        201 => clock::time(kernel, a),
        228 => clock::clock_gettime(kernel, a, b),
        229 => clock::clock_getres(kernel, b),
        230 => clock::clock_nanosleep(kernel, a, b, c),
        // The process and its machine.
        13 => process::rt_sigaction(kernel, a, b, c, d),
        14 => process::rt_sigprocmask(kernel, c, d),
        131 => Ok(0),                   // sigaltstack: a stack for handlers, which never run here.
        24 => Ok(0),                    // sched_yield: there is nobody to yield to.
        34 => crate::processor::halt(), // pause: until a signal comes, and none does.
        39 | 186 => Ok(process::PID),   // getpid, gettid
        110 => Ok(0),                   // getppid: nobody started us.
        60 | 231 => process::end(kernel, a as u8),
        62 | 200 => process::kill(kernel, a, b),
        234 => process::kill(kernel, b, c),
        63 => process::uname(kernel, a),
        95 => Ok(0o022), // umask: there is nothing to create.
        97 => process::prlimit(kernel, a, b),
        99 => process::sysinfo(kernel, a),
        102 | 104 | 107 | 108 => Ok(0), // getuid, getgid, geteuid, getegid: root of a machine of its own.
        158 => process::arch_prctl(kernel, a, b),
        202 => process::futex(kernel, a, b, c),
        204 => process::sched_getaffinity(kernel, b, c),
        218 => Ok(process::PID), // set_tid_address
        273 => Ok(0),            // set_robust_list: no other thread could hold a lock when we die.
        302 => process::prlimit(kernel, b, d),
        318 => process::getrandom(kernel, a, b),
        _ => {
            kernel.statistics.unknown_calls += 1;
            kernel.statistics.last_unknown = number;
            Err(ENOSYS)
        }
    }
}
