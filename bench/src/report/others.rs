//! Charts of other measurements in the same folder (a ladder, a density, exits): whatever `charts/` holds besides the
//! race's own is shown too, as it was drawn.

use std::fs;
use std::path::Path;

use super::html::{escape, readable};
use super::studies;
use crate::charts::{Hint, anew};

/// Those the report draws itself.
const OWN: [&str; 3] = ["startup", "phases", "memory"];

/// A chart the folder holds.
#[derive(Clone, Debug)]
pub(super) struct Other {
    /// Its file's name without the ending.
    name: String,
    svg: String,
    /// What its parts say; nothing when the chart is not what the folder's figures would draw.
    hints: Vec<Hint>,
    /// HTML of what its study measured.
    table: String,
}

/// The charts in the results folder that this lab drew and the report does not draw itself, by name.
pub(super) fn find(folder: &Path) -> Vec<Other> {
    let entries = fs::read_dir(folder.join("charts")).into_iter().flatten().flatten();
    let mut others: Vec<Other> = entries
        .filter_map(|entry| {
            let path = entry.path();
            // A chart that `lab explain` drew anew beside its original has two endings.
            let name = path.file_name()?.to_str()?.strip_suffix(".svg")?.to_owned();
            let wanted = !OWN.contains(&name.as_str()) && !name.contains('.');
            let svg = fs::read_to_string(&path).ok().filter(|svg| wanted && is_ours(svg))?;
            let table = studies::of(folder, &name);
            let drawn = anew::draw(folder, &name, None)
                .ok()
                .filter(|drawn| drawn.chart.svg == svg);
            let hints = drawn.map(|drawn| drawn.chart.hints).unwrap_or_default();
            Some(Other {
                name,
                svg,
                hints,
                table,
            })
        })
        .collect();
    others.sort_by(|one, other| one.name.cmp(&other.name));
    others
}

/// Whether the lab drew it: one picture with provenance, and nothing in it that a page would obey.
fn is_ours(svg: &str) -> bool {
    const OBEYED: [&str; 6] = ["script", "style", "foreignobject", "image", "use", "a "];
    let whole = svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && svg.contains("<metadata>");
    let lower = svg.to_ascii_lowercase();
    let obeyed = |tag: &str| {
        let handler = |word: &str| word.starts_with("on") && word.contains('=');
        OBEYED.iter().any(|name| tag.starts_with(name)) || tag.contains("href") || tag.split_whitespace().any(handler)
    };
    let mut tags = lower.split('<').skip(1).filter_map(|part| part.split('>').next());
    whole && lower.matches("<svg").count() == 1 && !tags.any(obeyed)
}

impl Other {
    /// The chart's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its part of the page.
    pub(super) fn section(&self) -> String {
        let title = self
            .svg
            .split_once("<title>")
            .and_then(|(_, rest)| rest.split_once("</title>"));
        // The title is escaped in the SVG already, the name is not.
        let heading = title.map_or_else(|| escape(&self.name), |(title, _)| title.to_owned());
        format!(
            "<section>\n<h2>{heading}</h2>\n{}{}</section>\n",
            readable(&self.svg, &self.hints),
            self.table
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{charts, examples};

    #[test]
    fn other_charts_of_the_lab_are_shown_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let (summary, samples) = examples::typical_run();
        let folder = dir.path().join("charts");
        charts::write_all(&summary, &samples, &folder).unwrap();
        let svg = fs::read_to_string(folder.join("phases.svg")).unwrap();
        fs::write(folder.join("ladder.svg"), &svg).unwrap();
        fs::write(folder.join("startup.anew.svg"), &svg).unwrap();
        fs::write(folder.join("holiday.svg"), "<svg ><circle/></svg>").unwrap();
        for (name, tag) in [
            ("script", "<script>alert(1)</script>"),
            ("load", "<image onload=\"x\"/>"),
            ("link", "<use href=\"http://example.org\"/>"),
        ] {
            fs::write(
                folder.join(format!("{name}.svg")),
                svg.replace("</svg>", &format!("{tag}</svg>")),
            )
            .unwrap();
        }
        let found = find(dir.path());
        let names: Vec<&str> = found.iter().map(|other| other.name.as_str()).collect();
        assert_eq!(names, ["ladder"]);
        assert!(found[0].section().contains("<h2>"));
    }
}
