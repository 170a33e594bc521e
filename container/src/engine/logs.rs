//! Logs: what a container's program wrote, kept as JSON lines.
//!
//! One object per line of output, `{"log":"...\n","stream":"stdout","time":"..."}`, the format of docker's `json-file`
//! driver, so that tools which read that can read this. A program may write half a line: it is kept back until the rest
//! comes or the program ends.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A line that never ends is cut here (docker's json-file cuts at 16 KiB too).
const LONGEST_LINE: usize = 16 << 10;

/// One of the program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What was written, its line feed included.
    pub log: String,
    /// Where to.
    pub stream: Stream,
    /// When it was complete (RFC 3339).
    pub time: String,
}

/// Writes a log.
pub struct Writer {
    file: File,
    partial: [Vec<u8>; 2],
}

impl Writer {
    /// Goes on with the log at `path`.
    pub fn open(path: &Path) -> io::Result<Writer> {
        Ok(Writer {
            file: File::options().append(true).create(true).open(path)?,
            partial: Default::default(),
        })
    }

    /// Takes what the program wrote.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut lines = Vec::new();
        let partial = &mut self.partial[stream as usize];
        partial.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(length) = partial[from..].iter().position(|&byte| byte == b'\n') {
            append(&mut lines, stream, &partial[from..=from + length]);
            from += length + 1;
        }
        while partial.len() - from >= LONGEST_LINE {
            append(&mut lines, stream, &partial[from..from + LONGEST_LINE]);
            from += LONGEST_LINE;
        }
        partial.drain(..from);
        // One write for all: a reader that follows sees whole lines.
        self.file.write_all(&lines)
    }

    /// Writes what is left of the last lines.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                append(&mut lines, stream, &rest);
            }
        }
        self.file.write_all(&lines)
    }
}

fn append(lines: &mut Vec<u8>, stream: Stream, bytes: &[u8]) {
    let line = Line {
        // Text is UTF-8 in JSON; other bytes become the replacement character, as docker has it.
        log: String::from_utf8_lossy(bytes).into_owned(),
        stream,
        time: now(),
    };
    // Strings and an enum: cannot fail.
    if let Ok(json) = serde_json::to_vec(&line) {
        lines.extend_from_slice(&json);
        lines.push(b'\n');
    }
}

/// The time, in the log's format.
pub fn now() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}

/// Which lines to show.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only so many of the last.
    pub tail: Option<usize>,
    /// Only those from this time on.
    pub since: Option<SystemTime>,
}

/// Parses `--since`: a time (RFC 3339), or how long ago (`10m`).
pub fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is neither a time (2026-11-25T13:00:00Z) nor how long ago (10m, 1h30m)"))?;
    SystemTime::now()
        .checked_sub(ago)
        .ok_or_else(|| format!("{text:?} ago is before time began"))
}

/// Hands the chosen lines of the log at `path` to `show`. While `go_on` says so, waits for more.
pub fn read(
    path: &Path,
    selection: &Selection,
    mut show: impl FnMut(&Line) -> io::Result<()>,
    go_on: impl Fn() -> bool,
) -> io::Result<()> {
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut wanted: std::collections::VecDeque<Line> = Default::default();
    let mut text = String::new();
    while next_line(&mut reader, &mut text)? {
        if let Some(line) = parse(&text).filter(|line| is_since(line, selection.since)) {
            wanted.push_back(line);
            if selection.tail.is_some_and(|tail| wanted.len() > tail) {
                wanted.pop_front();
            }
        }
        text.clear();
    }
    wanted.iter().try_for_each(&mut show)?;
    loop {
        // Asked before reading: what was written before the end is still read after it.
        let more_may_come = go_on();
        while next_line(&mut reader, &mut text)? {
            if let Some(line) = parse(&text) {
                show(&line)?;
            }
            text.clear();
        }
        if !more_may_come {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads on in `text` until it holds a whole line; `false` when that has not been written yet.
fn next_line(reader: &mut impl BufRead, text: &mut String) -> io::Result<bool> {
    reader.read_line(text)?;
    Ok(text.ends_with('\n'))
}

/// A line cut off by a crash is left out.
fn parse(text: &str) -> Option<Line> {
    serde_json::from_str(text).ok()
}

fn is_since(line: &Line, since: Option<SystemTime>) -> bool {
    since.is_none_or(|since| humantime::parse_rfc3339(&line.time).is_ok_and(|time| time >= since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path, selection: &Selection) -> Vec<String> {
        let mut lines = Vec::new();
        let show = |line: &Line| {
            lines.push(format!("{:?}:{}", line.stream, line.log.trim_end()));
            Ok(())
        };
        read(path, selection, show, || false).unwrap();
        lines
    }

    #[test]
    fn half_lines_wait_for_their_other_half() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let mut log = Writer::open(&path).unwrap();
        log.write(Stream::Stdout, b"one\ntw").unwrap();
        log.write(Stream::Stderr, b"oh\n").unwrap();
        log.write(Stream::Stdout, b"o\nlast").unwrap();
        assert_eq!(
            lines(&path, &Selection::default()),
            ["Stdout:one", "Stderr:oh", "Stdout:two"]
        );
        log.finish().unwrap();
        let two = Selection {
            tail: Some(2),
            since: None,
        };
        assert_eq!(lines(&path, &two), ["Stdout:two", "Stdout:last"]);
        let future = Selection {
            tail: None,
            since: Some(SystemTime::now() + Duration::from_secs(3600)),
        };
        assert!(lines(&path, &future).is_empty());
    }

    #[test]
    fn an_endless_line_is_cut_and_bytes_that_are_no_text_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let mut log = Writer::open(&path).unwrap();
        log.write(Stream::Stdout, &vec![b'x'; LONGEST_LINE + 5]).unwrap();
        log.write(Stream::Stdout, b"\xff\n").unwrap();
        let lines = lines(&path, &Selection::default());
        assert_eq!(lines.len(), 2);
        assert!(lines[1].ends_with("xxxxx\u{fffd}"));
    }

    #[test]
    fn times_and_ages_are_understood() {
        assert!(since("2026-11-25T13:00:00Z").is_ok() && since("10m").is_ok());
        assert!(since("yesterday").is_err());
    }
}
