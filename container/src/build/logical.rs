//! Logical lines: what an instruction says once its lines are joined.
//!
//! A line that ends in the escape character goes on in the next one. Comment lines and empty lines in between vanish, as
//! they do for every Dockerfile builder. The joined text remembers where each part of it came from.

/// Text joined from several lines of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logical {
    /// The joined text.
    pub text: String,
    /// Where in `text` a part begins, and where that is in the source; in order.
    parts: Vec<(usize, usize)>,
}

impl Logical {
    /// Joins the lines of `source` from offset `start` on: to the end of the instruction, at most to `end`. Returns the text
    /// and the offset behind the last line read.
    pub fn join(source: &str, start: usize, end: usize, escape: char) -> (Logical, usize) {
        let mut logical = Logical::default();
        let mut at = start;
        while at < end {
            let rest = &source[at..end];
            let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
            let line = rest[..length].trim_end_matches(['\n', '\r']);
            let here = at;
            at += length;
            let is_first = here == start;
            if !is_first && (line.trim().is_empty() || line.trim_start().starts_with('#')) {
                continue;
            }
            match without_escape(line, escape) {
                Some(continued) => logical.push(continued, here),
                None => {
                    logical.push(line, here);
                    break;
                }
            }
        }
        (logical, at)
    }

    /// The source's offset for an offset in the joined text.
    pub fn source_offset(&self, offset: usize) -> usize {
        let part = self.parts.iter().rev().find(|(begin, _)| *begin <= offset);
        part.map_or(offset, |(begin, source)| source + (offset - begin))
    }

    fn push(&mut self, text: &str, at: usize) {
        self.parts.push((self.text.len(), at));
        self.text.push_str(text);
    }
}

/// The line without its escape character, when it ends in one; spaces may follow that.
fn without_escape(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches([' ', '\t']).strip_suffix(escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_know_where_they_came_from() {
        let source = "RUN one \\\n# a comment\n\n  two \\  \n three\nRUN four\n";
        let (logical, end) = Logical::join(source, 0, source.len(), '\\');
        assert_eq!(logical.text, "RUN one   two  three");
        assert_eq!(&source[end..], "RUN four\n");
        for word in ["one", "two", "three"] {
            let offset = logical.text.find(word).map(|offset| logical.source_offset(offset));
            assert_eq!(offset, source.find(word));
        }
    }

    #[test]
    fn the_escape_directive_decides() {
        let source = "RUN dir c:\\\nnext";
        assert_eq!(Logical::join(source, 0, source.len(), '`').0.text, "RUN dir c:\\");
        let source = "RUN a `\nb";
        assert_eq!(Logical::join(source, 0, source.len(), '`').0.text, "RUN a b");
    }
}
