//! A Dockerfile's text, and messages that point into it.
//!
//! Every part of the front end keeps the byte offset where it was read. A fault carries such an offset to where the text is
//! at hand, and there becomes what a person needs: file, line, column, the line itself, and a caret under the place.

use std::fmt;
use std::ops::Range;

use thiserror::Error;

/// A Dockerfile as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
}

/// What is wrong, and which bytes of the Dockerfile say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong and what to do.
    pub message: String,
    /// Where in the text.
    pub at: Range<usize>,
}

impl Fault {
    /// A fault at these bytes.
    pub fn new(message: impl Into<String>, at: Range<usize>) -> Fault {
        Fault {
            message: message.into(),
            at,
        }
    }
}

/// A fault with the lines around it: what a person reads.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{place}: {message}\n{excerpt}")]
pub struct Pointed {
    /// `Dockerfile:LINE:COLUMN`, both counted from 1; columns in characters.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// The line, with a caret.
    pub excerpt: String,
}

impl Source {
    /// `text`, called `name` in messages. A byte order mark at its start is no part of it.
    pub fn new(name: impl Into<String>, text: &str) -> Source {
        Source {
            name: name.into(),
            text: text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        }
    }

    /// The text that offsets count in.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line this offset is on, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.before(offset).matches('\n').count() + 1
    }

    /// Turns a fault into what is printed.
    pub fn point(&self, fault: Fault) -> Pointed {
        let before = self.before(fault.at.start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.line(fault.at.start);
        let column = before[line_start..].chars().count() + 1;
        let shown = self.text[line_start..].lines().next().unwrap_or("");
        let end = fault.at.end.min(line_start + shown.len());
        let width = self.text.get(before.len()..end).map_or(1, |text| text.chars().count());
        Pointed {
            place: format!("{}:{line}:{column}", self.name),
            message: fault.message,
            excerpt: Excerpt {
                line,
                shown,
                column,
                width,
            }
            .to_string(),
        }
    }

    fn before(&self, offset: usize) -> &str {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        &self.text[..offset]
    }
}

struct Excerpt<'a> {
    line: usize,
    shown: &'a str,
    column: usize,
    width: usize,
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = number.len();
        // Tabs are as wide as the terminal likes; repeated under the line they keep the caret in place.
        let indent: String = self
            .shown
            .chars()
            .take(self.column - 1)
            .map(|character| if character == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, "  {number} | {}", self.shown)?;
        write!(f, "  {:gutter$} | {indent}{}", "", "^".repeat(self.width.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_its_line_and_points_at_its_column() {
        let source = Source::new("Dockerfile", "FROM scratch\nCOPY --chwon=1 a b\n");
        let start = source.text().find("--chwon").unwrap_or(0);
        let pointed = source.point(Fault::new("COPY has no --chwon", start..start + 7));
        assert_eq!(
            pointed.to_string(),
            "Dockerfile:2:6: COPY has no --chwon\n  2 | COPY --chwon=1 a b\n    |      ^^^^^^^"
        );
    }

    #[test]
    fn columns_count_characters_and_carets_stay_under_tabs() {
        let source = Source::new("D", "\tRUN äö <<X\n");
        let start = source.text().find("<<").unwrap_or(0);
        let pointed = source.point(Fault::new("no end", start..start + 3));
        assert_eq!(pointed.place, "D:1:9");
        assert_eq!(pointed.excerpt, "  1 | \tRUN äö <<X\n    | \t       ^^^");
    }

    #[test]
    fn an_offset_at_the_end_of_the_text_is_a_place_too() {
        let source = Source::new("D", "FROM");
        assert_eq!(
            source.point(Fault::new("no image", 4..9)).excerpt,
            "  1 | FROM\n    |     ^"
        );
        assert_eq!(Source::new("D", "").point(Fault::new("empty", 0..0)).place, "D:1:1");
    }
}
