//! Build arguments: ARG and `--build-arg`, and where each is visible.
//!
//! An ARG before the first FROM is for the FROM lines. A stage sees it only once it says ARG itself; then it has the
//! value given on the command line, else the stage's default, else the one from before FROM. An environment variable of
//! the same name always wins (Dockerfile reference, "Using ARG variables").

use std::collections::{BTreeMap, BTreeSet};

/// Arguments any build may be given without an ARG, for commands that reach the network. They say how to get there and
/// not what to make, so they are no part of what a cached layer is known by.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What a build knows of its platform without being told. Containers here run this machine's programs only.
const PLATFORM: [(&str, &str); 8] = [
    ("TARGETPLATFORM", "linux/amd64"),
    ("TARGETOS", "linux"),
    ("TARGETARCH", "amd64"),
    ("TARGETVARIANT", ""),
    ("BUILDPLATFORM", "linux/amd64"),
    ("BUILDOS", "linux"),
    ("BUILDARCH", "amd64"),
    ("BUILDVARIANT", ""),
];

/// The arguments of the whole build.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    given: BTreeMap<String, String>,
    global: BTreeMap<String, String>,
    used: BTreeSet<String>,
}

/// The arguments a stage has declared so far.
#[derive(Clone, Debug, Default)]
pub struct Declared(BTreeMap<String, Option<String>>);

impl Arguments {
    /// Those of the command line.
    pub fn given(pairs: impl IntoIterator<Item = (String, String)>) -> Arguments {
        let given: BTreeMap<_, _> = pairs.into_iter().collect();
        let platform = PLATFORM.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Arguments {
            used: given
                .keys()
                .filter(|name| PROXIES.contains(&name.as_str()))
                .cloned()
                .collect(),
            given,
            global: platform.into_iter().collect(),
        }
    }

    /// An ARG before the first FROM.
    pub fn declare_global(&mut self, name: &str, default: Option<String>) {
        if let Some(value) = self.take(name).or(default) {
            self.global.insert(name.to_owned(), value);
        }
    }

    /// The value of a variable in a FROM line.
    pub fn global(&self, name: &str) -> Option<String> {
        self.global.get(name).cloned()
    }

    /// An ARG within a stage.
    pub fn declare(&mut self, declared: &mut Declared, name: &str, default: Option<String>) {
        let value = self.take(name).or(default).or_else(|| self.global(name));
        // Said again without a value it keeps the one it has.
        if value.is_some() || !declared.0.contains_key(name) {
            declared.0.insert(name.to_owned(), value);
        }
    }

    /// The proxies a command is to know of.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.filter(|(name, _)| PROXIES.contains(name))
    }

    /// Those given on the command line that no ARG asked for.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.given
            .keys()
            .filter(|name| !self.used.contains(*name))
            .map(String::as_str)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let value = self.given.get(name).cloned()?;
        self.used.insert(name.to_owned());
        Some(value)
    }
}

impl Declared {
    /// The value of a declared argument.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().flatten()
    }

    /// All that have a value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_which_value() {
        let mut arguments = Arguments::given([("a".into(), "given".into()), ("typo".into(), "x".into())]);
        arguments.declare_global("a", Some("default".into()));
        arguments.declare_global("b", Some("global".into()));
        assert_eq!(arguments.global("a").as_deref(), Some("given"));
        let mut stage = Declared::default();
        assert_eq!(stage.get("b"), None, "not before the stage says ARG");
        arguments.declare(&mut stage, "b", None);
        arguments.declare(&mut stage, "c", None);
        arguments.declare(&mut stage, "TARGETARCH", None);
        assert_eq!(stage.get("b").as_deref(), Some("global"));
        assert_eq!(stage.get("TARGETARCH").as_deref(), Some("amd64"));
        arguments.declare(&mut stage, "b", Some("own".into()));
        arguments.declare(&mut stage, "b", None);
        assert_eq!(stage.iter().count(), 2);
        assert_eq!(arguments.unused().collect::<Vec<_>>(), ["typo"]);
    }

    #[test]
    fn a_repeated_declaration_takes_the_last_default() {
        let mut arguments = Arguments::given([]);
        let mut stage = Declared::default();
        arguments.declare(&mut stage, "b", Some("one".into()));
        arguments.declare(&mut stage, "b", Some("two".into()));
        assert_eq!(stage.get("b").as_deref(), Some("two"));
    }
}
