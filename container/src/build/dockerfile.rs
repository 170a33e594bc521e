//! Reads a Dockerfile: text in, stages of typed instructions out, or a fault that points at its place.
//!
//! The grammar is parse_dockerfile's; here its words become what the builder works with, and what it leaves open is
//! decided as BuildKit decides it (`moby/buildkit`, `frontend/dockerfile/instructions/parse.go`).

use std::ops::Range;
use std::time::Duration;

use parse_dockerfile as grammar;
use parse_dockerfile::{Instruction as Parsed, UnescapedString};

use super::expand::{Word, split};
use super::heredoc::{self, HereDoc};
use super::instruction::{Command, Copy, Healthcheck, Instruction, Origin, Run, Stage, Step};
use super::logical::Logical;
use super::source::{Fault, Pointed, Source};

/// A Dockerfile, read.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its text, for messages.
    pub source: Source,
    /// The escape character.
    pub escape: char,
    /// The build arguments declared before the first FROM.
    pub arguments: Vec<Step>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Pointed>,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    pub fn parse(source: Source) -> Result<Dockerfile, Pointed> {
        let mut dockerfile = Dockerfile {
            escape: heredoc::escape_character(source.text()),
            source,
            arguments: Vec::new(),
            stages: Vec::new(),
            warnings: Vec::new(),
        };
        dockerfile.read().map_err(|fault| dockerfile.source.point(fault))?;
        Ok(dockerfile)
    }

    fn read(&mut self) -> Result<(), Fault> {
        let source = self.source.clone();
        let (masked, here_docs) = heredoc::lift(source.text(), self.escape)?;
        let parsed = grammar::parse_iter(&masked).map_err(|error| fault_of(&masked, &error))?;
        let mut reader = Reader {
            text: source.text(),
            escape: self.escape,
            here_docs,
            warnings: Vec::new(),
        };
        for instruction in parsed {
            let instruction = instruction.map_err(|error| fault_of(&masked, &error))?;
            match (instruction, self.stages.last_mut()) {
                (Parsed::From(from), _) => {
                    let stage = reader.stage(&from)?;
                    let taken = stage.name.is_some() && self.stages.iter().any(|other| other.name == stage.name);
                    if taken && let Some((_, name)) = &from.as_ {
                        return Err(Fault::new("another stage has this name", name.span.clone()));
                    }
                    self.stages.push(stage);
                }
                (instruction, Some(stage)) => stage.steps.push(reader.step(&instruction)?),
                (instruction, None) => self.arguments.push(reader.step(&instruction)?),
            }
        }
        if self.stages.is_empty() {
            return Err(no_stage());
        }
        let warnings = reader.warnings.into_iter();
        self.warnings = warnings.map(|warning| self.source.point(warning)).collect();
        Ok(())
    }
}

fn no_stage() -> Fault {
    Fault::new(
        "there is no FROM: a Dockerfile says first what it starts from (FROM scratch for nothing)",
        0..0,
    )
}

/// The crate counts lines and columns, in bytes; a fault counts bytes from the start.
fn fault_of(text: &str, error: &grammar::Error) -> Fault {
    if error.line() == 0 {
        return no_stage();
    }
    let line_start: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let at = line_start + error.column().saturating_sub(1);
    let length = text[at.min(text.len())..].split_whitespace().next().map_or(1, str::len);
    Fault::new(format!("{error:#}"), at..at + length)
}

struct Reader<'a> {
    text: &'a str,
    escape: char,
    here_docs: Vec<HereDoc>,
    warnings: Vec<Fault>,
}

impl Reader<'_> {
    fn stage(&mut self, from: &grammar::FromInstruction<'_>) -> Result<Stage, Fault> {
        let mut flags = Flags::new(self.text, "FROM", &from.options);
        let name = from.as_.as_ref().map(|(_, name)| {
            let lower = name.value.to_ascii_lowercase();
            let mut characters = lower.chars();
            let valid = characters.next().is_some_and(|first| first.is_ascii_lowercase())
                && characters.all(|other| other.is_ascii_alphanumeric() || "-_.".contains(other));
            if valid {
                Ok(lower)
            } else {
                Err(Fault::new(
                    "a stage's name begins with a letter and has letters, digits, '-', '_' and '.' only",
                    name.span.clone(),
                ))
            }
        });
        let (text, at) = self.whole(from.from.span.start);
        let stage = Stage {
            base: word(&from.image),
            name: name.transpose()?,
            platform: flags.take("platform")?,
            at,
            text,
            steps: Vec::new(),
        };
        flags.done()?;
        Ok(stage)
    }

    fn step(&mut self, parsed: &Parsed<'_>) -> Result<Step, Fault> {
        let (keyword, instruction) = self.instruction(parsed)?;
        let (text, at) = self.whole(keyword);
        Ok(Step { at, text, instruction })
    }

    /// The instruction's text on one line, and its bytes.
    fn whole(&self, start: usize) -> (String, Range<usize>) {
        let (logical, end) = Logical::join(self.text, start, self.text.len(), self.escape);
        let text = logical.text.split_whitespace().collect::<Vec<_>>().join(" ");
        (text, start..start + self.text[start..end].trim_end().len())
    }

    /// The instruction, and where its keyword is.
    fn instruction(&mut self, parsed: &Parsed<'_>) -> Result<(usize, Instruction), Fault> {
        Ok(match parsed {
            Parsed::Run(run) => (run.run.span.start, Instruction::Run(self.run(run)?)),
            Parsed::Copy(copy) => {
                let parts = (&copy.options[..], &copy.src[..], &copy.dest);
                (copy.copy.span.start, Instruction::Copy(self.copy(false, parts)?))
            }
            Parsed::Add(add) => {
                let parts = (&add.options[..], &add.src[..], &add.dest);
                (add.add.span.start, Instruction::Copy(self.copy(true, parts)?))
            }
            Parsed::Env(env) => (env.env.span.start, Instruction::Env(self.pairs("ENV", &env.arguments)?)),
            Parsed::Label(label) => (
                label.label.span.start,
                Instruction::Label(self.pairs("LABEL", &label.arguments)?),
            ),
            Parsed::Arg(arg) => (
                arg.arg.span.start,
                Instruction::Arg(self.build_arguments(&arg.arguments)?),
            ),
            Parsed::Workdir(workdir) => (
                workdir.workdir.span.start,
                Instruction::Workdir(word(&workdir.arguments)),
            ),
            Parsed::User(user) => (user.user.span.start, Instruction::User(word(&user.arguments))),
            Parsed::Expose(expose) => {
                let ports = expose.arguments.iter().map(word).collect();
                (expose.expose.span.start, Instruction::Expose(ports))
            }
            Parsed::Volume(volume) => {
                let paths = match &volume.arguments {
                    grammar::JsonOrStringArray::Json(array) => array.value.iter().map(word).collect(),
                    grammar::JsonOrStringArray::String(words) => words.iter().map(word).collect(),
                };
                (volume.volume.span.start, Instruction::Volume(paths))
            }
            Parsed::Cmd(cmd) => (cmd.cmd.span.start, Instruction::Cmd(self.command(&cmd.arguments))),
            Parsed::Entrypoint(entrypoint) => (
                entrypoint.entrypoint.span.start,
                Instruction::Entrypoint(self.command(&entrypoint.arguments)),
            ),
            Parsed::Shell(shell) => {
                let words = shell.arguments.iter().map(|word| word.value.to_string()).collect();
                (shell.shell.span.start, Instruction::Shell(words))
            }
            Parsed::Stopsignal(signal) => (
                signal.stopsignal.span.start,
                Instruction::Stopsignal(word(&signal.arguments)),
            ),
            Parsed::Healthcheck(check) => (
                check.healthcheck.span.start,
                Instruction::Healthcheck(self.healthcheck(check)?),
            ),
            Parsed::Maintainer(maintainer) => (
                maintainer.maintainer.span.start,
                Instruction::Maintainer(maintainer.name.value.to_string()),
            ),
            Parsed::Onbuild(onbuild) => (onbuild.onbuild.span.start, self.onbuild(onbuild)?),
            Parsed::From(from) => return Err(Fault::new("FROM is not allowed here", from.from.span.clone())),
            _ => return Err(Fault::new("this instruction is not supported", 0..0)),
        })
    }

    fn run(&mut self, run: &grammar::RunInstruction<'_>) -> Result<Run, Fault> {
        let mut flags = Flags::new(self.text, "RUN", &run.options);
        let network = flags.take("network")?;
        flags.done()?;
        let mut script = None;
        let command = match &run.arguments {
            grammar::Command::Shell(shell) => {
                let (logical, end) = Logical::join(self.text, shell.span.start, self.text.len(), self.escape);
                let here_docs = self.here_docs_in(shell.span.start..end);
                match &here_docs[..] {
                    [] => self.command(&run.arguments),
                    // Nothing but `<<NAME`: the text is itself the command.
                    [only] if self.text[only.operator.clone()] == *logical.text.trim() => {
                        if only.body.starts_with("#!") {
                            script = Some(only.body.clone());
                        }
                        Command::Shell(only.body.clone())
                    }
                    // The shell knows here-documents itself.
                    several => {
                        let bodies = several.iter().map(|here_doc| &self.text[here_doc.raw.clone()]);
                        Command::Shell(format!(
                            "{}\n{}",
                            logical.text.trim(),
                            bodies.collect::<String>().trim_end()
                        ))
                    }
                }
            }
            exec => self.command(exec),
        };
        let nothing = match &command {
            Command::Shell(text) => text.trim().is_empty(),
            Command::Exec(words) => words.is_empty(),
        };
        if nothing {
            return Err(Fault::new("RUN needs a command", run.run.span.clone()));
        }
        Ok(Run {
            command,
            script,
            network,
        })
    }

    fn command(&mut self, command: &grammar::Command<'_>) -> Command {
        match command {
            grammar::Command::Exec(words) => {
                Command::Exec(words.value.iter().map(|word| word.value.to_string()).collect())
            }
            grammar::Command::Shell(text) => {
                let (logical, _) = Logical::join(self.text, text.span.start, text.span.end, self.escape);
                let text_of = logical.text.trim();
                if text_of.starts_with('[') && text_of.ends_with(']') {
                    self.warnings.push(Fault::new(
                        "this looks like a JSON array and is none (JSON has double quotes only), so the shell gets it as it stands",
                        text.span.clone(),
                    ));
                }
                Command::Shell(text_of.to_owned())
            }
            _ => Command::Exec(Vec::new()),
        }
    }

    fn copy(
        &mut self,
        is_add: bool,
        (options, sources, destination): (&[grammar::Flag<'_>], &[grammar::Source<'_>], &UnescapedString<'_>),
    ) -> Result<Box<Copy>, Fault> {
        let mut flags = Flags::new(self.text, if is_add { "ADD" } else { "COPY" }, options);
        let from = if is_add { None } else { flags.take("from")? };
        let (chown, chmod) = (flags.take("chown")?, flags.take("chmod")?);
        // A layer of its own is what every COPY makes here.
        flags.take_switch("link");
        flags.done()?;
        let mut origins = Vec::new();
        for source in sources {
            origins.push(match source {
                grammar::Source::Path(path) => match self.here_docs_in(path.span.clone()).pop() {
                    Some(here_doc) => Origin::Here(here_doc),
                    None => Origin::Path(word(path)),
                },
                _ => {
                    return Err(Fault::new(
                        "this here-document was not understood",
                        destination.span.clone(),
                    ));
                }
            });
        }
        Ok(Box::new(Copy {
            is_add,
            sources: origins,
            destination: word(destination),
            from,
            chown,
            chmod,
        }))
    }

    /// `NAME=VALUE NAME=VALUE`, or in the old way `NAME VALUE WITH SPACES`.
    fn pairs(&self, keyword: &str, arguments: &UnescapedString<'_>) -> Result<Vec<(Word, Word)>, Fault> {
        let (logical, _) = Logical::join(self.text, arguments.span.start, self.text.len(), self.escape);
        let words = split(&logical.text, self.escape, |index| logical.source_offset(index));
        if let Some(first) = words.first()
            && !first.text.contains('=')
        {
            let value = logical.text.trim()[first.text.len()..].trim_start();
            if value.is_empty() {
                return Err(first.fault(format!("{keyword} needs a value: {0}=VALUE", first.text)));
            }
            let at = words.get(1).map_or(first.at, |word| word.at);
            return Ok(vec![(first.clone(), Word::new(value, at))]);
        }
        words
            .into_iter()
            .map(|word| match word.text.split_once('=') {
                None => Err(word.fault(format!(
                    "{:?} has no '=': {keyword} takes NAME=VALUE, with quotes around a value that has spaces",
                    word.text
                ))),
                Some(("", _)) => Err(word.fault("the name before '=' is missing")),
                Some((name, value)) => Ok((Word::new(name, word.at), Word::new(value, word.at + name.len() + 1))),
            })
            .collect()
    }

    fn build_arguments(&self, arguments: &UnescapedString<'_>) -> Result<Vec<(Word, Option<Word>)>, Fault> {
        let (logical, _) = Logical::join(self.text, arguments.span.start, self.text.len(), self.escape);
        split(&logical.text, self.escape, |index| logical.source_offset(index))
            .into_iter()
            .map(|word| match word.text.split_once('=') {
                None => Ok((word, None)),
                Some(("", _)) => Err(word.fault("the name before '=' is missing")),
                Some((name, value)) => Ok((
                    Word::new(name, word.at),
                    Some(Word::new(value, word.at + name.len() + 1)),
                )),
            })
            .collect()
    }

    fn healthcheck(&mut self, check: &grammar::HealthcheckInstruction<'_>) -> Result<Option<Healthcheck>, Fault> {
        let mut flags = Flags::new(self.text, "HEALTHCHECK", &check.options);
        let grammar::HealthcheckArguments::Cmd { arguments, .. } = &check.arguments else {
            flags.done()?;
            return Ok(None);
        };
        let healthcheck = Healthcheck {
            command: self.command(arguments),
            interval: flags.take("interval")?.map(duration).transpose()?,
            timeout: flags.take("timeout")?.map(duration).transpose()?,
            start_period: flags.take("start-period")?.map(duration).transpose()?,
            start_interval: flags.take("start-interval")?.map(duration).transpose()?,
            retries: flags.take("retries")?.map(count).transpose()?,
        };
        flags.done()?;
        Ok(Some(healthcheck))
    }

    fn onbuild(&mut self, onbuild: &grammar::OnbuildInstruction<'_>) -> Result<Instruction, Fault> {
        if let Parsed::From(_) | Parsed::Maintainer(_) = &*onbuild.instruction {
            let (_, at) = self.whole(onbuild.onbuild.span.start);
            return Err(Fault::new("FROM and MAINTAINER cannot follow ONBUILD", at));
        }
        // Read now, so that a mistake in it is this build's; kept as text, as the image's configuration has it.
        let (keyword, _) = self.instruction(&onbuild.instruction)?;
        let (logical, end) = Logical::join(self.text, keyword, self.text.len(), self.escape);
        let mut text = logical.text.trim().to_owned();
        for here_doc in self.here_docs_in(keyword..end) {
            text = format!("{text}\n{}", self.text[here_doc.raw].trim_end_matches('\n'));
        }
        Ok(Instruction::Onbuild(text))
    }

    fn here_docs_in(&self, span: Range<usize>) -> Vec<HereDoc> {
        let within = |here_doc: &&HereDoc| span.contains(&here_doc.operator.start);
        self.here_docs.iter().filter(within).cloned().collect()
    }
}

fn word(parsed: &UnescapedString<'_>) -> Word {
    Word::new(&*parsed.value, parsed.span.start)
}

/// `--name=value` flags, taken one by one: what is left at the end is unknown.
struct Flags<'a> {
    keyword: &'static str,
    left: Vec<(String, Option<Word>, Range<usize>)>,
    known: Vec<&'a str>,
}

impl<'a> Flags<'a> {
    fn new(text: &str, keyword: &'static str, options: &[grammar::Flag<'_>]) -> Flags<'a> {
        let flag = |flag: &grammar::Flag<'_>| {
            let at = flag.span().start..flag.span().end.min(text.len());
            (flag.name.value.to_string(), flag.value.as_ref().map(word), at)
        };
        Flags {
            keyword,
            left: options.iter().map(flag).collect(),
            known: Vec::new(),
        }
    }

    fn take(&mut self, name: &'a str) -> Result<Option<Word>, Fault> {
        self.known.push(name);
        let Some(index) = self.left.iter().position(|(other, ..)| other == name) else {
            return Ok(None);
        };
        let (_, value, at) = self.left.remove(index);
        match value {
            Some(value) if !value.text.is_empty() => Ok(Some(value)),
            _ => Err(Fault::new(format!("--{name} needs a value: --{name}=VALUE"), at)),
        }
    }

    fn take_switch(&mut self, name: &'a str) {
        self.known.push(name);
        self.left.retain(|(other, ..)| other != name);
    }

    fn done(self) -> Result<(), Fault> {
        let Some((name, _, at)) = self.left.into_iter().next() else {
            return Ok(());
        };
        let known: Vec<_> = self.known.iter().map(|name| format!("--{name}")).collect();
        let keyword = self.keyword;
        let message = match known.as_slice() {
            [] => format!("{keyword} has no --{name} here"),
            known => format!("{keyword} has no --{name} here; it has {}", known.join(", ")),
        };
        Err(Fault::new(message, at))
    }
}

/// A time as Go writes it: `1h30m`, `1.5s`, `300ms`.
fn duration(word: Word) -> Result<Duration, Fault> {
    let wrong = || word.fault("not a time such as 30s, 1m30s or 500ms");
    let mut rest = word.text.as_str();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let units = [
            ("ms", 1e-3),
            ("us", 1e-6),
            ("ns", 1e-9),
            ("h", 3600.0),
            ("m", 60.0),
            ("s", 1.0),
        ];
        let (unit, factor) = units
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or_else(wrong)?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn count(word: Word) -> Result<u32, Fault> {
    word.text.parse().map_err(|_| word.fault("not a whole number"))
}
