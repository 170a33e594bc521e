//! The kernel command line: how the host tells the guest kernel what to run.
//!
//! `OPTIONS rdinit=PROGRAM -- ARG...`, as Linux has it: `rdinit` names the program in the initrd, what stands behind
//! `--` becomes its arguments. An argument with white space stands in double quotes. Within quotes the lab kernel also
//! takes `\"` and `\\`, so that every argument can be passed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Tells the lab kernel that marks are wanted. It must come first: the kernel looks for it in its first instructions.
pub const MARKS: &[u8] = b"lab.marks";

/// Builds the command line.
pub fn build(marks: bool, options: &OsStr, program: &OsStr, arguments: &[OsString]) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    if marks {
        line.extend_from_slice(MARKS);
        line.push(b' ');
    }
    if !options.is_empty() {
        line.extend_from_slice(options.as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(b"rdinit=");
    line.extend(quote(program.as_bytes()));
    line.extend_from_slice(b" --");
    for argument in arguments {
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

    #[test]
    fn plain_words_stay_plain_and_others_are_quoted() {
        let arguments = [
            "-n".into(),
            "a b".into(),
            "".into(),
            r#"say "\n""#.into(),
            r"back\slash".into(),
        ];
        let line = build(false, OsStr::new("quiet"), OsStr::new("/bin/echo"), &arguments);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            r#"quiet rdinit=/bin/echo -- -n "a b" "" "say \"\\n\"" back\slash"#
        );
        assert_eq!(
            build(true, OsStr::new(""), OsStr::new("x"), &[]),
            b"lab.marks rdinit=x --"
        );
    }
}
