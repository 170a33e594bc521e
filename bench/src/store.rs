//! The results folder on disk: samples appended as they are taken, the summary replaced as a whole.
//!
//! Whatever happens during a race, a reader finds every sample taken until then, and a summary that is whole or absent.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::results::{SCHEMA, Sample, Summary};

/// Every sample, one JSON object a line.
pub const SAMPLES: &str = "samples.jsonl";
/// The evaluation, with its provenance.
pub const SUMMARY: &str = "summary.json";

/// What keeps results from being written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {what} {}: {source}{}", path.display(), cure(source))]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The folder holds something else.
    #[error(
        "{} is not empty and is no results folder (it has no {SAMPLES}): nothing in it was touched. Choose another with --out",
        .0.display()
    )]
    NotResults(PathBuf),
    /// No race was run into it, or there is no such folder.
    #[error(
        "{} holds no race: it has no {SUMMARY}. `lab compare --out {}` runs one into it",
        folder.display(),
        folder.display()
    )]
    NoRace {
        /// The folder.
        folder: PathBuf,
    },
    /// Another lab writes there at this moment.
    #[error(
        "another lab is writing its results to {}: nothing in it was touched. Wait for its end, or choose another \
         folder with --out",
        .0.display()
    )]
    InUse(PathBuf),
    /// The last line has no end: the lab that wrote it was killed, or its disk was full.
    #[error(
        "{}: line {line} is cut off, so the lab that wrote it did not finish. The lines before it are whole: delete the \
         last line to use them",
        path.display()
    )]
    Torn {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
    },
    /// Not what this lab writes.
    #[error("{}: {source}{}", place(path, *line), others(*line))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1, in a file of lines.
        line: Option<usize>,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A later lab wrote it.
    #[error(
        "{} has schema {found}; this lab reads up to schema {SCHEMA}. Use the lab that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
}

fn place(path: &Path, line: Option<usize>) -> String {
    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    format!("{}{line}", path.display())
}

fn others(line: Option<usize>) -> &'static str {
    match line {
        Some(_) => ". Nothing was changed, and the other lines are kept: mend this one or delete it to use them",
        None => "",
    }
}

fn cure(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". The samples written before are kept; free some space or choose another place with --out"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ". Choose another place with --out",
        _ => "",
    }
}

/// A results folder being written. It is locked for as long as the value lives; the kernel drops the lock with the process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    samples: File,
    /// Length of the samples file up to its last whole line, in bytes.
    whole: u64,
}

impl Folder {
    /// Makes `path` a fresh results folder. An older result there is replaced; anything else is left alone.
    ///
    /// # Errors
    /// [`Error::NotResults`], [`Error::InUse`], or why the file system refused.
    pub fn create(path: &Path) -> Result<Folder, Error> {
        fs::create_dir_all(path).map_err(file("make the folder", path))?;
        let empty = fs::read_dir(path)
            .map_err(file("read the folder", path))?
            .next()
            .is_none();
        let samples_path = path.join(SAMPLES);
        if !empty && !samples_path.is_file() {
            return Err(Error::NotResults(path.to_owned()));
        }
        let samples = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&samples_path)
            .map_err(file("write", &samples_path))?;
        // Locked first and emptied then: the samples of a race under way are not ours to remove.
        match samples.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(file("lock", &samples_path)(source)),
        }
        samples.set_len(0).map_err(file("empty", &samples_path))?;
        let summary_path = path.join(SUMMARY);
        match fs::remove_file(&summary_path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(file("remove", &summary_path)(source));
            }
            _ => {}
        }
        Ok(Folder {
            path: path.to_owned(),
            samples,
            whole: 0,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one sample, handed to the kernel before this returns.
    ///
    /// # Errors
    /// Why it could not be written. The file then ends with the sample before.
    pub fn append(&mut self, sample: &Sample) -> Result<(), Error> {
        let path = self.path.join(SAMPLES);
        let mut line = to_json(sample, &path)?;
        line.push(b'\n');
        if let Err(source) = self.samples.write_all(&line) {
            // Half a line would spoil the whole ones. Should this fail too, a reader still recognises a torn line.
            let _ = self.samples.set_len(self.whole);
            let _ = self.samples.seek(SeekFrom::Start(self.whole));
            return Err(file("write a sample to", &path)(source));
        }
        self.whole += line.len() as u64;
        Ok(())
    }

    /// Writes the summary beside, then renames it into place: a reader never sees half of it.
    ///
    /// # Errors
    /// Why it could not be written. An older summary is then still there.
    pub fn write_summary(&self, summary: &Summary) -> Result<PathBuf, Error> {
        let path = self.path.join(SUMMARY);
        let mut text = serde_json::to_vec_pretty(summary).map_err(|source| Error::Malformed {
            path: path.clone(),
            line: None,
            source,
        })?;
        text.push(b'\n');
        // One name serves every lab: the folder is locked.
        let beside = self.path.join(".summary.json.new");
        let write = || -> io::Result<()> {
            let mut new = File::create(&beside)?;
            new.write_all(&text)?;
            new.sync_all()?;
            fs::rename(&beside, &path)
        };
        write().map_err(|source| {
            // What is half written is of no use; that it could not be written is what the reader must know.
            let _ = fs::remove_file(&beside);
            file("write", &path)(source)
        })?;
        Ok(path)
    }
}

/// Reads the summary in the results folder `folder`.
///
/// # Errors
/// [`Error::Newer`] for a later schema, [`Error::Malformed`], or why it could not be read.
pub fn read_summary(folder: &Path) -> Result<Summary, Error> {
    /// The one field every schema has.
    #[derive(Deserialize)]
    struct Version {
        schema: u64,
    }
    let path = folder.join(SUMMARY);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoRace {
                folder: folder.to_owned(),
            });
        }
        read => read.map_err(file("read", &path))?,
    };
    let malformed = |source| Error::Malformed {
        path: path.clone(),
        line: None,
        source,
    };
    // First the version alone: a newer summary may differ in everything else.
    let version: Version = serde_json::from_slice(&text).map_err(malformed)?;
    if version.schema > u64::from(SCHEMA) {
        return Err(Error::Newer {
            path,
            found: version.schema,
        });
    }
    serde_json::from_slice(&text).map_err(malformed)
}

/// Reads every sample in the results folder `folder`.
///
/// # Errors
/// [`Error::Torn`] when the last line is cut off, [`Error::Malformed`], or why the file could not be read.
pub fn read_samples(folder: &Path) -> Result<Vec<Sample>, Error> {
    let path = folder.join(SAMPLES);
    let mut reader = BufReader::new(File::open(&path).map_err(file("read", &path))?);
    let mut samples = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if reader.read_until(b'\n', &mut text).map_err(file("read", &path))? == 0 {
            break;
        }
        if text.last() != Some(&b'\n') {
            return Err(Error::Torn { path, line });
        }
        match serde_json::from_slice(&text) {
            Ok(sample) => samples.push(sample),
            Err(source) => {
                return Err(Error::Malformed {
                    path,
                    line: Some(line),
                    source,
                });
            }
        }
    }
    Ok(samples)
}

fn to_json(sample: &Sample, path: &Path) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(sample).map_err(|source| Error::Malformed {
        path: path.to_owned(),
        line: None,
        source,
    })
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Purpose;
    use tempfile::TempDir;

    fn sample(sequence: u64) -> Sample {
        Sample {
            contender: "process".into(),
            purpose: Purpose::Timed,
            sequence,
            start_ns: 1,
            first_byte_ns: Some(2),
            end_ns: 3,
            exit_status: 0,
            marks: Vec::new(),
            memory: None,
        }
    }

    #[test]
    fn samples_come_back_as_written() {
        let dir = TempDir::new().unwrap();
        let mut folder = Folder::create(dir.path()).unwrap();
        for n in 0..3 {
            folder.append(&sample(n)).unwrap();
        }
        assert_eq!(read_samples(dir.path()).unwrap(), [sample(0), sample(1), sample(2)]);
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let error = Folder::create(dir.path()).unwrap_err();
        assert!(matches!(error, Error::NotResults(_)), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_another_lab_writes_to_is_left_alone() {
        let dir = TempDir::new().unwrap();
        let mut folder = Folder::create(dir.path()).unwrap();
        folder.append(&sample(0)).unwrap();
        let error = Folder::create(dir.path()).unwrap_err();
        assert!(matches!(error, Error::InUse(_)), "{error}");
        folder.append(&sample(1)).unwrap();
        assert_eq!(read_samples(dir.path()).unwrap(), [sample(0), sample(1)]);
        drop(folder);
        Folder::create(dir.path()).unwrap();
        assert_eq!(read_samples(dir.path()).unwrap(), []);
    }

    #[test]
    fn a_torn_line_is_named() {
        let dir = TempDir::new().unwrap();
        let mut folder = Folder::create(dir.path()).unwrap();
        folder.append(&sample(0)).unwrap();
        folder.append(&sample(1)).unwrap();
        let path = dir.path().join(SAMPLES);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 5)
            .unwrap();
        assert!(matches!(read_samples(dir.path()), Err(Error::Torn { line: 2, .. })));
    }

    #[test]
    fn a_newer_schema_is_refused_whatever_else_it_holds() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(SUMMARY), r#"{ "schema": 999, "contenders": "a poem" }"#).unwrap();
        assert!(matches!(read_summary(dir.path()), Err(Error::Newer { found: 999, .. })));
    }
}
