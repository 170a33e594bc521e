//! The process and its machine: exit(2), kill(2), uname(2), sysinfo(2) and what C libraries ask for when they start.

use protocol::doorbell::op;
use protocol::status::SIGNAL_BASE;

use super::Answer;
use super::errno::*;
use crate::host::{self, Report};
use crate::processor::set_fs_base;
use crate::state::Kernel;
use kernel::layout::{STACK_MAX, USER_END};

/// The program is the first process, and the only one.
pub const PID: u64 = 1;

const SIGNALS: u64 = 64;
const SIGKILL: u64 = 9;
const SIGSTOP: u64 = 19;
const HANDLER_DEFAULT: u64 = 0;
const HANDLER_IGNORE: u64 = 1;
/// Signals whose default is to be ignored, or to continue: CHLD, CONT, URG, WINCH.
const IGNORED_BY_DEFAULT: [u64; 4] = [17, 18, 23, 28];

const ARCH_SET_FS: u64 = 0x1002;

const FUTEX_COMMAND: u64 = 0x7f;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;
const FUTEX_WAIT_BITSET: u64 = 9;
const FUTEX_WAKE_BITSET: u64 = 10;

const RLIMIT_STACK: u64 = 3;
const RLIMIT_NOFILE: u64 = 7;
/// How many resources have a limit.
const RLIMITS: u64 = 16;
const RLIM_INFINITY: u64 = u64::MAX;

/// Ends the machine with the program's status.
pub fn end(kernel: &mut Kernel, status: u8) -> ! {
    if kernel.statistics_wanted {
        let counted = &kernel.statistics;
        Report::line(format_args!(
            "{} system calls, {} unknown (last: {}), {} page faults, {} KiB of {} KiB in use",
            counted.system_calls,
            counted.unknown_calls,
            counted.last_unknown,
            counted.page_faults,
            (kernel.frames.total - kernel.frames.available()) / 1024,
            kernel.frames.total / 1024,
        ));
    }
    host::exit(status)
}

/// kill(2), tkill(2), tgkill(2): only to ourselves. Handlers are remembered and never run: a program that raises a
/// signal it handles ends as if it did not.
pub fn kill(kernel: &mut Kernel, process: u64, signal: u64) -> Answer {
    let (process, signal) = (process as u32 as i32, signal & 0xffff_ffff);
    if signal > SIGNALS {
        return Err(EINVAL);
    }
    // 0 and -1: everybody we may signal, which is us.
    if ![PID as i32, 0, -1, -(PID as i32)].contains(&process) {
        return Err(ESRCH);
    }
    let handler = kernel.handlers[signal as usize];
    if signal == 0 || handler == HANDLER_IGNORE {
        return Ok(0);
    }
    if handler == HANDLER_DEFAULT && IGNORED_BY_DEFAULT.contains(&signal) {
        return Ok(0);
    }
    let program = kernel.program().escape_ascii();
    let why = if handler == HANDLER_DEFAULT {
        ""
    } else {
        ", whose handler the lab kernel does not run"
    };
    Report::line(format_args!("signal {signal}: {program} raised it{why}"));
    end(kernel, SIGNAL_BASE + signal as u8)
}

/// rt_sigaction(2): remembered, so that the program reads back what it wrote.
pub fn rt_sigaction(kernel: &mut Kernel, signal: u64, new: u64, old: u64, set_size: u64) -> Answer {
    let signal = signal & 0xffff_ffff;
    if signal == 0 || signal > SIGNALS || set_size != 8 {
        return Err(EINVAL);
    }
    if old != 0 {
        // struct kernel_sigaction: handler, flags, restorer, mask.
        let mut action = [0; 32];
        action[..8].copy_from_slice(&kernel.handlers[signal as usize].to_le_bytes());
        kernel.copy_out(old, &action)?;
    }
    if new != 0 {
        if signal == SIGKILL || signal == SIGSTOP {
            return Err(EINVAL);
        }
        kernel.handlers[signal as usize] = kernel.word(new)?;
    }
    Ok(0)
}

/// rt_sigprocmask(2): nothing is ever delivered, so nothing needs blocking. The old mask is empty.
pub fn rt_sigprocmask(kernel: &mut Kernel, old: u64, set_size: u64) -> Answer {
    if set_size != 8 {
        return Err(EINVAL);
    }
    if old != 0 {
        kernel.copy_out(old, &[0; 8])?;
    }
    Ok(0)
}

/// uname(2): six fields of 65 bytes.
pub fn uname(kernel: &mut Kernel, to: u64) -> Answer {
    const FIELD: usize = 65;
    let fields: [&[u8]; 6] = [
        b"Linux", // programs switch on it, and the system calls are Linux's
        b"lab-guest",
        concat!(env!("CARGO_PKG_VERSION"), "-lab").as_bytes(),
        b"Isolation Lab kernel",
        b"x86_64",
        b"(none)",
    ];
    let mut bytes = [0; 6 * FIELD];
    for (i, field) in fields.into_iter().enumerate() {
        bytes[i * FIELD..i * FIELD + field.len()].copy_from_slice(field);
    }
    kernel.copy_out(to, &bytes)?;
    Ok(0)
}

/// sysinfo(2): memory, in bytes, and one process. Load, uptime and swap are zero: nobody keeps them.
pub fn sysinfo(kernel: &mut Kernel, to: u64) -> Answer {
    let mut bytes = [0; 112];
    bytes[32..40].copy_from_slice(&kernel.ram.to_le_bytes());
    bytes[40..48].copy_from_slice(&kernel.frames.available().to_le_bytes());
    bytes[80..82].copy_from_slice(&1u16.to_le_bytes());
    bytes[104..108].copy_from_slice(&1u32.to_le_bytes());
    kernel.copy_out(to, &bytes)?;
    Ok(0)
}

/// arch_prctl(2): the thread pointer.
pub fn arch_prctl(_: &mut Kernel, what: u64, address: u64) -> Answer {
    if what != ARCH_SET_FS {
        return Err(EINVAL);
    }
    if address >= USER_END {
        return Err(EPERM);
    }
    set_fs_base(address);
    Ok(0)
}

/// futex(2): with one thread nobody sleeps, so nobody can be woken, and who would sleep, would sleep for ever.
pub fn futex(kernel: &mut Kernel, address: u64, operation: u64, expected: u64) -> Answer {
    match operation & FUTEX_COMMAND {
        FUTEX_WAKE | FUTEX_WAKE_BITSET => Ok(0),
        FUTEX_WAIT | FUTEX_WAIT_BITSET => {
            let mut value = [0; 4];
            kernel.copy_in(address, &mut value)?;
            if u32::from_le_bytes(value) == expected as u32 {
                Err(EINTR)
            } else {
                Err(EAGAIN)
            }
        }
        _ => Err(ENOSYS),
    }
}

/// sched_getaffinity(2): one processor.
pub fn sched_getaffinity(kernel: &mut Kernel, room: u64, to: u64) -> Answer {
    if room < 8 {
        return Err(EINVAL);
    }
    kernel.copy_out(to, &1u64.to_le_bytes())?;
    Ok(8)
}

/// prlimit64(2), getrlimit(2): what the limits are. They cannot be changed.
pub fn prlimit(kernel: &mut Kernel, resource: u64, old: u64) -> Answer {
    let limit = match resource & 0xffff_ffff {
        RLIMIT_STACK => STACK_MAX,
        RLIMIT_NOFILE => crate::files::DESCRIPTORS as u64,
        0..RLIMITS => RLIM_INFINITY,
        _ => return Err(EINVAL),
    };
    if old != 0 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&limit.to_le_bytes());
        bytes[8..].copy_from_slice(&limit.to_le_bytes());
        kernel.copy_out(old, &bytes)?;
    }
    Ok(0)
}

/// getrandom(2): from the host, never made up here.
pub fn getrandom(kernel: &mut Kernel, to: u64, length: u64) -> Answer {
    super::input_output::from_host(kernel, op::RANDOM, to, length)
}
