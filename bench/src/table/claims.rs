//! Which claims hold.

use super::{Paper, paragraph};
use crate::claims::{Judged, Outcome};

/// A claim is a sentence: paragraphs, since a table would cut it to pieces.
pub(super) fn on(judged: &[Judged], paper: Paper) -> String {
    let mut text = String::new();
    for claim in judged {
        let (word, reason) = match &claim.outcome {
            Outcome::Holds => ("holds", None),
            Outcome::Fails => ("FAILS", None),
            Outcome::NotMeasurable { reason } => ("not measurable here", Some(reason)),
        };
        let robust = if claim.robust { " (robust)" } else { "" };
        text.push_str(&paragraph(&format!("{word}{robust}: {}", claim.sentence), 4, paper));
        text.push_str(&format!("    {}", paragraph(&claim.formula, 4, paper)));
        for line in claim.found.iter().chain(reason) {
            text.push_str(&format!("    {}", paragraph(line, 4, paper)));
        }
    }
    let count = |outcome: fn(&Outcome) -> bool| judged.iter().filter(|claim| outcome(&claim.outcome)).count();
    let (holds, fails) = (
        count(|outcome| *outcome == Outcome::Holds),
        count(|outcome| *outcome == Outcome::Fails),
    );
    let open = judged.len() - holds - fails;
    text.push_str(&format!(
        "\n{holds} hold, {fails} fail, {open} are not measurable here.\n"
    ));
    text
}
