//! Every message that a program of the lab can fail with, out of its source: `{{#errors vmm/src}}`.
//!
//! An error is an enum whose variants carry their message, `#[error("...")]`, so the messages can be read where they are written.

use std::fs;
use std::io;
use std::path::Path;

/// A list of the messages in the source files below `folder` of the repository, file by file. What a message fills in when it is told stands as `…`.
pub fn list(repository: &Path, folder: &str) -> io::Result<String> {
    let mut files = Vec::new();
    collect(&repository.join(folder), &mut files)?;
    files.sort();
    let mut text = String::new();
    for file in files {
        let source = fs::read_to_string(&file)?;
        let mut told: Vec<String> = messages(&source)
            .into_iter()
            .filter(|message| says_something(message))
            .collect();
        told.dedup();
        if told.is_empty() {
            continue;
        }
        let name = file.strip_prefix(repository).unwrap_or(&file).display();
        text.push_str(&format!("\n<p class=\"source\">{name}</p>\n\n"));
        for message in told {
            text.push_str(&format!("- {}\n", escaped(&message)));
        }
    }
    Ok(text)
}

/// The Rust files below a folder, added to `files`.
pub fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The messages of a source file, in their order.
pub fn messages(source: &str) -> Vec<String> {
    source
        .split("#[error(")
        .skip(1)
        .filter_map(|rest| Some(shown(&literal(rest.trim_start().strip_prefix('"')?))))
        .collect()
}

/// The value of a string literal whose opening quote was read.
fn literal(rest: &str) -> String {
    let mut value = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => match characters.next() {
                // The line goes on at the next one's first letter.
                Some('\n') => {
                    let after = characters.as_str().trim_start();
                    characters = after.chars();
                }
                Some('n') => value.push(' '),
                Some(other) => value.push(other),
                None => break,
            },
            other => value.push(other),
        }
    }
    value
}

/// A message with `…` for each of its placeholders.
fn shown(message: &str) -> String {
    let mut text = String::new();
    let mut depth = 0;
    let message = message.replace("{{", "\u{1}").replace("}}", "\u{2}");
    for character in message.chars() {
        match character {
            '{' => {
                depth += 1;
                text.push('…');
            }
            '}' => depth -= 1,
            _ if depth > 0 => {}
            '\u{1}' => text.push('{'),
            '\u{2}' => text.push('}'),
            other => text.push(other),
        }
    }
    text
}

/// Whether there is more in a message than what another error says.
fn says_something(message: &str) -> bool {
    message.chars().filter(|character| character.is_alphabetic()).count() > 3
}

/// As text of a page.
fn escaped(message: &str) -> String {
    let mut text = String::new();
    for character in message.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '*' | '_' | '`' | '[' | ']' | '\\' | '|' | '~' => text.extend(['\\', character]),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_where_they_are_written() {
        let source = "#[error(\"no {0}: see {1}\")]\n#[error(transparent)]\n#[error(\n    \"a \\\"b\\\" {x:?}\",\n    why(errno)\n)]\n#[error(\"{0}\")]";
        assert_eq!(messages(source), ["no …: see …", "a \"b\" …", "…"]);
        assert!(!says_something("…"));
    }

    #[test]
    fn every_program_has_messages() {
        let repository = crate::folder().join("..");
        for folder in ["vmm/src", "container/src", "bench/src"] {
            let text = list(&repository, folder).unwrap();
            assert!(
                text.lines().filter(|line| line.starts_with("- ")).count() > 20,
                "{folder}"
            );
        }
    }
}
