//! Blocks of commands: what a chapter has its reader type, and what is then to be seen.
//!
//! ````text
//! ```console,needs-kvm,exits-7
//! $ vmm run workload exit 7
//! ```
//! ````
//!
//! `needs-X` names what a machine must have: kvm, root, qemu, network-ns, linux, or a program of that name. `exits-N` is the status
//! the block's last command ends with, where it is not 0. Lines that begin with `> ` continue the command above.

use std::ops::Range;

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of its first line in the page, from 1.
    pub line: usize,
    /// What the machine must have.
    pub needs: Vec<String>,
    /// Status of its last command.
    pub status: i32,
    /// The commands in order.
    pub steps: Vec<Step>,
}

/// A command and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of its line in the page.
    pub line: usize,
    /// For the shell.
    pub command: String,
    /// Lines of standard output and error, with placeholders.
    pub expected: Vec<String>,
}

/// A block that does not follow the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something else than commands at its beginning.
    #[error("line {0}: a console block begins with `$ command`")]
    NoCommand(usize),
    /// An unknown word behind `console`.
    #[error("line {line}: `{word}` says nothing about a console block: needs-X and exits-N do")]
    Word {
        /// Where.
        line: usize,
        /// What.
        word: String,
    },
}

/// A fenced block of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence<'a> {
    /// What stands behind the opening backticks.
    pub info: &'a str,
    /// Lines of the page, from 0, the fences among them.
    pub lines: Range<usize>,
}

/// All fenced blocks of a page. One that is not closed runs to the page's end.
pub fn fences(page: &str) -> Vec<Fence<'_>> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str, &str)> = None;
    let mut count = 0;
    for (number, line) in page.lines().enumerate() {
        count = number + 1;
        let text = line.trim_start();
        let ticks = &text[..text.len() - text.trim_start_matches('`').len()];
        match open {
            None if ticks.len() >= 3 => open = Some((number, ticks, text[ticks.len()..].trim())),
            Some((start, opening, info)) if text.trim_end() == ticks && ticks.len() >= opening.len() => {
                found.push(Fence {
                    info,
                    lines: start..number + 1,
                });
                open = None;
            }
            _ => {}
        }
    }
    if let Some((start, _, info)) = open {
        found.push(Fence {
            info,
            lines: start..count,
        });
    }
    found
}

/// The blocks of commands of a page, in its order.
pub fn parse(page: &str) -> Result<Vec<Block>, Error> {
    let lines: Vec<&str> = page.lines().collect();
    let consoles = fences(page).into_iter().filter(|fence| is_console(fence.info));
    consoles.map(|fence| block(&lines, &fence)).collect()
}

/// Whether a block's info string says that it holds commands.
pub fn is_console(info: &str) -> bool {
    info.split(',').next() == Some("console")
}

/// The needs in an info string.
pub fn needs(info: &str) -> Vec<String> {
    info.split(',')
        .filter_map(|word| word.trim().strip_prefix("needs-"))
        .map(str::to_owned)
        .collect()
}

fn block(lines: &[&str], fence: &Fence) -> Result<Block, Error> {
    let line = fence.lines.start + 1;
    let mut status = 0;
    for word in fence.info.split(',').skip(1).map(str::trim) {
        let number = word.strip_prefix("exits-").and_then(|number| number.parse().ok());
        match number {
            Some(number) => status = number,
            None if word.starts_with("needs-") => {}
            None => {
                let word = word.to_owned();
                return Err(Error::Word { line, word });
            }
        }
    }
    let mut steps: Vec<Step> = Vec::new();
    let inside = lines
        .iter()
        .enumerate()
        .take(fence.lines.end - 1)
        .skip(fence.lines.start + 1);
    for (number, &text) in inside {
        match (text.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                line: number + 1,
                command: command.to_owned(),
                expected: Vec::new(),
            }),
            (None, Some(step)) => match text.strip_prefix("> ") {
                Some(more) if step.expected.is_empty() => step.command += &format!("\n{more}"),
                _ => step.expected.push(text.to_owned()),
            },
            (None, None) => return Err(Error::NoCommand(number + 1)),
        }
    }
    Ok(Block {
        line,
        needs: needs(fence.info),
        status,
        steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "Text\n\n```console,needs-kvm,exits-7\n$ echo a \\\n>  b\na b\n$ false\n```\n\n````text\n```console\n```\n````\n";

    #[test]
    fn commands_and_their_output_are_taken_apart() {
        let blocks = parse(PAGE).unwrap();
        assert_eq!(blocks.len(), 1);
        assert_eq!((blocks[0].line, blocks[0].status), (3, 7));
        assert_eq!(blocks[0].needs, ["kvm"]);
        let commands: Vec<&str> = blocks[0].steps.iter().map(|step| step.command.as_str()).collect();
        assert_eq!(commands, ["echo a \\\n b", "false"]);
        assert_eq!(blocks[0].steps[0].expected, ["a b"]);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        assert!(matches!(parse("```console\nno command\n```"), Err(Error::NoCommand(2))));
        assert!(matches!(
            parse("```console,needskvm\n$ a\n```"),
            Err(Error::Word { line: 1, .. })
        ));
    }
}
