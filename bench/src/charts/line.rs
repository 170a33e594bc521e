//! Cost of a line: for each way a guest can print, how often it leaves for one line, and how long that takes.
//!
//! Two panels over one list of ways, each with a linear scale from 0, so that the lengths of bars compare as the figures do.
//! The times have the colours of the exit timeline: out of the guest, in the VMM's hands, and everything else.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::{Chart, Error, okabe_ito, study};
use crate::study::line::trusted;
use crate::study::results::{Line, Study};
use crate::words;

/// Height of one row.
const ROW: f64 = 34.0;
/// Height of a bar in it.
const BAR: f64 = 18.0;
/// Left of the panels: room for a way's name.
const NAMES: f64 = 130.0;
/// Right of each bar: room for its figure.
const FIGURES: f64 = 78.0;
/// Between a text and what it stands at.
const GAP: f64 = 8.0;
/// Share of the bars' room that the counts get; the times have two parts to show.
const COUNTS: f64 = 0.38;
/// A bar too short to see is still a line.
const NARROWEST: f64 = 2.0;

/// Draws it.
pub fn draw(found: &Study<Line>) -> Result<Chart, Error> {
    let (title, canvas) = sheet(found);
    study::finish("line", title, canvas, found)
}

pub(super) fn sheet(found: &Study<Line>) -> (String, Canvas) {
    let title = title(found);
    let how =
        "Left: how often the guest leaves for one line. Right: how long that takes, median of the runs, in two parts.";
    let mut canvas = Canvas::titled(&title, how);
    let ways: Vec<(&str, &Line)> = found.measured().collect();
    if ways.is_empty() {
        canvas.paragraph("No way could be measured here.", LABEL_SIZE, INK, false);
        return (title, canvas);
    }
    let room = WIDTH - 2.0 * MARGIN - NAMES - 2.0 * FIGURES;
    let (left, middle) = (MARGIN + NAMES, MARGIN + NAMES + room * COUNTS + FIGURES);
    let most = ways.iter().map(|(_, line)| line.exits).fold(1.0, f64::max);
    let longest = ways.iter().map(|(_, line)| line.ns.p50).max().unwrap_or(0).max(1) as f64;
    // In microseconds, unless that makes long figures of them.
    let (unit, in_unit) = match longest {
        0.0..=1e7 => ("microseconds", 1e3),
        _ => ("milliseconds", 1e6),
    };
    let counts = Scale::linear(0.0, most, left, left + room * COUNTS);
    let times = Scale::linear(0.0, longest / in_unit, middle, WIDTH - MARGIN - FIGURES);
    let (top, bottom) = (canvas.y, canvas.y + ways.len() as f64 * ROW);
    axis(&mut canvas, &counts, most, (left, left + room * COUNTS), (top, bottom));
    let end = WIDTH - MARGIN - FIGURES;
    axis(&mut canvas, &times, longest / in_unit, (middle, end), (top, bottom));
    for (name, line) in &ways {
        let y = canvas.y + ROW / 2.0;
        let name = layout::shorten(name, NAMES - GAP, LABEL_SIZE);
        canvas.label(&name, (left - GAP, y), Anchor::End, LABEL_SIZE, INK);
        let to = counts.place(line.exits).max(left + NARROWEST);
        bar(&mut canvas, (left, to), y, okabe_ito::GREY);
        figure(&mut canvas, &words::axis_figure(line.exits), to, y);
        let to = times.place(line.ns.p50 as f64 / in_unit).max(middle + NARROWEST);
        let ours = times.place(line.host_ns.p50.min(line.ns.p50) as f64 / in_unit);
        bar(&mut canvas, (middle, to), y, okabe_ito::SKY_BLUE);
        bar(&mut canvas, (middle, ours), y, okabe_ito::VERMILION);
        figure(&mut canvas, &words::duration(line.ns.p50), to, y);
        canvas.y += ROW;
    }
    for (name, at) in [("exits", left + room * COUNTS / 2.0), (unit, (middle + end) / 2.0)] {
        canvas.label(name, (at, bottom + 30.0), Anchor::Middle, SMALL_SIZE, GREY);
    }
    canvas.y = bottom + 42.0;
    let parts = [
        ("in the VMM's hands", okabe_ito::VERMILION),
        (
            "the guest's own instructions, and KVM's way out of it and back",
            okabe_ito::SKY_BLUE,
        ),
    ];
    canvas.legend(&parts.map(|(what, color)| (what.to_owned(), Some(color))), MARGIN);
    if !trusted(found) {
        let text = "The null test failed: the serial port differs from itself here. The counts stand; no verdict on the times.";
        canvas.paragraph(text, SMALL_SIZE, INK, false);
    }
    (title, canvas)
}

/// Grid lines and their figures.
fn axis(canvas: &mut Canvas, scale: &Scale, high: f64, (left, right): (f64, f64), (top, bottom): (f64, f64)) {
    for tick in layout::linear_ticks(high, right - left) {
        let x = scale.place(tick);
        canvas.draw(Shape::Line(vec![(x, top), (x, bottom)], FAINT, 1));
        canvas.label(
            &words::axis_figure(tick),
            (x, bottom + 12.0),
            Anchor::Middle,
            SMALL_SIZE,
            GREY,
        );
    }
}

fn bar(canvas: &mut Canvas, (from, to): (f64, f64), y: f64, color: plotters::style::RGBColor) {
    canvas.draw(Shape::Bar([from, y - BAR / 2.0, to, y + BAR / 2.0], color));
}

fn figure(canvas: &mut Canvas, text: &str, end: f64, y: f64) {
    let text = layout::shorten(text, FIGURES - GAP, SMALL_SIZE);
    canvas.label(&text, (end + GAP, y), Anchor::Start, SMALL_SIZE, INK);
}

/// What the measured ways take; of the times nothing where the null test says that the run cannot be believed.
fn title(found: &Study<Line>) -> String {
    let trusted = trusted(found);
    let each = found.measured().map(|(name, line)| {
        let exits = words::axis_figure(line.exits);
        let exits = format!("{exits} {}", if line.exits == 1.0 { "exit" } else { "exits" });
        match trusted {
            true => format!("{exits} and {} by {name}", words::duration(line.ns.p50)),
            false => format!("{exits} by {name}"),
        }
    });
    let each: Vec<String> = each.collect();
    match (found.measured().next(), each.split_last()) {
        (Some((_, line)), Some((last, rest))) if !rest.is_empty() => {
            format!("A line of {} bytes takes {}, {last}", line.bytes, rest.join(", "))
        }
        (Some((_, line)), Some((only, _))) => format!("A line of {} bytes takes {only}", line.bytes),
        _ => "What it costs a guest to print a line".into(),
    }
}
