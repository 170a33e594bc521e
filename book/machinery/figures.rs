//! Pictures become part of the page, so that they take its colours: `![text](figures/NAME.svg)` for a diagram, and
//! `{{#chart pvm/charts/startup.svg}}` for a chart as the lab drew it.

use std::fs;
use std::path::Path;

/// A picture that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the picture {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no `<svg` in it.
    #[error("{0} is not an SVG file")]
    NotSvg(String),
    /// A picture without words.
    #[error("{0} has no text in its place: write ![what it shows](...) for a diagram; a chart has a <title>")]
    NoText(String),
}

/// A diagram from `src/figures`, described by `text`.
pub fn diagram(source: &Path, file: &str, text: &str) -> Result<String, Error> {
    let svg = read(&source.join(file))?;
    figure("diagram", file, text, &svg)
}

/// A chart from `recorded`; what it says is its title.
pub fn chart(recorded: &Path, file: &str) -> Result<String, Error> {
    let mut svg = read(&recorded.join(file))?;
    let title = between(&svg, "<title>", "</title>").unwrap_or_default().to_owned();
    // Provenance is for `lab explain` and the file; the caption has it in words.
    if let Some(metadata) = between(&svg, "<metadata>", "</metadata>").map(str::to_owned) {
        svg = svg.replace(&format!("<metadata>{metadata}</metadata>"), "");
    }
    figure("chart", file, &title, &svg)
}

/// A recorded chart, and beneath it the reader's own of the same name, where his results have one.
pub fn charts(recorded: &Path, own: Option<&Path>, file: &str) -> Result<String, String> {
    let theirs = chart(recorded, file).map_err(|error| error.to_string())?;
    let name = file.rsplit('/').next().unwrap_or(file);
    let own = own
        .map(|folder| folder.join("charts"))
        .filter(|folder| folder.join(name).exists());
    let Some(folder) = own else { return Ok(theirs) };
    let yours = chart(&folder, name).map_err(|error| error.to_string())?;
    Ok(format!(
        "<p class=\"whose\">Recorded for the book:</p>\n\n{theirs}\n\n<p class=\"whose\">Yours:</p>\n\n{yours}"
    ))
}

fn read(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.display().to_string(),
        source,
    })?;
    match text.find("<svg") {
        Some(start) => Ok(text[start..].to_owned()),
        None => Err(Error::NotSvg(path.display().to_string())),
    }
}

fn figure(class: &str, file: &str, text: &str, svg: &str) -> Result<String, Error> {
    if text.trim().is_empty() {
        return Err(Error::NoText(file.to_owned()));
    }
    // An empty line would end the piece of HTML within the page.
    let lines: Vec<&str> = svg.lines().filter(|line| !line.trim().is_empty()).collect();
    let text = text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    Ok(format!(
        "<figure class=\"{class}\" role=\"img\" aria-label=\"{text}\" tabindex=\"0\">\n{}\n</figure>",
        lines.join("\n")
    ))
}

/// What lies between two words.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    Some(&text[start..start + text[start..].find(after)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_s_own_chart_stands_under_the_recorded_one() {
        let folder = tempfile::tempdir().unwrap();
        let svg = |words: &str| format!("<svg xmlns=\"http://www.w3.org/2000/svg\"><title>{words}</title>\n\n</svg>");
        for (file, words) in [
            ("pvm/charts/a.svg", "recorded"),
            ("own/charts/a.svg", "mine"),
            ("pvm/charts/b.svg", "alone"),
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, svg(words)).unwrap();
        }
        let own = folder.path().join("own");
        let both = charts(folder.path(), Some(&own), "pvm/charts/a.svg").unwrap();
        let (theirs, yours) = (
            both.find("aria-label=\"recorded\"").unwrap(),
            both.find("aria-label=\"mine\"").unwrap(),
        );
        assert!(theirs < yours, "{both}");
        assert!(
            !charts(folder.path(), Some(&own), "pvm/charts/b.svg")
                .unwrap()
                .contains("Yours")
        );
        assert!(
            !charts(folder.path(), None, "pvm/charts/a.svg")
                .unwrap()
                .contains("Yours")
        );
        assert!(charts(folder.path(), None, "pvm/charts/c.svg").is_err());
    }
}
