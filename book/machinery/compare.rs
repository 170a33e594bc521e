//! Whether a command printed what the page shows.
//!
//! `[..]` stands for any characters within a line, `[~5.24 ms]` for what one run printed there and another will not (the page shows
//! it without the brackets), a line `...` for any number of lines. Runs of spaces and of table rules match at any length, because the
//! columns of a table are as wide as their widest figure.

/// Why printed lines are not the expected ones; None when they are.
pub fn mismatch(expected: &[String], printed: &str) -> Option<String> {
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = expected.iter().map(|line| line.trim_end()).collect();
    if lines_match(&expected, &printed) {
        return None;
    }
    // The first line at which the page, cut off there, no longer matches.
    let first = (0..expected.len()).find(|&count| {
        let mut beginning = expected[..=count].to_vec();
        beginning.push("...");
        !lines_match(&beginning, &printed)
    });
    let at = match first {
        Some(index) => format!("no printed line matches the page's line {:?}", expected[index]),
        None => "more was printed than the page shows".to_owned(),
    };
    Some(format!(
        "{at}\n--- printed ---\n{}\n---------------",
        printed.join("\n")
    ))
}

fn lines_match(expected: &[&str], printed: &[&str]) -> bool {
    match (expected, printed) {
        ([], []) => true,
        (["...", rest @ ..], _) => (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..])),
        ([pattern, more @ ..], [line, lines @ ..]) => line_matches(pattern, line) && lines_match(more, lines),
        _ => false,
    }
}

/// Whether a line is as the pattern says.
pub fn line_matches(pattern: &str, line: &str) -> bool {
    let pieces = literal_pieces(&squeeze(pattern));
    let line = squeeze(line);
    let [first, middle @ .., last] = &pieces[..] else {
        return pieces.first().is_some_and(|only| *only == line);
    };
    let Some(mut rest) = line
        .strip_prefix(first.as_str())
        .and_then(|rest| rest.strip_suffix(last.as_str()))
    else {
        return false;
    };
    for piece in middle {
        match rest.find(piece.as_str()) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// The text between placeholders.
fn literal_pieces(pattern: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut rest = pattern;
    while let Some(start) = rest.find("[..]").into_iter().chain(rest.find("[~")).min() {
        // A placeholder at the edge of a column may have been padded on either side.
        let Some(length) = rest[start..].find(']') else { break };
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(&rest[..start]);
        }
        pieces.push(String::new());
        rest = &rest[start + length + 1..];
    }
    if let Some(piece) = pieces.last_mut() {
        piece.push_str(rest);
    }
    pieces
}

/// One space for each run of spaces, one rule for each run of rules.
fn squeeze(text: &str) -> String {
    let mut short = String::new();
    for character in text.chars() {
        if !(matches!(character, ' ' | '─') && short.ends_with(character)) {
            short.push(character);
        }
    }
    short
}

/// The page as a reader sees it: with what one run printed.
pub fn shown(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(start) = rest.find("[~") {
        let Some(length) = rest[start..].find(']') else { break };
        text.push_str(&rest[..start]);
        text.push_str(&rest[start + 2..start + length]);
        rest = &rest[start + length + 1..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expected: &str, printed: &str) -> bool {
        let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        mismatch(&expected, printed).is_none()
    }

    #[test]
    fn placeholders_stand_for_what_changes() {
        assert!(matches("took [~5.24] ms", "took 7.1 ms\n"));
        assert!(matches("vm   [..] KiB\n────", "vm 3 KiB\n──────────"));
        assert!(matches("a\n...\nz", "a\nb\nc\nz"));
        assert!(matches("a\n...", "a"));
        assert!(matches("[..]", "\n"));
        assert!(matches("", ""));
        assert_eq!(shown("took [~5.24] ms of [~9]"), "took 5.24 ms of 9");
    }

    #[test]
    fn everything_else_has_to_be_as_printed() {
        assert!(!matches("took [~5.24] ms", "took 7.1 s"));
        assert!(!matches("a", "a\nb"));
        assert!(!matches("a\nb", "a"));
        assert!(!matches("", "something"));
        assert!(!matches("ab[..]b", "ab"));
        let expected = ["first".to_owned(), "second".to_owned()];
        assert!(mismatch(&expected, "first\nthird").is_some_and(|text| text.contains("\"second\"")));
    }
}
