//! Mount options in words, as config.json and fstab have them, sorted by who understands them.
//!
//! Some are about the mount point (`ro`, `nosuid`: attributes), some about how it passes on later mounts (`rslave`:
//! propagation), some ask for another kind of mount altogether (`bind`), and all others are the file system's own (OCI
//! runtime specification, config, "Linux mount options").

use super::tree::Attributes;

/// A mount's options, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `bind` or `rbind`; the latter is recursive.
    pub bind: Option<bool>,
    /// Attributes of the mount point.
    pub attributes: Attributes,
    /// Attributes for the mounts beneath it too: `rro` and its kin.
    pub recursive: Attributes,
    /// Propagation types in order, each with whether it is for the mounts beneath too.
    pub propagation: Vec<(u64, bool)>,
    /// `idmap` or `ridmap`; the latter is recursive.
    pub shift_owners: Option<bool>,
    /// `tmpcopyup`: a tmpfs starts with a copy of what it covers.
    pub copy_up: bool,
    /// What is left for the file system.
    pub data: Vec<String>,
}

/// Names of attributes: the word, its opposite, its bits, and the bits that are cleared first.
const ATTRIBUTES: [(&str, &str, u64, u64); 8] = [
    ("ro", "rw", libc::MOUNT_ATTR_RDONLY, 0),
    ("nosuid", "suid", libc::MOUNT_ATTR_NOSUID, 0),
    ("nodev", "dev", libc::MOUNT_ATTR_NODEV, 0),
    ("noexec", "exec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("noatime", "atime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    (
        "strictatime",
        "nostrictatime",
        libc::MOUNT_ATTR_STRICTATIME,
        libc::MOUNT_ATTR__ATIME,
    ),
    ("nodiratime", "diratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("nosymfollow", "symfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
];

/// Propagation types by word; with an `r` in front for the mounts beneath too (mount_namespaces(7)).
const PROPAGATION: [(&str, u64); 4] = [
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// The words config.json may use, for `features`.
pub fn words() -> Vec<String> {
    let mut words: Vec<String> = [
        "bind",
        "rbind",
        "defaults",
        "idmap",
        "ridmap",
        "tmpcopyup",
        "relatime",
        "norelatime",
    ]
    .map(String::from)
    .to_vec();
    for (word, opposite, ..) in ATTRIBUTES {
        words.extend([word, opposite].map(String::from));
        words.extend([word, opposite].map(|word| format!("r{word}")));
    }
    for (word, _) in PROPAGATION {
        words.extend([word.to_owned(), format!("r{word}")]);
    }
    words.sort();
    words
}

/// The propagation type named `word`, and whether it is for the mounts beneath too.
pub fn propagation(word: &str) -> Option<(u64, bool)> {
    let find = |word: &str| {
        PROPAGATION
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, bits)| *bits)
    };
    find(word)
        .map(|bits| (bits, false))
        .or_else(|| find(word.strip_prefix('r')?).map(|bits| (bits, true)))
}

impl Options {
    /// Sorts `words`. Later ones override earlier ones.
    pub fn sort<'a>(words: impl IntoIterator<Item = &'a str>) -> Options {
        let mut options = Options::default();
        for word in words {
            options.add(word);
        }
        options
    }

    fn add(&mut self, word: &str) {
        match word {
            "" | "defaults" => {}
            "bind" => self.bind = self.bind.or(Some(false)),
            "rbind" => self.bind = Some(true),
            "idmap" => self.shift_owners = Some(false),
            "ridmap" => self.shift_owners = Some(true),
            "tmpcopyup" => self.copy_up = true,
            // The kernel's own choice where no other is made.
            "relatime" | "norelatime" => self.attributes.set &= !libc::MOUNT_ATTR__ATIME,
            _ => {
                if let Some(bits) = propagation(word) {
                    self.propagation.push(bits);
                } else if !self.attributes.add(word, false)
                    && !word
                        .strip_prefix('r')
                        .is_some_and(|word| self.recursive.add(word, true))
                {
                    self.data.push(word.to_owned());
                }
            }
        }
    }
}

impl Attributes {
    /// Adds what the word says, if it names an attribute. `clear`: its opposite takes it away from mounts that have it,
    /// instead of only taking back an earlier word. A bind keeps what its source has unless told otherwise; the plain
    /// words tell a new mount what it is, and every engine writes `rw` where it means nothing by it.
    fn add(&mut self, word: &str, clear: bool) -> bool {
        for (name, opposite, bits, cleared) in ATTRIBUTES {
            if word == name {
                self.set = self.set & !cleared | bits;
                self.clear = self.clear & !bits | cleared;
                return true;
            }
            if word == opposite {
                self.set &= !bits;
                if clear {
                    self.clear |= if cleared == 0 { bits } else { cleared };
                }
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_finds_its_place() {
        let options = Options::sort(["rbind", "rprivate", "nosuid", "ro", "mode=755", "rnoexec", "suid"]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.propagation, [(libc::MS_PRIVATE, true)]);
        assert_eq!(options.attributes.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(options.recursive.set, libc::MOUNT_ATTR_NOEXEC);
        assert_eq!(options.data, ["mode=755"]);
    }

    #[test]
    fn the_last_word_on_access_times_counts() {
        assert_eq!(
            Options::sort(["noatime", "strictatime"]).attributes.set,
            libc::MOUNT_ATTR_STRICTATIME
        );
        assert_eq!(Options::sort(["strictatime", "relatime"]).attributes.set, 0);
    }

    #[test]
    fn only_recursive_words_take_away_what_a_source_has() {
        assert_eq!(Options::sort(["rw"]).attributes, Attributes::default());
        assert_eq!(Options::sort(["rrw"]).recursive.clear, libc::MOUNT_ATTR_RDONLY);
    }
}
