//! `container cp`, `container diff`, `container commit`.

use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches};
use container::engine::place::Place;
use container::engine::{Container, Error, copy, images};
use container::say;

use super::{Family, finish};

/// `container cp`.
pub const CP: Family = Family {
    name: "cp",
    arguments: CpArguments::augment_args,
    main: |matches, _| finish(CpArguments::from_arg_matches(matches)?.run()),
};

/// `container diff`.
pub const DIFF: Family = Family {
    name: "diff",
    arguments: DiffArguments::augment_args,
    main: |matches, _| finish(DiffArguments::from_arg_matches(matches)?.run()),
};

/// `container commit`.
pub const COMMIT: Family = Family {
    name: "commit",
    arguments: CommitArguments::augment_args,
    main: |matches, _| finish(CommitArguments::from_arg_matches(matches)?.run()),
};

#[derive(Args)]
#[command(override_usage = "container cp CONTAINER:PATH PATH\n       container cp PATH CONTAINER:PATH")]
struct CpArguments {
    /// What to copy: a file, or a directory with what is in it
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to: into a directory that is there, or under a new name
    #[arg(value_name = "TO")]
    to: String,
}

impl CpArguments {
    fn run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        match (in_container(&self.from), in_container(&self.to)) {
            (Some((name, path)), None) => {
                copy::out(&Container::find(&place, name)?, &from_root(path), Path::new(&self.to))?;
            }
            (None, Some((name, path))) => {
                copy::into(&Container::find(&place, name)?, Path::new(&self.from), &from_root(path))?;
            }
            _ => {
                return Err(Error::Refused(
                    "one of the two is CONTAINER:PATH, the other a path of the host (one with a colon in it starts with ./ or /)".into(),
                ));
            }
        }
        Ok(0)
    }
}

fn in_container(text: &str) -> Option<(&str, &str)> {
    match text.starts_with(['/', '.']) {
        true => None,
        false => text.split_once(':'),
    }
}

/// A path in a container starts at its root, whatever its working directory is.
fn from_root(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

#[derive(Args)]
struct DiffArguments {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
}

impl DiffArguments {
    fn run(self) -> Result<u8, Error> {
        let differences = copy::differences(&Container::find(&Place::configured()?, &self.name)?)?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&differences).unwrap_or_default());
            return Ok(0);
        }
        for difference in &differences.differences {
            let note = match (difference.own_bytes, difference.copied_up_bytes) {
                (_, 0) => String::new(),
                (own, copied) => format!("  (copied up: {copied} bytes of the image's, {own} of its own now)"),
            };
            say!("{} {}{note}", difference.change.letter(), difference.path.display());
        }
        say!(
            "{} bytes of its own, {} bytes shared with the image",
            differences.own_bytes,
            differences.shared_bytes
        );
        Ok(0)
    }
}

#[derive(Args)]
struct CommitArguments {
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// What is new about it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// The image's name
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl CommitArguments {
    fn run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        let container = Container::find(&place, &self.name)?;
        let digest = images::commit(&container, &self.image, self.author.as_deref(), self.message.as_deref())?;
        say!("{digest}");
        Ok(0)
    }
}
