//! Patterns: `*`, `?`, `[a-z]` and the escape `\`, by the rules of Go's filepath.Match, which Dockerfiles are written for.
//!
//! In a path no sign but `**` matches a slash, and `**` only where `.dockerignore` allows it: there it stands for any
//! number of directories. Nothing is special about a leading dot.

/// Whether `text` as a whole matches, slashes being characters like any other.
pub fn matches_text(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    segment(&pattern, &text).unwrap_or(false)
}

/// Whether the name of one file matches a pattern without slashes. `None`: the pattern itself is wrong.
pub fn matches_name(pattern: &str, name: &str) -> Option<bool> {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    segment(&pattern, &name)
}

/// Whether a path matches a pattern of `.dockerignore`, both cleaned and without a leading slash.
pub fn matches_path(pattern: &str, path: &str) -> Option<bool> {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    segments(&pattern, &path)
}

/// Whether a pattern means more than itself.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// The name a pattern without wildcards stands for: its escapes undone.
pub fn unescaped(pattern: &str) -> String {
    let mut name = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        name.push(if character == '\\' {
            characters.next().unwrap_or('\\')
        } else {
            character
        });
    }
    name
}

fn segments(pattern: &[&str], path: &[&str]) -> Option<bool> {
    let Some((first, rest)) = pattern.split_first() else {
        return Some(path.is_empty());
    };
    if *first == "**" {
        // At the end it needs something below; in between it may stand for nothing.
        if rest.is_empty() {
            return Some(!path.is_empty());
        }
        for skipped in 0..=path.len() {
            if segments(rest, &path[skipped..])? {
                return Some(true);
            }
        }
        return Some(false);
    }
    let Some((name, below)) = path.split_first() else {
        return Some(false);
    };
    // `a**b` is no `**` of its own; within a name two stars say what one does.
    Some(matches_name(first, name)? && segments(rest, below)?)
}

/// Matches with one point of return: only the last star has to be reconsidered, since an earlier one that took less
/// leaves the later one nothing it could not have.
fn segment(pattern: &[char], name: &[char]) -> Option<bool> {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    // A pattern that is wrong is wrong whatever the name.
    check(pattern)?;
    while read < name.len() || at < pattern.len() {
        if at < pattern.len() && pattern[at] == '*' {
            star = Some((at, read));
            at += 1;
            continue;
        }
        if read < name.len()
            && let Some(length) = one(&pattern[at..], name[read])
        {
            at += length;
            read += 1;
            continue;
        }
        match star {
            Some((star_at, taken)) if taken < name.len() => {
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                read = taken + 1;
            }
            _ => return Some(false),
        }
    }
    Some(true)
}

/// The length of the pattern's first sign, if it matches this character.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' => (pattern.get(1) == Some(&character)).then_some(2),
        '[' => {
            let (length, matched) = class(pattern, character)?;
            matched.then_some(length)
        }
        literal => (*literal == character).then_some(1),
    }
}

/// `[^a-z]`: its length, and whether the character is in it. `None` when it is malformed.
fn class(pattern: &[char], character: char) -> Option<(usize, bool)> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut matched = false;
    let mut ranges = 0;
    loop {
        if pattern.get(at) == Some(&']') && ranges > 0 {
            return Some((at + 1, matched != negated));
        }
        let (low, next) = class_character(pattern, at)?;
        at = next;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            (high, at) = class_character(pattern, at + 1)?;
        }
        matched |= (low..=high).contains(&character);
        ranges += 1;
    }
}

fn class_character(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match *pattern.get(at)? {
        '-' | ']' => None,
        '\\' => pattern.get(at + 1).map(|character| (*character, at + 2)),
        character => Some((character, at + 1)),
    }
}

fn check(pattern: &[char]) -> Option<()> {
    let mut at = 0;
    while at < pattern.len() {
        at += match pattern[at] {
            '\\' => pattern.get(at + 1).map(|_| 2)?,
            '[' => class(&pattern[at..], 'a')?.0,
            _ => 1,
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Go's own test of filepath.Match, as far as it is about one name.
    #[test]
    fn names() {
        for (pattern, name, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*b*c*d*e*", "axbxcxdxe", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-]", "-", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("*x", "xxx", Some(true)),
            (".*", ".git", Some(true)),
            ("*", ".git", Some(true)),
        ] {
            assert_eq!(matches_name(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn paths() {
        for (pattern, path, expected) in [
            ("a/b", "a/b", true),
            ("*/b", "a/b", true),
            ("*", "a/b", false),
            ("**/b", "b", true),
            ("**/b", "a/c/b", true),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/b/c", true),
            ("**/*.rs", "src/lib.rs", true),
            ("**", "anything/at/all", true),
            ("**/a/**/b", "x/a/y/z/b", true),
            ("**/a/**/b", "x/a/y/z", false),
        ] {
            assert_eq!(matches_path(pattern, path), Some(expected), "{pattern} {path}");
        }
    }
}
