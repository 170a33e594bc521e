//! The pages as files: their order, their parts, what they include and link to, and the words they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::blocks;
use crate::figures::between;

/// The parts of a chapter, in their order.
pub const SECTIONS: [&str; 9] = [
    "Question",
    "Guess first",
    "What the code does",
    "Try it",
    "What happened",
    "What would prove this wrong",
    "Exercise",
    "In production",
    "Remember",
];

/// A page of the book.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its file's name in `src`.
    pub name: String,
    /// What is written there.
    pub text: String,
}

/// Every page in the order of SUMMARY.md. One that is listed and not written is for mdBook to complain about.
pub fn all(source: &Path) -> io::Result<Vec<Page>> {
    let summary = fs::read_to_string(source.join("SUMMARY.md"))?;
    let names = links(&summary).into_iter().map(|(_, target)| target);
    names
        .filter(|name| source.join(name).exists())
        .map(|name| {
            let text = fs::read_to_string(source.join(&name))
                .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
            Ok(Page { name, text })
        })
        .collect()
}

impl Page {
    /// Whether this is one of the numbered chapters.
    pub fn is_chapter(&self) -> bool {
        self.name.starts_with(|first: char| first.is_ascii_digit())
    }

    /// The page without blocks and code between backticks, line by line: what is read as prose.
    pub fn prose(&self) -> Vec<(usize, String)> {
        let fences = blocks::fences(&self.text);
        let outside = |number: usize| !fences.iter().any(|fence| fence.lines.contains(&number));
        let lines = self.text.lines().enumerate().filter(|(number, _)| outside(*number));
        lines.map(|(number, line)| (number + 1, without_code(line))).collect()
    }

    /// Titles of the page, with their depth.
    pub fn titles(&self) -> Vec<(usize, String)> {
        let fences = blocks::fences(&self.text);
        let lines = self.text.lines().enumerate();
        lines
            .filter(|(number, line)| line.starts_with('#') && !fences.iter().any(|fence| fence.lines.contains(number)))
            .map(|(_, line)| {
                let title = line.trim_start_matches('#');
                (line.len() - title.len(), title.trim().to_owned())
            })
            .collect()
    }

    /// What a link behind `#` can lead to: the ids mdBook makes from titles, and those written as HTML.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (_, title) in self.titles() {
            // `# Title {#id}` names its id itself.
            if let Some(id) = between(&title, "{#", "}") {
                anchors.insert(id.to_owned());
                continue;
            }
            let id = title_id(&title);
            let count = seen.entry(id.clone()).or_default();
            anchors.insert(if *count == 0 { id } else { format!("{id}-{count}") });
            *count += 1;
        }
        let mut rest = self.text.as_str();
        while let Some(id) = between(rest, "id=\"", "\"") {
            anchors.insert(id.to_owned());
            rest = &rest[rest.find("id=\"").unwrap_or(0) + 4..];
        }
        anchors
    }

    /// What is missing among the parts of a chapter, or stands in the wrong place.
    pub fn missing_section(&self) -> Option<&'static str> {
        let titles = self.titles();
        let mut found = titles
            .iter()
            .filter(|(depth, _)| *depth == 2)
            .map(|(_, title)| title.as_str());
        SECTIONS
            .into_iter()
            .find(|section| !found.any(|title| title.starts_with(section)))
    }

    /// What a chapter lacks inside its parts: code of the project, a command with its output, a picture, and so on.
    pub fn lacking(&self) -> Vec<&'static str> {
        let part = |title: &str| self.section(title).unwrap_or_default();
        let bullets = |title: &str| part(title).lines().filter(|line| line.starts_with("- ")).count();
        let commands = blocks::parse(&part("Try it")).unwrap_or_default();
        let mut steps = commands.iter().flat_map(|block| &block.steps);
        let boxes: Vec<String> = self.boxes();
        let speaks_of = |word: &str| {
            let said = |text: &String| text.contains("**Without") && text.contains(word);
            boxes.iter().any(said)
        };
        let parts = [
            (part("Question").contains('?'), "a question mark in Question"),
            (
                part("Guess first").contains('?') || bullets("Guess first") > 0 || part("Guess first").contains("uess"),
                "a guess to make",
            ),
            (
                part("What the code does").contains("{{#include ../../"),
                "code of the project, by anchor, in What the code does",
            ),
            (
                steps.any(|step| !step.expected.is_empty()),
                "a command with its output in Try it",
            ),
            (
                self.text.contains("{{#chart ") || self.text.contains("](figures/"),
                "a chart or a diagram",
            ),
            (
                bullets("What would prove this wrong") >= 2,
                "two ways to prove it wrong",
            ),
            (
                part("Exercise").contains("/stub.rs:stub}}")
                    && part("Exercise").contains("cargo test -p book --test exercises"),
                "an exercise with its test",
            ),
            (
                part("In production").contains("Where the lab simplifies"),
                "where the lab simplifies, in In production",
            ),
            (bullets("Remember") == 3, "three lines to remember"),
            (speaks_of("KVM"), "a box `**Without KVM**`"),
            (speaks_of("root"), "a box `**Without root**`"),
        ];
        parts
            .into_iter()
            .filter(|(holds, _)| !holds)
            .map(|(_, what)| what)
            .collect()
    }

    /// What stands between the title that begins so and the next of its depth.
    fn section(&self, title: &str) -> Option<String> {
        let lines: Vec<&str> = self.text.lines().collect();
        let fences = blocks::fences(&self.text);
        let is_title = |number: usize| {
            lines[number].starts_with("## ") && !fences.iter().any(|fence| fence.lines.contains(&number))
        };
        let start = (0..lines.len()).find(|&number| is_title(number) && lines[number][3..].starts_with(title))? + 1;
        let end = (start..lines.len())
            .find(|&number| is_title(number))
            .unwrap_or(lines.len());
        Some(lines[start..end].join("\n"))
    }

    /// The boxes of the page: runs of lines that begin with `>`, outside of blocks.
    fn boxes(&self) -> Vec<String> {
        let mut boxes: Vec<String> = Vec::new();
        let mut last = 0;
        for (number, line) in self.prose() {
            match (line.strip_prefix('>'), boxes.last_mut()) {
                (Some(text), Some(open)) if number == last + 1 => *open += text,
                (Some(text), _) => boxes.push(text.to_owned()),
                (None, _) => continue,
            }
            last = number;
        }
        boxes
    }

    /// Files and anchors of code the page includes: `../../vmm/src/vm.rs` and `recipe`.
    pub fn includes(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut rest = self.text.as_str();
        while let Some(words) = between(rest, "{{#include ", "}}") {
            let (file, anchor) = words.split_once(':').unwrap_or((words, ""));
            found.push((PathBuf::from(file.trim()), anchor.trim().to_owned()));
            rest = &rest[rest.find("{{#include ").unwrap_or(0) + 11..];
        }
        found
    }

    /// Its links: text and target.
    pub fn links(&self) -> Vec<(String, String)> {
        let prose: Vec<String> = self.prose().into_iter().map(|(_, line)| line).collect();
        links(&prose.join("\n"))
    }
}

/// Lines between `ANCHOR: name` and `ANCHOR_END: name`; None where there are no such marks.
pub fn anchored<'a>(code: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let mark = |line: &str, word: &str| {
        let rest = line.split_once(word).map(|(_, rest)| rest.trim());
        rest.is_some_and(|rest| rest.split_whitespace().next() == Some(name))
    };
    let mut lines = code.lines();
    lines.find(|line| mark(line, "ANCHOR:"))?;
    let mut inside = Vec::new();
    for line in lines {
        if mark(line, "ANCHOR_END:") {
            return Some(inside);
        }
        inside.push(line);
    }
    None
}

/// The id mdBook gives to a title: letters and digits in lower case, `-` for spaces, the rest left out.
pub fn title_id(title: &str) -> String {
    let text = title.replace('`', "");
    let kept = text.trim().chars().filter_map(|character| match character {
        letter if letter.is_alphanumeric() || matches!(letter, '_' | '-') => Some(letter.to_lowercase().to_string()),
        space if space.is_whitespace() => Some("-".to_owned()),
        _ => None,
    });
    kept.collect()
}

/// `[text](target)` in a text, pictures among them.
pub fn links(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        let (Some(start), Some(length)) = (text[..at].rfind('['), text[at + 2..].find(')')) else {
            continue;
        };
        found.push((text[start + 1..at].to_owned(), text[at + 2..at + 2 + length].to_owned()));
    }
    found
}

/// Every page's anchors.
pub fn anchors(pages: &[Page]) -> BTreeMap<String, BTreeSet<String>> {
    pages.iter().map(|page| (page.name.clone(), page.anchors())).collect()
}

/// The place a link of `page` leads to, where that page has none of the name. Whether the page itself is there is mdbook-linkcheck2's,
/// which does not look at places within one.
pub fn missing_anchor(page: &Page, anchors: &BTreeMap<String, BTreeSet<String>>, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#')?;
    let file = if file.is_empty() { page.name.as_str() } else { file };
    let there = anchors.get(file)?;
    (!there.contains(anchor)).then(|| format!("{file} has no #{anchor}"))
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    let outside = line
        .split('`')
        .enumerate()
        .filter(|(index, _)| index % 2 == 0)
        .map(|(_, text)| text);
    outside.collect::<Vec<_>>().join("\u{0}")
}

/// A line without what its links lead to.
pub(crate) fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("] ");
        text.push_str(part.split_once(')').map_or(part, |(_, after)| after));
    }
    // Nor what a directive looks up.
    while let Some(words) = between(&text, "{{", "}}") {
        text = text.replace(&format!("{{{{{words}}}}}"), "");
    }
    text
}

/// The terms of the glossary: its titles of the third level.
pub fn terms(glossary: &Page) -> Vec<String> {
    let titles = glossary.titles().into_iter();
    titles
        .filter(|(depth, _)| *depth == 3)
        .map(|(_, title)| title.replace('`', ""))
        .collect()
}

/// Words of a page that are a term of the glossary in another spelling: `VCPU`, `name space`, `hyper-visor`.
pub fn misspelt(page: &Page, terms: &[String]) -> Vec<(usize, String, String)> {
    let by_letters: BTreeMap<String, &String> = terms.iter().map(|term| (squeezed(term), term)).collect();
    let mut found = Vec::new();
    for (number, line) in page.prose() {
        let line = without_targets(&line);
        let words: Vec<&str> = line
            .split(|character: char| !(character.is_alphanumeric() || matches!(character, '-' | '_')))
            .filter(|word| word.contains(char::is_alphanumeric))
            .collect();
        for window in words.windows(1).chain(words.windows(2)) {
            let written = window.join(" ");
            // Several of a thing are spelt as one is; what belongs to it (`the guest's`) is no such word.
            let several = window.last().is_some_and(|word| word.len() > 1);
            let one = written.strip_suffix('s').filter(|_| several).unwrap_or(&written);
            let known = |written: &str| by_letters.get(&squeezed(written)).copied();
            let (written, term) = match (known(&written), known(one)) {
                (Some(term), _) => (written.as_str(), term),
                (None, Some(term)) => (one, term),
                (None, None) => continue,
            };
            if !spelt_like(written, term) {
                found.push((number, written.to_owned(), term.clone()));
            }
        }
    }
    found
}

/// Letters and digits alone, in lower case.
fn squeezed(text: &str) -> String {
    text.chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// The term itself; with a capital at the beginning of a sentence; in capitals, as instructions and namespaces are named (`RUN`,
/// `CGROUP`); two words joined by a hyphen before another.
fn spelt_like(written: &str, term: &str) -> bool {
    let ordinary_word = !term.contains(char::is_uppercase);
    if ordinary_word && written.len() > 1 && written.chars().all(char::is_uppercase) {
        return true;
    }
    let begins_sentence = ordinary_word && written.chars().skip(1).eq(term.chars().skip(1));
    written == term || begins_sentence || written.replace('-', " ") == term
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
    fn titles_get_the_ids_that_mdbook_gives_them() {
        assert_eq!(title_id("What the `vCPU` does, and why?"), "what-the-vcpu-does-and-why");
        assert_eq!(title_id("pivot_root"), "pivot_root");
        let anchors = page("# A\n## A\n### B c {#own}\n<p id=\"x\">\n```\n# no title\n```\n").anchors();
        assert_eq!(anchors.into_iter().collect::<Vec<_>>(), ["a", "a-1", "own", "x"]);
    }

    #[test]
    fn a_link_leads_to_a_place_in_a_page() {
        let pages = [page("## Here\n[a](#here) `[b](#nowhere)`")];
        assert_eq!(pages[0].links(), [("a".to_owned(), "#here".to_owned())]);
        let missing = |target| missing_anchor(&pages[0], &anchors(&pages), target);
        assert_eq!(missing("#here"), None);
        assert_eq!(missing("01-x.md"), None);
        assert_eq!(missing("https://example.org/#there"), None);
        assert!(missing("#there").is_some() && missing("01-x.md#there").is_some());
    }

    #[test]
    fn the_parts_of_a_chapter_are_missed() {
        let whole: String = SECTIONS.iter().map(|section| format!("## {section}\n")).collect();
        assert_eq!(page(&whole).missing_section(), None);
        assert_eq!(
            page(&whole.replace("## Exercise\n", "")).missing_section(),
            Some("Exercise")
        );
    }

    #[test]
    fn what_a_chapter_lacks_is_named() {
        let chapter = "## Question\nWhy?\n## Guess first\nGuess.\n## What the code does\n```rust\n{{#include ../../a.rs:a}}\n```\n\
            ## Try it\n```console\n$ a\nb\n```\n> [!NOTE]\n> **Without KVM** or root all works.\n## What happened\n![a](figures/a.svg)\n\
            ## What would prove this wrong\n- a\n- b\n## Exercise\n{{#include ../exercises/1/stub.rs:stub}} `cargo test -p book --test exercises a`\n\
            ## In production\nWhere the lab simplifies: a.\n## Remember\n- a\n- b\n- c\n";
        assert_eq!(page(chapter).lacking(), Vec::<&str>::new());
        for (part, without) in [
            ("Why?", "question mark"),
            ("{{#include ../../a.rs:a}}", "code of the project"),
            ("\nb\n", "a command with its output"),
            ("![a](figures/a.svg)", "chart"),
            ("\n- b\n- c\n", "three lines"),
            ("KVM", "Without KVM"),
        ] {
            let lacking = page(&chapter.replacen(part, "\n", 1)).lacking();
            assert!(lacking.iter().any(|what| what.contains(without)), "{part}: {lacking:?}");
        }
    }

    #[test]
    fn spelling_is_the_glossary_s() {
        let terms = ["vCPU", "namespace", "lab kernel", "KVM"].map(str::to_owned);
        let wrong = |text: &str| misspelt(&page(text), &terms).len();
        assert_eq!(
            wrong("A vCPU. Namespace. The lab kernel. A lab-kernel address. `VCPU`"),
            0
        );
        assert_eq!(wrong("A VCPU"), 1);
        assert_eq!(wrong("a name space"), 1);
        assert_eq!(wrong("a Lab Kernel"), 1);
        assert_eq!(wrong("kvm"), 1);
        assert_eq!(wrong("vCPUs, namespaces, the hosts"), 0);
        assert_eq!(wrong("VCPUs, Name Spaces"), 2);
        assert_eq!(wrong("the namespace's, NAMESPACE"), 0);
        assert_eq!(
            wrong("[KVM](a-glossary.md#kvm), [lab kernel](a-glossary.md#lab-kernel)"),
            0
        );
        assert_eq!(wrong("[kvm](a-glossary.md#kvm)"), 1);
        assert_eq!(wrong("- Namespace: {{#number pvm.lab_kernel.name_space ms}}"), 0);
    }

    #[test]
    fn anchors_in_code_are_found() {
        let code = "a\n// ANCHOR: one\nb\n// ANCHOR_END: one\n// ANCHOR: open\nc\n";
        assert_eq!(anchored(code, "one"), Some(vec!["b"]));
        assert_eq!(anchored(code, "open"), None);
        assert_eq!(anchored(code, "two"), None);
    }
}
