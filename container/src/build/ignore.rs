//! `.dockerignore`: which files of the context do not exist for the build.
//!
//! Patterns match a path or a directory above it; of several that match, the last decides; `!` takes files back in
//! (Dockerfile reference, ".dockerignore file"; `moby/patternmatcher`).

use thiserror::Error;

use super::glob;

/// The patterns of one file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: String,
    takes_back: bool,
}

impl Ignore {
    /// Reads the file's text, whose name is `file` in messages.
    pub fn parse(file: &str, text: &str) -> Result<Ignore, Error> {
        let mut rules = Vec::new();
        for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            // Only in the first column: a file's name may begin with '#' after a space.
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if line.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            if line == "!" || glob::matches_path(&pattern, "x").is_none() || has_bad_name(&pattern) {
                return Err(Error {
                    file: file.to_owned(),
                    line: index + 1,
                    text: line.to_owned(),
                });
            }
            // "." and "/" mean the context itself, which cannot be left out.
            if !pattern.is_empty() {
                rules.push(Rule { pattern, takes_back });
            }
        }
        Ok(Ignore { rules })
    }

    /// Whether the build does not see this path, given relative to the context.
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            // A rule that would change nothing need not be matched.
            if rule.takes_back == ignored && rule.matches(path) {
                ignored = !rule.takes_back;
            }
        }
        ignored
    }

    /// Whether nothing in this directory, itself ignored, can be taken back in.
    pub fn ignores_all_below(&self, directory: &str) -> bool {
        let depth = directory.split('/').count();
        !self.rules.iter().any(|rule| {
            rule.takes_back && {
                // Compared name by name as far as both go; after `**` anything can follow.
                let names: Vec<&str> = rule.pattern.split('/').collect();
                let before = names.iter().position(|name| name.contains("**")).unwrap_or(names.len());
                let shared = before.min(depth);
                let head: Vec<&str> = directory.split('/').take(shared).collect();
                glob::matches_path(&names[..shared].join("/"), &head.join("/")) == Some(true) || shared == 0
            }
        })
    }
}

impl Rule {
    /// Whether the path or a directory above it matches.
    fn matches(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(index, _)| index).chain([path.len()]);
        ends.into_iter()
            .any(|end| glob::matches_path(&self.pattern, &path[..end]) == Some(true))
    }
}

/// The path without empty parts, `.` and `..`, and without slashes around it; `..` cannot leave the context.
pub fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn has_bad_name(pattern: &str) -> bool {
    pattern.split('/').any(|name| glob::matches_name(name, "x").is_none())
}

/// A line that is no pattern.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file}:{line}: {text:?} is no pattern: '[' needs its ']', and '!' and '\\' need something after them")]
pub struct Error {
    file: String,
    line: usize,
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(text: &str) -> Ignore {
        Ignore::parse(".dockerignore", text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The examples of the Dockerfile reference, and what follows from them.
    #[test]
    fn the_last_match_decides() {
        let rules = ignore("# comment\n*/temp*\n*/*/temp*\ntemp?\n");
        for (path, ignored) in [
            ("somedir/temporary.txt", true),
            ("somedir/temp/file", true),
            ("somedir/subdir/temporary.txt", true),
            ("tempa", true),
            ("temp", false),
            ("temporary.txt", false),
        ] {
            assert_eq!(rules.ignores(path), ignored, "{path}");
        }
        let rules = ignore("*.md\n!README*.md\nREADME-secret.md\n");
        assert!(rules.ignores("x.md") && !rules.ignores("README.md") && rules.ignores("README-secret.md"));
        let rules = ignore("*.md\nREADME-secret.md\n!README*.md\n");
        assert!(!rules.ignores("README-secret.md"));
    }

    #[test]
    fn directories_and_double_stars() {
        let rules = ignore("/target/\n**/*.o\n!keep/**/x.o\n");
        for (path, ignored) in [
            ("target", true),
            ("target/debug/x", true),
            ("sub/target", false),
            ("x.o", true),
            ("a/b/x.o", true),
            ("keep/a/b/x.o", false),
            ("keep/x.o", false),
            ("keep/y.o", true),
        ] {
            assert_eq!(rules.ignores(path), ignored, "{path}");
        }
    }

    #[test]
    fn everything_but() {
        let rules = ignore("*\n!src\n");
        assert!(rules.ignores("a") && rules.ignores("a/b") && !rules.ignores("src") && !rules.ignores("src/x"));
        assert!(rules.ignores_all_below("a") && !rules.ignores_all_below("src"));
        let rules = ignore("a\n!a/b/c\n");
        assert!(!rules.ignores_all_below("a") && !rules.ignores_all_below("a/b") && rules.ignores_all_below("a/x"));
        assert!(!rules.ignores("a/b/c") && rules.ignores("a/b"));
        assert!(!ignore("a\n!**/c\n").ignores_all_below("a/x/y"));
    }

    #[test]
    fn a_wrong_pattern_is_shown() {
        let error = Ignore::parse("x.dockerignore", "a\n[b\n").map(drop);
        assert!(error.is_err_and(|error| error.to_string().starts_with("x.dockerignore:2: \"[b\" is no pattern")));
        assert!(Ignore::parse("x", "!\n").is_err());
    }
}
