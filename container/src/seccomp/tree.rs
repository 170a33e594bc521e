//! The program: a balanced search tree over the table, in classic BPF, built by the compiler.
//!
//! The table's exceptions and the allowed gaps between them cut the line of all 2^32 numbers into segments. A node of
//! the tree asks "is the number at or above this segment's start?" and jumps right or falls through to the left; a
//! leaf is a segment's action. Both children lie behind their parent, since BPF only jumps forward.

use seccompiler::sock_filter;

use super::table::{Action, EXCEPTIONS, NAMESPACE_FLAGS, PERSONALITIES, SOCKET_FAMILIES, TERMINAL_IOCTLS};

// Instruction codes of classic BPF (linux/filter.h): class | size or operation | mode.
pub(super) const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const JUMP_IF_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Offsets in struct seccomp_data (linux/seccomp.h). Arguments are 64 bits; what is checked here are C ints and
// unsigned ints, of which the kernel reads the lower half only, and so must the filter: comparing all 64 bits would
// let a caller hide a forbidden value behind a bit the kernel ignores (CVE-2019-10063).
pub(super) const OFFSET_NUMBER: u32 = 0;
pub(super) const OFFSET_ARCHITECTURE: u32 = 4;
pub(super) const OFFSET_ARGUMENT_0: u32 = 16;
pub(super) const OFFSET_ARGUMENT_1: u32 = 24;

/// AUDIT_ARCH_X86_64: the machine number of ELF, with the bits for 64-bit and little-endian.
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;

pub(super) const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
pub(super) const ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO, the errno in the low 16 bits
const REFUSE: u32 = ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = ERRNO | libc::ENOSYS as u32;

/// How many instructions the filter has.
pub const LENGTH: usize = HEADER + tree_length(0, SEGMENT_COUNT);

/// Instructions in front of the tree: architecture check and load of the number.
const HEADER: usize = 4;

/// A segment: numbers from `start` up to the next segment's start.
#[derive(Clone, Copy)]
struct Segment {
    start: u32,
    action: Action,
}

const SEGMENT_COUNT: usize = count_segments();
const SEGMENTS: [Segment; SEGMENT_COUNT] = cut_into_segments();

/// Builds the filter.
pub const fn build() -> [sock_filter; LENGTH] {
    let mut program = [const { instruction(RETURN, 0, 0, REFUSE) }; LENGTH];
    program[0] = instruction(LOAD_WORD, 0, 0, OFFSET_ARCHITECTURE);
    program[1] = instruction(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE);
    program[2] = instruction(RETURN, 0, 0, REFUSE);
    program[3] = instruction(LOAD_WORD, 0, 0, OFFSET_NUMBER);
    write_tree(&mut program, HEADER, 0, SEGMENT_COUNT);
    program
}

/// Writes the tree for the segments `from..to` at instruction `at`.
const fn write_tree(program: &mut [sock_filter; LENGTH], at: usize, from: usize, to: usize) {
    if to - from == 1 {
        return write_leaf(program, at, SEGMENTS[from].action);
    }
    let middle = from + (to - from) / 2;
    let left = tree_length(from, middle);
    assert!(left <= u8::MAX as usize, "a BPF jump reaches 255 instructions");
    program[at] = instruction(JUMP_IF_AT_LEAST, left as u8, 0, SEGMENTS[middle].start);
    write_tree(program, at + 1, from, middle);
    write_tree(program, at + 1 + left, middle, to);
}

const fn tree_length(from: usize, to: usize) -> usize {
    if to - from == 1 {
        return leaf_length(SEGMENTS[from].action);
    }
    let middle = from + (to - from) / 2;
    1 + tree_length(from, middle) + tree_length(middle, to)
}

const fn leaf_length(action: Action) -> usize {
    // A load, one comparison for each value, two returns.
    match action {
        Action::Allow | Action::Refuse | Action::Unknown => 1,
        Action::CloneFlags => 4,
        Action::Personality => 3 + PERSONALITIES.len(),
        Action::SocketFamily => 3 + SOCKET_FAMILIES.len(),
        Action::TerminalIoctl => 3 + TERMINAL_IOCTLS.len(),
    }
}

const fn write_leaf(program: &mut [sock_filter; LENGTH], at: usize, action: Action) {
    match action {
        Action::Allow => program[at] = instruction(RETURN, 0, 0, ALLOW),
        Action::Refuse => program[at] = instruction(RETURN, 0, 0, REFUSE),
        Action::Unknown => program[at] = instruction(RETURN, 0, 0, UNKNOWN),
        Action::CloneFlags => {
            program[at] = instruction(LOAD_WORD, 0, 0, OFFSET_ARGUMENT_0);
            program[at + 1] = instruction(JUMP_IF_ANY_BIT, 1, 0, NAMESPACE_FLAGS);
            program[at + 2] = instruction(RETURN, 0, 0, ALLOW);
            program[at + 3] = instruction(RETURN, 0, 0, REFUSE);
        }
        Action::Personality => write_choice(program, at, OFFSET_ARGUMENT_0, &PERSONALITIES, ALLOW, REFUSE),
        Action::SocketFamily => write_choice(program, at, OFFSET_ARGUMENT_0, &SOCKET_FAMILIES, REFUSE, ALLOW),
        Action::TerminalIoctl => write_choice(program, at, OFFSET_ARGUMENT_1, &TERMINAL_IOCTLS, REFUSE, ALLOW),
    }
}

/// Writes: if the argument is one of `values`, return `listed`, else `unlisted`.
const fn write_choice(
    program: &mut [sock_filter; LENGTH],
    at: usize,
    argument: u32,
    values: &[u32],
    listed: u32,
    unlisted: u32,
) {
    program[at] = instruction(LOAD_WORD, 0, 0, argument);
    let mut i = 0;
    while i < values.len() {
        // From behind this comparison over the remaining ones and the return for unlisted values.
        let to_listed = (values.len() - i) as u8;
        program[at + 1 + i] = instruction(JUMP_IF_EQUAL, to_listed, 0, values[i]);
        i += 1;
    }
    program[at + 1 + values.len()] = instruction(RETURN, 0, 0, unlisted);
    program[at + 2 + values.len()] = instruction(RETURN, 0, 0, listed);
}

pub(super) const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

const fn count_segments() -> usize {
    let mut count = 0;
    let mut next = 0;
    let mut i = 0;
    while i < EXCEPTIONS.len() {
        let (first, last, _) = EXCEPTIONS[i];
        assert!(
            first >= next && last >= first,
            "the table is sorted and free of overlaps"
        );
        // The allowed gap in front, if there is one, and the exception itself.
        count += if first > next { 2 } else { 1 };
        next = last.wrapping_add(1);
        i += 1;
    }
    assert!(next == 0, "the table's last range reaches the last number");
    count
}

const fn cut_into_segments() -> [Segment; SEGMENT_COUNT] {
    let mut segments = [Segment {
        start: 0,
        action: Action::Allow,
    }; SEGMENT_COUNT];
    let mut next = 0;
    let (mut i, mut at) = (0, 0);
    while i < EXCEPTIONS.len() {
        let (first, last, action) = EXCEPTIONS[i];
        if first > next {
            segments[at] = Segment {
                start: next,
                action: Action::Allow,
            };
            at += 1;
        }
        segments[at] = Segment { start: first, action };
        at += 1;
        next = last.wrapping_add(1);
        i += 1;
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::FILTER;

    /// Runs the filter as the kernel does; also says how many instructions it took.
    fn run(architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&architecture.to_le_bytes());
        data.extend_from_slice(&0u64.to_le_bytes());
        arguments
            .iter()
            .for_each(|argument| data.extend_from_slice(&argument.to_le_bytes()));
        let (mut accumulator, mut at, mut steps) = (0u32, 0usize, 0usize);
        loop {
            let &sock_filter { code, jt, jf, k } = &FILTER[at];
            at += 1;
            steps += 1;
            let taken = match code {
                LOAD_WORD => {
                    accumulator = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap());
                    continue;
                }
                RETURN => return (k, steps),
                JUMP_IF_EQUAL => accumulator == k,
                JUMP_IF_AT_LEAST => accumulator >= k,
                JUMP_IF_ANY_BIT => accumulator & k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if taken { jt } else { jf });
        }
    }

    fn verdict(number: u32, first: u64, second: u64) -> u32 {
        run(ARCHITECTURE, number, [first, second, 0, 0, 0, 0]).0
    }

    #[test]
    fn every_number_gets_what_the_table_says() {
        for number in (0..2000).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX]) {
            let entry = EXCEPTIONS
                .iter()
                .find(|(first, last, _)| (*first..=*last).contains(&number));
            let expected = match entry.map(|(_, _, action)| action) {
                None => ALLOW,
                Some(Action::Refuse) => REFUSE,
                Some(Action::Unknown) => UNKNOWN,
                Some(_) => continue,
            };
            assert_eq!(verdict(number, 0, 0), expected, "system call {number}");
        }
    }

    #[test]
    fn arguments_decide_where_the_table_says_so() {
        const TCGETS: u64 = 0x5401;
        let tiocsti = u64::from(TERMINAL_IOCTLS[0]);
        assert_eq!(verdict(libc::SYS_clone as u32, libc::SIGCHLD as u64, 0), ALLOW);
        for flag in crate::namespaces::Namespace::ALL.map(|namespace| namespace.clone_flag()) {
            assert_eq!(verdict(libc::SYS_clone as u32, flag | libc::SIGCHLD as u64, 0), REFUSE);
        }
        assert_eq!(verdict(libc::SYS_personality as u32, 0xffff_ffff, 0), ALLOW);
        assert_eq!(
            verdict(libc::SYS_personality as u32, libc::ADDR_NO_RANDOMIZE as u64, 0),
            REFUSE
        );
        assert_eq!(verdict(libc::SYS_socket as u32, libc::AF_INET as u64, 0), ALLOW);
        assert_eq!(verdict(libc::SYS_socket as u32, libc::AF_VSOCK as u64, 0), REFUSE);
        assert_eq!(verdict(libc::SYS_socket as u32, libc::AF_ALG as u64, 0), REFUSE);
        assert_eq!(verdict(libc::SYS_ioctl as u32, 0, TCGETS), ALLOW);
        assert_eq!(verdict(libc::SYS_ioctl as u32, 0, tiocsti), REFUSE);
        // The upper half of the argument, which the kernel does not read, must not hide the request.
        assert_eq!(verdict(libc::SYS_ioctl as u32, 0, 1 << 32 | tiocsti), REFUSE);
    }

    #[test]
    fn another_architecture_is_refused() {
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        assert_eq!(run(AUDIT_ARCH_I386, 20, [0; 6]).0, REFUSE);
    }

    #[test]
    fn no_number_needs_more_steps_than_a_balanced_tree() {
        let depth = SEGMENT_COUNT.next_power_of_two().trailing_zeros() as usize;
        let longest_leaf = 2 + PERSONALITIES.len();
        for number in 0..500 {
            let (_, steps) = run(ARCHITECTURE, number, [1; 6]);
            assert!(
                steps <= HEADER - 1 + depth + longest_leaf,
                "system call {number}: {steps} steps"
            );
        }
    }
}
