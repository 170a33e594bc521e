//! Which devices the processes of a cgroup may use, whatever nodes they find or make.
//!
//! Version 1 has a list in the kernel: one rule per write to `devices.deny` and `devices.allow`. Version 2 has no list:
//! a BPF program of ours is asked at every opening and making of a node (kernel documents `admin-guide/cgroup-v1/devices`
//! and `bpf/prog_cgroup_sysctl`, `linux/bpf.h` "BPF_PROG_TYPE_CGROUP_DEVICE"). The rules are the same, the last one that
//! fits decides, and what no rule speaks of is refused.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::place::{Place, Places};
use super::{Error, write};
use crate::errno::of;

/// Devices every container may use (config-linux, "Default Devices"; runc and crun allow the same): making any node,
/// and using those of no hardware: null, zero, full, random, urandom, tty, ptmx, and pseudoterminals.
const ALWAYS: [Rule; 10] = [
    Rule::allow(Kind::Character, None, None, MAKE),
    Rule::allow(Kind::Block, None, None, MAKE),
    Rule::allow(Kind::Character, Some(1), Some(3), ALL),
    Rule::allow(Kind::Character, Some(1), Some(5), ALL),
    Rule::allow(Kind::Character, Some(1), Some(7), ALL),
    Rule::allow(Kind::Character, Some(1), Some(8), ALL),
    Rule::allow(Kind::Character, Some(1), Some(9), ALL),
    Rule::allow(Kind::Character, Some(5), Some(0), ALL),
    Rule::allow(Kind::Character, Some(5), Some(2), ALL),
    Rule::allow(Kind::Character, Some(136), None, ALL),
];

// Kinds of access, as BPF_DEVCG_ACC_* has them.
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MAKE | READ | WRITE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Block,
    Character,
}

/// One rule. `None` fits every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

impl Rule {
    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
        Rule {
            allow: true,
            kind,
            major,
            minor,
            access,
        }
    }

    fn parse(rule: &LinuxDeviceCgroup) -> Result<Rule, Error> {
        let bad = |why| Error::DeviceRule {
            rule: format!("{rule}"),
            why,
        };
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => Kind::Any,
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Character,
            Some(LinuxDeviceType::P) => return Err(bad("a pipe is no device")),
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number)
                .map(Some)
                .map_err(|_| bad("no device has this number")),
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MAKE,
                _ => return Err(bad("access is made of the letters r, w and m")),
            };
        }
        Ok(Rule {
            allow: rule.allow(),
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access,
        })
    }

    fn is_everything(&self) -> bool {
        self.kind == Kind::Any && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

/// Applies `rules`, and before them "nothing", after them what every container may use.
pub fn apply(places: &Places, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let Some(place) = places.with("devices") else {
        return Ok(());
    };
    let mut parsed = rules.iter().map(Rule::parse).collect::<Result<Vec<_>, _>>()?;
    // What comes before a rule on everything has no say.
    if let Some(last) = parsed.iter().rposition(Rule::is_everything) {
        parsed.drain(..last);
    }
    parsed.extend(ALWAYS);
    match place.v2 {
        true => attach(place, &program(&parsed)),
        false => write_list(place, &parsed),
    }
}

fn write_list(place: &Place, rules: &[Rule]) -> Result<(), Error> {
    let perform = |allow: bool, rule: String| {
        let file = place
            .directory
            .join(if allow { "devices.allow" } else { "devices.deny" });
        write(&file, &rule).map_err(|error| Error::Limit {
            file,
            value: rule,
            errno: of(&error),
        })
    };
    if !rules.first().is_some_and(Rule::is_everything) {
        perform(false, "a".into())?;
    }
    for rule in rules {
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let access: String = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')]
            .into_iter()
            .filter(|(bit, _)| rule.access & bit != 0)
            .map(|(_, letter)| letter)
            .collect();
        let line = |kind| format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor));
        match rule.kind {
            // The kernel reads no further than the letter.
            Kind::Any if rule.is_everything() => perform(rule.allow, "a".into())?,
            Kind::Any => {
                perform(rule.allow, line('b'))?;
                perform(rule.allow, line('c'))?;
            }
            Kind::Block => perform(rule.allow, line('b'))?,
            Kind::Character => perform(rule.allow, line('c'))?,
        }
    }
    Ok(())
}

/// An instruction of eBPF (`struct bpf_insn` in linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn line(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    }
}

// Codes (linux/bpf.h): class | operation | source.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const SET: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const COPY: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_IF_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_IF_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// Registers: the answer; the context the kernel passes (struct bpf_cgroup_dev_ctx: access and type, major, minor).
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The program: the last rule first, and the first that fits decides.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        line(LOAD_WORD, KIND, CONTEXT, 0, 0),
        line(COPY, ACCESS, KIND, 0, 0),
        // BPF_DEVCG_DEV_* in the low half, BPF_DEVCG_ACC_* in the high one.
        line(AND, KIND, 0, 0, 0xffff),
        line(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        line(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        line(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        match rule.kind {
            Kind::Any => {}
            Kind::Block => tests.push((KIND, 1)),
            Kind::Character => tests.push((KIND, 2)),
        }
        tests.extend(rule.major.map(|number| (MAJOR, number as i32)));
        tests.extend(rule.minor.map(|number| (MINOR, number as i32)));
        // A permission fits when it covers all that is asked for; a refusal when it covers any of it.
        let (mask, code) = match rule.allow {
            true => (ALL & !rule.access, JUMP_IF_NOT_EQUAL),
            false => (rule.access, JUMP_IF_EQUAL),
        };
        let checks_access = rule.access != ALL;
        let length = tests.len() + if checks_access { 3 } else { 0 } + 2;
        let start = program.len();
        let always_fits = tests.is_empty() && !checks_access;
        let past = |at: usize| (start + length - at - 1) as i16;
        for (register, value) in tests {
            program.push(line(JUMP_IF_NOT_EQUAL, register, 0, past(program.len()), value));
        }
        if checks_access {
            program.push(line(COPY, SCRATCH, ACCESS, 0, 0));
            program.push(line(AND, SCRATCH, 0, 0, mask as i32));
            program.push(line(code, SCRATCH, 0, past(program.len()), 0));
        }
        program.push(line(SET, ANSWER, 0, 0, i32::from(rule.allow)));
        program.push(line(EXIT, 0, 0, 0, 0));
        if always_fits {
            // The kernel refuses a program with instructions nobody reaches.
            return program;
        }
    }
    program.push(line(SET, ANSWER, 0, 0, 0));
    program.push(line(EXIT, 0, 0, 0, 0));
    program
}

// Commands and types of bpf(2) (linux/bpf.h).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The start of `union bpf_attr` for loading a program.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for attaching and detaching.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for asking what is attached.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<i64, Errno> {
    // SAFETY: the attributes start a bpf_attr of the command, in the length given; the kernel takes the rest as zero.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    Errno::result(done)
}

/// Loads the program and attaches it to the cgroup, in place of the ones that were there (`update` comes again).
fn attach(place: &Place, program: &[Instruction]) -> Result<(), Error> {
    let failed = |action| {
        move |errno| Error::DeviceFilter {
            action,
            directory: place.directory.clone(),
            errno,
        }
    };
    let directory = std::fs::File::open(&place.directory).map_err(Error::io("open", &place.directory))?;
    let target = directory.as_raw_fd() as u32;
    let mut ids = [0u32; 64];
    let mut query = Query {
        target,
        kind: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr().addr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: the kernel writes at most `count` ids behind the pointer and their number into the structure.
    let asked = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    Errno::result(asked).map_err(failed("look for"))?;

    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr().addr() as u64,
        licence: c"Apache-2.0".as_ptr().addr() as u64,
        ..Load::default()
    };
    let loaded = bpf(BPF_PROG_LOAD, &load).map_err(failed("load"))?;
    // SAFETY: bpf just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded as i32) };
    let attach = |program: &OwnedFd| Attach {
        target,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach(&loaded)).map_err(failed("attach"))?;
    for &id in ids.iter().take(query.count as usize) {
        // The attribute is the id, then two more words that stay zero.
        let old = bpf(BPF_PROG_GET_FD_BY_ID, &[id, 0, 0]).map_err(failed("find"))?;
        // SAFETY: bpf just made this descriptor for us.
        let old = unsafe { OwnedFd::from_raw_fd(old as i32) };
        let detach = Attach {
            flags: 0,
            ..attach(&old)
        };
        bpf(BPF_PROG_DETACH, &detach).map_err(failed("take away"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Runs the program as the kernel does.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut registers = [0u32; 11];
        let mut at = 0usize;
        loop {
            let Instruction {
                code,
                registers: pair,
                offset,
                immediate,
            } = program[at];
            let (destination, source) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            match code {
                LOAD_WORD => registers[destination] = context[offset as usize / 4],
                SET => registers[destination] = immediate as u32,
                COPY => registers[destination] = registers[source],
                AND => registers[destination] &= immediate as u32,
                SHIFT_RIGHT => registers[destination] >>= immediate,
                JUMP_IF_NOT_EQUAL if registers[destination] != immediate as u32 => at += offset as usize,
                JUMP_IF_EQUAL if registers[destination] == immediate as u32 => at += offset as usize,
                JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL => {}
                EXIT => return registers[0] != 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn rules(rules: serde_json::Value) -> Vec<Rule> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).unwrap();
        rules.iter().map(|rule| Rule::parse(rule).unwrap()).collect()
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let program = program(&rules(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "access": "rw"},
            {"allow": false, "type": "c", "major": 1, "minor": 5, "access": "w"},
            {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"},
        ])));
        let (block, character) = (1, 2);
        assert!(run(&program, character, READ | WRITE, 1, 3));
        assert!(!run(&program, character, MAKE, 1, 3));
        assert!(!run(&program, block, READ, 1, 3));
        assert!(run(&program, character, READ, 1, 5));
        assert!(!run(&program, character, READ | WRITE, 1, 5));
        assert!(run(&program, block, READ, 8, 0));
        assert!(!run(&program, block, READ | WRITE, 8, 0));
        assert!(!run(&program, block, READ, 8, 1));
    }

    #[test]
    fn no_rule_is_a_refusal() {
        assert!(!run(&program(&[]), 2, READ, 1, 3));
        assert!(run(&program(&ALWAYS), 2, READ, 1, 3));
        assert!(!run(&program(&ALWAYS), 1, READ, 8, 0));
    }
}
