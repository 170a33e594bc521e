//! Digests: the names that blobs give themselves.
//!
//! A blob's name is the hash of its bytes (OCI image specification, descriptor.md, "Digests"). Whoever has the name can
//! check that he got the right bytes, from whatever disk or registry they come; and equal bytes have one name, so that
//! they are stored once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The only algorithm in use: every registry and every engine writes it.
const ALGORITHM: &str = "sha256";

/// A SHA-256 digest, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// What a hasher has come to.
    pub fn from_hasher(hasher: Sha256) -> Digest {
        Digest(hasher.finalize().into())
    }

    /// The 64 digits: the blob's file name in an OCI layout.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first twelve digits, as engines show them to people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// The digest whose 64 digits these are.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        let mut bytes = [0; 32];
        // The specification has lower case only, so that a digest has one spelling.
        let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != 64 || !hex.bytes().all(digits) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }
}

/// The name of each layer together with everything below it, bottom first: layer 1's is its own digest, layer n's the
/// digest of "name of n-1, space, digest of n" (OCI image specification, config.md, "Layer ChainID"). What a layer
/// looks like unpacked can depend on what is below, so this is the name under which it is kept unpacked.
pub fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut names: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        names.push(match names.last() {
            None => *diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    names
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest, Error> {
        match text.split_once(':') {
            Some((ALGORITHM, hex)) => Digest::from_hex(hex),
            _ => None,
        }
        .ok_or_else(|| Error(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest, Error> {
        text.parse()
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = Error;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Digest, Error> {
        digest.as_ref().parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Text that is no digest.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no digest of a kind that is known here: \"sha256:\" and 64 hexadecimal digits in lower case")]
pub struct Error(String);

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '' | sha256sum`.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_leads_back() {
        let empty = Digest::of(b"");
        assert_eq!(empty.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(empty));
        assert_eq!(empty.short(), "e3b0c44298fc");
    }

    #[test]
    fn what_could_lead_out_of_the_store_is_no_digest() {
        let other_case = EMPTY.replace('e', "E");
        for text in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            "sha512:00",
            &EMPTY[7..],
            &EMPTY[..70],
            &other_case,
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_chain_depends_on_everything_below() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain(&[a])[0], a);
        assert_ne!(chain(&[a, b])[1], chain(&[b, b])[1]);
        assert_eq!(chain(&[a, b])[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
