//! The failure guide's hand-kept tables: every message in them is one that a program of the lab says, in its source's words; every
//! option and command a cure names is one the programs have.

// All of this file is test, its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use book::{errors, folder};

/// Sources of the programs' messages, below the repository.
const SOURCES: [&str; 6] = [
    "vmm/src",
    "container/src",
    "container/registry/src",
    "bench/src",
    "guest-images/kernel/src",
    "guest-images/workload/src",
];

fn guide() -> String {
    fs::read_to_string(folder().join("src/c-failure-guide.md")).unwrap()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for source in SOURCES {
        errors::collect(&folder().join("..").join(source), &mut files).unwrap();
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, plain(&text))
    };
    files.into_iter().map(read).collect()
}

/// A text as it is read: lines that a backslash joins joined, quotes and backticks without theirs, one space for several.
fn plain(text: &str) -> String {
    let joined: Vec<&str> = text
        .split("\\\n")
        .enumerate()
        .map(|(index, part)| if index == 0 { part } else { part.trim_start() })
        .collect();
    let text = joined.concat().replace(['`', '\\'], "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Rows of the tables beneath the title that begins so, cell by cell. Rules and headings are left out.
fn rows(guide: &str, title: &str) -> Vec<Vec<String>> {
    let inside = guide.lines().skip_while(|line| !line.starts_with(title)).skip(1);
    let depth = format!("{} ", title.split(' ').next().unwrap_or_default());
    let lines = inside.take_while(|line| !line.starts_with(&depth));
    let mut found = Vec::new();
    let mut heading = true;
    for line in lines {
        match line.strip_prefix('|') {
            Some(cells) if !heading && !cells.starts_with("---") => {
                found.push(
                    cells
                        .trim_end_matches('|')
                        .split(" | ")
                        .map(|cell| cell.trim().to_owned())
                        .collect(),
                );
            }
            Some(_) => heading = false,
            None => heading = true,
        }
    }
    found
}

/// Whether one file says all pieces of a message, in their order.
fn said(sources: &[(PathBuf, String)], message: &str) -> bool {
    let message = plain(message).replace("...", "…");
    let pieces: Vec<&str> = message
        .split('…')
        .map(str::trim)
        .filter(|piece| piece.chars().any(char::is_alphabetic))
        .collect();
    !pieces.is_empty()
        && sources.iter().any(|(_, text)| {
            let mut rest = text.as_str();
            pieces.iter().all(|piece| match rest.find(piece) {
                Some(at) => {
                    rest = &rest[at + piece.len()..];
                    true
                }
                None => false,
            })
        })
}

#[test]
fn every_message_is_one_a_program_says() {
    let (guide, sources) = (guide(), sources());
    let rows = rows(&guide, "## What readers meet");
    assert!(rows.len() >= 20, "{} rows were read", rows.len());
    // What is no message but something seen is written in italics.
    let messages = rows.iter().filter(|row| !row[0].starts_with('*'));
    let unknown: Vec<&str> = messages
        .map(|row| row[0].as_str())
        .filter(|message| !said(&sources, message))
        .collect();
    assert!(unknown.is_empty(), "no source says:\n{}", unknown.join("\n"));
    for row in &rows {
        assert!(
            row.len() == 3 && row.iter().all(|cell| !cell.is_empty()),
            "not message, cause, cure: {row:?}"
        );
    }
}

#[test]
fn a_message_nobody_says_is_missed() {
    let sources = [(
        PathBuf::from("a.rs"),
        plain("\"no {0} on \\\n    this `machine`; try {1}\""),
    )];
    assert!(said(&sources, "no … on this machine; try …"));
    assert!(!said(&sources, "try … no"));
    assert!(!said(&sources, "nobody says this"));
    assert!(!said(&sources, "…"));
}

#[test]
fn the_kernel_s_words_are_the_kernel_s() {
    let guide = guide();
    let known: BTreeSet<(&str, i32)> = BTreeSet::from([
        ("EPERM", libc::EPERM),
        ("EACCES", libc::EACCES),
        ("EROFS", libc::EROFS),
        ("EAGAIN", libc::EAGAIN),
        ("ENOSPC", libc::ENOSPC),
        ("EMFILE", libc::EMFILE),
        ("ENFILE", libc::ENFILE),
        ("EBUSY", libc::EBUSY),
        ("EINVAL", libc::EINVAL),
        ("ENOSYS", libc::ENOSYS),
        ("ENOENT", libc::ENOENT),
        ("ENOEXEC", libc::ENOEXEC),
    ]);
    let rows = rows(&guide, "## The kernel's words");
    let words: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| row[0].split(", "))
        .map(|word| word.trim_matches('`'))
        .collect();
    assert_eq!(
        words,
        known.iter().map(|(word, _)| *word).collect(),
        "a word was added: add its number here"
    );
    // The sentence each stands for is the C library's, which readers see behind the lab's messages.
    for (word, number) in known {
        let sentence = std::io::Error::from_raw_os_error(number).to_string();
        assert!(!sentence.starts_with("Unknown error"), "{word}: {sentence}");
    }
}

/// Long options in the cures are options of some program of the lab, or of a program the cure calls by name.
#[test]
fn every_option_in_a_cure_exists() {
    let (guide, sources) = (guide(), sources());
    let all: String = sources.iter().map(|(_, text)| text.as_str()).collect();
    let mut unknown = Vec::new();
    for row in rows(&guide, "## What readers meet") {
        let Some(cure) = row.get(2) else { continue };
        // systemd-run's options are its own.
        let words = cure.split(|character: char| character.is_whitespace() || character == '`');
        for option in words
            .filter_map(|word| word.strip_prefix("--"))
            .filter(|_| !cure.contains("systemd-run"))
        {
            let name = option
                .trim_end_matches([',', '.', ';'])
                .split('=')
                .next()
                .unwrap_or_default();
            // As clap's derive reads it from a field, or written out.
            let field = format!("pub {}:", name.replace('-', "_"));
            let private = format!(" {}: ", name.replace('-', "_"));
            if !(all.contains(&field) || all.contains(&private) || all.contains(&format!("--{name}"))) {
                unknown.push(format!("--{name}: {cure}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn the_example_at_the_top_is_a_message() {
    let guide = guide();
    let block = book::blocks::fences(&guide).into_iter().next().unwrap();
    let lines: Vec<&str> = guide.lines().collect();
    let shown: Vec<&str> = lines[block.lines]
        .iter()
        .copied()
        .filter(|line| !line.starts_with(['└', '`']))
        .collect();
    let (what, why) = shown
        .join(" ")
        .split_once(':')
        .map(|(what, why)| (what.to_owned(), why.to_owned()))
        .unwrap();
    assert!(said(&sources(), &what), "{what}");
    let cure = why.split(". ").nth(1).unwrap();
    assert!(said(&sources(), cure), "{cure}");
}
