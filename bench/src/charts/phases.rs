//! The phase chart: a typical start of each side on one time axis, one row per phase.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::okabe_ito;
use super::startup::tick_label;
use crate::results::{Contender, Phase, Summary};
use crate::words;

/// Height of one row.
const ROW: f64 = 19.0;
/// Height of a bar in it.
const BAR: f64 = 13.0;
/// Narrowest bar: a phase of 20 µs in a start of 40 ms is still a line to see.
const NARROWEST: f64 = 2.0;
/// From a bar to its label.
const GAP: f64 = 6.0;

pub(super) fn sheet(summary: &Summary) -> (String, Canvas) {
    let sides = sides(summary);
    let title = title(&sides);
    let how = "Each bar ends when the named step is done; the next begins there. Medians of runs with marks, in \
               milliseconds and as a share of that side's start. Finish line: the first byte reached the harness.";
    let mut canvas = Canvas::titled(&title, how);
    let longest = sides.iter().map(|side| whole(side)).max().unwrap_or(0);
    if longest == 0 {
        canvas.paragraph("No run reported its phases.", LABEL_SIZE, INK, false);
        return (title, canvas);
    }

    let (left, right) = (MARGIN, WIDTH - MARGIN);
    let high = longest as f64 / 1e6;
    let scale = Scale::linear(0.0, high, left, right);
    let ticks = layout::linear_ticks(high, right - left);
    let top = canvas.y;
    let rows: usize = sides.iter().map(|side| side.phases.len() + 1).sum();
    let bottom = top + rows as f64 * ROW + sides.len() as f64 * 10.0;
    for tick in &ticks {
        let x = scale.place(*tick);
        canvas.draw(Shape::Line(vec![(x, top), (x, bottom)], FAINT, 1));
    }
    for side in &sides {
        group(&mut canvas, summary, side, &scale);
    }
    for tick in ticks {
        let text = tick_label(tick);
        let half = layout::text_width(&text, SMALL_SIZE) / 2.0;
        let x = scale.place(tick).clamp(left + half, right - half);
        canvas.label(&text, (x, bottom + 12.0), Anchor::Middle, SMALL_SIZE, GREY);
    }
    let name = "milliseconds from the start line";
    canvas.label(
        name,
        ((left + right) / 2.0, bottom + 30.0),
        Anchor::Middle,
        SMALL_SIZE,
        GREY,
    );
    canvas.y = bottom + 42.0;
    (title, canvas)
}

/// The contenders with phases: container, VM, then any other.
fn sides(summary: &Summary) -> Vec<&Contender> {
    let mut sides: Vec<&Contender> = summary
        .contenders
        .iter()
        .filter(|contender| !contender.phases.is_empty())
        .collect();
    sides.sort_by_key(|contender| match contender.name.as_str() {
        "container" => 0,
        "vm" => 1,
        _ => 2,
    });
    sides
}

fn whole(side: &Contender) -> u64 {
    side.phases.last().map_or(0, |last| last.start_ns + last.duration_ns)
}

fn title(sides: &[&Contender]) -> String {
    let largest = sides.iter().filter_map(|side| {
        let phase = side.phases.iter().max_by_key(|phase| phase.duration_ns)?;
        let part = words::share(phase.duration_ns, whole(side));
        let name = if side.name == "vm" { "VM" } else { &side.name };
        Some(format!("the step to “{}” is {part} of the {name}'s start", phase.name))
    });
    let text = largest.collect::<Vec<_>>().join("; ");
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => "Nobody reported where the time goes".to_string(),
    }
}

fn group(canvas: &mut Canvas, summary: &Summary, side: &Contender, scale: &Scale) {
    let by_guest = side.phases.iter().any(|phase| phase.emitter == "guest");
    let guest = if by_guest {
        "; orange: reported from inside the guest"
    } else {
        ""
    };
    let total = format!("{} from start line to finish line{guest}", words::duration(whole(side)));
    // The name may take what the line leaves.
    let room = (WIDTH - 2.0 * MARGIN - GAP - layout::text_width(&total, SMALL_SIZE)) / layout::BOLD;
    let name = layout::shorten(&words::label(&side.name, &summary.provenance), room, LABEL_SIZE);
    let y = canvas.y + ROW / 2.0;
    canvas.heading(&name, (MARGIN, y), LABEL_SIZE);
    let after = MARGIN + layout::text_width(&name, LABEL_SIZE) * layout::BOLD + GAP;
    canvas.label(&total, (after, y), Anchor::Start, SMALL_SIZE, GREY);
    canvas.y += ROW;
    for phase in &side.phases {
        let color = if phase.emitter == "guest" {
            okabe_ito::ORANGE
        } else {
            super::color(summary, &side.name)
        };
        let (began, took) = (words::duration(phase.start_ns), words::duration(phase.duration_ns));
        let share = words::share(phase.duration_ns, whole(side));
        canvas.hint(
            [MARGIN, canvas.y, WIDTH - MARGIN, canvas.y + ROW],
            format!(
                "{}, until “{}”: began at {began}, took {took}, {share} of the start",
                side.name, phase.name
            ),
        );
        row(canvas, phase, whole(side), scale, color);
    }
    canvas.y += 10.0;
}

fn row(canvas: &mut Canvas, phase: &Phase, whole: u64, scale: &Scale, color: plotters::style::RGBColor) {
    let ms = |ns: u64| ns as f64 / 1e6;
    let from = scale.place(ms(phase.start_ns)).min(WIDTH - MARGIN - NARROWEST);
    let to = scale
        .place(ms(phase.start_ns + phase.duration_ns))
        .max(from + NARROWEST);
    let y = canvas.y + ROW / 2.0;
    canvas.draw(Shape::Bar([from, y - BAR / 2.0, to, y + BAR / 2.0], color));
    let share = words::share(phase.duration_ns, whole);
    let figures = format!("{} · {share}", words::duration(phase.duration_ns));
    let room = (WIDTH - MARGIN - to).max(from - MARGIN) - GAP - layout::text_width(&format!("{figures}  "), SMALL_SIZE);
    let text = format!("{}  {figures}", layout::shorten(&phase.name, room.max(0.0), SMALL_SIZE));
    // To the right of its bar where there is room, else to the left of it: bars go down a staircase, so one side
    // always has half the sheet.
    if to + GAP + layout::text_width(&text, SMALL_SIZE) <= WIDTH - MARGIN {
        canvas.label(&text, (to + GAP, y), Anchor::Start, SMALL_SIZE, INK);
    } else {
        canvas.label(&text, (from - GAP, y), Anchor::End, SMALL_SIZE, INK);
    }
    canvas.y += ROW;
}
