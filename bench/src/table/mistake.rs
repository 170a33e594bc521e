//! What a mistake does to the verdict.

use super::{Paper, lines, paragraph, table};
use crate::mistakes::Shown;
use crate::words;

pub(super) fn on(shown: &Shown, paper: Paper) -> String {
    let mut table = table(paper, &["VM / container", shown.figure, ""], |index| index == 1);
    table.add_row(["honest", &words::ratio_with_interval(&shown.honest), "95% interval"]);
    table.add_row([
        shown.mistake.name(),
        &words::ratio_with_interval(&shown.flawed),
        "with the mistake: not a result",
    ]);
    if let Some(alone) = &shown.alone {
        let label = format!("{} / {}", alone.a, alone.b);
        let note = "the same launcher both times: without the mistake, 1";
        table.add_row([label.as_str(), &words::ratio_with_interval(alone), note]);
    }
    let verdict = match shown.moved {
        true => format!(
            "The mistake moves the verdict from {} to {}: the intervals lie apart.",
            words::ratio(shown.honest.ratio),
            words::ratio(shown.flawed.ratio)
        ),
        false => {
            "The mistake did not move the verdict beyond chance this time: the intervals overlap. That is luck, not a \
                  method."
                .to_owned()
        }
    };
    format!(
        "{}\n{}\n{}{}",
        paragraph(&format!("MISTAKE, made on purpose: {}.", shown.confession), 2, paper),
        lines(&table),
        paragraph(&verdict, 0, paper),
        paragraph(
            &format!("Its values, apart from the results: {}", shown.values.display()),
            2,
            paper
        )
    )
}
