//! The memory ledger: what one idle instance costs the host, piece by piece, against what the host lost.

use plotters::style::RGBColor;

use super::canvas::{Anchor, Canvas, FAINT, INK, LABEL_SIZE, MARGIN, Shape, WIDTH};
use super::layout::{self, Scale};
use super::{Chart, Error, okabe_ito, study};
use crate::study::results::{Ledger, Readings, Study};
use crate::words;

const BAR: f64 = 18.0;
const TOTAL_ROOM: f64 = 90.0;
const LONGEST_NAME: f64 = 190.0;

/// Draws it.
pub fn draw(found: &Study<Ledger>) -> Result<Chart, Error> {
    let (title, canvas) = sheet(found);
    study::finish("ledger", title, canvas, found)
}

pub(super) fn sheet(found: &Study<Ledger>) -> (String, Canvas) {
    let title = title(found);
    let how = "One instance while its workload idles. The bar is what the books add up to; the black mark is what the \
               host's MemAvailable fell by, the thin line its range over the rounds, where that range is less than the bar. File pages lie in the page cache, \
               which counts as available: they are named, not drawn.";
    let mut canvas = Canvas::titled(&title, how);
    let ledgers: Vec<(&str, &Ledger)> = found.measured().collect();
    if ledgers.is_empty() {
        canvas.paragraph("No contender could be weighed here.", LABEL_SIZE, INK, false);
        return (title, canvas);
    }
    let seen = |ledger: &Ledger| lost(ledger).map_or(0.0, |found| found.max).max(ledger.sum_bytes);
    let most = ledgers.iter().map(|(_, ledger)| seen(ledger)).fold(1.0, f64::max);
    let names: Vec<String> = ledgers
        .iter()
        .map(|(name, _)| layout::shorten(&words::label(name, &found.provenance), LONGEST_NAME, LABEL_SIZE))
        .collect();
    let widest = names
        .iter()
        .map(|name| layout::text_width(name, LABEL_SIZE) * layout::BOLD)
        .fold(0.0, f64::max);
    let left = MARGIN + widest + 10.0;
    let scale = Scale::linear(0.0, most, left, WIDTH - MARGIN - TOTAL_ROOM);
    for ((contender, ledger), name) in ledgers.iter().zip(names) {
        canvas.heading(&name, (MARGIN, canvas.y + BAR / 2.0), LABEL_SIZE);
        bar(&mut canvas, contender, ledger, &scale, left);
        canvas.y += 12.0;
    }
    (title, canvas)
}

fn bar(canvas: &mut Canvas, name: &str, ledger: &Ledger, scale: &Scale, left: f64) {
    let (top, bottom) = (canvas.y, canvas.y + BAR);
    let mut sum = 0.0;
    for part in ledger.parts.iter().filter(|part| part.taken) {
        let Some(bytes) = part.bytes.filter(|bytes| *bytes > 0.0) else {
            continue;
        };
        let from = scale.place(sum);
        sum += bytes;
        let place = [from, top, scale.place(sum), bottom];
        let size = words::bytes(bytes.round() as u64);
        canvas.hint(place, format!("{name}: {} {size}, from {}", part.what, part.source));
        canvas.draw(Shape::Bar(place, color(&part.what)));
    }
    canvas.draw(Shape::Line(vec![(left, top - 2.0), (left, bottom + 2.0)], FAINT, 1));
    let mut end = scale.place(sum);
    if let Some(lost) = lost(ledger) {
        let x = scale.place(lost.median);
        let y = bottom + 3.0;
        canvas.draw(Shape::Line(
            vec![(scale.place(lost.min), y), (scale.place(lost.max), y)],
            INK,
            1,
        ));
        canvas.draw(Shape::Bar([x - 1.5, top - 3.0, x + 1.5, bottom + 5.0], INK));
        end = end.max(x);
    }
    let total = words::bytes(ledger.sum_bytes.max(0.0).round() as u64);
    canvas.label(
        &total,
        (end + 8.0, (top + bottom) / 2.0),
        Anchor::Start,
        LABEL_SIZE,
        INK,
    );
    canvas.y = bottom + 6.0;
    parts(canvas, ledger, left);
}

/// What MemAvailable fell by, where its range over the rounds is less than what is weighed with it. More would be a
/// picture of what else the host did.
fn lost(ledger: &Ledger) -> Option<Readings> {
    ledger
        .available_bytes
        .filter(|found| found.max - found.min <= ledger.sum_bytes)
}

/// The pieces in words below their bar, each behind a square of its colour.
fn parts(canvas: &mut Canvas, ledger: &Ledger, left: f64) {
    let size = |bytes: f64| match bytes {
        bytes if bytes < 0.0 => format!("−{}", words::bytes(-bytes.round() as u64)),
        bytes => words::bytes(bytes.round() as u64),
    };
    let mut texts: Vec<(String, Option<RGBColor>)> = Vec::new();
    for part in &ledger.parts {
        let text = match part.bytes {
            Some(bytes) => format!("{} {}", part.what, size(bytes)),
            None => format!("{} not known here", part.what),
        };
        texts.push((text, part.taken.then(|| color(&part.what))));
    }
    for part in &ledger.of_which {
        texts.extend(part.bytes.map(|bytes| (format!("{} {}", part.what, size(bytes)), None)));
    }
    texts.extend(
        ledger
            .guest_configured_bytes
            .map(|bytes| (format!("guest may use {}", words::bytes(bytes)), None)),
    );
    texts.extend(
        ledger
            .residue_bytes
            .map(|bytes| (format!("MemAvailable: residue {}", size(bytes)), None)),
    );
    canvas.legend(&texts, left);
}

fn color(what: &str) -> RGBColor {
    match what {
        "private pages" => okabe_ito::BLUE,
        "guest pages" => okabe_ito::ORANGE,
        "page tables" => okabe_ito::SKY_BLUE,
        "second-level tables" => okabe_ito::GREEN,
        "kernel stacks" => okabe_ito::VERMILION,
        "other kernel memory" => okabe_ito::PURPLE,
        _ => okabe_ito::GREY,
    }
}

fn title(found: &Study<Ledger>) -> String {
    let sum = |name: &str| found.of(name).map(|ledger| ledger.sum_bytes).filter(|sum| *sum > 0.0);
    let size = |bytes: f64| words::bytes(bytes.round() as u64);
    match (sum("vm"), sum("container")) {
        (Some(vm), Some(container)) => format!(
            "An idle VM takes {} from the host, an idle container {}",
            size(vm),
            size(container)
        ),
        (Some(vm), None) => format!("An idle VM takes {} from the host", size(vm)),
        (None, Some(container)) => format!("An idle container takes {} from the host", size(container)),
        (None, None) => "What one idle instance takes from the host".into(),
    }
}
