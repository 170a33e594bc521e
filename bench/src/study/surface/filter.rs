//! The seccomp filters a process is under, read back from the kernel and asked about every system call.
//!
//! PTRACE_SECCOMP_GET_FILTER (ptrace(2)) hands out a filter as the classic BPF program it was installed as; the
//! interpreter below knows the instructions such programs use (Linux: Documentation/networking/filter.rst).

use std::fs;

use nix::errno::Errno;

/// offsetof(struct seccomp_data, ...): linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// AUDIT_ARCH_X86_64: linux/audit.h.
const X86_64: u32 = 0xc000_003e;
/// The parts of a filter's answer, and the two that let a call through: linux/seccomp.h.
const ACTION: u32 = 0xffff_0000;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
/// Most instructions of a filter: linux/bpf_common.h, BPF_MAXINSNS.
const LONGEST: usize = 4096;

/// System call numbers of x86-64 up to Linux 6.18 (arch/x86/entry/syscalls/syscall_64.tbl): what came before 5.1, and the
/// numbers all architectures share since. 335 to 423 are no calls, but for uretprobe and uprobe.
pub fn numbers() -> impl Iterator<Item = u32> {
    (0..=336).chain(424..=469)
}

/// struct sock_filter: linux/filter.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    k: u32,
}

/// What a filter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call is made.
    Through,
    /// It is not.
    Refused,
    /// Its arguments decide.
    Depends,
}

/// Every filter of every thread of `pid`.
///
/// # Errors
/// What the kernel said: EPERM without CAP_SYS_ADMIN, EIO in a kernel without CONFIG_CHECKPOINT_RESTORE.
pub fn of_process(pid: u32) -> Result<Vec<Vec<Vec<Instruction>>>, Errno> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(|_| Errno::ESRCH)?;
    let ids = threads
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.map(of_thread).collect()
}

fn of_thread(id: i32) -> Result<Vec<Vec<Instruction>>, Errno> {
    ptrace(libc::PTRACE_SEIZE, id, 0, std::ptr::null_mut())?;
    let read = || {
        ptrace(libc::PTRACE_INTERRUPT, id, 0, std::ptr::null_mut())?;
        // SAFETY: waits for the stop just asked for; the null pointer means that nobody wants the status.
        Errno::result(unsafe { libc::waitpid(id, std::ptr::null_mut(), libc::__WALL) })?;
        let mut filters = Vec::new();
        loop {
            let mut program = vec![Instruction::default(); LONGEST];
            // The newest filter has number 0; there is no length to pass, and no filter is longer.
            match ptrace(
                PTRACE_SECCOMP_GET_FILTER,
                id,
                filters.len(),
                program.as_mut_ptr().cast(),
            ) {
                Ok(length) => program.truncate(length as usize),
                // No more of them; or none at all, where the thread has no seccomp mode.
                Err(Errno::ENOENT | Errno::EINVAL) => return Ok(filters),
                Err(error) => return Err(error),
            }
            filters.push(program);
        }
    };
    let filters = read();
    // It may have ended meanwhile.
    let _ = ptrace(libc::PTRACE_DETACH, id, 0, std::ptr::null_mut());
    filters
}

/// linux/ptrace.h.
const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

/// ptrace(2).
///
/// # Errors
/// What the kernel said.
pub fn ptrace(request: libc::c_uint, id: i32, address: usize, data: *mut libc::c_void) -> Result<libc::c_long, Errno> {
    // SAFETY: of the requests made in this study three write to `data`: PTRACE_SECCOMP_GET_FILTER at most LONGEST
    // instructions, PTRACE_GETEVENTMSG a long, PTRACE_GET_SYSCALL_INFO as many bytes as `address` says; which is what their
    // callers have there.
    Errno::result(unsafe { libc::ptrace(request, id, address, data) })
}

/// What all of a thread's filters together answer to a call: the strictest counts.
pub fn answer(filters: &[Vec<Instruction>], number: u32) -> Answer {
    let mut all = Answer::Through;
    for filter in filters {
        match run(filter, number) {
            Answer::Refused => return Answer::Refused,
            Answer::Depends => all = Answer::Depends,
            Answer::Through => {}
        }
    }
    all
}

/// Runs one filter on a call until it answers or looks at an argument.
fn run(filter: &[Instruction], number: u32) -> Answer {
    let mut a = 0;
    let mut at = 0;
    while let Some(instruction) = filter.get(at) {
        let k = instruction.k;
        at += 1;
        let jump = |holds: bool| usize::from(if holds { instruction.yes } else { instruction.no });
        // BPF_LD|W|ABS, BPF_JMP|JA, JEQ, JGT, JGE, JSET (all with K), BPF_ALU|AND|K, BPF_RET|K: linux/bpf_common.h.
        match instruction.code {
            0x20 if k == NUMBER => a = number,
            0x20 if k == ARCHITECTURE => a = X86_64,
            0x20 if k >= ARGUMENTS => return Answer::Depends,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            0x54 => a &= k,
            0x06 if matches!(k & ACTION, ALLOW | LOG) => return Answer::Through,
            0x06 => return Answer::Refused,
            // Anything else needs what is not known here.
            _ => return Answer::Depends,
        }
    }
    Answer::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, yes: u8, no: u8, k: u32) -> Instruction {
        Instruction { code, yes, no, k }
    }

    #[test]
    fn a_filter_by_hand() {
        // Call 1 goes through, call 2 by its argument, all others fail with EPERM.
        let filter = vec![
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 2, 0, 1),
            instruction(0x15, 2, 0, 2),
            instruction(0x06, 0, 0, 0x0005_0001),
            instruction(0x06, 0, 0, ALLOW),
            instruction(0x20, 0, 0, 16),
        ];
        assert_eq!(
            [1, 2, 3].map(|number| run(&filter, number)),
            [Answer::Through, Answer::Depends, Answer::Refused]
        );
        let strict = vec![instruction(0x06, 0, 0, 0)];
        assert_eq!(answer(&[filter, strict], 1), Answer::Refused);
        assert_eq!(answer(&[], 1), Answer::Through);
    }
}
