//! The kernel command line: what to run and how.
//!
//! `OPTIONS rdinit=PROGRAM -- ARG...`, words separated by white space. A word may hold quoted parts, in which white
//! space is itself and `\"` and `\\` stand for the characters. Options with an `=` and without a dot that the kernel does
//! not know become the program's environment, as with Linux.

/// One word after another, each written to `buffer` without its quotes.
pub struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    /// The words of this line.
    pub const fn new(line: &'a [u8]) -> Words<'a> {
        Words { rest: line }
    }

    /// Writes the next word to the start of `buffer` and returns its length; None at the end of the line. A buffer as
    /// long as the line always suffices; what does not fit is cut off.
    pub fn next_into(&mut self, buffer: &mut [u8]) -> Option<usize> {
        while let [b' ' | b'\t' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let mut length = 0;
        let mut quoted = false;
        loop {
            // Nearly every word is nothing but plain characters.
            let run = if quoted { 0 } else { plain_run(self.rest) };
            let (plain, rest) = self.rest.split_at(run);
            length += put(buffer, length, plain);
            self.rest = rest;
            self.rest = match rest {
                [b' ' | b'\t' | b'\n', ..] if !quoted => break,
                [b'"', rest @ ..] => {
                    quoted = !quoted;
                    rest
                }
                [b'\\', byte @ (b'"' | b'\\'), rest @ ..] if quoted => {
                    length += put(buffer, length, &[*byte]);
                    rest
                }
                [byte, rest @ ..] => {
                    length += put(buffer, length, &[*byte]);
                    rest
                }
                [] => break,
            };
        }
        Some(length)
    }
}

/// How many bytes at the start of `text` are neither white space nor quotes: none is below `#`.
fn plain_run(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte < b'#').unwrap_or(text.len())
}

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let room = buffer.len().saturating_sub(at).min(bytes.len());
    buffer[at..at + room].copy_from_slice(&bytes[..room]);
    room
}

/// What an option means to the lab kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// The program to run.
    Program(&'a [u8]),
    /// Print what the kernel counted when the program ends.
    Statistics,
    /// Behind this stand the program's arguments.
    Separator,
    /// A variable for the program's environment.
    Variable(&'a [u8]),
    /// An option of some other kernel.
    Other,
}

/// Classifies a word that stands before the separator.
pub fn classify(word: &[u8]) -> Word<'_> {
    match word {
        [b'r', b'd', b'i', b'n', b'i', b't', b'=', program @ ..] | [b'i', b'n', b'i', b't', b'=', program @ ..] => {
            Word::Program(program)
        }
        b"--" => Word::Separator,
        b"lab.statistics" => Word::Statistics,
        _ => {
            let name = word.iter().position(|&byte| byte == b'=').map(|end| &word[..end]);
            match name {
                Some(name) if !name.contains(&b'.') && name != b"console" => Word::Variable(word),
                _ => Word::Other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        let (mut words, mut buffer, mut found) = (Words::new(line.as_bytes()), [0u8; 64], vec![]);
        while let Some(length) = words.next_into(&mut buffer) {
            found.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        found
    }

    #[test]
    fn words_quotes_and_escapes() {
        assert_eq!(split("  a  b\tc\n"), ["a", "b", "c"]);
        assert_eq!(
            split(r#"-- "a b" "" x"y z"w \n "q\"\\""#),
            ["--", "a b", "", "xy zw", r"\n", r#"q"\"#]
        );
        assert_eq!(split(r#""never closed"#), ["never closed"]);
        assert!(split("   ").is_empty());
    }

    #[test]
    fn options_are_told_apart() {
        assert_eq!(classify(b"rdinit=/bin/x"), Word::Program(b"/bin/x"));
        assert_eq!(classify(b"init=/bin/x"), Word::Program(b"/bin/x"));
        assert_eq!(classify(b"HOME=/root"), Word::Variable(b"HOME=/root"));
        assert_eq!(classify(b"console=ttyS0"), Word::Other);
        assert_eq!(classify(b"lab.marks"), Word::Other);
        assert_eq!(classify(b"module.option=1"), Word::Other);
        assert_eq!(classify(b"--"), Word::Separator);
    }
}
