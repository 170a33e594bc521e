//! Tar, read as a stream: one header of 512 bytes, the file's bytes padded to 512, the next header.
//!
//! That was enough in 1979. Names longer than 100 bytes, extended attributes, sparse files and times finer than a second
//! came later, as members of their own that describe the one after them: GNU's `L` and `K`, and PAX records
//! (POSIX.1-2001, `pax`; GNU tar manual, "Storing Sparse Files"). This reader puts them together.
//!
//! The crate `tar` reads the fields of a header for us. It keeps the describing members in memory whatever size they
//! say they have, takes a PAX record to end at the first newline of a binary value, and does not know PAX's sparse files;
//! with layers from strangers none of that will do, so the loop around it is ours.

use std::io::{self, BufRead, Read};

use tar::{EntryType, Header};
use thiserror::Error;

/// The unit of the format.
const BLOCK: u64 = 512;

/// What one describing member may say at most. A path has 4096 bytes, and all extended attributes of a file 64 KiB
/// (Linux, XATTR_LIST_MAX) beside their values, of which file systems keep some KiB.
pub const MAX_DESCRIPTION: u64 = 1 << 20;

/// Parts of a sparse file at most. A disk image of 8 GiB in which every other 64 KiB is a hole has this many.
const MAX_SPARSE_PARTS: usize = 1 << 16;

/// The prefix of PAX keys that carry extended attributes; star's, which GNU tar and Go write too.
const PAX_XATTR: &[u8] = b"SCHILY.xattr.";

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with bytes of its own.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// One member, with all that was said about it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, as it stands in the archive.
    pub path: Vec<u8>,
    /// Where a link leads.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-user-id and sticky bits included.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of the last change: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of the file in bytes, holes included.
    pub size: u64,
    /// For a sparse file, offset and length of each part that is not a hole; their bytes follow one another.
    pub parts: Option<Vec<(u64, u64)>>,
}

/// An archive being read.
pub struct Archive<R> {
    input: R,
    /// Bytes of the current member not read yet.
    remaining: u64,
    /// Its padding.
    padding: u64,
}

/// What PAX records and GNU's long names say about the next member.
#[derive(Default)]
struct Described {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

/// PAX has three ways to write a sparse file, GNU tar's versions 0.0, 0.1 and 1.0.
#[derive(Default)]
struct Sparse {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    parts: Option<Vec<(u64, u64)>>,
    map_in_data: bool,
}

impl<R: BufRead> Archive<R> {
    /// Reads an archive from its first byte on.
    pub fn new(input: R) -> Archive<R> {
        Archive {
            input,
            remaining: 0,
            padding: 0,
        }
    }

    /// The next member, or `None` at the end. What was not read of the last one is skipped.
    pub fn next_member(&mut self) -> Result<Option<Member>, Error> {
        let mut described = Described::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let stored = header.entry_size().map_err(Error::Header)?;
            let kind = header.entry_type();
            let is_description = kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions();
            if !is_description {
                return self.member(&header, described).map(Some);
            }
            self.expect(stored);
            let text = self.description(stored)?;
            if kind.is_pax_local_extensions() {
                described.add_records(&text)?;
            } else if kind.is_gnu_longname() {
                described.path = Some(until_nul(text));
            } else if kind.is_gnu_longlink() {
                described.link = Some(until_nul(text));
            }
            // Global records would hold for all members that follow. Only `git archive` writes them, as a comment.
        }
    }

    /// The bytes of the current member; of a sparse file, those of its parts.
    pub fn data(&mut self) -> Data<'_, R> {
        Data { archive: self }
    }

    /// What lies beneath.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn header(&mut self) -> Result<Option<Header>, Error> {
        let mut block = [0; BLOCK as usize];
        // An archive ends with two blocks of zeros; an old or careless one with the file.
        if self.input.fill_buf().map_err(Error::Read)?.is_empty() {
            return Ok(None);
        }
        self.input.read_exact(&mut block).map_err(Error::Read)?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = block.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        // The sum counts its own eight bytes as spaces.
        let own = block[148..156].iter().map(|&byte| u32::from(byte)).sum::<u32>();
        if header.cksum().ok() != Some(sum - own + 8 * u32::from(b' ')) {
            return Err(Error::Checksum);
        }
        Ok(Some(header))
    }

    fn member(&mut self, header: &Header, described: Described) -> Result<Member, Error> {
        let kind = kind_of(header.entry_type()).ok_or(Error::Type(header.entry_type().as_byte()))?;
        let stored = match described.size {
            Some(size) => size,
            None => header.entry_size().map_err(Error::Header)?,
        };
        // Some archivers give a hard link the size of its file, and no bytes.
        let stored = if kind == Kind::File { stored } else { 0 };
        self.expect(stored);
        let mut sparse = described.sparse;
        if sparse.map_in_data {
            sparse.parts = Some(self.sparse_map()?);
        } else if header.entry_type().is_gnu_sparse() {
            (sparse.parts, sparse.size) = self.old_sparse(header)?;
        }
        let size = match &sparse.parts {
            Some(parts) => check_sparse(parts, sparse.size, self.remaining)?,
            None => stored,
        };
        let field = |value: io::Result<u64>, pax: Option<u64>| pax.map_or_else(|| value.map_err(Error::Header), Ok);
        let device = |number: io::Result<Option<u32>>| number.map(Option::unwrap_or_default).map_err(Error::Header);
        let (major, minor) = match kind {
            Kind::CharDevice | Kind::BlockDevice => (device(header.device_major())?, device(header.device_minor())?),
            _ => (0, 0),
        };
        let link = || header.link_name_bytes().map(|name| name.into_owned());
        let path = sparse.name.or(described.path);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        // Before there was a type for directories, they were files whose name ends like this.
        let kind = match kind {
            Kind::File if path.ends_with(b"/") => Kind::Directory,
            kind => kind,
        };
        Ok(Member {
            path,
            link: described.link.or_else(link).unwrap_or_default(),
            kind,
            mode: header.mode().map_err(Error::Header)? & 0o7777,
            uid: field(header.uid(), described.uid)?,
            gid: field(header.gid(), described.gid)?,
            mtime: match described.mtime {
                Some(mtime) => mtime,
                None => (header.mtime().map_err(Error::Header)? as i64, 0),
            },
            device: (major, minor),
            xattrs: described.xattrs,
            size,
            parts: sparse.parts,
        })
    }

    /// The next `size` bytes, and what pads them to a block, belong to one member.
    fn expect(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn skip_rest(&mut self) -> Result<(), Error> {
        let mut left = u128::from(self.remaining) + u128::from(self.padding);
        (self.remaining, self.padding) = (0, 0);
        while left > 0 {
            let there = self.input.fill_buf().map_err(Error::Read)?.len();
            if there == 0 {
                return Err(Error::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let skipped = (there as u128).min(left);
            self.input.consume(skipped as usize);
            left -= skipped;
        }
        Ok(())
    }

    fn description(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_DESCRIPTION {
            return Err(Error::Description { size });
        }
        let mut text = vec![0; size as usize];
        self.data().read_exact(&mut text).map_err(Error::Read)?;
        Ok(text)
    }

    /// PAX 1.0: the map is at the start of the data, decimal numbers with a newline after each, padded to a block.
    fn sparse_map(&mut self) -> Result<Vec<(u64, u64)>, Error> {
        let mut numbers = Vec::new();
        let mut current = 0u64;
        let mut wanted = 1;
        while numbers.len() < wanted {
            let mut block = [0; BLOCK as usize];
            self.data().read_exact(&mut block).map_err(Error::Read)?;
            for byte in block {
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let next = current.checked_mul(10).and_then(|tens| tens.checked_add(digit));
                        current = next.ok_or(Error::Sparse)?;
                    }
                    b'\n' => {
                        if numbers.is_empty() {
                            if current > MAX_SPARSE_PARTS as u64 {
                                return Err(Error::Sparse);
                            }
                            wanted = 1 + 2 * current as usize;
                        }
                        numbers.push(std::mem::take(&mut current));
                        if numbers.len() == wanted {
                            break;
                        }
                    }
                    _ => return Err(Error::Sparse),
                }
            }
        }
        Ok(pairs(&numbers[1..]))
    }

    /// GNU's old way: four parts in the header, more in blocks between it and the data.
    #[allow(clippy::type_complexity, reason = "the parts, and the size with the holes")]
    fn old_sparse(&mut self, header: &Header) -> Result<(Option<Vec<(u64, u64)>>, Option<u64>), Error> {
        let gnu = header.as_gnu().ok_or(Error::Sparse)?;
        let mut parts = Vec::new();
        let mut add = |list: &[tar::GnuSparseHeader]| {
            for part in list.iter().filter(|part| !part.is_empty()) {
                parts.push((
                    part.offset().map_err(Error::Header)?,
                    part.length().map_err(Error::Header)?,
                ));
            }
            if parts.len() > MAX_SPARSE_PARTS {
                return Err(Error::Sparse);
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.input.read_exact(block.as_mut_bytes()).map_err(Error::Read)?;
            add(&block.sparse)?;
            more = block.is_extended();
        }
        let size = gnu.real_size().map_err(Error::Header)?;
        Ok((Some(parts), Some(size)))
    }
}

/// The bytes of a member. Offers them where they lie, so that they need not be copied to be written out.
pub struct Data<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: BufRead> BufRead for Data<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let remaining = self.archive.remaining;
        if remaining == 0 {
            return Ok(&[]);
        }
        let there = self.archive.input.fill_buf()?;
        if there.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&there[..there.len().min(usize::try_from(remaining).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, amount: usize) {
        self.archive.remaining -= amount as u64;
        self.archive.input.consume(amount);
    }
}

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let size = there.len().min(buffer.len());
        buffer[..size].copy_from_slice(&there[..size]);
        self.consume(size);
        Ok(size)
    }
}

impl Described {
    /// Takes in records of the form "LENGTH KEY=VALUE\n", where LENGTH counts the whole record: values may be binary.
    fn add_records(&mut self, mut text: &[u8]) -> Result<(), Error> {
        let mut numbers = Vec::new();
        while !text.is_empty() {
            let space = text.iter().position(|&byte| byte == b' ').ok_or(Error::Pax)?;
            let length = number(&text[..space]).ok_or(Error::Pax)?;
            let length = usize::try_from(length).map_err(|_| Error::Pax)?;
            let record = text
                .get(space + 1..length)
                .and_then(|record| record.strip_suffix(b"\n"))
                .ok_or(Error::Pax)?;
            text = &text[length..];
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(Error::Pax)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.add(key, value, &mut numbers).ok_or_else(|| Error::PaxValue {
                key: String::from_utf8_lossy(key).into_owned(),
            })?;
        }
        if !numbers.is_empty() {
            self.sparse.parts = Some(pairs(&numbers));
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8], numbers: &mut Vec<u64>) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_owned()),
            b"linkpath" => self.link = Some(value.to_owned()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_owned()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(number(value)?),
            b"GNU.sparse.major" => self.sparse.map_in_data = number(value)? == 1,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => numbers.push(number(value)?),
            b"GNU.sparse.map" => {
                let list = value.split(|&byte| byte == b',').map(number);
                numbers.extend(list.collect::<Option<Vec<_>>>()?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(PAX_XATTR) {
                    self.xattrs.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        (numbers.len() <= 2 * MAX_SPARSE_PARTS).then_some(())
    }
}

fn kind_of(kind: EntryType) -> Option<Kind> {
    Some(match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        _ => return None,
    })
}

/// The parts must follow one another, lie within the file, and be what the archive holds. Returns the file's size.
fn check_sparse(parts: &[(u64, u64)], size: Option<u64>, stored: u64) -> Result<u64, Error> {
    let size = size.ok_or(Error::Sparse)?;
    let (mut end, mut sum) = (0u64, 0u64);
    for &(offset, length) in parts {
        if offset < end {
            return Err(Error::Sparse);
        }
        end = offset.checked_add(length).ok_or(Error::Sparse)?;
        sum += length;
    }
    if end > size || sum != stored {
        return Err(Error::Sparse);
    }
    Ok(size)
}

fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction, which may be negative: "-1.5" is 1.5 seconds before 1970.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let seconds: i64 = seconds.parse().ok()?;
    Some(match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|&byte| byte == 0) {
        text.truncate(end);
    }
    text
}

/// What is wrong with an archive.
#[derive(Debug, Error)]
pub enum Error {
    /// It could not be read, or ends too early.
    #[error("{0}")]
    Read(io::Error),
    /// A header's fields make no sense.
    #[error("a header has a field that is no number: {0}")]
    Header(io::Error),
    /// This is no header.
    #[error("a header's checksum is wrong: this is no tar archive, or a damaged one")]
    Checksum,
    /// A member of a type nobody writes.
    #[error("a member has type {0:#04x}, which is none that a layer can have")]
    Type(u8),
    /// Names or attributes beyond all reason.
    #[error(
        "{size} bytes of names and attributes for one file; more than {MAX_DESCRIPTION} are refused, since they would have to be kept in memory"
    )]
    Description {
        /// How many bytes it claims.
        size: u64,
    },
    /// PAX records that are none.
    #[error("a PAX header is not made of records \"LENGTH KEY=VALUE\"")]
    Pax,
    /// A PAX record whose value makes no sense.
    #[error("the PAX record {key} has a value that makes no sense")]
    PaxValue {
        /// Its key.
        key: String,
    },
    /// A map that does not fit the file.
    #[error(
        "a sparse file's parts overlap, leave the file, or are not what the archive holds of it (or there are more than {MAX_SPARSE_PARTS})"
    )]
    Sparse,
}
