//! The instructions of a Dockerfile as the builder carries them out: typed, each word with its place.
//!
//! Variables are still in them: what they are worth depends on the steps before.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::expand::Word;
use super::heredoc::HereDoc;

/// One instruction and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its bytes in the Dockerfile, without here-documents.
    pub at: Range<usize>,
    /// Its text on one line, as messages and progress show it.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Run a command in a container of the image so far and keep what it changed.
    Run(Run),
    /// Copy files in; ADD unpacks archives too.
    Copy(Box<Copy>),
    /// Set environment variables.
    Env(Vec<(Word, Word)>),
    /// Declare build arguments.
    Arg(Vec<(Word, Option<Word>)>),
    /// Set the working directory.
    Workdir(Word),
    /// Set who runs programs.
    User(Word),
    /// Say which ports are listened on.
    Expose(Vec<Word>),
    /// Say which directories hold data that outlives containers.
    Volume(Vec<Word>),
    /// The program's default arguments, or the default program.
    Cmd(Command),
    /// The program.
    Entrypoint(Command),
    /// Which shell runs commands given as text.
    Shell(Vec<String>),
    /// Which signal stops the program.
    Stopsignal(Word),
    /// How to ask whether the program is well; `None` switches it off.
    Healthcheck(Option<Healthcheck>),
    /// Facts about the image.
    Label(Vec<(Word, Word)>),
    /// An instruction for whoever builds on this image.
    Onbuild(String),
    /// The author, in the old way.
    Maintainer(String),
}

/// A command: as a program with arguments, or as text for the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `["program", "argument"]`.
    Exec(Vec<String>),
    /// Anything else.
    Shell(String),
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: Command,
    /// The program that is to run a here-document, when that names one in its first line (`#!`).
    pub script: Option<String>,
    /// `--network`.
    pub network: Option<Word>,
}

/// COPY and ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whether it is ADD.
    pub is_add: bool,
    /// What to copy.
    pub sources: Vec<Origin>,
    /// To where.
    pub destination: Word,
    /// `--from`: a stage or an image instead of the context.
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
}

/// Something to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A path or a pattern.
    Path(Word),
    /// Text from the Dockerfile.
    Here(HereDoc),
}

/// HEALTHCHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The command that tells.
    pub command: Command,
    /// Time between two checks.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// How long failures do not count at first.
    pub start_period: Option<Duration>,
    /// Time between two checks during that.
    pub start_interval: Option<Duration>,
    /// How many failures make the program unwell.
    pub retries: Option<u32>,
}

/// A stage: FROM, and the steps after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image or stage it starts from.
    pub base: Word,
    /// Its name, in lower case.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<Word>,
    /// Where FROM is.
    pub at: Range<usize>,
    /// FROM's text.
    pub text: String,
    /// The other instructions.
    pub steps: Vec<Step>,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Shell(text) => f.write_str(text),
            // Strings always have a JSON form.
            Command::Exec(words) => f.write_str(&serde_json::to_string(words).unwrap_or_default()),
        }
    }
}
