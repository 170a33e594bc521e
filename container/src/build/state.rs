//! A stage as far as it is built: its layers, its configuration, the arguments it has declared.
//!
//! Most instructions change nothing but the configuration; they are all here, one method that does what each says.

use std::collections::BTreeMap;

use serde_json::json;

use super::arguments::{Arguments, Declared};
use super::config::{HealthConfig, History, ImageConfig};
use super::expand::{Expander, Word};
use super::ignore::clean;
use super::instruction::{Command, Healthcheck, Instruction};
use super::source::Fault;
use crate::image::digest::{self, Digest};
use crate::image::layers::LayerBlob;

/// The shell of commands given as text, unless SHELL names another.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A stage in the making.
#[derive(Clone, Debug)]
pub struct State {
    /// The configuration so far.
    pub config: ImageConfig,
    /// The layers so far, bottom first.
    pub layers: Vec<LayerBlob>,
    /// The arguments declared so far.
    pub declared: Declared,
    /// The Dockerfile's escape character.
    escape: char,
    /// Whether CMD is this stage's own.
    own_command: bool,
}

impl State {
    /// A stage that starts from this configuration and these layers.
    pub fn new(config: ImageConfig, layers: Vec<LayerBlob>, escape: char) -> State {
        State {
            config,
            layers,
            declared: Declared::default(),
            escape,
            own_command: false,
        }
    }

    /// The digests of the layers' archives.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// The chain IDs of the layers.
    pub fn chain(&self) -> Vec<Digest> {
        digest::chain(&self.diff_ids())
    }

    /// The value of a variable: the environment's, else the argument's.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.config
            .env(name)
            .map(str::to_owned)
            .or_else(|| self.declared.get(name))
    }

    /// A word with its variables replaced.
    pub fn word(&self, word: &Word) -> Result<String, Fault> {
        self.expanding(|expander| expander.word(word))
    }

    /// Does something with an expander of this stage's variables.
    pub fn expanding<T>(&self, act: impl FnOnce(&Expander<'_>) -> T) -> T {
        let lookup = |name: &str| self.variable(name);
        act(&Expander {
            escape: self.escape,
            lookup: &lookup,
        })
    }

    /// The working directory.
    pub fn workdir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            workdir => workdir,
        }
    }

    /// A path as it is from the working directory.
    pub fn absolute(&self, path: &str) -> String {
        let whole = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.workdir())
        };
        format!("/{}", clean(&whole))
    }

    /// Program and arguments of a command.
    pub fn arguments_of(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => {
                let mut words = self.shell();
                words.push(text.clone());
                words
            }
        }
    }

    fn shell(&self) -> Vec<String> {
        let default = || DEFAULT_SHELL.map(str::to_owned).to_vec();
        self.config.config.shell.clone().unwrap_or_else(default)
    }

    /// What a command's environment is: the image's variables, and the arguments that none of them hides.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = self.declared.iter().map(pair).collect();
        for variable in self.config.config.env.iter().flatten() {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            all.insert(name.to_owned(), value.to_owned());
        }
        all
    }

    /// When the youngest part of it was made, as far as that is known.
    pub fn created(&self) -> Option<String> {
        let steps = self.config.history.iter().filter_map(|step| step.created.as_ref());
        steps.chain(&self.config.created).max().cloned()
    }

    /// Notes an instruction, and its layer if it made one.
    pub fn record(&mut self, created_by: String, created: Option<String>, layer: Option<LayerBlob>) {
        self.config.history.push(History {
            created,
            created_by: Some(created_by),
            empty_layer: layer.is_none(),
            ..History::default()
        });
        self.config
            .rootfs
            .diff_ids
            .extend(layer.iter().map(|layer| layer.diff_id.to_string()));
        self.layers.extend(layer);
    }

    /// Does what an instruction says that changes no file; `false` when it is another.
    pub fn configure(&mut self, instruction: &Instruction, arguments: &mut Arguments) -> Result<bool, Fault> {
        match instruction {
            Instruction::Env(pairs) => {
                // All of them see the variables as they were before the instruction.
                for (name, value) in self.pairs(pairs)? {
                    self.config.set_env(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(pairs)?;
                self.config.config.labels.get_or_insert_default().extend(pairs);
            }
            Instruction::Arg(pairs) => {
                for (name, default) in pairs {
                    let default = default.as_ref().map(|default| self.word(default)).transpose()?;
                    let name = self.word(name)?;
                    arguments.declare(&mut self.declared, &name, default);
                }
            }
            Instruction::User(user) => {
                let name = self.word(user)?;
                if name.is_empty() {
                    return Err(user.fault(format!("{:?} is empty: USER needs a name or a number", user.text)));
                }
                self.config.config.user = name;
            }
            Instruction::Expose(words) => self.expose(words)?,
            Instruction::Volume(words) => {
                for word in words {
                    let path = self.word(word)?;
                    if path.is_empty() {
                        return Err(word.fault("a volume needs a path"));
                    }
                    let path = self.absolute(&path);
                    self.config
                        .config
                        .volumes
                        .get_or_insert_default()
                        .insert(path, json!({}));
                }
            }
            Instruction::Cmd(command) => {
                self.config.config.cmd = Some(self.arguments_of(command));
                self.own_command = true;
            }
            Instruction::Entrypoint(command) => {
                self.config.config.entrypoint = Some(self.arguments_of(command));
                // The base image's arguments are for the base image's program.
                if !self.own_command {
                    self.config.config.cmd = None;
                }
            }
            Instruction::Shell(words) => self.config.config.shell = Some(words.clone()),
            Instruction::Stopsignal(word) => {
                let signal = self.word(word)?;
                if !is_signal(&signal) {
                    return Err(word.fault(format!(
                        "{signal:?} is no signal: a name such as SIGTERM, or a number up to 64"
                    )));
                }
                self.config.config.stop_signal = Some(signal);
            }
            Instruction::Healthcheck(check) => {
                self.config.config.healthcheck = Some(health(check.as_ref()));
            }
            Instruction::Onbuild(text) => self.config.config.on_build.get_or_insert_default().push(text.clone()),
            Instruction::Maintainer(author) => self.config.author = Some(author.clone()),
            Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => return Ok(false),
        }
        Ok(true)
    }

    fn pairs(&self, pairs: &[(Word, Word)]) -> Result<Vec<(String, String)>, Fault> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| Ok((self.word(name)?, self.word(value)?)));
        pairs.collect()
    }

    fn expose(&mut self, words: &[Word]) -> Result<(), Fault> {
        for word in words {
            for text in self.expanding(|expander| expander.words(word))? {
                let ports = ports(&text).ok_or_else(|| {
                    word.fault(format!(
                        "{text:?} is no port: 80, 80/tcp, 53/udp and 8000-8010 are, from 1 to 65535"
                    ))
                })?;
                let exposed = self.config.config.exposed_ports.get_or_insert_default();
                exposed.extend(ports.into_iter().map(|port| (port, json!({}))));
            }
        }
        Ok(())
    }
}

fn pair((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// `80`, `53/udp`, `8000-8002/tcp`, each port by itself.
fn ports(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let valid = ["tcp", "udp", "sctp"].contains(&protocol.as_str()) && first > 0 && first <= last;
    valid.then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn is_signal(text: &str) -> bool {
    let name = if text.starts_with("SIG") {
        text.to_owned()
    } else {
        format!("SIG{text}")
    };
    text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number))
        || name.parse::<nix::sys::signal::Signal>().is_ok()
        || name.starts_with("SIGRTMIN")
        || name.starts_with("SIGRTMAX")
}

fn health(check: Option<&Healthcheck>) -> HealthConfig {
    let Some(check) = check else {
        return HealthConfig {
            test: vec!["NONE".into()],
            ..HealthConfig::default()
        };
    };
    let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let test = match &check.command {
        Command::Exec(words) => [&["CMD".to_owned()], words.as_slice()].concat(),
        Command::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
    };
    HealthConfig {
        test,
        interval: check.interval.map(nanoseconds),
        timeout: check.timeout.map(nanoseconds),
        start_period: check.start_period.map(nanoseconds),
        start_interval: check.start_interval.map(nanoseconds),
        retries: check.retries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_checked_and_ranges_spelled_out() {
        assert_eq!(ports("80"), Some(vec!["80/tcp".into()]));
        assert_eq!(ports("53/UDP"), Some(vec!["53/udp".into()]));
        assert_eq!(ports("8000-8002").map(|ports| ports.len()), Some(3));
        for text in ["", "0", "65536", "80/http", "9-8", "a", "80/"] {
            assert_eq!(ports(text), None, "{text}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["SIGTERM", "TERM", "9", "SIGRTMIN+3", "64"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "65", "SIGNOTHING"] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
