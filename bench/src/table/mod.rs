//! Tables for the terminal: what `lab compare` prints.
//!
//! Colour and width are the terminal's. In a pipe there is neither: 80 columns, plain text. `NO_COLOR` in the
//! environment (<no-color.org>: set and not empty) keeps a terminal plain too.

mod changes;
mod claims;
mod mistake;
mod phases;
mod startup;

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::baseline::Changes;
use crate::claims::Judged;
use crate::mistakes::Shown;
use crate::results::Summary;
use crate::words;

/// Columns when standard output is no terminal: what a mail, a log or a README holds without folding.
const PIPED_WIDTH: u16 = 80;

/// Where a table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paper {
    /// Columns.
    pub(crate) width: u16,
    /// Whether escape sequences are understood and wanted.
    pub(crate) styled: bool,
}

impl Paper {
    /// Standard output as it is now.
    pub(crate) fn of_stdout() -> Paper {
        let is_terminal = std::io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = if is_terminal { Table::new().width() } else { None };
        Paper {
            width: width.filter(|width| *width > 0).unwrap_or(PIPED_WIDTH),
            styled: is_terminal && !no_color,
        }
    }
}

/// The start-up of every contender: percentiles, the ratio to `process` with its interval, and peak memory as the host
/// accounts it. Below it, those that could not run, with the reason and the fix.
pub fn startup(summary: &Summary) -> String {
    startup::on(summary, Paper::of_stdout())
}

/// Where the time of a typical start goes: the container on the left, the VM on the right.
pub fn phases(summary: &Summary) -> String {
    phases::on(summary, Paper::of_stdout())
}

/// Columns of standard output.
pub fn width() -> u16 {
    Paper::of_stdout().width
}

/// What changed between two results folders.
pub fn changes(changes: &Changes) -> String {
    changes::on(changes, Paper::of_stdout())
}

/// Which claims hold.
pub fn claims(judged: &[Judged]) -> String {
    claims::on(judged, Paper::of_stdout())
}

/// What a mistake does to the verdict.
pub fn mistake(shown: &Shown) -> String {
    mistake::on(shown, Paper::of_stdout())
}

/// A table of the house: no frame, one line under the header, numbers flush right.
pub(crate) fn table(paper: Paper, header: &[&str], flush_right: impl Fn(usize) -> bool) -> Table {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    table
        .load_style(TableStyle::new().header_separator(rule))
        .force_no_tty()
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(paper.width)
        .set_header(
            header
                .iter()
                .map(|title| Cell::new(title).add_attribute(Attribute::Bold)),
        );
    if paper.styled {
        table.enforce_styling();
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if flush_right(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The lines of a table without the padding at their ends.
pub(crate) fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A paragraph no wider than the paper; every line after the first is indented by `indent`.
pub(crate) fn paragraph(text: &str, indent: usize, paper: Paper) -> String {
    let width = f64::from(paper.width) - indent as f64;
    let lines = words::wrap(text, width, |line| line.chars().count() as f64);
    lines.join(&format!("\n{}", " ".repeat(indent))) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    const PLAIN: Paper = Paper {
        width: 80,
        styled: false,
    };

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
    }

    #[test]
    fn tables_keep_to_the_width() {
        for summary in [
            examples::typical(),
            examples::without_kvm(),
            examples::many(),
            examples::empty(),
        ] {
            for width in [60, 80, 120] {
                let paper = Paper { width, ..PLAIN };
                for text in [startup::on(&summary, paper), phases::on(&summary, paper)] {
                    assert!(widest(&text) <= usize::from(width), "wider than {width}:\n{text}");
                    assert!(!text.contains('\u{1b}'), "no escape sequences in a pipe:\n{text}");
                }
            }
        }
    }

    #[test]
    fn the_startup_table_names_every_contender_and_figure() {
        let summary = examples::typical();
        let text = startup::on(&summary, PLAIN);
        let p50 = words::milliseconds(summary.contenders[2].startup_ns.unwrap().p50);
        for expected in [
            "process",
            "container",
            "vm (pvm)",
            "crun",
            &p50,
            "peak memory",
            "1.40 MiB",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
        let row = text.lines().find(|line| line.starts_with("vm")).unwrap();
        assert!(
            row.contains("(") && row.contains("–"),
            "the ratio has its interval: {row}"
        );
    }

    #[test]
    fn a_skipped_contender_keeps_its_reason_and_fix() {
        let text = startup::on(
            &examples::without_kvm(),
            Paper {
                width: 120,
                styled: false,
            },
        );
        assert!(text.contains("vm: there is no /dev/kvm"), "{text}");
        assert!(text.contains("load the module"), "{text}");
        let text = phases::on(
            &examples::without_kvm(),
            Paper {
                width: 120,
                styled: false,
            },
        );
        assert!(text.contains("vm: not raced"), "{text}");
        assert!(!text.contains("there is no /dev/kvm"), "once is enough: {text}");
    }

    #[test]
    fn the_phase_table_is_two_sided_and_adds_up() {
        let text = phases::on(&examples::typical(), PLAIN);
        let header = text.lines().next().unwrap();
        assert!(
            header.find("container").unwrap() < header.find("vm").unwrap(),
            "{header}"
        );
        let first = text.lines().nth(2).unwrap();
        assert_eq!(
            first.matches("process start").count(),
            2,
            "both sides begin alike: {first}"
        );
        assert!(text.lines().last().unwrap().contains("whole start"), "{text}");
    }

    #[test]
    fn style_only_when_asked_for() {
        assert!(
            startup::on(
                &examples::typical(),
                Paper {
                    width: 80,
                    styled: true
                }
            )
            .contains('\u{1b}')
        );
    }
}
