//! Reading the initrd: a newc cpio archive, in place.
//!
//! An archive is one entry after another: a header of 110 characters, the name, the content, each padded to four bytes.
//! There is no directory of contents; finding a file means walking from the start. Nothing here trusts a number it has
//! not compared with what is there.

/// An archive in memory.
#[derive(Clone, Copy)]
pub struct Archive<'a> {
    bytes: &'a [u8],
}

/// One file, directory, link or device node.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    header: &'a [u8; HEADER],
    /// Where the header starts in the archive: unique, and so the inode number.
    pub offset: usize,
    /// Path without a leading slash.
    pub name: &'a [u8],
    /// Content; of a symbolic link, its target.
    pub data: &'a [u8],
}

/// What can be wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It ends in the middle of the entry at this offset.
    CutShort(usize),
    /// There is no header where one should be, at this offset.
    NoHeader(usize),
}

const HEADER: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

/// Positions of the header's fields, each eight hexadecimal digits.
mod field {
    pub const MODE: usize = 14;
    pub const UID: usize = 22;
    pub const GID: usize = 30;
    pub const LINKS: usize = 38;
    pub const MODIFIED: usize = 46;
    pub const SIZE: usize = 54;
    pub const DEVICE_MAJOR: usize = 78;
    pub const DEVICE_MINOR: usize = 86;
    pub const NAME_SIZE: usize = 94;
}

impl<'a> Archive<'a> {
    /// An archive of these bytes.
    pub const fn new(bytes: &'a [u8]) -> Archive<'a> {
        Archive { bytes }
    }

    /// The entry at `offset` and the offset behind it; None at the archive's end.
    pub fn entry(&self, offset: usize) -> Result<Option<(Entry<'a>, usize)>, Error> {
        let rest = self.bytes.get(offset..).unwrap_or(&[]);
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            return Err(Error::CutShort(offset));
        };
        if &header[..5] != b"07070" {
            return Err(Error::NoHeader(offset));
        }
        let name_size = number(header, field::NAME_SIZE) as usize;
        let size = number(header, field::SIZE) as usize;
        // Name and header together are padded, then the content alone: both are multiples of four from the start.
        let name_space = (HEADER + name_size).next_multiple_of(4) - HEADER;
        let (Some(padded), Some(data)) = (
            rest.get(..name_space),
            rest.get(name_space..).and_then(|rest| rest.get(..size)),
        ) else {
            return Err(Error::CutShort(offset));
        };
        let name = until_nul(padded);
        if name == TRAILER {
            return Ok(None);
        }
        let entry = Entry {
            header,
            offset,
            name: trim(name),
            data,
        };
        Ok(Some((entry, (offset + HEADER + name_space + size).next_multiple_of(4))))
    }

    /// The entry of exactly this name, without following links.
    pub fn find(&self, name: &[u8]) -> Result<Option<Entry<'a>>, Error> {
        let mut offset = 0;
        while let Some((entry, next)) = self.entry(offset)? {
            if entry.name == name {
                return Ok(Some(entry));
            }
            offset = next;
        }
        Ok(None)
    }
}

impl Entry<'_> {
    /// Type and permissions, as in `st_mode`.
    pub fn mode(&self) -> u32 {
        number(self.header, field::MODE)
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        number(self.header, field::UID)
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        number(self.header, field::GID)
    }

    /// Number of hard links.
    pub fn links(&self) -> u32 {
        number(self.header, field::LINKS)
    }

    /// Time of last change, in seconds since 1970.
    pub fn modified(&self) -> u32 {
        number(self.header, field::MODIFIED)
    }

    /// Major and minor number of a device node.
    pub fn device(&self) -> (u32, u32) {
        (
            number(self.header, field::DEVICE_MAJOR),
            number(self.header, field::DEVICE_MINOR),
        )
    }
}

/// The eight hexadecimal digits at `at`, all at once.
///
/// A digit's low four bits are its value; a letter's are its value less nine, and bit 6 tells the two apart. Neighbours
/// are then joined pairwise: nibbles to bytes, bytes to 16 bits, those to 32. Fifteen instructions instead of some
/// sixty for a loop over characters, on a path where each may be interpreted. Anything but digits gives nonsense, which
/// the caller's bounds checks take care of.
fn number(header: &[u8; HEADER], at: usize) -> u32 {
    let Some(digits) = header.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
        return 0;
    };
    let text = u64::from_be_bytes(*digits);
    let letters = text >> 6 & 0x0101_0101_0101_0101;
    let nibbles = (text & 0x0f0f_0f0f_0f0f_0f0f) + letters * 9;
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    (halves | halves >> 16) as u32
}

fn until_nul(name: &[u8]) -> &[u8] {
    match name.iter().position(|&byte| byte == 0) {
        Some(end) => &name[..end],
        None => name,
    }
}

/// Archives made by `find .` say `./bin`, others `/bin`; both mean `bin`. The root itself is empty.
fn trim(name: &[u8]) -> &[u8] {
    match name {
        [b'.', b'/', rest @ ..] | [b'/', rest @ ..] => rest,
        [b'.'] => &[],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, mode: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = format!(
            "070701{:08X}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{name}\0",
            1,
            1000,
            100,
            1,
            0x5f5e_1000,
            data.len(),
            0,
            0,
            5,
            1,
            name.len() + 1,
            0
        )
        .into_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn archive() -> Vec<u8> {
        [
            entry(".", 0o40755, b""),
            entry("./a", 0o100644, b"first"),
            entry("b/c", 0o100755, b""),
            entry("TRAILER!!!", 0, b""),
        ]
        .concat()
    }

    #[test]
    fn entries_are_found_with_all_their_fields() {
        let bytes = archive();
        let found = Archive::new(&bytes).find(b"a").unwrap().unwrap();
        assert_eq!(found.data, b"first");
        assert_eq!(
            (found.mode(), found.uid(), found.gid(), found.links()),
            (0o100644, 1000, 100, 1)
        );
        assert_eq!((found.modified(), found.device()), (0x5f5e_1000, (5, 1)));
        assert!(Archive::new(&bytes).find(b"b/c").unwrap().is_some());
        assert!(Archive::new(&bytes).find(b"nothing").unwrap().is_none());
    }

    #[test]
    fn hexadecimal_in_either_case() {
        for (text, value) in [
            ("00000000", 0),
            ("deadBEEF", 0xdead_beef),
            ("0123ABcd", 0x0123_abcd),
            ("ffffffff", !0),
        ] {
            let mut header = [b'0'; HEADER];
            header[14..22].copy_from_slice(text.as_bytes());
            assert_eq!(number(&header, 14), value, "{text}");
        }
    }

    #[test]
    fn an_archive_cut_anywhere_is_an_error_and_never_a_panic() {
        let bytes = archive();
        for length in 0..bytes.len() - 4 {
            let cut = Archive::new(&bytes[..length]);
            assert!(matches!(cut.find(b"nothing"), Err(Error::CutShort(_))), "{length}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = archive();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 24) as u8;
            }
            let _ = Archive::new(&bytes).find(b"nothing");
        }
    }
}
