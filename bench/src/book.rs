//! `lab book`: the book, with the reader's own charts beside the recorded ones.
//!
//! mdBook does the work; its preprocessor (the crate `book`) puts a chart of the folder named in [`OWN_RESULTS`] under the
//! recorded chart of the same name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use clap::Args;

/// What the preprocessor takes the reader's results from: a results folder, as an absolute path.
pub const OWN_RESULTS: &str = "LAB_BOOK_RESULTS";
/// Where results go unless somebody says otherwise.
const RESULTS: &str = "lab-results";
/// Where mdBook puts the pages among what else it makes (`[output.html]` in book.toml).
const PAGES: &str = "html";
/// What mdBook says while it works, where nobody chose (`MDBOOK_LOG`): of its steps nothing, nor that a reader lacks what looks at links.
const LOG: &str = "info,mdbook_driver=error,mdbook_html=warn";
/// How to get mdBook.
const INSTALL: &str = "cargo install mdbook --version 0.5.4 --locked";

/// Options of `lab book`.
#[derive(Args, Debug)]
pub struct Options {
    /// The results folder whose charts are shown beside the recorded ones [default: the newest in lab-results, if any].
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// The book's folder [default: book, or the one of the clone this program was built in].
    #[arg(long, value_name = "DIR")]
    pub book: Option<PathBuf>,
    /// Where the pages go [default: book in the book's folder].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Serve the pages on this machine, open them in a browser, and follow changes.
    #[arg(long, conflicts_with = "out")]
    pub serve: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why there is no book.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No book.
    #[error("there is no book in {0} (no book.toml). Run this in a clone of the lab, or name the folder with --book")]
    NoBook(PathBuf),
    /// No results.
    #[error("{0} is no results folder with charts. `lab compare` makes one; `lab charts {0}` draws its charts anew")]
    NoCharts(PathBuf),
    /// No mdBook.
    #[error("cannot start mdbook: {0}. It makes the pages: {INSTALL}")]
    Start(io::Error),
    /// mdBook failed.
    #[error("mdbook could not make the book ({0}); its messages stand above")]
    Failed(ExitStatus),
}

/// Whose charts the pages show, for the one who reads them.
fn whose_charts(results: Option<&Path>) -> String {
    match results {
        Some(folder) => format!(
            "your own charts, beside the recorded ones, are those of {}",
            folder.display()
        ),
        None => {
            format!(
                "the charts are the recorded ones: there are no results of yours in {RESULTS}. `lab compare` makes some"
            )
        }
    }
}

/// Makes the pages, and returns where the first one is.
///
/// # Errors
/// See [`Error`].
pub fn make(options: &Options) -> Result<PathBuf, Error> {
    let book = options.book.clone().unwrap_or_else(default_book);
    if !book.join("book.toml").exists() {
        return Err(Error::NoBook(book));
    }
    let results = match &options.results {
        Some(folder) if !folder.join("charts").is_dir() => return Err(Error::NoCharts(folder.clone())),
        Some(folder) => Some(folder.clone()),
        None => newest(Path::new(RESULTS)),
    };
    let out = options.out.clone().unwrap_or_else(|| book.join("book"));

    let mut command = Command::new("mdbook");
    command.arg(if options.serve { "serve" } else { "build" }).arg(&book);
    match options.serve {
        true => command.arg("--open"),
        false => command.arg("--dest-dir").arg(absolute(&out)),
    };
    if std::env::var_os("MDBOOK_LOG").is_none() {
        command.env("MDBOOK_LOG", LOG);
    }
    eprintln!("lab: {}", whose_charts(results.as_deref()));
    match results.map(|folder| absolute(&folder)) {
        Some(folder) => command.env(OWN_RESULTS, folder),
        None => command.env_remove(OWN_RESULTS),
    };
    let status = command.status().map_err(Error::Start)?;
    match status.success() {
        true => Ok(out.join(PAGES).join("index.html")),
        false => Err(Error::Failed(status)),
    }
}

fn default_book() -> PathBuf {
    let here = PathBuf::from("book");
    match here.join("book.toml").exists() {
        true => here,
        false => Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("book"),
    }
}

/// The results folder with the latest name, which is its time, among those that have charts.
fn newest(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.join("charts").is_dir()).collect();
    folders.sort_unstable();
    folders.pop()
}

/// mdBook takes some paths from the current folder and some from the book's.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_results_are_those_with_charts_and_the_latest_time() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest(folder.path()), None);
        for name in [
            "2026-01-02T00-00-00Z/charts",
            "2026-01-01T00-00-00Z/charts",
            "2026-01-03T00-00-00Z",
        ] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let found = newest(folder.path());
        assert_eq!(found, Some(folder.path().join("2026-01-02T00-00-00Z")));
        assert!(whose_charts(found.as_deref()).ends_with("2026-01-02T00-00-00Z"));
        assert!(whose_charts(None).contains("`lab compare`"));
    }

    #[test]
    fn a_folder_without_a_book_or_without_charts_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let options = |results: Option<&Path>, book: Option<&Path>| Options {
            results: results.map(Path::to_owned),
            book: book.map(Path::to_owned),
            out: None,
            json: false,
            serve: false,
        };
        assert!(matches!(
            make(&options(None, Some(folder.path()))),
            Err(Error::NoBook(_))
        ));
        assert!(matches!(
            make(&options(Some(folder.path()), None)),
            Err(Error::NoCharts(_))
        ));
    }
}
