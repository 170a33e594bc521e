//! Ids and names.
//!
//! An id is 256 random bits, so that nobody has to be asked whether it is free. A name is for people: given by them,
//! or put together from two short lists.

use std::fs::File;
use std::io::Read;

/// What a container can be like.
const QUALITIES: [&str; 24] = [
    "able", "agile", "bold", "brisk", "calm", "clear", "deft", "eager", "fair", "fleet", "frank", "fresh", "glad",
    "keen", "light", "lively", "neat", "plain", "quick", "quiet", "sharp", "spry", "steady", "warm",
];

/// People to whom this subject owes something, by family name.
const PEOPLE: [&str; 24] = [
    "aho",
    "babbage",
    "bernstein",
    "bogdanov",
    "corbato",
    "dijkstra",
    "engelbart",
    "goldberg",
    "hamilton",
    "hoare",
    "hopper",
    "kernighan",
    "lamport",
    "liskov",
    "lovelace",
    "mcilroy",
    "perlman",
    "popek",
    "ritchie",
    "saltzer",
    "stallman",
    "thompson",
    "torvalds",
    "turing",
];

/// The longest name: it also names files and is the default host name (HOST_NAME_MAX is 64).
const LONGEST: usize = 63;

/// A new id: 64 hexadecimal digits.
pub fn id() -> std::io::Result<String> {
    let mut bytes = [0u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What fits on a line of `ps`.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A name that follows from an id. `attempt` counts how many of them were taken.
pub fn generated(id: &str, attempt: usize) -> String {
    let number = |part: &str| usize::from_str_radix(part, 16).unwrap_or_default();
    let quality = QUALITIES[number(&id[..4]) % QUALITIES.len()];
    let person = PEOPLE[number(&id[4..8]) % PEOPLE.len()];
    match attempt {
        0 => format!("{quality}-{person}"),
        // There are 576 pairs; when one is taken a part of the id tells them apart.
        _ => format!("{quality}-{person}-{}", &id[8..14]),
    }
}

/// Whether people may use `name`: letters, digits and `_`, `.`, `-` after the first.
pub fn is_valid(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
        && name.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_lead_to_valid_names() {
        let (one, other) = (id().unwrap(), id().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
        assert!(is_valid(&generated(&one, 0)) && is_valid(&generated(&one, 1)));
        assert_ne!(generated(&one, 0), generated(&one, 1));
    }

    #[test]
    fn names_that_could_be_paths_or_options_are_refused() {
        for bad in ["", ".", "..", "-x", "a/b", "a b", "ü", &"a".repeat(64)] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(is_valid("web_1.test-2"));
    }
}
