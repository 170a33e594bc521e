//! ptrace(2): how one process watches another's system calls.
//!
//! The tracee stops at the entry and at the exit of every system call, and at every clone and exec; the tracer learns of
//! a stop by waitpid(2), looks around, and lets it go on. Children of a tracee are traced from their first instruction.
//! PTRACE_SEIZE is used, not PTRACE_TRACEME: only a seized process can be interrupted, which is how the watching ends.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::unistd::Pid;

/// Requests and events by number, from `linux/ptrace.h`: musl's headers lack some, and the C libraries disagree on types.
const PTRACE_SYSCALL: u32 = 24;
const PTRACE_DETACH: u32 = 17;
const PTRACE_SEIZE: u32 = 0x4206;
const PTRACE_INTERRUPT: u32 = 0x4207;
const PTRACE_LISTEN: u32 = 0x4208;
const PTRACE_GETEVENTMSG: u32 = 0x4201;
const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e;
const PTRACE_EVENT_FORK: i32 = 1;
const PTRACE_EVENT_VFORK: i32 = 2;
const PTRACE_EVENT_CLONE: i32 = 3;
const PTRACE_EVENT_EXEC: i32 = 4;
const PTRACE_EVENT_STOP: i32 = 128;

/// PTRACE_O_TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, and EXITKILL: a tracer that is killed leaves no
/// half-made container behind.
const OPTIONS: usize = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 20;

/// The bit TRACESYSGOOD adds to SIGTRAP for a stop at a system call.
const AT_SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;

const PAGE: usize = 4096;

/// Why a tracee stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is about to enter a system call.
    Entry {
        /// The call's number.
        number: u64,
        /// The six argument registers.
        arguments: [u64; 6],
    },
    /// It has left one.
    Exit {
        /// What the call returned: a negative errno on failure.
        result: i64,
    },
    /// It made this child, which is traced already.
    Child(Pid),
    /// It has become another program.
    Exec,
    /// A stop of the tracer's own making, or the first one of a new child.
    Interrupted,
    /// Job control stopped it; it must be left so.
    JobControl,
    /// A signal is about to be delivered.
    Signal(i32),
    /// It is no more; this is what wait(2) says.
    Ended(i32),
}

/// Starts to watch `process` and everything it will start.
pub fn seize(process: Pid) -> Result<(), Errno> {
    request(PTRACE_SEIZE, process, 0, OPTIONS).map(drop)
}

/// Has `process` stop soon, wherever it is.
pub fn interrupt(process: Pid) -> Result<(), Errno> {
    request(PTRACE_INTERRUPT, process, 0, 0).map(drop)
}

/// Lets a stopped `process` run to its next stop, delivering `signal` unless that is 0.
pub fn resume(process: Pid, signal: i32) -> Result<(), Errno> {
    request(PTRACE_SYSCALL, process, 0, signal as usize).map(drop)
}

/// Leaves a process that job control stopped in that state, and hears of its end.
pub fn listen(process: Pid) -> Result<(), Errno> {
    request(PTRACE_LISTEN, process, 0, 0).map(drop)
}

/// Lets a stopped `process` go for good.
pub fn detach(process: Pid, signal: i32) -> Result<(), Errno> {
    request(PTRACE_DETACH, process, 0, signal as usize).map(drop)
}

/// Waits for the next stop of any tracee.
pub fn wait() -> Result<(Pid, Stop), Errno> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) }) {
            Ok(pid) => {
                let pid = Pid::from_raw(pid);
                return Ok((pid, stop(pid, status)?));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn stop(pid: Pid, status: i32) -> Result<Stop, Errno> {
    if !libc::WIFSTOPPED(status) {
        return Ok(Stop::Ended(status));
    }
    Ok(match (libc::WSTOPSIG(status), status >> 16) {
        (AT_SYSTEM_CALL, _) => match syscall_info(pid) {
            Ok(stop) => stop,
            // Killed between its stop and this question: its end is the next thing to hear of.
            Err(Errno::ESRCH) => Stop::Interrupted,
            Err(errno) => return Err(errno),
        },
        (_, PTRACE_EVENT_FORK | PTRACE_EVENT_VFORK | PTRACE_EVENT_CLONE) => Stop::Child(new_child(pid)?),
        (_, PTRACE_EVENT_EXEC) => Stop::Exec,
        (libc::SIGTRAP, PTRACE_EVENT_STOP) => Stop::Interrupted,
        (_, PTRACE_EVENT_STOP) => Stop::JobControl,
        (signal, _) => Stop::Signal(signal),
    })
}

fn new_child(parent: Pid) -> Result<Pid, Errno> {
    let mut child: libc::c_ulong = 0;
    request(PTRACE_GETEVENTMSG, parent, 0, (&raw mut child).addr())?;
    Ok(Pid::from_raw(child as i32))
}

/// `struct ptrace_syscall_info`: the largest of its three variants is the one of an entry under seccomp.
#[repr(C)]
struct SyscallInfo {
    /// 1: entry, 2: exit.
    op: u8,
    padding: [u8; 3],
    architecture: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    /// Entry: the number, then six arguments. Exit: the result, then whether it is an error.
    data: [u64; 8],
}

fn syscall_info(pid: Pid) -> Result<Stop, Errno> {
    let mut info = MaybeUninit::<SyscallInfo>::zeroed();
    request(
        PTRACE_GET_SYSCALL_INFO,
        pid,
        size_of::<SyscallInfo>(),
        info.as_mut_ptr().addr(),
    )?;
    // SAFETY: the structure is plain integers, all of them zero before the kernel wrote some.
    let info = unsafe { info.assume_init() };
    Ok(match (info.op, info.data) {
        (1, [number, a, b, c, d, e, f, _]) => Stop::Entry {
            number,
            arguments: [a, b, c, d, e, f],
        },
        (2, data) => Stop::Exit { result: data[0] as i64 },
        _ => Stop::Interrupted,
    })
}

fn request(request: u32, pid: Pid, address: usize, data: usize) -> Result<libc::c_long, Errno> {
    // SAFETY: of the requests above only GETEVENTMSG and GET_SYSCALL_INFO write, both to a structure of the caller's
    // that is alive and of the size the request wants. No request reads or writes through this process's memory else.
    Errno::result(unsafe { libc::syscall(libc::SYS_ptrace, request, pid.as_raw(), address, data) })
}

/// The memory of a tracee.
///
/// Opened while the tracee may still be looked at. It later declares itself undumpable, and from then on an ordinary
/// user may not open this file, nor use any other way to read the memory; what is open stays open.
#[derive(Clone, Debug)]
pub struct Memory(Option<Rc<File>>);

impl Memory {
    /// Of this process.
    pub fn of(process: Pid) -> Memory {
        Memory(File::open(format!("/proc/{process}/mem")).ok().map(Rc::new))
    }

    /// Whether it could be opened.
    pub fn is_readable(&self) -> bool {
        self.0.is_some()
    }

    /// `length` bytes at `address`, or fewer where they end.
    pub fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.0.as_ref()?.read_at(&mut bytes, address).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }

    /// The `N` 64-bit words at `address`.
    pub fn words<const N: usize>(&self, address: u64) -> Option<[u64; N]> {
        let bytes = self.bytes(address, N * 8)?;
        let (words, rest) = bytes.as_chunks::<8>();
        let words: [[u8; 8]; N] = words.try_into().ok().filter(|_| rest.is_empty())?;
        Some(words.map(u64::from_ne_bytes))
    }

    /// The NUL-terminated string at `address`.
    pub fn string(&self, address: u64) -> Option<String> {
        if address == 0 {
            return None;
        }
        let mut text = Vec::new();
        // By pages: the memory may end right behind the string. No path is longer than PATH_MAX, one page.
        for _ in 0..2 {
            let at = address + text.len() as u64;
            let chunk = self
                .bytes(at, PAGE - at as usize % PAGE)
                .filter(|chunk| !chunk.is_empty())?;
            if let Some(end) = chunk.iter().position(|&byte| byte == 0) {
                text.extend_from_slice(&chunk[..end]);
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            text.extend_from_slice(&chunk);
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}
