//! Words, quotes and variables, as Dockerfiles have them: a small part of a shell's rules.
//!
//! `$name`, `${name}`, `${name:-default}`, `${name:+instead}`, `${name:?message}` (without the colon an empty value counts as
//! set), `${name#pattern}`, `${name%pattern}` and their doubled forms (Dockerfile reference, "Environment replacement").
//! Single quotes keep everything, double quotes keep all but variables, the escape character keeps the next character.

use std::iter::Peekable;
use std::str::CharIndices;

use super::glob;
use super::source::Fault;

/// A word of the Dockerfile, quotes and variables as written, and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// As written.
    pub text: String,
    /// Its offset in the source.
    pub at: usize,
}

impl Word {
    /// A word at an offset.
    pub fn new(text: impl Into<String>, at: usize) -> Word {
        Word { text: text.into(), at }
    }

    /// A fault about the whole word.
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(message, self.at..self.at + self.text.len().max(1))
    }
}

/// Splits at spaces outside of quotes. The words keep their quotes; `at` gives the source's offset for one in `text`.
pub fn split(text: &str, escape: char, at: impl Fn(usize) -> usize) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut in_word = false;
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            in_word = false;
            continue;
        }
        if !in_word {
            words.push(Word::new("", at(index)));
            in_word = true;
        }
        let Some(word) = words.last_mut() else { continue };
        word.text.push(character);
        match quote {
            Some(open) if character == open => quote = None,
            None if character == '\'' || character == '"' => quote = Some(character),
            // Within single quotes the escape character is one like any other.
            _ if character == escape && quote != Some('\'') => {
                if let Some((_, escaped)) = characters.next() {
                    word.text.push(escaped);
                }
            }
            _ => {}
        }
    }
    words
}

/// Where variables have their values.
pub struct Expander<'a> {
    /// The Dockerfile's escape character.
    pub escape: char,
    /// The value of a variable, if it has one.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    /// The word with its variables replaced and its quotes gone.
    pub fn word(&self, word: &Word) -> Result<String, Fault> {
        Ok(self.run(word, Mode::Word)?.concat())
    }

    /// The same, where spaces in a variable's value separate words.
    pub fn words(&self, word: &Word) -> Result<Vec<String>, Fault> {
        let words = self.run(word, Mode::Words)?;
        Ok(words.into_iter().filter(|word| !word.is_empty()).collect())
    }

    /// Only variables: quotes are characters like others. For here-documents.
    pub fn text(&self, word: &Word) -> Result<String, Fault> {
        Ok(self.run(word, Mode::Text)?.concat())
    }

    fn run(&self, word: &Word, mode: Mode) -> Result<Vec<String>, Fault> {
        let mut reader = Reader {
            expander: self,
            word,
            characters: word.text.char_indices().peekable(),
            mode,
            output: vec![String::new()],
        };
        reader.until(None)?;
        Ok(reader.output)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Word,
    Words,
    Text,
}

struct Reader<'a> {
    expander: &'a Expander<'a>,
    word: &'a Word,
    characters: Peekable<CharIndices<'a>>,
    mode: Mode,
    output: Vec<String>,
}

impl Reader<'_> {
    /// Reads to the end of the word, or past `stop`.
    fn until(&mut self, stop: Option<char>) -> Result<(), Fault> {
        let quotes = self.mode != Mode::Text;
        while let Some((index, character)) = self.characters.next() {
            match character {
                _ if Some(character) == stop => return Ok(()),
                '\'' if quotes => self.single_quoted(index)?,
                '"' if quotes => self.double_quoted(index)?,
                '$' => {
                    let value = self.variable(index)?;
                    self.push_value(&value);
                }
                _ if character == self.expander.escape => match self.characters.next() {
                    // Quotes need no escape where they mean nothing, and then keep it.
                    Some((_, escaped)) if quotes || escaped == '$' || escaped == self.expander.escape => {
                        self.push(escaped);
                    }
                    Some((_, other)) => {
                        self.push(character);
                        self.push(other);
                    }
                    None => self.push(character),
                },
                _ => self.push(character),
            }
        }
        stop.map_or(Ok(()), |stop| Err(self.fault(0, format!("{stop:?} is missing"))))
    }

    fn single_quoted(&mut self, open: usize) -> Result<(), Fault> {
        while let Some((_, character)) = self.characters.next() {
            if character == '\'' {
                return Ok(());
            }
            self.push(character);
        }
        Err(self.fault(open, "this quote is never closed".into()))
    }

    fn double_quoted(&mut self, open: usize) -> Result<(), Fault> {
        while let Some((index, character)) = self.characters.next() {
            match character {
                '"' => return Ok(()),
                '$' => {
                    let value = self.variable(index)?;
                    self.last().push_str(&value);
                }
                _ if character == self.expander.escape => {
                    let next = self.characters.next().map(|(_, next)| next);
                    if !next.is_some_and(|next| next == '"' || next == '$' || next == self.expander.escape) {
                        self.push(character);
                    }
                    next.into_iter().for_each(|next| self.push(next));
                }
                _ => self.push(character),
            }
        }
        Err(self.fault(open, "this quote is never closed".into()))
    }

    /// What stands behind the dollar sign at `dollar`, replaced.
    fn variable(&mut self, dollar: usize) -> Result<String, Fault> {
        if self.characters.next_if(|(_, next)| *next == '{').is_none() {
            let name = self.name();
            return Ok(match name.is_empty() {
                true => "$".into(),
                false => self.value(&name).unwrap_or_default(),
            });
        }
        let name = self.name();
        if name.is_empty() {
            return Err(self.fault(dollar, "a variable's name is missing after ${".into()));
        }
        let colon = self.characters.next_if(|(_, next)| *next == ':').is_some();
        let value = self.value(&name);
        let set = value.as_deref().is_some_and(|value| !colon || !value.is_empty());
        let value = value.unwrap_or_default();
        let Some((at, modifier)) = self.characters.next() else {
            return Err(self.fault(dollar, "this ${ has no }".into()));
        };
        match modifier {
            '}' if !colon => Ok(value),
            '-' => Ok(self.operand().map(|default| if set { value } else { default })?),
            '+' => Ok(self
                .operand()
                .map(|instead| if set { instead } else { String::new() })?),
            '?' => {
                let message = self.operand()?;
                let message = if message.is_empty() {
                    "it must be set".into()
                } else {
                    message
                };
                match set {
                    true => Ok(value),
                    false => Err(self.fault(dollar, format!("variable {name}: {message}"))),
                }
            }
            '#' | '%' if !colon => {
                let longest = self.characters.next_if(|(_, next)| *next == modifier).is_some();
                let pattern = self.operand()?;
                Ok(trimmed(&value, &pattern, modifier == '#', longest))
            }
            _ => Err(self.fault(
                at,
                format!("{modifier:?} is no modifier known here: there are :- :+ :? - + ? # ## % %%"),
            )),
        }
    }

    /// The rest of `${name-REST}`, itself expanded.
    fn operand(&mut self) -> Result<String, Fault> {
        let (mode, output) = (self.mode, std::mem::take(&mut self.output));
        self.output = vec![String::new()];
        if self.mode == Mode::Words {
            self.mode = Mode::Word;
        }
        let read = self.until(Some('}'));
        self.mode = mode;
        let operand = std::mem::replace(&mut self.output, output).concat();
        read.map(|()| operand)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some((_, character)) = self
            .characters
            .next_if(|(_, next)| next.is_ascii_alphanumeric() || *next == '_')
        {
            name.push(character);
            // `$1` and the like are one digit.
            if name.len() == 1 && character.is_ascii_digit() {
                break;
            }
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        (self.expander.lookup)(name)
    }

    fn push_value(&mut self, value: &str) {
        let mut words = value.split(char::is_whitespace);
        if self.mode != Mode::Words {
            self.last().push_str(value);
        } else if let Some(first) = words.next() {
            self.last().push_str(first);
            self.output.extend(words.map(str::to_owned));
        }
    }

    fn push(&mut self, character: char) {
        self.last().push(character);
    }

    fn last(&mut self) -> &mut String {
        if self.output.is_empty() {
            self.output.push(String::new());
        }
        let last = self.output.len() - 1;
        &mut self.output[last]
    }

    fn fault(&self, index: usize, message: String) -> Fault {
        Fault::new(message, self.word.at + index..self.word.at + self.word.text.len())
    }
}

/// The value without its shortest or longest part that matches at its start or end.
fn trimmed(value: &str, pattern: &str, start: bool, longest: bool) -> String {
    let mut cuts: Vec<usize> = value.char_indices().map(|(index, _)| index).collect();
    cuts.push(value.len());
    // In order of the length of what would go.
    if start == longest {
        cuts.reverse();
    }
    let cut = cuts.into_iter().find(|&cut| {
        let (head, tail) = value.split_at(cut);
        glob::matches_text(pattern, if start { head } else { tail })
    });
    match cut {
        Some(cut) if start => value[cut..].to_owned(),
        Some(cut) => value[..cut].to_owned(),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("A".into()),
            "empty" => Some(String::new()),
            "two" => Some("one two".into()),
            "file" => Some("dir/name.tar.gz".into()),
            _ => None,
        }
    }

    fn word(text: &str) -> Result<String, Fault> {
        Expander {
            escape: '\\',
            lookup: &lookup,
        }
        .word(&Word::new(text, 100))
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("x", "x"),
            ("$a.$a", "A.A"),
            ("${a}b", "Ab"),
            ("$ab", ""),
            ("$", "$"),
            ("$.", "$."),
            ("${no-d}${empty-d}${a-d}", "dA"),
            ("${no:-d}${empty:-d}${a:-d}", "ddA"),
            ("${no+d}${empty+d}${a+d}", "dd"),
            ("${no:+d}${empty:+d}${a:+d}", "d"),
            ("${no:-${a}x}", "Ax"),
            ("${no:-'}'}", "}"),
            ("${file#*/}", "name.tar.gz"),
            ("${file%.*}", "dir/name.tar"),
            ("${file%%.*}", "dir/name"),
            ("${file##*.}", "gz"),
            ("\\$a", "$a"),
            ("'$a'\"$a\"", "$aA"),
            (r#""a \" \n \\ ' b""#, r#"a " \n \ ' b"#),
            ("a\\ b", "a b"),
            ("$two", "one two"),
        ] {
            assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn faults_point_at_the_place() {
        let at = |text: &str| word(text).map_err(|fault| fault.at.start - 100);
        assert_eq!(at("ab'c"), Err(2));
        assert_eq!(at("a\"b"), Err(1));
        assert_eq!(at("x${a"), Err(1));
        assert_eq!(at("x${}"), Err(1));
        assert_eq!(at("${a:x}"), Err(4));
        assert_eq!(at("-${no:?}"), Err(1));
        assert!(word("${no:?set it}").is_err_and(|fault| fault.message == "variable no: set it"));
    }

    #[test]
    fn values_become_words_only_where_that_is_asked_for() {
        let expander = Expander {
            escape: '\\',
            lookup: &lookup,
        };
        let words = |text: &str| expander.words(&Word::new(text, 0));
        assert_eq!(words("$two"), Ok(vec!["one".into(), "two".into()]));
        assert_eq!(words("x${two}y"), Ok(vec!["xone".into(), "twoy".into()]));
        assert_eq!(words("\"$two\""), Ok(vec!["one two".into()]));
        assert_eq!(words("$no"), Ok(vec![]));
    }

    #[test]
    fn here_documents_keep_their_quotes() {
        let expander = Expander {
            escape: '\\',
            lookup: &lookup,
        };
        let text = expander.text(&Word::new("'$a' \"\\$a\" \\n it's", 0));
        assert_eq!(text.as_deref(), Ok("'A' \"$a\" \\n it's"));
    }

    #[test]
    fn splitting_keeps_quoted_spaces_together() {
        let words = split(r#"a="b c" d\ e 'f  g'  h"#, '\\', |index| index + 10);
        let texts: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, [r#"a="b c""#, r"d\ e", "'f  g'", "h"]);
        assert_eq!(words[1].at, 18);
    }
}
