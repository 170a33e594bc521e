//! What keeps the book true: its figures are looked up in recorded results, its commands are run, its exercises compiled.
//!
//! mdBook starts the binary `book` as a preprocessor; the tests beside this library run the commands and check the pages.
//! How a chapter is written is told in book/README.md.

use std::path::PathBuf;

pub mod blocks;
pub mod claims;
pub mod compare;
pub mod errors;
pub mod figures;
pub mod numbers;
pub mod pages;
pub mod preprocess;
pub mod prose;

/// The folder of the book.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
