//! What the accounts are handed over to: sums, and a file that grows no larger than it may.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::entry::Entry;
use super::statistics::Counts;
use super::summary::Totals;
use super::symbols::Symbols;

/// Largest size of a trace unless another is asked for, in bytes: a million exits and some.
pub const LIMIT: u64 = 256 << 20;

/// Where a trace goes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its largest size in bytes, but for one line that reaches beyond it and the last.
    pub limit: u64,
}

/// The file, how much of it there is, and the sums over all exits, those that are not in it too.
pub struct Book {
    file: Counted,
    limit: u64,
    pub totals: Totals,
    /// Exits that came when the file was full.
    left_out: u64,
    /// The first write that failed: nothing is written after it, and it is reported at the end.
    failed: Option<io::Error>,
}

/// A file that knows how much was written to it.
struct Counted {
    file: BufWriter<File>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Book {
    /// Makes the file, with this line at its head.
    pub fn open(place: Place<'_>, head: &str) -> io::Result<Book> {
        let mut file = Counted {
            file: BufWriter::new(File::create(place.path)?),
            bytes: 0,
        };
        writeln!(file, "{head}")?;
        Ok(Book {
            file,
            limit: place.limit,
            totals: Totals::default(),
            left_out: 0,
            failed: None,
        })
    }

    /// Takes over one exit.
    pub fn enter(&mut self, vcpu: usize, entry: &Entry, symbols: &Symbols) {
        self.totals.add(entry);
        if self.left_out > 0 || self.file.bytes >= self.limit {
            self.left_out += 1;
        } else if self.failed.is_none() {
            self.failed = entry.write(vcpu, symbols, &mut self.file).err();
        }
    }

    /// What whoever reads the summary must know of the file.
    pub fn complaint(&self, path: &Path) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "vmm: the trace {} was full at {} bytes: {} further exits are counted above and not in it. --trace-limit SIZE gives it more",
                path.display(),
                self.limit,
                self.left_out
            )
        })
    }

    /// Writes the last line.
    pub fn close(&mut self, counts: &Counts) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => writeln!(self.file, "{}", counts.json(self.left_out)).and_then(|()| self.file.flush()),
        }
    }

    /// Writes what was handed over so far, for whom there may be no close.
    pub fn flush(&mut self) {
        let flushed = self.file.flush();
        self.failed = self.failed.take().or(flushed.err());
    }
}
