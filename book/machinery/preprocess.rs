//! The step between the chapters as written and as mdBook renders them.

use std::fs;
use std::path::PathBuf;

use mdbook_preprocessor::book::{Book, BookItem};

use crate::{blocks, claims, compare, errors, figures, folder, numbers, pages};

/// A page that cannot be shown as it is written.
#[derive(Debug, thiserror::Error)]
#[error("{page}:{line}: {what}")]
pub struct Error {
    page: String,
    line: usize,
    what: String,
}

/// Prepares every chapter.
pub fn book(book: &mut Book) -> Result<(), Error> {
    let mut failed = None;
    book.for_each_mut(|item| {
        let BookItem::Chapter(chapter) = item else { return };
        let page = chapter
            .path
            .as_ref()
            .map_or_else(|| chapter.name.clone(), |path| path.display().to_string());
        match self::page(&page, &chapter.content) {
            Ok(text) => chapter.content = text,
            Err(error) => failed = Some(error),
        }
    });
    failed.map_or(Ok(()), Err)
}

/// One page with its figures, pictures and notes filled in.
pub fn page(page: &str, text: &str) -> Result<String, Error> {
    let fences = blocks::fences(text);
    let mut result = String::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        let fence = fences.iter().find(|fence| fence.lines.contains(&number));
        let filled = match fence {
            None => prose(line),
            Some(_) if line.starts_with("{{#include ") => code(line),
            Some(fence) if !blocks::is_console(fence.info) => Ok(line.to_owned() + &source(text, fence, number)),
            Some(fence) if number == fence.lines.start => Ok("```console".to_owned()),
            Some(fence) if number + 1 == fence.lines.end => Ok(format!("```\n{}", note(&blocks::needs(fence.info)))),
            Some(_) => Ok(compare::shown(line)),
        };
        let what = |what| Error {
            page: page.to_owned(),
            line: number + 1,
            what,
        };
        result.push_str(&filled.map_err(what)?);
        result.push('\n');
    }
    Ok(result)
}

/// The reader's own results, which `lab book` names.
fn own_results() -> Option<PathBuf> {
    std::env::var_os("LAB_BOOK_RESULTS").map(PathBuf::from)
}

/// A line outside of blocks.
fn prose(line: &str) -> Result<String, String> {
    let recorded = folder().join("recorded");
    if let Some((text, file)) = picture(line) {
        return figures::diagram(&folder().join("src"), file, text).map_err(|error| error.to_string());
    }
    let mut result = String::new();
    let mut rest = line;
    while let Some(start) = rest.find("{{#") {
        let Some(length) = rest[start..].find("}}") else { break };
        let directive = &rest[start + 3..start + length];
        result.push_str(&rest[..start]);
        let (name, words) = directive.split_once(' ').unwrap_or((directive, ""));
        result.push_str(&match name {
            "number" => numbers::resolve(&recorded, words).map_err(|error| error.to_string())?,
            "errors" => {
                errors::list(&folder().join(".."), words.trim()).map_err(|error| format!("{words}: {error}"))?
            }
            "claim" => claims::resolve(&recorded, words).map_err(|error| error.to_string())?,
            "chart" => figures::charts(&recorded, own_results().as_deref(), words.trim())?,
            "title" => rest[start..start + length + 2].to_owned(),
            _ => return Err(format!("nobody knows what {{{{#{directive}}}}} is")),
        });
        rest = &rest[start + length + 2..];
    }
    Ok(result + rest)
}

/// The code between two anchors, without the indentation it has in its file, nor the marks of other anchors in it.
fn code(line: &str) -> Result<String, String> {
    let (file, anchor) = include(line).ok_or("write {{#include FILE:ANCHOR}} alone on its line, in a block")?;
    let text = fs::read_to_string(folder().join("src").join(file)).map_err(|error| format!("{file}: {error}"))?;
    let lines =
        pages::anchored(&text, anchor).ok_or_else(|| format!("{file} has no `ANCHOR: {anchor}` with an end"))?;
    let lines: Vec<&str> = lines
        .into_iter()
        .filter(|line| !line.trim_start().starts_with("// ANCHOR"))
        .collect();
    let indentation = |line: &&str| line.len() - line.trim_start().len();
    let least = lines
        .iter()
        .filter(|line| !line.trim().is_empty())
        .map(indentation)
        .min();
    let least = least.unwrap_or(0);
    Ok(lines
        .iter()
        .map(|line| line.get(least..).unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// File and anchor of an include.
fn include(line: &str) -> Option<(&str, &str)> {
    line.trim()
        .strip_prefix("{{#include ")?
        .strip_suffix("}}")?
        .split_once(':')
}

/// Behind a block that includes code: which file it is from.
fn source(page: &str, fence: &blocks::Fence, number: usize) -> String {
    let mut inside = page.lines().take(fence.lines.end).skip(fence.lines.start);
    match inside.find_map(include) {
        Some((file, _)) if number + 1 == fence.lines.end => {
            let file = file.trim_start_matches("../");
            format!("\n\n<p class=\"source\">{file}</p>\n")
        }
        _ => String::new(),
    }
}

/// `![text](figures/NAME.svg)` alone on its line.
fn picture(line: &str) -> Option<(&str, &str)> {
    let (text, file) = line.trim().strip_prefix("![")?.strip_suffix(')')?.split_once("](")?;
    (file.starts_with("figures/") && file.ends_with(".svg")).then_some((text, file))
}

/// What a machine must have for a block, in words for the reader.
fn note(needs: &[String]) -> String {
    let words: Vec<String> = needs
        .iter()
        .map(|need| match need.as_str() {
            "kvm" => "<code>/dev/kvm</code>; without it: <code>lab testbed COMMAND</code>, or <code>lab testbed sh -c 'COMMANDS'</code> for those that share files".to_owned(),
            "root" => "root".to_owned(),
            "qemu" => "QEMU (<code>lab testbed</code> says what to install)".to_owned(),
            "network-ns" => "permission to make network namespaces".to_owned(),
            "linux" => "the Linux kernel for guests (<code>bash guest-images/linux/build</code>)".to_owned(),
            program => format!("the program <code>{program}</code>"),
        })
        .collect();
    match words.is_empty() {
        true => String::new(),
        false => format!("\n<p class=\"needs\">Needs {}.</p>\n", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lose_their_placeholders_and_say_what_they_need() {
        let text = page("x.md", "```console,needs-root\n$ id -u\n[~0]\n```\n").unwrap();
        assert!(text.starts_with("```console\n$ id -u\n0\n```\n"), "{text}");
        assert!(text.contains("Needs root."), "{text}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let error = page("x.md", "\n{{#number nowhere.a ms}}\n").unwrap_err().to_string();
        assert!(error.starts_with("x.md:2: "), "{error}");
        assert!(page("x.md", "{{#nonsense}}").is_err());
        assert!(page("x.md", "![no such](figures/none.svg)").is_err());
    }

    #[test]
    fn code_comes_without_its_indentation_and_with_its_file() {
        let text = page("x.md", "```rust\n{{#include ../../vmm/src/empty.rs:empty}}\n```\n").unwrap();
        assert!(text.starts_with("```rust\nlet kvm = vm::open_kvm()?;\n"), "{text}");
        assert!(
            text.ends_with("```\n\n<p class=\"source\">vmm/src/empty.rs</p>\n\n"),
            "{text}"
        );
        assert!(page("x.md", "```rust\n{{#include ../../vmm/src/empty.rs:none}}\n```\n").is_err());
    }
}
