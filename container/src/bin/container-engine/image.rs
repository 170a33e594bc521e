//! `container image`: what containers are made from, in the store.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};
use container::image::inspect::{self, Change};
use container::image::layer::unpack::{self, Limits};
use container::image::prune::Removed;
use container::image::transfer::{self, Format};
use container::image::{Access, Image, Reference, Store, docker_archive, layout, store};
use protocol::status;

use super::Family;
use super::build::BuildArguments;

/// The program that speaks to registries.
const REGISTRY_PROGRAM: &str = "container-registry";

/// Its place on the command line.
pub const IMAGE: Family = Family {
    name: "image",
    arguments,
    main,
};

fn arguments(command: Command) -> Command {
    ImageArguments::augment_args(command)
}

fn main(matches: &ArgMatches, _started: u64) -> Result<u8, clap::Error> {
    let arguments = ImageArguments::from_arg_matches(matches)?;
    Ok(match arguments.run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("container: {error:#}");
            status::LAUNCHER_FAILED
        }
    })
}

/// Where the images are: an option of every command that uses them.
#[derive(Args)]
pub struct StoreOption {
    /// Directory of the images [default: CONTAINER_STORE, or /var/lib/isolation-lab for root and isolation-lab in
    /// XDG_DATA_HOME for others]
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
}

impl StoreOption {
    /// Opens the store.
    pub fn open(&self, access: Access) -> Result<Store, store::Error> {
        match &self.store {
            Some(root) => Store::open(root, access),
            None => Store::open(&store::default_root()?, access),
        }
    }
}

/// What a layer may take.
#[derive(Args)]
pub struct LimitOptions {
    /// Refuse layers with more bytes of files than this; K, M and G are powers of 1024
    #[arg(long, value_name = "SIZE", value_parser = size, default_value_t = unpack::MAX_BYTES, hide_default_value = true)]
    max_layer_bytes: u64,
    /// Refuse layers with more files than this
    #[arg(long, value_name = "N", default_value_t = unpack::MAX_MEMBERS)]
    max_layer_files: u64,
    /// Leave devices in layers out instead of refusing the layer
    #[arg(long)]
    skip_devices: bool,
}

impl LimitOptions {
    /// The limits.
    pub fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_layer_bytes,
            members: self.max_layer_files,
            skip_devices: self.skip_devices,
        }
    }
}

#[derive(Args)]
struct ImageArguments {
    #[command(flatten)]
    store: StoreOption,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand)]
enum ImageCommand {
    Build(Box<BuildArguments>),
    /// Get an image from a registry
    #[command(disable_help_flag = true)]
    Pull {
        /// See container image pull --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Put an image into a registry
    #[command(disable_help_flag = true)]
    Push {
        /// See container image push --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Add the images in a file or directory: an OCI layout, what docker save writes, or a root file system
    Import {
        /// The archive, compressed or not, or the directory
        file: PathBuf,
        /// What to call the image; a root file system needs it, the others have names
        name: Option<Reference>,
        /// What the file is
        #[arg(long, value_enum, default_value_t = ImportFormat::Detect)]
        format: ImportFormat,
        #[command(flatten)]
        limits: LimitOptions,
    },
    /// Write images to an archive, or to the directory of an OCI layout
    Export {
        /// The images
        #[arg(required = true)]
        images: Vec<String>,
        /// Where to: a directory if it is one or the name ends in /, a file otherwise; without it, standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// oci: a layout; docker: the same with the file older programs look for, for docker load
        #[arg(long, value_enum, default_value_t = ExportFormat::Docker)]
        format: ExportFormat,
    },
    /// List the images
    #[command(visible_alias = "list")]
    Ls {
        /// Print the IDs alone
        #[arg(short, long)]
        quiet: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what an image is made of
    Inspect {
        /// The image
        image: String,
        /// Show for each layer what made it, which files it has, which of them are hidden, and who shares it
        #[arg(long)]
        layers: bool,
        /// With --layers: files and all, as JSON; without --layers it is JSON in any case
        #[arg(long)]
        json: bool,
    },
    /// Show the instructions that made an image, and their layers
    History {
        /// The image
        image: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give an image one more name
    Tag {
        /// The image
        image: String,
        /// The name
        name: Reference,
    },
    /// Take an image's name away, and the image with its last name
    Rm {
        /// The images
        #[arg(required = true)]
        images: Vec<String>,
        /// Also when a container uses it: what the container needs stays until it is gone
        #[arg(short, long)]
        force: bool,
    },
    /// Remove images without a name, and whatever belongs to no image
    Prune {
        /// Also images that have a name but no container
        #[arg(short, long)]
        all: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImportFormat {
    /// Whatever it turns out to be
    Detect,
    /// An OCI layout
    Oci,
    /// What docker save writes
    Docker,
    /// A root file system
    Rootfs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    Oci,
    Docker,
}

impl ImageArguments {
    /// The exit status. Only a build has more than one that is no error of the launcher.
    fn run(self) -> anyhow::Result<u8> {
        match &self.command {
            ImageCommand::Pull { arguments } => return speak_to_registry(&self.store, "pull", arguments),
            ImageCommand::Push { arguments } => return speak_to_registry(&self.store, "push", arguments),
            _ => {}
        }
        let access = match &self.command {
            ImageCommand::Rm { .. } | ImageCommand::Prune { .. } => Access::Exclusive,
            _ => Access::Shared,
        };
        let store = self.store.open(access)?;
        match self.command {
            // Done above, without opening the store.
            ImageCommand::Pull { .. } | ImageCommand::Push { .. } => return Ok(0),
            ImageCommand::Build(arguments) => return arguments.run(&store),
            ImageCommand::Import {
                file,
                name,
                format,
                limits,
            } => {
                let format = match format {
                    ImportFormat::Detect => Format::Detect,
                    ImportFormat::Oci => Format::Oci,
                    ImportFormat::Docker => Format::Docker,
                    ImportFormat::Rootfs => Format::Rootfs,
                };
                let images = transfer::import(&store, &file, format, name.as_ref(), limits.limits())?;
                images.iter().try_for_each(|image| came_in(&store, image))
            }
            ImageCommand::Export { images, output, format } => export(&store, &images, output.as_deref(), format),
            ImageCommand::Ls { quiet, json } => list(&store, quiet, json),
            ImageCommand::Inspect { image, layers, json } => {
                let image = store.image(&image)?;
                match layers {
                    true => inspect_layers(&store, &image, json),
                    false => inspect_image(&store, &image),
                }
            }
            ImageCommand::History { image, json } => history(&store.image(&image)?, json),
            ImageCommand::Tag { image, name } => Ok(store.tag(&store.image(&image)?, &name)?),
            ImageCommand::Rm { images, force } => images.iter().try_for_each(|name| {
                let removed = store.remove_image(name, force)?;
                went(&removed)
            }),
            ImageCommand::Prune { all } => went(&store.prune(all)?),
        }
        .map(|()| 0)
    }
}

/// Becomes the program that speaks to registries, which is beside this one. Returns only if that fails.
fn speak_to_registry(store: &StoreOption, verb: &str, arguments: &[OsString]) -> anyhow::Result<u8> {
    use std::os::unix::process::CommandExt;
    let own = std::env::current_exe().context("cannot tell where this program is (is /proc mounted?)")?;
    let program = own.with_file_name(REGISTRY_PROGRAM);
    let mut command = std::process::Command::new(&program);
    if let Some(root) = &store.store {
        command.arg("--store").arg(root);
    }
    let error = command.arg(verb).args(arguments).exec();
    Err(error).with_context(|| {
        format!(
            "cannot run {}, which speaks to registries: it belongs beside {} (cargo build -p {REGISTRY_PROGRAM} builds it)",
            program.display(),
            own.display()
        )
    })
}

/// Says what came in, and what could not be kept of it.
pub fn came_in(store: &Store, image: &Image) -> anyhow::Result<()> {
    for note in store.what_was_lost(image) {
        eprintln!("container: note: {note}");
    }
    say(&format!("{} {}", image.name(), image.id))
}

fn export(store: &Store, names: &[String], output: Option<&Path>, format: ExportFormat) -> anyhow::Result<()> {
    let images = names
        .iter()
        .map(|name| store.image(name))
        .collect::<Result<Vec<_>, _>>()?;
    let write = |output: &mut dyn Write| match format {
        ExportFormat::Oci => layout::export_archive(store, &images, output),
        ExportFormat::Docker => docker_archive::export(store, &images, output),
    };
    match output {
        Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => match format {
            ExportFormat::Oci => Ok(layout::export_directory(store, &images, path)?),
            ExportFormat::Docker => {
                bail!("docker save archives are files, not directories; --format oci writes a directory")
            }
        },
        Some(path) => {
            let file = std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
            let mut file = std::io::BufWriter::with_capacity(1 << 18, file);
            let written = write(&mut file)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(file.flush()?));
            if written.is_err() {
                // Half an archive looks like a whole one to those who only look at its name.
                let _ = std::fs::remove_file(path);
            }
            written.with_context(|| format!("cannot write {}", path.display()))
        }
        None if std::io::stdout().is_terminal() => {
            bail!("an archive is nothing for a terminal: name a file with --output")
        }
        None => {
            let mut stdout = std::io::BufWriter::with_capacity(1 << 18, std::io::stdout().lock());
            write(&mut stdout)?;
            Ok(stdout.flush()?)
        }
    }
}

fn list(store: &Store, quiet: bool, json: bool) -> anyhow::Result<()> {
    let images = store
        .entries()?
        .iter()
        .map(|entry| store.load(entry))
        .collect::<Result<Vec<_>, _>>()?;
    if quiet {
        return images.iter().try_for_each(|image| say(&image.id.short()));
    }
    let created = |image: &Image| image.config.created().clone().unwrap_or_default();
    if json {
        let list: Vec<_> = images
            .iter()
            .map(|image| {
                serde_json::json!({
                    "name": image.reference.as_ref().map(ToString::to_string),
                    "id": image.id,
                    "digest": image.digest,
                    "created": created(image),
                    "layers": image.layers().len(),
                    "stored_bytes": image.size(),
                })
            })
            .collect();
        return say(&serde_json::to_string_pretty(&list)?);
    }
    let mut rows = vec![["NAME", "ID", "LAYERS", "STORED", "CREATED"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        [
            image
                .reference
                .as_ref()
                .map_or("<none>".to_owned(), Reference::familiar),
            image.id.short(),
            image.layers().len().to_string(),
            bytes(image.size()),
            created(image),
        ]
    }));
    table(&rows)
}

fn inspect_image(store: &Store, image: &Image) -> anyhow::Result<()> {
    let lower: Vec<_> = image
        .chain_ids()
        .iter()
        .map(|chain| store.layer_path(chain).join("diff"))
        .collect();
    let names: Vec<_> = store
        .entries()?
        .into_iter()
        .filter(|entry| entry.digest == image.digest)
        .filter_map(|entry| entry.name.map(|name| name.to_string()))
        .collect();
    let used_by: Vec<_> = store
        .leases()?
        .into_iter()
        .filter(|(_, lease)| lease.blobs.contains(&image.digest))
        .map(|(_, lease)| lease.holder)
        .collect();
    say(&serde_json::to_string_pretty(&serde_json::json!({
        "names": names,
        "id": image.id,
        "digest": image.digest,
        "media_type": image.media_type,
        "stored_bytes": image.size(),
        "used_by": used_by,
        "layers": image.layers().iter().zip(image.chain_ids()).zip(lower).map(|((layer, chain), directory)| serde_json::json!({
            "digest": layer.digest,
            "media_type": layer.media_type,
            "stored_bytes": layer.size,
            "diff_id": layer.diff_id,
            "chain_id": chain,
            "directory": directory,
        })).collect::<Vec<_>>(),
        "config": image.config_json,
    }))?)
}

/// How many files of a layer are shown to people; JSON has all.
const SHOWN_FILES: usize = 20;

fn inspect_layers(store: &Store, image: &Image, json: bool) -> anyhow::Result<()> {
    let report = inspect::layers(store, image)?;
    if json {
        return say(&serde_json::to_string_pretty(&report)?);
    }
    // As overlay looks them up: the top first.
    for layer in report.layers.iter().rev() {
        say(&format!(
            "layer {} {}  {} of files, {} visible, {} stored",
            layer.number,
            layer.digest.short(),
            bytes(layer.file_bytes),
            bytes(layer.visible_bytes),
            bytes(layer.stored_bytes)
        ))?;
        if let Some(by) = &layer.by {
            say(&format!("  made by  {by}"))?;
        }
        match layer.shared_with.is_empty() {
            true => {}
            false => say(&format!("  shared with  {}", layer.shared_with.join(", ")))?,
        }
        // The largest say most about an image.
        let mut files: Vec<_> = layer.files.iter().collect();
        files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        for file in files.iter().take(SHOWN_FILES) {
            let mark = match file.change {
                Change::Added => '+',
                Change::Replaced => '~',
                Change::Removed => '-',
                Change::Emptied => 'o',
            };
            let hidden = file
                .hidden_by
                .map_or(String::new(), |by| format!("  (hidden by layer {by})"));
            say(&format!("  {mark} {:>9}  {}{hidden}", bytes(file.bytes), file.path))?;
        }
        if files.len() > SHOWN_FILES {
            say(&format!(
                "  ... and {} more (--json has all)",
                files.len() - SHOWN_FILES
            ))?;
        }
    }
    say(&format!(
        "{}: {} in {} layers, {} visible, {} shared with other images",
        report.name,
        bytes(report.file_bytes),
        report.layers.len(),
        bytes(report.visible_bytes),
        bytes(report.shared_bytes)
    ))?;
    say("+ added   ~ replaces one below   - removes one below   o hides all that was in the directory")
}

fn history(image: &Image, json: bool) -> anyhow::Result<()> {
    let steps = inspect::history(image);
    if json {
        return say(&serde_json::to_string_pretty(&steps)?);
    }
    let mut rows = vec![["LAYER", "STORED", "CREATED", "BY"].map(str::to_owned)];
    rows.extend(steps.iter().rev().map(|step| {
        [
            step.layer.map_or("-".to_owned(), |layer| layer.short()),
            bytes(step.stored_bytes),
            step.created.clone().unwrap_or_default(),
            step.by.clone(),
        ]
    }));
    table(&rows)
}

fn went(removed: &Removed) -> anyhow::Result<()> {
    for name in &removed.images {
        say(&format!("removed {name}"))?;
    }
    say(&format!(
        "{} blobs and {} unpacked layers removed, {} freed",
        removed.blobs,
        removed.layers,
        bytes(removed.bytes)
    ))
}

/// Columns, each as wide as its widest word.
pub fn table<const N: usize>(rows: &[[String; N]]) -> anyhow::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A number of bytes for people.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{number} B"),
        _ if value < 10.0 => format!("{value:.2} {unit}"),
        _ if value < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// One line of output. Who leaves early, as `head` does, has seen enough.
pub fn say(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

fn size(text: &str) -> Result<u64, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|error| error.to_string())
}
