//! What a build says while it goes on, and the account of it at the end.
//!
//! Progress goes to standard error, one line a step; standard output is for the result. On a terminal the lines are the
//! same, with what matters less in a fainter colour.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::reason::Reason;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A line for each step.
    Lines,
    /// Nothing but what went wrong.
    Quiet,
}

/// The account of one step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Account {
    /// The stage's name or number.
    pub stage: String,
    /// The step's number, FROM being 1.
    pub step: usize,
    /// The instruction.
    pub text: String,
    /// `cached`, `made`, or `configuration` for steps that change no files.
    pub outcome: &'static str,
    /// Why it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its layer's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Its layer's size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

/// Tells of a build.
pub struct Progress {
    manner: Manner,
    colours: bool,
    label: String,
    current: Account,
    began: Instant,
    accounts: Vec<Account>,
}

impl Progress {
    /// A build that is told of in this manner.
    pub fn new(manner: Manner) -> Progress {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Progress {
            manner,
            colours: wanted && io::stderr().is_terminal(),
            label: String::new(),
            current: Account::default(),
            began: Instant::now(),
            accounts: Vec::new(),
        }
    }

    /// A step begins: number `step` of `steps` in its stage, which has a name when there are several.
    pub fn begin(&mut self, stage: Option<&str>, step: usize, steps: usize, text: &str) {
        self.label = match stage {
            Some(name) => format!("[{name} {step}/{steps}]"),
            None => format!("[{step}/{steps}]"),
        };
        self.current = Account {
            stage: stage.unwrap_or("0").to_owned(),
            step,
            text: text.to_owned(),
            ..Account::default()
        };
        self.began = Instant::now();
    }

    /// It changed the configuration only, or said where the image begins.
    pub fn configured(&mut self, what: &str) {
        self.line(what);
        self.finish("configuration");
    }

    /// It was cached.
    pub fn cached(&mut self, layer: Option<(String, u64)>) {
        self.line("cached");
        (self.current.layer, self.current.size) = layer.unzip();
        self.finish("cached");
    }

    /// It is carried out, for this reason. Output of a command may follow.
    pub fn making(&mut self, reason: &Reason) {
        let reason = reason.to_string();
        self.line(&format!("made: {reason}"));
        self.current.reason = Some(reason);
        self.began = Instant::now();
    }

    /// It is done.
    pub fn made(&mut self, layer: Option<(String, u64)>) {
        let took = self.began.elapsed();
        self.current.milliseconds = u64::try_from(took.as_millis()).ok();
        let what = match &layer {
            Some((digest, size)) => format!("layer {}, {}, {}", short(digest), bytes(*size), time(took)),
            None => format!("no file changed, {}", time(took)),
        };
        self.say(&format!("{} {}", " ".repeat(self.label.len()), self.faint(&what)));
        (self.current.layer, self.current.size) = layer.unzip();
        self.finish("made");
    }

    /// Something that is no step.
    pub fn note(&mut self, text: &str) {
        self.say(text);
    }

    /// The account of every step.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    fn finish(&mut self, outcome: &'static str) {
        self.current.outcome = outcome;
        self.accounts.push(std::mem::take(&mut self.current));
    }

    fn line(&mut self, outcome: &str) {
        let mut line = format!("{} {}", self.label, self.current.text);
        if !outcome.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(line, " {}", self.faint(&format!("({outcome})")));
        }
        self.say(&line);
    }

    fn faint(&self, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[2m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn say(&self, text: &str) {
        if self.manner == Manner::Lines {
            // A reader who has gone away is no reason to stop building.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// The first digits of a digest.
fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

fn bytes(size: u64) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{:.1} KiB", size as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", size as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", size as f64 / 1_073_741_824.0),
    }
}

fn time(took: Duration) -> String {
    match took.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}
