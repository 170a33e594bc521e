//! What prose may say: figures somebody can look up, words in one spelling.
//!
//! A figure in running text comes from a recorded result (`{{#number ...}}`, `{{#claim ...}}`). Where it cannot (a size the
//! page itself chose, a rule of Linux, what somebody published) it is in a list, with the place it comes from.

use std::collections::BTreeSet;

use crate::pages::{Page, without_targets};

/// Words that make a number a figure.
const UNITS: [&str; 26] = [
    "ns",
    "us",
    "µs",
    "ms",
    "s",
    "nanosecond",
    "nanoseconds",
    "microsecond",
    "microseconds",
    "millisecond",
    "milliseconds",
    "second",
    "seconds",
    "minute",
    "minutes",
    "byte",
    "bytes",
    "KiB",
    "MiB",
    "GiB",
    "kB",
    "MB",
    "GB",
    "times",
    "percent",
    "%",
];

/// Numbers that are written as words.
const NUMBERS: [&str; 21] = [
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "sixteen", "twenty",
    "thirty", "forty", "fifty", "sixty", "hundred", "thousand", "million", "billion",
];

/// Names of the field that are no terms of the glossary, as this book spells them.
pub const FIELD: [&str; 40] = [
    "AMD",
    "AppArmor",
    "Btrfs",
    "Cloud Hypervisor",
    "Debian",
    "Docker",
    "Firecracker",
    "Intel",
    "Kata Containers",
    "Kubernetes",
    "Linux",
    "QEMU",
    "Rust",
    "SELinux",
    "Xen",
    "address space",
    "boot loader",
    "bzImage",
    "cgroup",
    "command line",
    "conmon",
    "containerd",
    "crosvm",
    "crun",
    "device node",
    "file system",
    "gVisor",
    "host name",
    "initramfs",
    "loopback",
    "lowerdir",
    "netlink",
    "page fault",
    "podman",
    "runc",
    "systemd",
    "upperdir",
    "user space",
    "vmlinux",
    "write-back",
];

/// Words this project uses everywhere, in code, commands, charts and book (its design page has them). The glossary explains each.
pub const WORDS: [&str; 26] = [
    "workload",
    "guest",
    "host",
    "lab kernel",
    "contender",
    "peer",
    "run",
    "sample",
    "mark",
    "phase",
    "start line",
    "finish line",
    "cold",
    "restored",
    "configured memory",
    "touched memory",
    "marginal memory",
    "verdict",
    "null test",
    "namespace",
    "pivot_root",
    "lowerdir",
    "bundle",
    "layer",
    "vCPU",
    "exit",
];

/// A figure that needs no recorded result, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced {
    /// The page it stands on.
    pub page: String,
    /// As [`figures`] gives it: `64 MiB`.
    pub figure: String,
    /// Where it comes from.
    pub source: String,
}

/// Reads the list: `PAGE | FIGURE | SOURCE`, one a line, `#` before a comment. A line that is none of these is an error, with its number.
pub fn sourced(list: &str) -> Result<Vec<Sourced>, String> {
    let lines = list.lines().enumerate();
    let entries = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    entries
        .map(|(number, line)| {
            let cells: Vec<&str> = line.splitn(3, '|').map(str::trim).collect();
            match cells[..] {
                [page, figure, source] if !source.is_empty() => Ok(Sourced {
                    page: page.to_owned(),
                    figure: figure.to_owned(),
                    source: source.to_owned(),
                }),
                _ => Err(format!("line {}: write PAGE | FIGURE | SOURCE: {line:?}", number + 1)),
            }
        })
        .collect()
}

/// Figures in a page's prose that are written there and not looked up: line and figure, as `64 MiB` or `ten times`.
pub fn figures(page: &Page) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in page.prose() {
        let line = without_targets(&line).replace('\u{a0}', " ");
        let words: Vec<&str> = line
            .split(|character: char| character.is_whitespace() || matches!(character, '|' | '\u{0}'))
            .map(|word| word.trim_matches(|character: char| !(character.is_alphanumeric() || character == '%')))
            .filter(|word| !word.is_empty())
            .collect();
        for (at, word) in words.iter().enumerate() {
            let (amount, attached) = split(word);
            let unit = match attached {
                "" => words.get(at + 1).copied().unwrap_or_default(),
                attached => attached,
            };
            if !amount.is_empty() && UNITS.contains(&unit) {
                found.push((number, format!("{amount} {unit}")));
            }
        }
    }
    found
}

/// A number and what hangs on it: `75` and `ms`, `100` and `%`, `ten` and nothing. No number: nothing twice.
fn split(word: &str) -> (&str, &str) {
    if NUMBERS.contains(&word.to_lowercase().as_str()) {
        return (word, "");
    }
    if !word.starts_with(|first: char| first.is_ascii_digit()) {
        return ("", "");
    }
    let end = word.find(|character: char| !(character.is_ascii_digit() || matches!(character, '.' | ',')));
    word.split_at(end.unwrap_or(word.len()))
}

/// What is wrong with the figures of `pages`, given those that have another source: bare ones, and sources nobody needs any more.
pub fn unsourced(pages: &[Page], sourced: &[Sourced]) -> Vec<String> {
    let mut needed = BTreeSet::new();
    let mut complaints = Vec::new();
    for page in pages {
        for (line, figure) in figures(page) {
            match sourced
                .iter()
                .position(|entry| entry.page == page.name && entry.figure == figure)
            {
                Some(entry) => drop(needed.insert(entry)),
                None => complaints.push(format!(
                    "{}:{line}: `{figure}` comes from nowhere: look it up ({{{{#number}}}}, {{{{#claim}}}}), or tell its source in figures.txt",
                    page.name
                )),
            }
        }
    }
    let stale = sourced.iter().enumerate().filter(|(entry, _)| !needed.contains(entry));
    complaints.extend(stale.map(|(_, entry)| format!("figures.txt: {} no longer says `{}`", entry.page, entry.figure)));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page {
            name: "01-x.md".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn figures_are_found_in_prose_and_nowhere_else() {
        let found = |text: &str| {
            figures(&page(text))
                .into_iter()
                .map(|(_, figure)| figure)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            found("It took 5.24 ms (95%), and 75ms; ten times."),
            ["5.24 ms", "95 %", "75 ms", "ten times"]
        );
        assert_eq!(found("Thousand times | 64 MiB |"), ["Thousand times", "64 MiB"]);
        assert_eq!(
            found("`--memory 64 MiB` {{#number a.b ms}} 7 layers, [3 ms](x 3 ms)"),
            ["3 ms"]
        );
        assert_eq!(found("```text\n64 MiB\n```\n"), Vec::<String>::new());
    }

    #[test]
    fn a_figure_needs_a_source_and_a_source_a_figure() {
        let pages = [page("64 MiB and 3 ms")];
        let list = sourced("# why\n01-x.md | 64 MiB | chosen\n\n01-x.md | 9 s | Linux\n").unwrap();
        let complaints = unsourced(&pages, &list);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("01-x.md:1: `3 ms`") && complaints[1].contains("`9 s`"));
        assert!(sourced("01-x.md | 64 MiB |").unwrap_err().starts_with("line 1"));
    }
}
