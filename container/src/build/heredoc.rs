//! Here-documents: text in the Dockerfile itself, after the instruction that uses it.
//!
//! The parser crate knows them only as the first word of RUN, one at a time, and forgets their names. So they are lifted
//! out before it looks: it gets the same text with every here-document blanked, byte for byte, so that each offset it
//! reports is still one in the original.

use std::ops::Range;

use super::logical::Logical;
use super::source::Fault;

/// One here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HereDoc {
    /// Where its `<<NAME` is.
    pub operator: Range<usize>,
    /// The word that ends it; COPY uses it as the file's name.
    pub name: String,
    /// Whether variables in it mean something: the name was not quoted.
    pub expand: bool,
    /// Its lines, without leading tabs if it began with `<<-`.
    pub body: String,
    /// The operator's line and everything to the line that ends it, as RUN hands it to the shell.
    pub raw: Range<usize>,
}

/// The instructions that may have here-documents.
const TAKERS: [&str; 3] = ["RUN", "COPY", "ADD"];

/// Finds every here-document of `text` and returns a copy without them.
pub fn lift(text: &str, escape: char) -> Result<(String, Vec<HereDoc>), Fault> {
    let mut masked = text.as_bytes().to_vec();
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line = text[at..].lines().next().unwrap_or("");
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            at = end_of_line(text, at);
            continue;
        }
        let (logical, after) = Logical::join(text, at, text.len(), escape);
        at = after;
        if !takes_here_docs(&logical.text) {
            continue;
        }
        for operator in operators(&logical) {
            let (here_doc, end) = read_body(text, operator, at)?;
            let arrows = here_doc.operator.start + text[here_doc.operator.clone()].find("<<").unwrap_or(0);
            masked[arrows..arrows + 2].fill(b'_');
            for byte in &mut masked[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end;
            found.push(here_doc);
        }
    }
    // Only whole lines and two ASCII characters were replaced, by ASCII.
    Ok((String::from_utf8_lossy(&masked).into_owned(), found))
}

/// The escape character the Dockerfile's first lines ask for (`# escape=X`); the backslash otherwise.
pub fn escape_character(text: &str) -> char {
    for line in text.lines() {
        let directive = line.trim().strip_prefix('#').and_then(|line| line.split_once('='));
        let Some((key, value)) = directive else { break };
        if key.trim().eq_ignore_ascii_case("escape") {
            return if value.trim() == "`" { '`' } else { '\\' };
        }
    }
    '\\'
}

fn takes_here_docs(instruction: &str) -> bool {
    let mut words = instruction.split_whitespace();
    let mut first = words.next().unwrap_or("");
    if first.eq_ignore_ascii_case("ONBUILD") {
        first = words.next().unwrap_or("");
    }
    TAKERS.iter().any(|taker| first.eq_ignore_ascii_case(taker))
}

struct Operator {
    span: Range<usize>,
    name: String,
    strip_tabs: bool,
    expand: bool,
}

/// The `<<NAME` words of an instruction: those a shell would see, so none within quotes, and `<<<` is another thing.
fn operators(logical: &Logical) -> Vec<Operator> {
    let text = &logical.text;
    let mut found = Vec::new();
    let mut quote = None;
    let mut word_start = true;
    let mut characters = text.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        if let Some(open) = quote {
            if character == open {
                quote = None;
            } else if character == '\\' && open == '"' {
                characters.next();
            }
            word_start = false;
            continue;
        }
        let rest = &text[index..];
        if word_start && let Some((length, name, strip_tabs, expand)) = operator(rest) {
            let span = logical.source_offset(index)..logical.source_offset(index + length - 1) + 1;
            found.push(Operator {
                span,
                name,
                strip_tabs,
                expand,
            });
            while characters.peek().is_some_and(|(next, _)| *next < index + length) {
                characters.next();
            }
            word_start = false;
            continue;
        }
        match character {
            '\'' | '"' => quote = Some(character),
            '\\' => {
                characters.next();
            }
            _ => {}
        }
        word_start = character.is_whitespace() || "&|;(".contains(character);
    }
    found
}

/// Reads `[N]<<[-]NAME` at the start of `text`: its length, the name without quotes, and what the signs mean.
fn operator(text: &str) -> Option<(usize, String, bool, bool)> {
    let digits = text.len()
        - text
            .trim_start_matches(|character: char| character.is_ascii_digit())
            .len();
    let mut rest = text[digits..].strip_prefix("<<")?;
    let strip_tabs = rest.starts_with('-');
    if strip_tabs {
        rest = &rest[1..];
    }
    let mut name = String::new();
    let mut expand = true;
    let mut quote = None;
    let mut length = 0;
    for character in rest.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => name.push(character),
            None if character == '\'' || character == '"' => {
                quote = Some(character);
                expand = false;
            }
            None if character.is_whitespace() || "<>|&;()".contains(character) => break,
            None => name.push(character),
        }
        length += character.len_utf8();
    }
    (!name.is_empty() && quote.is_none()).then_some((text.len() - rest.len() + length, name, strip_tabs, expand))
}

fn read_body(text: &str, operator: Operator, start: usize) -> Result<(HereDoc, usize), Fault> {
    let mut body = String::new();
    let mut at = start;
    while at < text.len() {
        let end = end_of_line(text, at);
        let line = &text[at..end];
        let line = if operator.strip_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        at = end;
        if line.trim_end_matches(['\n', '\r']) == operator.name {
            let here_doc = HereDoc {
                operator: operator.span,
                name: operator.name,
                expand: operator.expand,
                body,
                raw: start..end,
            };
            return Ok((here_doc, end));
        }
        body.push_str(line);
    }
    let message = format!(
        "this here-document never ends: no line after it is {:?} and nothing else",
        operator.name
    );
    Err(Fault::new(message, operator.span))
}

fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifted(text: &str) -> (String, Vec<HereDoc>) {
        lift(text, '\\').unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    #[test]
    fn a_here_document_in_the_middle_of_run() {
        let text = "FROM a\nRUN cat <<EOF > /x && echo\nöne\nEOF\nRUN two\n";
        let (masked, found) = lifted(text);
        assert_eq!(masked.len(), text.len());
        assert!(masked.contains("RUN cat __EOF > /x && echo\n"), "{masked}");
        assert!(!masked.contains("ne\n"), "{masked}");
        assert!(masked.ends_with("RUN two\n"));
        assert_eq!(found[0].body, "öne\n");
        assert_eq!(&text[found[0].raw.clone()], "öne\nEOF\n");
        assert!(found[0].expand);
    }

    #[test]
    fn several_with_names_quotes_and_tabs() {
        let text = "FROM a\nCOPY <<a.txt <<-\"b\" /d/\none\na.txt\n\t\ttwo $x\n\tb\n";
        let (_, found) = lifted(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].name.as_str(), found[0].body.as_str(), found[0].expand),
            ("a.txt", "one\n", true)
        );
        assert_eq!(
            (found[1].name.as_str(), found[1].body.as_str(), found[1].expand),
            ("b", "two $x\n", false)
        );
        assert_eq!(&text[found[1].operator.clone()], "<<-\"b\"");
    }

    #[test]
    fn what_only_looks_like_one() {
        for text in [
            "FROM a\nRUN cat <<<word\n",
            "FROM a\nRUN echo '<<EOF'\n",
            "FROM a\nRUN echo a<<b\n",
            "FROM a\n# RUN cat <<EOF\n",
            "FROM a\nENV x <<EOF\n",
            "FROM a\nRUN [\"cat\", \"<<EOF\"]\n",
        ] {
            assert_eq!(lifted(text), (text.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn one_that_never_ends_is_pointed_at() {
        let text = "FROM a\nRUN cat \\\n  <<EOF\nabc\n EOF\n";
        let fault = lift(text, '\\').map(drop).unwrap_err();
        assert_eq!(&text[fault.at], "<<EOF");
    }

    #[test]
    fn the_escape_directive_is_one_of_the_first_comments() {
        assert_eq!(escape_character("# syntax=x\n# Escape = `\nFROM a"), '`');
        assert_eq!(escape_character("FROM a\n# escape=`\n"), '\\');
        assert_eq!(escape_character("# a comment\n# escape=`\n"), '\\');
    }
}
