//! The kernel command line: how the host tells the guest kernel what to run.
//!
//! `OPTIONS rdinit=PROGRAM -- ARG...`, as Linux has it: `rdinit` names the program in the initrd, what stands behind
//! `--` becomes its arguments. An argument with white space stands in double quotes. Within quotes the lab kernel also
//! takes `\"` and `\\`, so that every argument can be passed. Where the lab's init comes first, `rdinit` names that, and
//! it finds program and arguments in the initrd.

use std::os::unix::ffi::OsStrExt;

use crate::machine::Kind;
use crate::vm::Config;
use crate::{initrd, virtio};

/// Tells the lab kernel that marks are wanted. It must come first: the kernel looks for it in its first instructions.
pub const MARKS: &[u8] = b"lab.marks";

/// What a kernel on a PC of ours should know before anything else. A restart goes
/// through the keyboard controller (`k`), which is the only way out we have; a panic restarts at once (-1), which ends the
/// VM instead of leaving it hanging; and only errors are printed, so that the program's output stands alone. A kernel for
/// many processors that finds one would rewrite each of its three thousand locked instructions without the lock: cheap to
/// have, dear to rewrite. Whatever `--cmdline` says comes later and wins.
const PC: &[u8] = b"reboot=k panic=-1 quiet noreplace-smp";
/// One processor with no device but a PC's own leaves the I/O APIC alone: the PIC does as well for a serial port, and setting
/// the other up costs Linux some six hundred exits, for it looks at each of 24 inputs several times, each look being two
/// accesses to device memory.
const NO_IO_APIC: &[u8] = b"noapic";
/// The console is the first serial port, unless there is a device for it.
const SERIAL_CONSOLE: &[u8] = b"console=ttyS0";
const VIRTIO_CONSOLE: &[u8] = b"console=hvc0";

/// Builds the command line.
pub fn build(config: &Config, marks: bool) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    let mut option = |bytes: &[u8]| {
        line.extend_from_slice(bytes);
        line.push(b' ');
    };
    match config.machine {
        Kind::Bare if marks => option(MARKS),
        Kind::Bare => {}
        Kind::Pc => {
            option(match config.devices.contains(&virtio::Spec::Console) {
                true => VIRTIO_CONSOLE,
                false => SERIAL_CONSOLE,
            });
            option(PC);
            if config.cpus == 1 && config.devices.is_empty() {
                option(NO_IO_APIC);
            }
        }
    }
    virtio::describe(config.devices.len())
        .iter()
        .for_each(|device| option(device.as_bytes()));
    if !config.options.is_empty() {
        option(config.options.as_bytes());
    }
    let start = &config.start;
    line.extend_from_slice(b"rdinit=");
    if start.init {
        line.extend_from_slice(initrd::INIT_PATH);
        return line;
    }
    line.extend(quote(start.program.as_bytes()));
    line.extend_from_slice(b" --");
    for argument in &start.arguments {
        line.push(b' ');
        line.extend(quote(argument.as_bytes()));
    }
    line
}

fn quote(argument: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| !byte.is_ascii_whitespace() && *byte != b'"';
    if !argument.is_empty() && argument.iter().all(plain) {
        return argument.to_vec();
    }
    let mut quoted = vec![b'"'];
    for &byte in argument {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Start;

    #[test]
    fn plain_words_stay_plain_and_others_are_quoted() {
        let arguments = [
            "-n".into(),
            "a b".into(),
            "".into(),
            r#"say "\n""#.into(),
            r"back\slash".into(),
        ];
        let mut config = Config {
            options: "quiet".into(),
            start: Start {
                init: false,
                program: "/bin/echo".into(),
                arguments: arguments.into(),
            },
            ..Config::default()
        };
        assert_eq!(
            String::from_utf8(build(&config, false)).unwrap(),
            r#"quiet rdinit=/bin/echo -- -n "a b" "" "say \"\\n\"" back\slash"#
        );
        config.options = "".into();
        config.start.arguments.clear();
        assert_eq!(build(&config, true), b"lab.marks rdinit=/bin/echo --");
        config.machine = Kind::Pc;
        config.start.init = true;
        let line = build(&config, true);
        assert!(line.starts_with(SERIAL_CONSOLE) && line.ends_with(b" noapic rdinit=/.lab/init"));
        config.devices = vec![virtio::Spec::Random, virtio::Spec::Console];
        let line = String::from_utf8(build(&config, true)).unwrap();
        let devices = "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 ";
        assert!(line.starts_with("console=hvc0 ") && line.contains(devices), "{line}");
        assert!(!line.contains("noapic"), "{line}");
    }
}
