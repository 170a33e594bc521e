//! Tar, written: a member is a header of 512 bytes and its data; what the header has no room for goes into PAX records
//! in front of it.

use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use super::archive::{Kind, Member};

/// Room for a name in a header.
const NAME: usize = 100;

/// An archive being written.
pub struct ArchiveWriter<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> ArchiveWriter<W> {
    /// An archive with nothing in it yet.
    pub fn new(output: W) -> ArchiveWriter<W> {
        ArchiveWriter {
            builder: Builder::new(output),
        }
    }

    /// Adds a member. Of a file, exactly `member.size` bytes are read; sparse files are written with their holes.
    pub fn append(&mut self, member: &Member, data: impl Read) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(match member.kind {
            Kind::File => EntryType::Regular,
            Kind::HardLink => EntryType::Link,
            Kind::Symlink => EntryType::Symlink,
            Kind::Directory => EntryType::Directory,
            Kind::Fifo => EntryType::Fifo,
            Kind::CharDevice => EntryType::Char,
            Kind::BlockDevice => EntryType::Block,
        });
        header.set_mode(member.mode);
        header.set_uid(member.uid);
        header.set_gid(member.gid);
        header.set_size(if member.kind == Kind::File { member.size } else { 0 });
        header.set_mtime(member.mtime.0.max(0) as u64);
        if matches!(member.kind, Kind::CharDevice | Kind::BlockDevice) {
            header.set_device_major(member.device.0)?;
            header.set_device_minor(member.device.1)?;
        }
        let mut path = member.path.clone();
        if member.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        if let Some(ustar) = header.as_ustar_mut() {
            fill(&mut ustar.name, &path);
            fill(&mut ustar.linkname, &member.link);
        }
        header.set_cksum();
        self.describe(member, &path)?;
        let size = header.entry_size()?;
        let mut data = data.take(size);
        self.builder.append(&header, &mut data)?;
        match data.limit() {
            0 => Ok(()),
            // The archive has a hole now: nothing to be done about it but to say so.
            missing => Err(io::Error::other(format!(
                "the file has become shorter by {missing} bytes while it was read"
            ))),
        }
    }

    /// The records for what the header cannot hold. Values are bytes: names need not be UTF-8, nor attributes text.
    fn describe(&mut self, member: &Member, path: &[u8]) -> io::Result<()> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        if path.len() > NAME || !path.is_ascii() {
            records.push(("path".into(), path.to_owned()));
        }
        if member.link.len() > NAME || !member.link.is_ascii() {
            records.push(("linkpath".into(), member.link.clone()));
        }
        let (seconds, nanoseconds) = member.mtime;
        if nanoseconds != 0 || seconds < 0 {
            records.push(("mtime".into(), time(seconds, nanoseconds).into_bytes()));
        }
        for (name, value) in &member.xattrs {
            let name = std::str::from_utf8(name).map_err(io::Error::other)?;
            records.push((format!("SCHILY.xattr.{name}"), value.clone()));
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records)
    }

    /// Writes the end of the archive.
    pub fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }
}

fn fill(field: &mut [u8], text: &[u8]) {
    let size = field.len().min(text.len());
    field[..size].copy_from_slice(&text[..size]);
}

/// Seconds with a fraction, the sign in front: half a second before 1970 is -0.5, which is kept as (-1, 500000000).
fn time(seconds: i64, nanoseconds: u32) -> String {
    match (seconds, nanoseconds) {
        (seconds, 0) => format!("{seconds}"),
        (0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}
