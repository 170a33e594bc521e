//! `container-registry`: images from registries and to them, by the OCI distribution protocol.
//!
//! `container image pull` and `push` become this program (execve). It is one of its own because what speaks HTTPS is
//! ten times the size of the launcher, which is started hundreds of times in a race and never speaks any.

mod login;
mod pull;
mod push;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use container::image::layer::unpack::{self, Limits};
use container::image::{Access, Reference, Store, store};
use oci_client::client::{ClientConfig, ClientProtocol};
use protocol::status;

/// Gets images from registries and puts them there
#[derive(Parser)]
#[command(name = "container image", bin_name = "container image", version)]
struct Arguments {
    /// Directory of the images
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
    /// Speak HTTP, which anybody on the way can read and change; without it only to this machine itself
    #[arg(long, global = true)]
    plain_http: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get an image from a registry
    Pull {
        /// Its name there, such as alpine:3.20 or localhost:5000/team/app
        name: Reference,
        /// Refuse layers with more bytes of files than this
        #[arg(long, value_name = "BYTES", default_value_t = unpack::MAX_BYTES)]
        max_layer_bytes: u64,
        /// Refuse layers with more files than this
        #[arg(long, value_name = "N", default_value_t = unpack::MAX_MEMBERS)]
        max_layer_files: u64,
        /// Leave devices in layers out instead of refusing the layer
        #[arg(long)]
        skip_devices: bool,
    },
    /// Put an image into a registry
    Push {
        /// The image
        image: String,
        /// Its name there, if it is another
        name: Option<Reference>,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { status::LAUNCHER_FAILED } else { 0 });
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("container: {error:#}");
            ExitCode::from(status::LAUNCHER_FAILED)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    // There can be one already only if this function ran twice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = arguments.store.map_or_else(store::default_root, Ok)?;
    let store = Store::open(&root, Access::Shared)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up input and output")?;
    match arguments.command {
        Command::Pull {
            name,
            max_layer_bytes,
            max_layer_files,
            skip_devices,
        } => {
            let limits = Limits {
                bytes: max_layer_bytes,
                members: max_layer_files,
                skip_devices,
            };
            let registry = Registry::of(&name, arguments.plain_http)?;
            let image = runtime.block_on(pull::pull(&store, &registry, &name, limits))?;
            for note in store.what_was_lost(&image) {
                eprintln!("container: note: {note}");
            }
            println!("{} {}", image.name(), image.digest);
        }
        Command::Push { image, name } => {
            let image = store.image(&image)?;
            let name = name.or_else(|| image.reference.clone());
            let name = name.context("the image has no name: say what to call it in the registry")?;
            let registry = Registry::of(&name, arguments.plain_http)?;
            runtime.block_on(push::push(&store, &registry, &image, &name))?;
            println!("{name} {}", image.digest);
        }
    }
    Ok(())
}

/// A registry, and who we are to it.
struct Registry {
    client: oci_client::Client,
    auth: oci_client::secrets::RegistryAuth,
}

impl Registry {
    /// The registry of this image.
    fn of(name: &Reference, plain_http: bool) -> anyhow::Result<Registry> {
        let protocol = match plain_http || is_this_machine(&name.registry) {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        };
        let config = ClientConfig {
            protocol,
            // A layer goes up in one request, whose length is known.
            use_monolithic_push: true,
            user_agent: concat!("isolation-lab/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        Ok(Registry {
            client: oci_client::Client::new(config),
            auth: login::find(&name.registry)?,
        })
    }
}

/// Whether what is sent there stays on this machine: then nobody can listen, and no name can be certified.
fn is_this_machine(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The name as the client library has it.
fn library_name(name: &Reference) -> oci_client::Reference {
    use oci_client::Reference as Library;
    let (registry, repository) = (name.registry.clone(), name.repository.clone());
    match (&name.digest, &name.tag) {
        (Some(digest), _) => Library::with_digest(registry, repository, digest.to_string()),
        (None, Some(tag)) => Library::with_tag(registry, repository, tag.clone()),
        (None, None) => Library::with_tag(registry, repository, container::image::reference::DEFAULT_TAG.into()),
    }
}
