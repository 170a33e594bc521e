//! `book`: the preprocessor that `mdbook build` starts. `book supports RENDERER` answers whether it has something to do.

use std::io;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    // Every renderer gets the same pages, so the answer is yes for all of them: exit status 0.
    if std::env::args().nth(1).as_deref() == Some("supports") {
        return Ok(());
    }
    let (_, mut pages) =
        mdbook_preprocessor::parse_input(io::stdin()).context("mdbook sent something else than a book")?;
    book::preprocess::book(&mut pages)?;
    serde_json::to_writer(io::stdout(), &pages).context("cannot hand the book back to mdbook")
}
