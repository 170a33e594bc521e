//! `container image build`: an image from a Dockerfile.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use container::build::builder::{Built, Options, build};
use container::build::error::Error;
use container::build::progress::Manner;
use container::image::{Reference, Store};

use super::image::say;

/// Status of a build whose command failed; what the builder itself fails at ends with the launcher's own status.
const COMMAND_FAILED: u8 = 1;

/// Build an image from a Dockerfile
///
/// Every instruction that changes files makes a layer, and no layer is made twice: progress says for each step whether it
/// was cached, and if not, why. Commands run without a network unless --network host is given.
///
/// The exit status is 0 when there is an image, 1 when a command of the Dockerfile failed, 125 for anything else.
#[derive(Args)]
pub struct BuildArguments {
    /// Name of the image; may be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<Reference>,
    /// The Dockerfile, - for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Stage to build, by name or number [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value of an ARG; a name alone takes its value from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,
    /// Make every layer anew
    #[arg(long)]
    no_cache: bool,
    /// What network commands have
    #[arg(long, value_enum, default_value_t = Network::None)]
    network: Network,
    /// Say nothing but the image's ID
    #[arg(short, long)]
    quiet: bool,
    /// Write an account of the build as JSON to standard output
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Write the image's ID to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Directory that COPY and ADD take files from
    context: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// A loopback interface
    None,
    /// The host's own
    Host,
}

impl BuildArguments {
    /// Builds; the exit status.
    pub fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let options = Options {
            context: self.context.clone(),
            file: self.file.clone(),
            names: self.tags.clone(),
            target: self.target.clone(),
            arguments: self.arguments.iter().filter_map(|text| pair(text)).collect(),
            no_cache: self.no_cache,
            host_network: self.network == Network::Host,
            manner: if self.quiet { Manner::Quiet } else { Manner::Lines },
        };
        let built = match build(store, &options) {
            Err(error @ Error::Command { .. }) => {
                eprintln!("container: {error}");
                return Ok(COMMAND_FAILED);
            }
            other => other?,
        };
        if let Some(path) = &self.iidfile {
            fs::write(path, built.image.id.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if self.quiet {
            say(&built.image.id.to_string())?;
        }
        if self.json {
            say(&account(&built).to_string())?;
        }
        Ok(0)
    }
}

/// `NAME=VALUE`, or a name whose value this process's environment has; without one it is as if it was not given.
fn pair(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.to_owned(), std::env::var(text).ok()?)),
    }
}

fn account(built: &Built) -> serde_json::Value {
    let image = &built.image;
    serde_json::json!({
        "id": image.id.to_string(),
        "digest": image.digest.to_string(),
        "name": image.reference.as_ref().map(Reference::familiar),
        "layers": image.layers().iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>(),
        "size": image.size(),
        "steps": built.progress.accounts(),
    })
}
