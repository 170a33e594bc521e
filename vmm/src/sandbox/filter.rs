//! The filter: the table as a program in classic BPF, which the kernel runs at every system call of the thread.
//!
//! Loading it is on the way to the guest's first instruction, so it is built by the compiler and made to load fast. The
//! kernel tries a new filter on every number there is, to learn which calls it always allows; so a search tree, which
//! decides in a handful of steps, loads faster than a list. And each node jumps to the two verdicts at the end instead of
//! bringing its own, which keeps the program short: the kernel also checks and translates every instruction.

use seccompiler::sock_filter;

use super::table::{REQUESTS, RULES};

// Instruction codes of classic BPF (linux/filter.h): class | size or operation | mode.
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Offsets in struct seccomp_data (linux/seccomp.h). An ioctl's request is its second argument, and of the 64 bits the
// kernel reads the lower half only; so does the filter.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_REQUEST: u32 = 24;

/// AUDIT_ARCH_X86_64: the machine number of ELF, with the bits for 64-bit and little-endian.
const ARCHITECTURE: u32 = 0xc000_003e;

const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const TRAP: u32 = 0x0003_0000; // SECCOMP_RET_TRAP: SIGSYS instead of the call

/// Architecture check, then load of the number.
const HEADER: usize = 3;
const IOCTL: u32 = libc::SYS_ioctl as u32;

/// How many instructions the filter for these classes has: the header, one comparison for each call and one less to tell
/// them apart, load and comparison of an ioctl's request, the two verdicts.
pub const fn length(classes: u8) -> usize {
    HEADER + 2 * count_calls(classes) - 1 + 1 + count_requests(classes) + 2
}

/// Builds the filter for these classes.
pub const fn build<const N: usize>(classes: u8) -> [sock_filter; N] {
    assert!(N == length(classes) && N < 256, "a BPF jump reaches 255 instructions");
    let (allow, trap) = (N - 1, N - 2);
    let mut program = [const { instruction(RETURN, 0, 0, TRAP) }; N];
    program[0] = instruction(LOAD_WORD, 0, 0, OFFSET_ARCHITECTURE);
    program[1] = instruction(JUMP_IF_EQUAL, 0, to(1, trap), ARCHITECTURE);
    program[2] = instruction(LOAD_WORD, 0, 0, OFFSET_NUMBER);

    let requests = HEADER + 2 * count_calls(classes) - 1;
    write_tree(&mut program, classes, HEADER, 0, count_calls(classes), requests);

    program[requests] = instruction(LOAD_WORD, 0, 0, OFFSET_REQUEST);
    let (mut i, mut at) = (0, requests + 1);
    while i < REQUESTS.len() {
        let (request, allowed_in) = REQUESTS[i];
        if allowed_in & classes != 0 {
            // The last one falls through to the trap behind it.
            program[at] = instruction(JUMP_IF_EQUAL, to(at, allow), 0, request);
            at += 1;
        }
        i += 1;
    }
    program[allow] = instruction(RETURN, 0, 0, ALLOW);
    program
}

/// Writes the tree for the calls `from..to` at instruction `at`.
const fn write_tree(program: &mut [sock_filter], classes: u8, at: usize, from: usize, until: usize, requests: usize) {
    let (allow, trap) = (program.len() - 1, program.len() - 2);
    if until - from == 1 {
        let number = call(classes, from);
        let target = if number == IOCTL { requests } else { allow };
        program[at] = instruction(JUMP_IF_EQUAL, to(at, target), to(at, trap), number);
        return;
    }
    // "At or above the middle one?" Its left half follows, and the right half follows that.
    let middle = from + (until - from) / 2;
    let right = at + 1 + 2 * (middle - from) - 1;
    program[at] = instruction(JUMP_IF_AT_LEAST, to(at, right), 0, call(classes, middle));
    write_tree(program, classes, at + 1, from, middle, requests);
    write_tree(program, classes, right, middle, until, requests);
}

/// The distance of a jump, which counts from the instruction behind it.
const fn to(from: usize, target: usize) -> u8 {
    (target - from - 1) as u8
}

/// The calls of these classes, with ioctl among them, which is in every filter by its requests.
const fn count_calls(classes: u8) -> usize {
    let (mut count, mut i) = (1, 0);
    while i < RULES.len() {
        assert!(i == 0 || RULES[i - 1].number < RULES[i].number, "the table is sorted");
        assert!(RULES[i].number != IOCTL, "ioctl is allowed by its requests");
        if RULES[i].classes & classes != 0 {
            count += 1;
        }
        i += 1;
    }
    count
}

const fn count_requests(classes: u8) -> usize {
    let (mut count, mut i) = (0, 0);
    while i < REQUESTS.len() {
        if REQUESTS[i].1 & classes != 0 {
            count += 1;
        }
        i += 1;
    }
    count
}

/// The call at `index` among those of these classes.
const fn call(classes: u8, index: usize) -> u32 {
    let (mut seen, mut i, mut ioctl_seen) = (0, 0, false);
    loop {
        let number = if !ioctl_seen && (i == RULES.len() || RULES[i].number > IOCTL) {
            ioctl_seen = true;
            IOCTL
        } else {
            i += 1;
            if RULES[i - 1].classes & classes == 0 {
                continue;
            }
            RULES[i - 1].number
        };
        if seen == index {
            return number;
        }
        seen += 1;
    }
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::super::table::{DEVICES, INPUT, VCPU, WATCHED};
    use super::*;

    /// Runs a filter as the kernel does.
    fn verdict(filter: &[sock_filter], architecture: u32, number: u32, request: u64) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let &sock_filter { code, jt, jf, k } = &filter[at];
            at += 1;
            match (code, k) {
                (LOAD_WORD, OFFSET_NUMBER) => loaded = number,
                (LOAD_WORD, OFFSET_ARCHITECTURE) => loaded = architecture,
                (LOAD_WORD, OFFSET_REQUEST) => loaded = request as u32,
                (JUMP_IF_EQUAL, _) => at += usize::from(if loaded == k { jt } else { jf }),
                (JUMP_IF_AT_LEAST, _) => at += usize::from(if loaded >= k { jt } else { jf }),
                (RETURN, _) => return k,
                _ => panic!("instruction {code:#x}, {k:#x}"),
            }
        }
    }

    fn check<const N: usize>(classes: u8, filter: [sock_filter; N]) {
        for number in (0..1000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            let allowed = RULES
                .iter()
                .any(|rule| rule.number == number && rule.classes & classes != 0);
            let expected = if allowed { ALLOW } else { TRAP };
            assert_eq!(
                verdict(&filter, ARCHITECTURE, number, 0),
                expected,
                "{classes}: call {number}"
            );
            assert_eq!(verdict(&filter, 0x4000_0003, number, 0), TRAP, "i386 call {number}");
        }
        for &(request, allowed_in) in REQUESTS {
            let expected = if allowed_in & classes != 0 { ALLOW } else { TRAP };
            assert_eq!(
                verdict(&filter, ARCHITECTURE, IOCTL, request.into()),
                expected,
                "{request:#x}"
            );
            // The kernel does not look at the upper half, so nothing there may decide either way.
            let with_upper_half = u64::from(request) | 1 << 32;
            assert_eq!(verdict(&filter, ARCHITECTURE, IOCTL, with_upper_half), expected);
        }
        const TIOCSTI: u64 = 0x5412;
        assert_eq!(verdict(&filter, ARCHITECTURE, IOCTL, TIOCSTI), TRAP);
    }

    #[test]
    fn every_filter_allows_what_the_table_says_and_nothing_else() {
        const ALL: u8 = VCPU | DEVICES | WATCHED;
        check(VCPU, build::<{ length(VCPU) }>(VCPU));
        check(ALL, build::<{ length(ALL) }>(ALL));
        check(INPUT | DEVICES, build::<{ length(INPUT | DEVICES) }>(INPUT | DEVICES));
        // Whatever a thread may do, it never opens a file, runs a program or makes memory executable unseen.
        for classes in [VCPU, ALL, INPUT] {
            for forbidden in [
                libc::SYS_openat,
                libc::SYS_open,
                libc::SYS_execve,
                libc::SYS_socket,
                libc::SYS_ptrace,
            ] {
                assert!(
                    RULES
                        .iter()
                        .all(|rule| rule.number != forbidden as u32 || rule.classes & classes == 0)
                );
            }
        }
    }
}
