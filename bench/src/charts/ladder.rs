//! The ladders: both climb from the same plain process, step by step, each to its own top.
//!
//! One row per rung: the faint part of a bar is what stands below it, the full part what the rung adds. The whisker is the
//! interval of that step.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::startup::tick_label;
use crate::ladder::{Ladder, Step, ladders};
use crate::results::{Sample, Summary};
use crate::words;

/// Height of one row.
const ROW: f64 = 21.0;
/// Height of a bar in it.
const BAR: f64 = 12.0;
/// Between a text and what it stands at.
const GAP: f64 = 8.0;
/// Room for the names of what the rungs add.
const NAMES: f64 = 250.0;
/// Room for the figures at the right end.
const FIGURES: f64 = 150.0;
/// A step too small to see is still a line.
const NARROWEST: f64 = 2.0;

/// The chart; None when the results are no ladder's.
pub(super) fn sheet(summary: &Summary, samples: &[Sample]) -> Option<(String, Canvas)> {
    let ladders = ladders(summary, samples);
    let highest = ladders
        .iter()
        .flat_map(|ladder| &ladder.steps)
        .map(|step| step.p50_ns)
        .fold(0.0, f64::max);
    if highest <= 0.0 {
        return None;
    }
    let title = title(summary, &ladders);
    let how = "Each row is a start with one thing more than the row above it; the full part of a bar is what that thing adds, \
               the thin line its 95% interval, as far as the sheet goes. Medians, in milliseconds from the start line. Both ladders stand on the same \
               plain process.";
    let mut canvas = Canvas::titled(&title, how);
    let (left, right) = (MARGIN + NAMES, WIDTH - MARGIN - FIGURES);
    let scale = Scale::linear(0.0, highest / 1e6, left, right);
    let ticks = layout::linear_ticks(highest / 1e6, right - left);
    let top = canvas.y;
    let rows: usize = ladders.iter().map(|ladder| ladder.steps.len() + 1).sum();
    let bottom = top + rows as f64 * ROW + ladders.len() as f64 * GAP;
    for tick in &ticks {
        let x = scale.place(*tick);
        canvas.draw(Shape::Line(vec![(x, top), (x, bottom)], FAINT, 1));
    }
    for ladder in &ladders {
        let name = layout::shorten(
            &words::label(&ladder.side, &summary.provenance),
            NAMES - GAP,
            LABEL_SIZE,
        );
        let y = canvas.y + ROW / 2.0;
        canvas.heading(&name, (MARGIN, y), LABEL_SIZE);
        canvas.y += ROW;
        let color = super::color(summary, &ladder.side);
        let mut below = 0.0;
        for step in &ladder.steps {
            let interval = step.ci95.map_or_else(String::new, |[low, high]| {
                let ms = |ns: f64| words::significant(ns / 1e6, 2);
                format!(" (95% {} to {})", ms(low), ms(high))
            });
            let (cost, all) = (
                words::significant(step.cost_ns / 1e6, 2),
                words::significant(step.p50_ns / 1e6, 3),
            );
            canvas.hint(
                [MARGIN, canvas.y, WIDTH - MARGIN, canvas.y + ROW],
                format!(
                    "{}: {} adds {cost} ms{interval}; with it a start takes {all} ms",
                    ladder.side, step.adds
                ),
            );
            row(&mut canvas, step, below, &scale, color);
            below = step.p50_ns;
        }
        canvas.y += GAP;
    }
    for tick in ticks {
        let x = scale.place(tick);
        canvas.label(&tick_label(tick), (x, bottom + 12.0), Anchor::Middle, SMALL_SIZE, GREY);
    }
    let name = "milliseconds from the start line";
    let at = ((left + right) / 2.0, bottom + 30.0);
    canvas.label(name, at, Anchor::Middle, SMALL_SIZE, GREY);
    canvas.y = bottom + 42.0;
    Some((title, canvas))
}

fn row(canvas: &mut Canvas, step: &Step, below: f64, scale: &Scale, color: plotters::style::RGBColor) {
    let ms = |ns: f64| scale.place(ns / 1e6);
    let y = canvas.y + ROW / 2.0;
    let name = layout::shorten(&step.adds, NAMES - GAP, SMALL_SIZE);
    canvas.label(&name, (MARGIN + NAMES - GAP, y), Anchor::End, SMALL_SIZE, INK);
    let (from, to) = (ms(below.min(step.p50_ns)), ms(below.max(step.p50_ns)));
    let to = to.max(from + NARROWEST);
    canvas.draw(Shape::Bar([ms(0.0), y - 1.0, from, y + 1.0], FAINT));
    // A rung that came out below the one under it shows its step hollow: nothing was added that this run can see.
    let fill = if step.is_told() && step.cost_ns >= 0.0 {
        color
    } else {
        FAINT
    };
    canvas.draw(Shape::Bar([from, y - BAR / 2.0, to, y + BAR / 2.0], fill));
    if let Some([low, high]) = step.ci95 {
        let whisker = vec![(ms(below + low), y), (ms(below + high), y)];
        canvas.draw(Shape::Line(whisker, INK, 1));
    }
    let cost = words::significant(step.cost_ns / 1e6, 2);
    let figures = match step.ci95 {
        None => cost,
        Some(_) if !step.is_told() => format!("{cost}, not told from 0"),
        Some(_) if step.cost_ns > 0.0 => format!("+{cost}"),
        Some(_) => cost,
    };
    canvas.label(&figures, (WIDTH - MARGIN, y), Anchor::End, SMALL_SIZE, INK);
    canvas.y += ROW;
}

/// The dearest step of each ladder; nothing where the null test says that the run cannot be believed.
fn title(summary: &Summary, ladders: &[Ladder]) -> String {
    if summary.null_test.as_ref().is_some_and(|test| !test.passed) {
        return "The steps of both ladders; this run is too noisy to name the dearest".to_string();
    }
    let dearest = ladders.iter().filter_map(|ladder| {
        let steps = ladder.steps.iter().skip(1).filter(|step| step.is_told());
        let step = steps.max_by(|one, other| one.cost_ns.total_cmp(&other.cost_ns))?;
        let cost = words::duration(step.cost_ns.max(0.0) as u64);
        Some(format!("{}: {cost} for {}", words::spoken(&ladder.side), step.adds))
    });
    match dearest.collect::<Vec<_>>() {
        steps if steps.is_empty() => "No step of a ladder can be told from nothing in this run".to_string(),
        steps => format!("The dearest steps. {}", steps.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn every_step_has_a_row_and_a_race_has_no_ladder() {
        let (summary, samples) = crate::ladder::example();
        let (title, canvas) = sheet(&summary, &samples).unwrap();
        assert!(title.contains("A VM: ") && title.contains("the workload"), "{title}");
        let boxes = canvas.text_boxes();
        for expected in [
            "net namespace, loopback up",
            "the workload",
            "milliseconds from the start line",
        ] {
            assert!(boxes.iter().any(|(_, text)| *text == expected), "{expected}");
        }
        super::super::tests::assert_apart("ladder", &title, &canvas);
        let (mut noisy, samples) = crate::ladder::example();
        noisy.null_test.as_mut().unwrap().passed = false;
        let (title, _) = sheet(&noisy, &samples).unwrap();
        assert!(title.contains("too noisy"), "{title}");
        let (race, samples) = examples::typical_run();
        assert!(sheet(&race, &samples).is_none());
    }
}
