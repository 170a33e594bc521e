//! Why there is no image.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::source::Pointed;
use super::{ignore, plan, tree, view};
use crate::image::{images, layers, store};

/// Why there is no image.
#[derive(Debug, Error)]
pub enum Error {
    /// Something in the Dockerfile, at its place.
    #[error(transparent)]
    Dockerfile(Pointed),
    /// A command of it failed.
    #[error("{pointed}")]
    Command {
        /// Its place.
        pointed: Box<Pointed>,
        /// How it ended.
        status: u8,
    },
    /// A file could not be read.
    #[error(
        "cannot read {}: {error}. A Dockerfile is the file of that name in the context, or the one --file names",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The time is none.
    #[error("SOURCE_DATE_EPOCH is {0:?}, and should be a number of seconds since 1970")]
    Epoch(String),
    /// The stages.
    #[error(transparent)]
    Plan(plan::Error),
    /// What is left out of the context.
    #[error(transparent)]
    Ignore(#[from] ignore::Error),
    /// The context.
    #[error(transparent)]
    Context(#[from] tree::Error),
    /// The image so far.
    #[error(transparent)]
    View(#[from] view::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer.
    #[error(transparent)]
    Layers(#[from] layers::Error),
    /// The image.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The configuration could not be written.
    #[error("cannot write the image's configuration: {0}")]
    Configuration(serde_json::Error),
    /// The target was not built.
    #[error("the stage to build was not built")]
    Unbuilt,
}

impl From<plan::Error> for Error {
    fn from(error: plan::Error) -> Error {
        match error {
            plan::Error::Dockerfile(pointed) => Error::Dockerfile(pointed),
            other => Error::Plan(other),
        }
    }
}
