//! References: what people call images.
//!
//! `alpine` means `docker.io/library/alpine:latest`: a registry, a repository in it, and a tag that may point at another
//! image tomorrow, or a digest, which cannot. The defaults are Docker's, and so are the rules for names (distribution's
//! package `reference`).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::digest::Digest;

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Where that registry keeps the images it looks after itself.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag of names that have none.
pub const DEFAULT_TAG: &str = "latest";
/// The longest name, registry included, and the longest tag (distribution specification).
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// The full name of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host name, and port if it has one: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// Name in the registry: `library/alpine`.
    pub repository: String,
    /// The tag, unless the image is named by its digest alone.
    pub tag: Option<String>,
    /// The digest of the manifest that is meant.
    pub digest: Option<Digest>,
}

impl Reference {
    /// The name without the tag or digest: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As people write it: without what goes without saying.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let shorter = [
            format!("{DEFAULT_REGISTRY}/{DEFAULT_NAMESPACE}/"),
            format!("{DEFAULT_REGISTRY}/"),
        ];
        shorter
            .iter()
            .filter_map(|prefix| full.strip_prefix(prefix))
            // `docker.io/a.b/c` must not become `a.b/c`, which names a registry `a.b`.
            .find(|text| text.parse().as_ref() == Ok(self))
            .map_or(full.clone(), str::to_owned)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        let bad = |why| Error {
            text: text.to_owned(),
            why,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse().map_err(|_| bad("after the @ belongs a sha256 digest"))?),
            ),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        // The first part is a registry if it looks like a host: docker would take `foo/bar` to its own registry.
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        let repository = match (registry, path.contains('/')) {
            (DEFAULT_REGISTRY, false) => format!("{DEFAULT_NAMESPACE}/{path}"),
            _ => path.to_owned(),
        };
        if !is_host(registry) {
            return Err(bad(
                "the registry must be a host name, with a port after a colon if need be",
            ));
        }
        if path.is_empty() || !repository.split('/').all(is_component) {
            return Err(bad(
                "the parts of a name are lower-case letters and digits, with single '.', '_', '__' or '-'s between them",
            ));
        }
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(bad("a name has at most 255 characters"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(
                "a tag is up to 128 letters, digits, '_', '.' and '-', and starts with none of the last two",
            ));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Reference {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port.parse::<u16>().is_ok() && host.split('.').all(label)
}

fn is_component(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    let mut bytes = text.bytes();
    if !bytes.next().is_some_and(letter) || !text.bytes().last().is_some_and(letter) {
        return false;
    }
    for byte in bytes {
        if letter(byte) {
            let allowed = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !allowed {
                return false;
            }
            separator.clear();
        } else {
            separator.push(byte.into());
        }
    }
    true
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Text that names no image.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is no name of an image: {why}. Names look like alpine, alpine:3.20 or localhost:5000/team/app:1.2")]
pub struct Error {
    text: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("team/app", "docker.io/team/app:latest", "team/app:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"),
            ("quay.io/a-b/c__d:T", "quay.io/a-b/c__d:T", "quay.io/a-b/c__d:T"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(familiar.parse(), Ok(reference));
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let text = format!("alpine@{}", Digest::of(b""));
        let reference: Reference = text.parse().unwrap();
        assert_eq!((reference.tag, reference.digest), (None, Some(Digest::of(b""))));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            "A",
            "a//b",
            "a/../b",
            "-a",
            "a-",
            "a___b",
            "a b",
            "a@b",
            "a:-t",
            "x.y:99999/a",
            "../a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
