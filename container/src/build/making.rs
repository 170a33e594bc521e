//! The steps that can change files: each asks the cache, and what is not there is made.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::unistd::geteuid;

use super::builder::{At, Builder};
use super::cache::{Key, Made};
use super::copy::{self, Destination, Rules};
use super::error::Error;
use super::instruction::{self, Origin};
use super::layer::LayerWriter;
use super::owner::{self, Alone, Owner};
use super::plan::{self, Base};
use super::progress::Manner;
use super::reason::{Inputs, Reason};
use super::run;
use super::source::Fault;
use super::sources::{self, Reading};
use super::state::State;
use super::tree::{Links, Tree};
use super::view::{self, Layers};
use crate::image::Store;
use crate::image::digest::{self, Digest};
use crate::image::layer::pack::Ids;
use crate::image::layer::stream::Compression;
use crate::image::layer::unpack::Limits;
use crate::image::layers::{self, LayerBlob};
use crate::program::DEFAULT_PATH;

/// Where a here-document that names its interpreter is put for the time of its run.
const SCRIPT: &str = ".container-build-script";

impl Builder<'_> {
    pub(super) fn copy(&mut self, at: At<'_>, copy: &instruction::Copy, state: &mut State) -> Result<(), Error> {
        let point = |fault: Fault| at.point(fault);
        let word = |word: &Option<_>| word.as_ref().map(|word| state.word(word)).transpose().map_err(point);
        let (chown, chmod) = (word(&copy.chown)?, word(&copy.chmod)?);
        let mode = match (&chmod, &copy.chmod) {
            (Some(text), Some(word)) => Some(
                octal(text)
                    .ok_or_else(|| point(word.fault("permissions are octal digits here, such as 755 or 0644")))?,
            ),
            _ => None,
        };
        let destination = state.word(&copy.destination).map_err(point)?;
        let destination = Destination::new(&destination, state.workdir());
        let from = match &copy.from {
            Some(from) => Some(self.layers_of(at, from)?),
            None => None,
        };
        let context = Rc::clone(&self.context);
        // What comes from an image is known by the image's layers; what comes from the context must be read.
        let items = match &from {
            None => gather(state, copy, &context, Reading::Hash).map_err(point)?,
            Some(_) => Vec::new(),
        };
        let manifest: Vec<_> = items.iter().flat_map(sources::Item::manifest).collect();
        copy::check(&items, &destination, &copy.destination).map_err(point)?;
        let patterns = copy.sources.iter().map(|origin| match origin {
            Origin::Path(word) => state.word(word),
            Origin::Here(here) => Ok(here.name.clone()),
        });
        let patterns = patterns.collect::<Result<Vec<_>, Fault>>().map_err(point)?;
        let target = format!(
            "{}{}",
            destination.path.display(),
            if destination.is_directory { "/" } else { "" }
        );
        let from_ids: Vec<String> = from.iter().flatten().map(|layer| layer.diff_id.to_string()).collect();
        let kind = if copy.is_add { "add" } else { "copy" };
        let key = Key::new(kind, &state.diff_ids())
            .text(&self.epoch.to_string())
            .text(&target)
            .texts([&chown, &chmod].into_iter().map(|text| text.as_deref().unwrap_or("")))
            .texts(from_ids.iter().map(String::as_str))
            .texts(patterns.iter().map(String::as_str))
            .manifest(&manifest)
            .finish();
        let mut circumstances = BTreeMap::from([("the destination".to_owned(), target)]);
        circumstances.insert("what is copied from".into(), from_ids.join(" "));
        let inputs = Inputs {
            text: at.step.text.clone(),
            below: state.diff_ids(),
            files: Inputs::files(&manifest),
            circumstances,
            ..Inputs::default()
        };
        let make = |builder: &mut Self, state: &State| -> Result<Option<LayerBlob>, Error> {
            let root = builder.root(&state.layers).map_err(|error| at.failed(error))?;
            let owner = match (&chown, &copy.chown) {
                (Some(text), Some(word)) => {
                    let owner = Owner::resolve(text, &root, Alone::SameNumber);
                    Some(owner.map_err(|error| at.point(word.fault(error.to_string())))?)
                }
                _ => None,
            };
            let rules = Rules {
                owner,
                mode,
                keep_owners: from.is_some(),
                unpack: copy.is_add,
            };
            let source = match &from {
                Some(layers) => Some(builder.root(layers).map_err(|error| at.failed(error))?),
                None => None,
            };
            let items = match &source {
                None => items,
                Some(tree) => {
                    let items = gather(state, copy, tree, Reading::Skip).map_err(|fault| at.point(fault))?;
                    copy::check(&items, &destination, &copy.destination).map_err(|fault| at.point(fault))?;
                    items
                }
            };
            builder.write_layer(at, |layer| copy::write(&items, &destination, &rules, &root, layer))
        };
        self.cached_or(at, state, key, inputs, make)
    }

    /// The layers that `--from` means.
    fn layers_of(&mut self, at: At<'_>, from: &super::expand::Word) -> Result<Vec<LayerBlob>, Error> {
        let base = plan::copied_from(self.dockerfile, at.stage, from).map_err(|fault| at.point(fault))?;
        match base {
            Base::Scratch => Ok(Vec::new()),
            Base::Stage(stage) => Ok(self.stages[&stage].layers.clone()),
            Base::Image(name) => {
                let image = self.image(&name).map_err(|message| at.point(from.fault(message)))?;
                Ok(image.layers().to_vec())
            }
        }
    }

    pub(super) fn workdir(&mut self, at: At<'_>, path: &str, state: &mut State) -> Result<(), Error> {
        let key = Key::new("workdir", &state.diff_ids())
            .text(&self.epoch.to_string())
            .text(path)
            .finish();
        let inputs = Inputs {
            text: at.step.text.clone(),
            below: state.diff_ids(),
            circumstances: BTreeMap::from([("the directory".to_owned(), path.to_owned())]),
            ..Inputs::default()
        };
        let path = Path::new(path.trim_start_matches('/'));
        self.cached_or(at, state, key, inputs, |builder, state| {
            let root = builder.root(&state.layers).map_err(|error| at.failed(error))?;
            builder.write_layer(at, |layer| {
                copy::directory(path, &root, layer).map_err(|error| Fault::new(error.to_string(), at.step.at.clone()))
            })
        })
    }

    pub(super) fn run(&mut self, at: At<'_>, run: &instruction::Run, state: &mut State) -> Result<(), Error> {
        let host_network = match &run.network {
            None => self.options.host_network,
            Some(word) => match state.word(word).map_err(|fault| at.point(fault))?.as_str() {
                "default" => self.options.host_network,
                "none" => false,
                "host" => {
                    self.options.host_network
                        || {
                            let message = "commands of this Dockerfile get the host's network only if whoever builds says so too: --network host";
                            return Err(at.point(word.fault(message)));
                        }
                }
                _ => return Err(at.point(word.fault("a command's network is default, none or host"))),
            },
        };
        let arguments = match &run.script {
            Some(_) => vec![format!("/{SCRIPT}")],
            None => state.arguments_of(&run.command),
        };
        let environment = state.environment();
        let user = state.config.config.user.clone();
        let script = run.script.clone();
        let network = if host_network { "host" } else { "none" };
        let variables: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        // ANCHOR: run_key
        let key = Key::new("run", &state.diff_ids())
            .text(&self.epoch.to_string())
            .texts(arguments.iter().map(String::as_str))
            .text(script.as_deref().unwrap_or(""))
            .texts(variables.iter().map(String::as_str))
            .texts([user.as_str(), state.workdir(), network].into_iter())
            .finish();
        // ANCHOR_END: run_key
        let circumstances = [
            ("the command", arguments.join(" ")),
            ("the user", user.clone()),
            ("the working directory", state.workdir().to_owned()),
            ("the network", network.to_owned()),
        ];
        let inputs = Inputs {
            text: at.step.text.clone(),
            below: state.diff_ids(),
            variables: environment.clone(),
            circumstances: circumstances.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Inputs::default()
        };
        self.cached_or(at, state, key, inputs, |builder, state| {
            let command = run::Command {
                arguments,
                environment: builder.environment(environment),
                owner: Owner::default(),
                groups: Vec::new(),
                workdir: state.workdir().to_owned(),
                host_network,
            };
            builder.command(at, state, command, &user, script.as_deref())
        })
    }

    /// What a command finds in its environment, whatever the image says: a PATH, and how to reach the network.
    fn environment(&self, mut variables: BTreeMap<String, String>) -> Vec<String> {
        for (name, value) in self.arguments.proxies() {
            variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        let has_path = variables.contains_key("PATH");
        let mut all: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !has_path {
            all.push(DEFAULT_PATH.to_owned());
        }
        all
    }

    /// Runs a command and makes a layer of what it changed.
    fn command(
        &mut self,
        at: At<'_>,
        state: &State,
        mut command: run::Command,
        user: &str,
        script: Option<&str>,
    ) -> Result<Option<LayerBlob>, Error> {
        let root = self.root(&state.layers).map_err(|error| at.failed(error))?;
        if !user.is_empty() {
            command.owner = Owner::resolve(user, &root, Alone::Account).map_err(|error| at.failed(error))?;
            command.groups = owner::groups(&root, user);
        }
        if !geteuid().is_root() && command.owner != Owner::default() {
            return Err(at.failed(format!(
                "user {user} of the image cannot run a command here: an ordinary user has one id to give, and it is root's inside. Build as root, or leave USER to the end"
            )));
        }
        if !command.environment.iter().any(|variable| variable.starts_with("HOME=")) {
            command
                .environment
                .push(format!("HOME={}", owner::home(&root, command.owner.uid)));
        }
        drop(root);
        let place = self.store.temporary_directory()?;
        let (upper, work) = (place.0.join("upper"), place.0.join("work"));
        for directory in [&upper, &work] {
            fs::create_dir(directory)
                .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755)))
                .map_err(|error| at.failed(format!("cannot create {}: {error}", directory.display())))?;
        }
        if let Some(text) = script {
            let path = upper.join(SCRIPT);
            let mut file = File::options();
            let file = file.write(true).create_new(true).mode(0o755).open(&path);
            let written = file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
            written.map_err(|error| at.failed(format!("cannot write {}: {error}", path.display())))?;
        }
        let mut lower = self.lower(&state.layers)?;
        if lower.is_empty() {
            // Overlay wants one layer at least; for an image without any it is an empty directory.
            let empty = place.0.join("empty");
            fs::create_dir(&empty).map_err(|error| at.failed(format!("cannot create {}: {error}", empty.display())))?;
            lower.push(empty);
        }
        let layers = Layers {
            lower,
            upper: Some((upper.clone(), work)),
        };
        // Where nothing is said, what a command says is kept until it is known whether it matters.
        let output = match self.options.manner {
            Manner::Lines => None,
            Manner::Quiet => Some(kept_output(&place.0.join("output")).map_err(|error| at.failed(error))?),
        };
        let status = run::run(&layers, &command, output.as_ref()).map_err(|error| at.failed(error))?;
        if status != 0 {
            if let Some(mut output) = output {
                let _ = output.rewind().and_then(|()| io::copy(&mut output, &mut io::stderr()));
            }
            let fault = Fault::new(format!("the command ended with {}", ending(status)), at.step.at.clone());
            return Err(Error::Command {
                pointed: Box::new(at.source.point(fault)),
                status,
            });
        }
        if script.is_some() {
            let _ = fs::remove_file(upper.join(SCRIPT));
        }
        run::settle(&layers, &upper, self.epoch).map_err(|error| at.failed(error))?;
        if is_empty(&upper) {
            return Ok(None);
        }
        let layer = self.store.pack_layer(&upper, Ids::of_store(), Compression::None)?;
        let mut chain = state.diff_ids();
        chain.push(layer.diff_id);
        let chain = digest::chain(&chain);
        if let Some(own) = chain.last() {
            self.store.adopt_layer(&upper, own, &layer.diff_id)?;
        }
        Ok(Some(layer))
    }

    /// Takes a step's layer from the cache, or makes it and keeps it there.
    fn cached_or(
        &mut self,
        at: At<'_>,
        state: &mut State,
        key: Digest,
        inputs: Inputs,
        make: impl FnOnce(&mut Self, &State) -> Result<Option<LayerBlob>, Error>,
    ) -> Result<(), Error> {
        let told = |layer: &Option<LayerBlob>| layer.as_ref().map(|layer| (layer.diff_id.to_string(), layer.size));
        let found = if self.options.no_cache {
            None
        } else {
            self.cache.find(&key)
        };
        let made = match found {
            Some(made) => {
                self.notes.cached(at.stage, at.number, inputs);
                self.progress.cached(told(&made.layer));
                made
            }
            None => {
                let reason = self.notes.explain(at.stage, at.number, inputs, self.cache.knows(&key));
                let reason = if self.options.no_cache { Reason::NoCache } else { reason };
                self.progress.making(&reason);
                let layer = make(self, state)?;
                self.progress.made(told(&layer));
                let made = Made {
                    layer,
                    created: self.created.clone(),
                };
                self.cache.keep(&key, &made)?;
                made
            }
        };
        state.record(at.step.text.clone(), Some(made.created), made.layer);
        Ok(())
    }

    /// Writes a layer to the store; none when nothing was written into it.
    fn write_layer(
        &self,
        at: At<'_>,
        fill: impl FnOnce(&mut LayerWriter<'_, &mut dyn io::Write>) -> Result<(), Fault>,
    ) -> Result<Option<LayerBlob>, Error> {
        let mut empty = false;
        let layer = self.store.write_layer(Compression::None, |archive| {
            let mut layer = LayerWriter::new(archive, self.epoch);
            fill(&mut layer).map_err(|fault| at.point(fault))?;
            empty = layer.is_empty();
            Ok::<(), Error>(())
        })?;
        Ok((!empty).then_some(layer))
    }

    /// The image that these layers make, to be looked at.
    fn root(&self, layers: &[LayerBlob]) -> Result<Tree, Error> {
        let lower = self.lower(layers)?;
        let root = match lower.is_empty() {
            true => return Ok(Tree::nothing("the image")),
            false => view::look(&Layers { lower, upper: None })?,
        };
        Ok(Tree::of("the image", root, Links::Rooted))
    }

    /// The unpacked layers, topmost first.
    fn lower(&self, layers: &[LayerBlob]) -> Result<Vec<PathBuf>, layers::Error> {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let chain = digest::chain(&diff_ids);
        for (index, layer) in layers.iter().enumerate() {
            self.store
                .unpack_layer(&layer.digest, &chain[..=index], &layer.diff_id, Limits::default())?;
        }
        let directories = chain.iter().rev();
        Ok(directories
            .map(|chain| self.store.root().join(Store::lower_directory(chain)))
            .collect())
    }
}

fn gather<'t>(
    state: &State,
    copy: &instruction::Copy,
    tree: &'t Tree,
    reading: Reading,
) -> Result<Vec<sources::Item<'t>>, Fault> {
    state.expanding(|expander| sources::gather(copy, tree, expander, reading))
}

fn kept_output(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).open(path)
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// What a status means, in words.
fn ending(status: u8) -> String {
    match status {
        status if status > protocol::status::SIGNAL_BASE => {
            let number = i32::from(status - protocol::status::SIGNAL_BASE);
            match nix::sys::signal::Signal::try_from(number) {
                Ok(signal) => format!("status {status}: {signal}"),
                Err(_) => format!("status {status}: signal {number}"),
            }
        }
        protocol::status::NOT_FOUND => format!("status {status}: a program was not found"),
        status => format!("status {status}"),
    }
}
