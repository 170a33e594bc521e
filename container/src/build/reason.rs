//! Why a step was not cached: its inputs now, compared with those of the last build of the same Dockerfile.
//!
//! A key is a hash and says only that something differs. So a build that made something notes what went into each step,
//! file by file, and the next build that has to make something reads the notes. A build that finds everything cached
//! does neither.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cache;
use super::sources::Hash;
use crate::image::digest::Digest;
use crate::image::store::{self, Store};

/// What went into one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The instruction, variables replaced.
    pub text: String,
    /// The layers below.
    pub below: Vec<Digest>,
    /// The variables that a command sees.
    pub variables: BTreeMap<String, String>,
    /// User, working directory and the like.
    pub circumstances: BTreeMap<String, String>,
    /// The files that are copied: name and hash in hexadecimal digits.
    pub files: BTreeMap<String, String>,
}

/// Why a step was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is known of a build of this Dockerfile before.
    First,
    /// It was asked for.
    NoCache,
    /// The last build had no such step.
    New,
    /// It says something else.
    Instruction,
    /// What is below it is another thing.
    Below,
    /// A variable's value.
    Variable(String),
    /// The user, the working directory, the shell.
    Circumstance(String),
    /// These files, and how many more.
    Files(Vec<String>, usize),
    /// It was cached once, and its layer was removed since.
    Removed,
}

/// How many files a reason names.
const NAMED: usize = 3;

impl Inputs {
    /// The files' hashes as notes have them.
    pub fn files(manifest: &[(String, Hash)]) -> BTreeMap<String, String> {
        let hex = |hash: &Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect();
        manifest.iter().map(|(name, hash)| (name.clone(), hex(hash))).collect()
    }

    /// Why these are not the inputs of `before`, the same step of the last build.
    fn differ_from(&self, before: &Inputs) -> Reason {
        let changed = |now: &BTreeMap<String, String>, before: &BTreeMap<String, String>| {
            let mut names: Vec<String> = Vec::new();
            names.extend(
                now.iter()
                    .filter(|(name, value)| before.get(*name) != Some(value))
                    .map(|(name, _)| name.clone()),
            );
            names.extend(before.keys().filter(|name| !now.contains_key(*name)).cloned());
            names.sort();
            names
        };
        if self.text != before.text {
            return Reason::Instruction;
        }
        let (variables, circumstances) = (
            changed(&self.variables, &before.variables),
            changed(&self.circumstances, &before.circumstances),
        );
        let mut files = changed(&self.files, &before.files);
        // A directory differs whenever its permissions do; then the files in it are not the news.
        match (
            files.len(),
            variables.into_iter().next(),
            circumstances.into_iter().next(),
        ) {
            (1.., ..) => {
                let more = files.len().saturating_sub(NAMED);
                files.truncate(NAMED);
                for name in &mut files {
                    let what = match (self.files.contains_key(name), before.files.contains_key(name)) {
                        (true, false) => "is new",
                        (false, true) => "is gone",
                        _ => "changed",
                    };
                    *name = format!("{name} {what}");
                }
                Reason::Files(files, more)
            }
            (_, Some(name), _) => Reason::Variable(name),
            (_, _, Some(name)) => Reason::Circumstance(name),
            _ if self.below != before.below => Reason::Below,
            _ => Reason::Removed,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::First => f.write_str("first build"),
            Reason::NoCache => f.write_str("--no-cache"),
            Reason::New => f.write_str("new instruction"),
            Reason::Instruction => f.write_str("instruction changed"),
            Reason::Below => f.write_str("layers below changed"),
            Reason::Variable(name) => write!(f, "variable {name} changed"),
            Reason::Circumstance(name) => write!(f, "{name} changed"),
            Reason::Files(names, 0) => f.write_str(&names.join(", ")),
            Reason::Files(names, more) => write!(f, "{} and {more} more", names.join(", ")),
            Reason::Removed => f.write_str("its layer was removed"),
        }
    }
}

/// The notes of the last build of a Dockerfile: stage and step in front.
#[derive(Debug, Default)]
pub struct Notes {
    path: PathBuf,
    before: Option<BTreeMap<String, Inputs>>,
    now: BTreeMap<String, Inputs>,
    made_something: bool,
}

impl Notes {
    /// The notes for builds known by this name: the Dockerfile's path and the context's.
    pub fn of(store: &Store, name: &str) -> Notes {
        let file = format!("notes-{}", Digest::of(name.as_bytes()).hex());
        Notes {
            path: cache::directory(store).join(file),
            ..Notes::default()
        }
    }

    /// Notes a step that was cached.
    pub fn cached(&mut self, stage: usize, step: usize, inputs: Inputs) {
        self.now.insert(name(stage, step), inputs);
    }

    /// Notes a step that was not, and says why. `known`: there is a record of it.
    pub fn explain(&mut self, stage: usize, step: usize, inputs: Inputs, known: bool) -> Reason {
        self.made_something = true;
        let before = self.before.get_or_insert_with(|| {
            let text = fs::read(&self.path).unwrap_or_default();
            serde_json::from_slice(&text).unwrap_or_default()
        });
        let name = name(stage, step);
        let reason = match before.get(&name) {
            _ if known => Reason::Removed,
            None if before.is_empty() => Reason::First,
            Some(same) => inputs.differ_from(same),
            None => Reason::New,
        };
        self.now.insert(name, inputs);
        reason
    }

    /// Writes the notes, if the build made anything. Steps it did not come to keep what was noted of them.
    pub fn write(mut self, store: &Store) -> Result<(), store::Error> {
        if !self.made_something {
            return Ok(());
        }
        for (name, inputs) in self.before.take().unwrap_or_default() {
            self.now.entry(name).or_insert(inputs);
        }
        let text = serde_json::to_vec(&self.now).unwrap_or_default();
        store.replace(&self.path, &text)
    }
}

fn name(stage: usize, step: usize) -> String {
    format!("{stage}.{step}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(text: &str, files: &[(&str, &str)], variables: &[(&str, &str)]) -> Inputs {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect()
        };
        Inputs {
            text: text.into(),
            files: map(files),
            variables: map(variables),
            ..Inputs::default()
        }
    }

    #[test]
    fn the_nearest_reason_is_given() {
        let before = inputs("COPY a b", &[("a/x", "1"), ("a/y", "1"), ("a/z", "1")], &[("V", "1")]);
        let reason = |now: Inputs| now.differ_from(&before).to_string();
        assert_eq!(reason(inputs("COPY a c", &[], &[])), "instruction changed");
        let files = [("a/x", "2"), ("a/y", "1"), ("a/w", "1")];
        assert_eq!(
            reason(inputs("COPY a b", &files, &[("V", "1")])),
            "a/w is new, a/x changed, a/z is gone"
        );
        let many: Vec<(String, String)> = (0..9).map(|number| (format!("n{number}"), String::new())).collect();
        let many: Vec<(&str, &str)> = many
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert!(reason(inputs("COPY a b", &many, &[])).ends_with(" and 9 more"));
        let same = [("a/x", "1"), ("a/y", "1"), ("a/z", "1")];
        assert_eq!(reason(inputs("COPY a b", &same, &[("V", "2")])), "variable V changed");
        let mut below = inputs("COPY a b", &same, &[("V", "1")]);
        below.below.push(Digest::of(b"x"));
        assert_eq!(reason(below), "layers below changed");
        assert_eq!(reason(before.clone()), "its layer was removed");
    }
}
