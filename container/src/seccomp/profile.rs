//! Profiles: a filter made at run time, from the `seccomp` object of a config.json.
//!
//! The object lists names of system calls, each with an action and perhaps conditions on arguments (OCI runtime
//! specification, config-linux, "Seccomp"). Here the names become numbers, once for each architecture whose calls the
//! profile speaks about, and the numbers the same search tree the built-in filter has (see [`super::tree`]): equal
//! neighbours share a leaf, so that a profile of four hundred calls comes down to some sixty segments.
//!
//! What libseccomp makes of a profile is the measure for what is not written down: conditions are tried in the order
//! they are listed and come before a rule without any; arguments are compared as 64 bits on a 64-bit architecture; calls
//! by the table of an architecture the profile does not list end the process.

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use seccompiler::sock_filter;
use thiserror::Error;

use super::table::X32_BIT;
use super::tree::{
    ALLOW, ARCHITECTURE, ERRNO, JUMP_IF_AT_LEAST, JUMP_IF_EQUAL, LOAD_WORD, OFFSET_ARCHITECTURE, OFFSET_ARGUMENT_0,
    OFFSET_NUMBER, RETURN, instruction,
};

// Instruction codes the built-in filter has no use for (linux/filter.h).
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_IF_ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K

/// AUDIT_ARCH_I386: calls by the 32-bit table.
const ARCHITECTURE_I386: u32 = 0x4000_0003;

// What a filter may answer (linux/seccomp.h); the low 16 bits carry an errno, or a number for the tracer.
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0x0000_0000;
const TRAP: u32 = 0x0003_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;

/// The longest filter the kernel takes (BPF_MAXINSNS in linux/bpf_common.h).
const LONGEST: usize = 4096;

/// A filter, ready to be loaded.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The program.
    pub program: Vec<sock_filter>,
    /// Flags for seccomp(2).
    pub flags: libc::c_ulong,
    /// Whether a supervisor outside decides about some calls: loading the filter then gives a descriptor for it.
    pub notifies: bool,
    /// Names no architecture of this machine has a call for. They are no fault: profiles are written for many.
    pub unknown: Vec<String>,
}

/// What happens to a call: conditions with their answers, in order, and the answer without condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: Option<u32>,
}

/// The calls of one table, by number.
type Calls = BTreeMap<u32, Policy>;

/// Makes the filter `profile` describes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    let architectures = profile.architectures().as_deref().unwrap_or_default();
    let has = |wanted| architectures.contains(&wanted);
    let default = answer(profile.default_action(), profile.default_errno_ret());
    let names = names_x86_64();
    let mut unknown = Vec::new();
    let native = calls(profile, default, |name| names.get(name).copied(), &mut unknown);
    let mut native = tree(&native, default, false)?;
    // With x32 the same calls can be made with one more bit set in the number; without, such numbers are foreign.
    let x32 = if has(Arch::ScmpArchX32) {
        let with_bit = calls(
            profile,
            default,
            |name| names.get(name).map(|number| number | X32_BIT),
            &mut Vec::new(),
        );
        tree(&with_bit, default, false)?
    } else {
        vec![instruction(RETURN, 0, 0, KILL_PROCESS)]
    };
    let mut program = vec![instruction(LOAD_WORD, 0, 0, OFFSET_ARCHITECTURE)];
    program.push(instruction(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE));
    let native_length = 3 + native.len() + x32.len();
    program.push(instruction(JUMP, 0, 0, native_length as u32));
    program.push(instruction(LOAD_WORD, 0, 0, OFFSET_NUMBER));
    program.push(instruction(JUMP_IF_AT_LEAST, 0, 1, X32_BIT));
    program.push(instruction(JUMP, 0, 0, native.len() as u32));
    program.append(&mut native);
    program.extend(x32);
    if has(Arch::ScmpArchX86) {
        let narrow_names = names_x86();
        let calls = calls(
            profile,
            default,
            |name| narrow_names.get(name).copied(),
            &mut Vec::new(),
        );
        program.push(instruction(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE_I386));
        program.push(instruction(RETURN, 0, 0, KILL_PROCESS));
        program.push(instruction(LOAD_WORD, 0, 0, OFFSET_NUMBER));
        program.extend(tree(&calls, default, true)?);
    } else {
        program.push(instruction(RETURN, 0, 0, KILL_PROCESS));
    }
    if program.len() > LONGEST {
        return Err(Error::TooLong(program.len()));
    }
    unknown.sort();
    unknown.dedup();
    Ok(Filter {
        notifies: program.iter().any(|line| line.code == RETURN && line.k == NOTIFY),
        program,
        flags: flags(profile),
        unknown,
    })
}

/// Numbers by name. Made once for each table: a profile names some four hundred calls, and to compare each with every
/// name there is would take longer than anything else here.
type Names = HashMap<&'static str, u32>;

fn names_x86_64() -> Names {
    use syscalls::x86_64::Sysno;
    // The iterator leaves out the last.
    Sysno::iter()
        .chain([Sysno::last()])
        .map(|call| (call.name(), call.id() as u32))
        .collect()
}

fn names_x86() -> Names {
    use syscalls::x86::Sysno;
    Sysno::iter()
        .chain([Sysno::last()])
        .map(|call| (call.name(), call.id() as u32))
        .collect()
}

fn flags(profile: &LinuxSeccomp) -> libc::c_ulong {
    let wanted = profile.flags().iter().flatten();
    wanted.fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
                }
            }
    })
}

/// The filter's answer for an action.
fn answer(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    // The kernel caps an errno at this (MAX_ERRNO in linux/err.h).
    let data = errno.unwrap_or(libc::EPERM as u32).min(4095);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => TRACE | data,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActNotify => NOTIFY,
    }
}

/// The profile's rules by number, for one table of calls.
fn calls(
    profile: &LinuxSeccomp,
    default: u32,
    number: impl Fn(&str) -> Option<u32>,
    unknown: &mut Vec<String>,
) -> Calls {
    let mut calls = Calls::new();
    for rule in profile.syscalls().iter().flatten() {
        let answer = answer(rule.action(), rule.errno_ret());
        for name in rule.names() {
            let Some(number) = number(name) else {
                unknown.push(name.clone());
                continue;
            };
            let policy = calls.entry(number).or_insert(Policy {
                conditional: Vec::new(),
                otherwise: None,
            });
            match rule.args().as_deref() {
                None | Some([]) => _ = policy.otherwise.get_or_insert(answer),
                // Several conditions on one argument are alternatives; on different arguments all must hold.
                Some(conditions) if repeats_an_argument(conditions) => {
                    let each = conditions.iter().map(|&condition| (vec![condition], answer));
                    policy.conditional.extend(each);
                }
                Some(conditions) => policy.conditional.push((conditions.to_vec(), answer)),
            }
        }
    }
    // What does what happens anyway needs no leaf.
    calls
        .retain(|_, policy| !policy.conditional.is_empty() || policy.otherwise.is_some_and(|answer| answer != default));
    calls
}

fn repeats_an_argument(conditions: &[LinuxSeccompArg]) -> bool {
    let mut seen = [false; 6];
    conditions.iter().any(|condition| {
        seen.get_mut(condition.index())
            .is_some_and(|seen| std::mem::replace(seen, true))
    })
}

/// The search tree over `calls`; the accumulator holds the number.
fn tree(calls: &Calls, default: u32, narrow: bool) -> Result<Vec<sock_filter>, Error> {
    let mut segments: Vec<(u32, Vec<sock_filter>)> = vec![(0, leaf(None, default, narrow)?)];
    let mut add = |start: u32, leaf: Vec<sock_filter>| match segments.last_mut() {
        Some((last, same)) if *last == start => *same = leaf,
        Some((_, same)) if *same == leaf => {}
        _ => segments.push((start, leaf)),
    };
    for (&number, policy) in calls {
        add(number, leaf(Some(policy), default, narrow)?);
        // Taken back at once when the next number has a rule too.
        if !calls.contains_key(&(number + 1)) {
            add(number + 1, leaf(None, default, narrow)?);
        }
    }
    let mut program = Vec::new();
    branch(&segments, &mut program);
    Ok(program)
}

/// Appends the part of the tree for these segments: the question, what comes below its bound, what comes above.
fn branch(segments: &[(u32, Vec<sock_filter>)], program: &mut Vec<sock_filter>) {
    if let [(_, leaf)] = segments {
        return program.extend_from_slice(leaf);
    }
    let (left, right) = segments.split_at(segments.len() / 2);
    let (node, start) = (program.len(), right[0].0);
    program.push(instruction(JUMP_IF_AT_LEAST, 0, 1, start));
    branch(left, program);
    let distance = program.len() - node - 1;
    match u8::try_from(distance) {
        Ok(distance) => program[node] = instruction(JUMP_IF_AT_LEAST, distance, 0, start),
        // A conditional jump reaches 255 instructions, an unconditional one all. Every jump behind leads forward and by
        // a distance, so that they can be moved.
        Err(_) => program.insert(node + 1, instruction(JUMP, 0, 0, distance as u32)),
    }
    branch(right, program);
}

/// What is done about one call. `narrow`: its arguments have 32 bits.
fn leaf(policy: Option<&Policy>, default: u32, narrow: bool) -> Result<Vec<sock_filter>, Error> {
    let mut lines = Vec::new();
    for (conditions, answer) in policy.iter().flat_map(|policy| &policy.conditional) {
        let mut rule: Vec<sock_filter> = Vec::new();
        // Backwards: a condition that does not hold jumps over all that follows in its rule.
        rule.push(instruction(RETURN, 0, 0, *answer));
        for condition in conditions.iter().rev() {
            let mut test = test(condition, rule.len(), narrow)?;
            test.append(&mut rule);
            rule = test;
        }
        lines.append(&mut rule);
    }
    lines.push(instruction(
        RETURN,
        0,
        0,
        policy.and_then(|policy| policy.otherwise).unwrap_or(default),
    ));
    Ok(lines)
}

/// Falls through when `condition` holds, else jumps over the `rest` instructions behind it.
fn test(condition: &LinuxSeccompArg, rest: usize, narrow: bool) -> Result<Vec<sock_filter>, Error> {
    let index = condition.index();
    if index > 5 {
        return Err(Error::NoSuchArgument(index));
    }
    let low = OFFSET_ARGUMENT_0 + 8 * index as u32;
    let load = |offset| instruction(LOAD_WORD, 0, 0, offset);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, value) = halves(condition.value());
    // Jumps are written as if the test were followed by `miss`, which is where to go when it fails.
    let miss = u8::try_from(rest).map_err(|_| Error::TooManyConditions)?;
    let past = |distance: u8| miss.checked_add(distance).ok_or(Error::TooManyConditions);
    let test = match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq if narrow => vec![load(low), instruction(JUMP_IF_EQUAL, 0, miss, value)],
        LinuxSeccompOperator::ScmpCmpEq => vec![
            load(low + 4),
            instruction(JUMP_IF_EQUAL, 0, past(2)?, high),
            load(low),
            instruction(JUMP_IF_EQUAL, 0, miss, value),
        ],
        LinuxSeccompOperator::ScmpCmpNe if narrow => vec![load(low), instruction(JUMP_IF_EQUAL, miss, 0, value)],
        LinuxSeccompOperator::ScmpCmpNe => vec![
            load(low + 4),
            instruction(JUMP_IF_EQUAL, 0, 2, high),
            load(low),
            instruction(JUMP_IF_EQUAL, miss, 0, value),
        ],
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (mask_high, mask) = (high, value);
            let (high, value) = halves(condition.value_two().unwrap_or(0));
            let mut test = Vec::new();
            if !narrow {
                let distance = past(3)?;
                test.push(load(low + 4));
                test.push(instruction(AND, 0, 0, mask_high));
                test.push(instruction(JUMP_IF_EQUAL, 0, distance, high));
            }
            test.push(load(low));
            test.push(instruction(AND, 0, 0, mask));
            test.push(instruction(JUMP_IF_EQUAL, 0, miss, value));
            test
        }
        order => {
            // Above (or at least) the value, and for the two smaller-than the same the other way round.
            let (code, wanted) = match order {
                LinuxSeccompOperator::ScmpCmpGt => (JUMP_IF_ABOVE, true),
                LinuxSeccompOperator::ScmpCmpGe => (JUMP_IF_AT_LEAST, true),
                LinuxSeccompOperator::ScmpCmpLe => (JUMP_IF_ABOVE, false),
                _ => (JUMP_IF_AT_LEAST, false),
            };
            let mut test = Vec::new();
            if !narrow {
                // A greater upper half settles it, and so does a smaller one; only equal ones leave it to the lower.
                let greater = if wanted { 3 } else { past(3)? };
                let smaller = if wanted { past(2)? } else { 2 };
                test.push(load(low + 4));
                test.push(instruction(JUMP_IF_ABOVE, greater, 0, high));
                test.push(instruction(JUMP_IF_EQUAL, 0, smaller, high));
            }
            let (above, below) = if wanted { (0, miss) } else { (miss, 0) };
            test.push(load(low));
            test.push(instruction(code, above, below, value));
            test
        }
    };
    Ok(test)
}

/// What is wrong with a profile.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// System calls have six arguments.
    #[error("the seccomp profile has a condition on argument {0}; system calls have arguments 0 to 5")]
    NoSuchArgument(usize),
    /// A rule is too long to be jumped over.
    #[error(
        "a rule of the seccomp profile has too many conditions: the jump over it is longer than classic BPF has (255)"
    )]
    TooManyConditions,
    /// The kernel's limit.
    #[error(
        "the seccomp profile takes {0} instructions; the kernel's limit is {LONGEST}. Fewer conditions on arguments help most"
    )]
    TooLong(usize),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Runs a filter as the kernel does.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&architecture.to_le_bytes());
        data.extend_from_slice(&0u64.to_le_bytes());
        arguments
            .iter()
            .for_each(|argument| data.extend_from_slice(&argument.to_le_bytes()));
        let (mut accumulator, mut at) = (0u32, 0usize);
        loop {
            let &sock_filter { code, jt, jf, k } = &program[at];
            at += 1;
            let taken = match code {
                LOAD_WORD => {
                    accumulator = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap());
                    continue;
                }
                AND => {
                    accumulator &= k;
                    continue;
                }
                JUMP => {
                    at += k as usize;
                    continue;
                }
                RETURN => return k,
                JUMP_IF_EQUAL => accumulator == k,
                JUMP_IF_AT_LEAST => accumulator >= k,
                JUMP_IF_ABOVE => accumulator > k,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if taken { jt } else { jf });
        }
    }

    fn filter(profile: serde_json::Value) -> Vec<sock_filter> {
        compile(&serde_json::from_value(profile).unwrap()).unwrap().program
    }

    fn native(program: &[sock_filter], number: i64, arguments: [u64; 6]) -> u32 {
        run(program, ARCHITECTURE, number as u32, arguments)
    }

    const REFUSED: u32 = ERRNO | 38;

    #[test]
    fn every_listed_call_gets_its_action_and_every_other_the_default() {
        let names: Vec<String> = (0..400)
            .filter(|number| number % 3 != 0)
            .filter_map(|number| Some(syscalls::x86_64::Sysno::new(number)?.name().to_owned()))
            .collect();
        let program = filter(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
        }));
        for number in 0..600 {
            let listed = number < 400 && number % 3 != 0 && syscalls::x86_64::Sysno::new(number).is_some();
            let expected = if listed { ALLOW } else { REFUSED };
            assert_eq!(native(&program, number as i64, [0; 6]), expected, "call {number}");
            assert_eq!(
                native(&program, number as i64 | 1 << 30, [0; 6]),
                expected,
                "x32 call {number}"
            );
        }
        assert_eq!(run(&program, ARCHITECTURE_I386, 1, [0; 6]), KILL_PROCESS);
    }

    #[test]
    fn comparisons_see_all_64_bits() {
        let values = [
            0u64,
            1,
            5,
            6,
            u64::from(u32::MAX),
            1 << 32,
            5 | 1 << 32,
            6 | 1 << 32,
            5 | 2 << 32,
            u64::MAX,
        ];
        for bound in [5u64, 5 | 1 << 32, 0, u64::MAX] {
            type Compare = fn(u64, u64) -> bool;
            let operators: [(&str, Compare); 7] = [
                ("SCMP_CMP_EQ", |a, b| a == b),
                ("SCMP_CMP_NE", |a, b| a != b),
                ("SCMP_CMP_LT", |a, b| a < b),
                ("SCMP_CMP_LE", |a, b| a <= b),
                ("SCMP_CMP_GT", |a, b| a > b),
                ("SCMP_CMP_GE", |a, b| a >= b),
                ("SCMP_CMP_MASKED_EQ", |a, b| a & b == b),
            ];
            for (name, compare) in operators {
                let program = filter(json!({
                    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                    "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                        {"index": 0, "value": 7, "op": "SCMP_CMP_EQ"},
                        {"index": 1, "value": bound, "valueTwo": bound, "op": name},
                        {"index": 2, "value": 9, "op": "SCMP_CMP_NE"}]}],
                }));
                for value in values {
                    let expected = if compare(value, bound) { ALLOW } else { REFUSED };
                    let got = native(&program, libc::SYS_socket, [7, value, 8, 0, 0, 0]);
                    assert_eq!(got, expected, "{value:#x} {name} {bound:#x}");
                    assert_eq!(native(&program, libc::SYS_socket, [7, value, 9, 0, 0, 0]), REFUSED);
                    assert_eq!(native(&program, libc::SYS_socket, [6, value, 8, 0, 0, 0]), REFUSED);
                }
            }
        }
    }

    #[test]
    fn conditions_on_one_argument_are_alternatives_and_come_before_no_condition() {
        let program = filter(json!({
            "defaultAction": "SCMP_ACT_KILL_PROCESS",
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"}],
        }));
        for (value, expected) in [(0, ALLOW), (8, ALLOW), (1, ERRNO | 22)] {
            assert_eq!(
                native(&program, libc::SYS_personality, [value, 0, 0, 0, 0, 0]),
                expected
            );
            // Number 136 in the 32-bit table, where the upper half of an argument does not exist.
            let narrow = [value | 1 << 32, 0, 0, 0, 0, 0];
            assert_eq!(run(&program, ARCHITECTURE_I386, 136, narrow), expected);
        }
        assert_eq!(native(&program, libc::SYS_read, [0; 6]), KILL_PROCESS);
    }
}
