//! The recipe: a Dockerfile and a context become an image, stage after stage, step after step.
//!
//! Each step that can change files asks the cache first. What is not there is made: by copying ([`super::copy`]) or by
//! running a command ([`super::run`]). Only finished layers get into the store, and a record in the cache only after its
//! layer; so whatever ends a build, what it finished is kept and what it did not is nowhere.

use std::collections::HashMap;
use std::fs::{self};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::arguments::Arguments;
use super::cache::Cache;
use super::config::ImageConfig;
use super::dockerfile::Dockerfile;
use super::error::Error;
use super::ignore::Ignore;
use super::instruction::{Instruction, Stage, Step};
use super::plan::{Base, Plan};
use super::progress::{Manner, Progress};
use super::reason::Notes;
use super::source::{Fault, Source};
use super::state::State;
use super::tree::{Links, Tree};
use crate::image::digest::Digest;
use crate::image::layers::LayerBlob;
use crate::image::{Image, Reference, Store};

/// The name of a Dockerfile unless another is given.
const DOCKERFILE: &str = "Dockerfile";
/// The file that says what of a context is left out.
const IGNORE: &str = ".dockerignore";
/// The variable that names the one time in a build's results (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory files are copied from.
    pub context: PathBuf,
    /// The Dockerfile; the context's own when `None`.
    pub file: Option<PathBuf>,
    /// What the image is to be called.
    pub names: Vec<Reference>,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments.
    pub arguments: Vec<(String, String)>,
    /// Whether everything is made anew.
    pub no_cache: bool,
    /// Whether commands have the host's network.
    pub host_network: bool,
    /// How much is said.
    pub manner: Manner,
}

/// What was built.
pub struct Built {
    /// The image.
    pub image: Image,
    /// How it went.
    pub progress: Progress,
}

/// Builds an image.
pub fn build(store: &Store, options: &Options) -> Result<Built, Error> {
    let (dockerfile, path) = read_dockerfile(options)?;
    let mut arguments = Arguments::given(options.arguments.iter().cloned());
    let plan = Plan::make(&dockerfile, &mut arguments, options.target.as_deref())?;
    let ignore = read_ignore(options, &path)?;
    let context = Tree::open("the context", &options.context, Links::Confined)?.ignoring(ignore);
    let notes = format!(
        "{}\0{}",
        absolute(&path).display(),
        absolute(&options.context).display()
    );
    let epoch = epoch()?;
    let mut builder = Builder {
        store,
        cache: Cache::of(store)?,
        options,
        dockerfile: &dockerfile,
        plan: &plan,
        arguments,
        context: Rc::new(context),
        notes: Notes::of(store, &notes),
        progress: Progress::new(options.manner),
        images: HashMap::new(),
        stages: HashMap::new(),
        epoch: epoch.unwrap_or(0),
        created: time(epoch),
    };
    for warning in &dockerfile.warnings {
        builder.progress.note(&format!("warning: {warning}"));
    }
    let built = builder.stages();
    // Whatever happened, the next build is to know how far this one came.
    let notes = std::mem::take(&mut builder.notes);
    notes.write(store)?;
    built?;
    builder.finish()
}

/// A build that goes on.
pub(super) struct Builder<'a> {
    pub(super) store: &'a Store,
    pub(super) cache: Cache<'a>,
    pub(super) options: &'a Options,
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) plan: &'a Plan,
    pub(super) arguments: Arguments,
    pub(super) context: Rc<Tree>,
    pub(super) notes: Notes,
    pub(super) progress: Progress,
    pub(super) images: HashMap<String, Image>,
    pub(super) stages: HashMap<usize, State>,
    pub(super) epoch: i64,
    pub(super) created: String,
}

/// A step, and where it is told of.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) source: &'a Source,
    pub(super) stage: usize,
    pub(super) number: usize,
    pub(super) step: &'a Step,
}

impl At<'_> {
    pub(super) fn point(&self, fault: Fault) -> Error {
        Error::Dockerfile(self.source.point(fault))
    }

    /// A fault of the whole instruction.
    pub(super) fn failed(&self, error: impl std::fmt::Display) -> Error {
        self.point(Fault::new(error.to_string(), self.step.at.clone()))
    }
}

impl Builder<'_> {
    fn stages(&mut self) -> Result<(), Error> {
        for &index in &self.plan.needed {
            let state = self.stage(index)?;
            self.stages.insert(index, state);
        }
        Ok(())
    }

    fn stage(&mut self, index: usize) -> Result<State, Error> {
        let dockerfile = self.dockerfile;
        let stage = &dockerfile.stages[index];
        let label = (self.plan.needed.len() > 1).then(|| stage.name.clone().unwrap_or_else(|| index.to_string()));
        let mut state = self.base(index, stage)?;
        // Instructions that the base image has for whoever builds on it come first.
        let triggers = state.config.config.on_build.take().unwrap_or_default();
        let triggers = read_triggers(&stage.base.text, &triggers)?;
        let steps = triggers.iter().flat_map(|trigger| {
            let stage = trigger.stages.iter();
            stage.flat_map(|stage| stage.steps.iter().map(|step| (&trigger.source, step)))
        });
        let steps: Vec<(&Source, &Step)> = steps
            .chain(stage.steps.iter().map(|step| (&dockerfile.source, step)))
            .collect();
        let count = steps.len() + 1;
        self.progress.begin(label.as_deref(), 1, count, &stage.text);
        self.progress.configured(&self.base_name(index));
        for (number, (source, step)) in steps.into_iter().enumerate() {
            self.progress.begin(label.as_deref(), number + 2, count, &step.text);
            let at = At {
                source,
                stage: index,
                number: number + 1,
                step,
            };
            self.step(at, &mut state)?;
        }
        Ok(state)
    }

    /// What a stage begins with.
    fn base(&mut self, index: usize, stage: &Stage) -> Result<State, Error> {
        let escape = self.dockerfile.escape;
        match &self.plan.bases[index] {
            Base::Scratch => Ok(State::new(ImageConfig::empty(), Vec::new(), escape)),
            Base::Stage(earlier) => {
                let earlier = &self.stages[earlier];
                let mut config = earlier.config.clone();
                // Within one Dockerfile they are not for the stages after.
                config.config.on_build = None;
                Ok(State::new(config, earlier.layers.clone(), escape))
            }
            Base::Image(name) => {
                let point =
                    |message: String| Error::Dockerfile(self.dockerfile.source.point(stage.base.fault(message)));
                let image = self.image(name).map_err(point)?;
                let config = serde_json::from_value(image.config_json.clone());
                let config = config
                    .map_err(|error| point(format!("the image's configuration cannot be understood: {error}")))?;
                Ok(State::new(config, image.layers().to_vec(), escape))
            }
        }
    }

    fn base_name(&self, index: usize) -> String {
        match &self.plan.bases[index] {
            Base::Scratch => "nothing".into(),
            Base::Stage(earlier) => match &self.dockerfile.stages[*earlier].name {
                Some(name) => format!("stage {name}"),
                None => format!("stage {earlier}"),
            },
            Base::Image(name) => {
                self.images.get(name).map_or("", |_| "image ").to_owned()
                    + &self.images.get(name).map(|image| image.id.short()).unwrap_or_default()
            }
        }
    }

    pub(super) fn image(&mut self, name: &str) -> Result<Image, String> {
        if let Some(image) = self.images.get(name) {
            return Ok(image.clone());
        }
        let image = self.store.image(name).map_err(|error| error.to_string())?;
        self.images.insert(name.to_owned(), image.clone());
        Ok(image)
    }

    fn step(&mut self, at: At<'_>, state: &mut State) -> Result<(), Error> {
        let done = state
            .configure(&at.step.instruction, &mut self.arguments)
            .map_err(|fault| at.point(fault))?;
        if done {
            self.progress.configured("configuration");
            // It is as old as what it stands on: made anew from the cache, the image is the same.
            let created = state.created();
            state.record(at.step.text.clone(), created, None);
            return Ok(());
        }
        match &at.step.instruction {
            Instruction::Copy(copy) => self.copy(at, copy, state),
            Instruction::Workdir(word) => {
                let path = state.word(word).map_err(|fault| at.point(fault))?;
                let path = state.absolute(&path);
                state.config.config.working_dir = path.clone();
                self.workdir(at, &path, state)
            }
            Instruction::Run(run) => self.run(at, run, state),
            _ => Ok(()),
        }
    }

    /// The image of this configuration and these layers, under every name asked for. One that has its name already is
    /// left alone: writing it once more would only wait for the disk.
    fn image_of(&self, config: &[u8], layers: &[LayerBlob]) -> Result<Image, Error> {
        let id = Digest::of(config);
        let add = |name: Option<&Reference>| -> Result<Image, Error> {
            let there = name.and_then(|name| self.store.image(&name.to_string()).ok());
            match there {
                Some(image) if image.id == id && image.layers() == layers => Ok(image),
                _ => Ok(self.store.add_image(config, layers, name)?),
            }
        };
        let Some((first, others)) = self.options.names.split_first() else {
            return add(None);
        };
        let image = add(Some(first))?;
        others.iter().try_for_each(|name| add(Some(name)).map(drop))?;
        Ok(image)
    }

    fn finish(mut self) -> Result<Built, Error> {
        let Some(state) = self.stages.remove(&self.plan.target) else {
            return Err(Error::Unbuilt);
        };
        for name in self.arguments.unused() {
            self.progress
                .note(&format!("warning: no ARG asks for --build-arg {name}"));
        }
        let created = state.created();
        let mut config = state.config;
        config.created = created;
        let text = serde_json::to_vec(&config).map_err(Error::Configuration)?;
        let image = self.image_of(&text, &state.layers)?;
        for name in &self.options.names {
            self.progress
                .note(&format!("image {} is {}", image.id.short(), name.familiar()));
        }
        if self.options.names.is_empty() {
            self.progress.note(&format!("image {}", image.id.short()));
        }
        Ok(Built {
            image,
            progress: self.progress,
        })
    }
}

fn read_dockerfile(options: &Options) -> Result<(Dockerfile, PathBuf), Error> {
    let path = options.file.clone().unwrap_or_else(|| options.context.join(DOCKERFILE));
    let text = match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(&path),
    };
    let text = text.map_err(|error| Error::Read {
        path: path.clone(),
        error,
    })?;
    // As whoever builds would call it: without the context in front.
    let name = path
        .strip_prefix(&options.context)
        .unwrap_or(&path)
        .display()
        .to_string();
    Ok((
        Dockerfile::parse(Source::new(name, &text)).map_err(Error::Dockerfile)?,
        path,
    ))
}

/// A file beside the Dockerfile, with its name and `.dockerignore`, is for it alone and comes first.
fn read_ignore(options: &Options, dockerfile: &Path) -> Result<Ignore, Error> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(IGNORE);
    for path in [PathBuf::from(own), options.context.join(IGNORE)] {
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(Ignore::parse(&path.display().to_string(), &text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::Read { path, error }),
        }
    }
    Ok(Ignore::default())
}

/// The instructions an image has for whoever builds on it, each as a Dockerfile of its own.
fn read_triggers(image: &str, triggers: &[String]) -> Result<Vec<Dockerfile>, Error> {
    let read = |text: &String| {
        let source = Source::new(format!("ONBUILD of {image}"), &format!("FROM scratch\n{text}\n"));
        Dockerfile::parse(source).map_err(Error::Dockerfile)
    };
    triggers.iter().map(read).collect()
}

/// The time everything in the image has, if one is asked for.
fn epoch() -> Result<Option<i64>, Error> {
    match std::env::var(EPOCH) {
        Err(_) => Ok(None),
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => match text.parse::<i64>() {
            Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => Err(Error::Epoch(text)),
        },
    }
}

/// A moment as configurations have it; now when `None`.
fn time(epoch: Option<i64>) -> String {
    let seconds = epoch.and_then(|seconds| u64::try_from(seconds).ok());
    let time = seconds.map_or_else(SystemTime::now, |seconds| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    humantime::format_rfc3339_micros(time).to_string()
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
