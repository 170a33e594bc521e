//! The memory chart: what one idle instance holds, by what it is.
//!
//! The pieces do not overlap. What the guest touched lies in the VMM's own address space, so it is taken out of the
//! private and shared pages it was counted among. Memory the guest may use and has not touched is no memory yet: it is
//! a number in the text, not a piece of the bar.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::okabe_ito;
use crate::results::{Contender, Memory, Summary};
use crate::words;
use plotters::style::RGBColor;

/// Height of a bar.
const BAR: f64 = 18.0;
/// Room for the total at the right of a bar.
const TOTAL_ROOM: f64 = 90.0;
/// Longest name shown in full.
const LONGEST_NAME: f64 = 190.0;

/// A piece of the bar.
struct Piece {
    what: &'static str,
    bytes: Option<u64>,
    color: RGBColor,
}

pub(super) fn sheet(summary: &Summary) -> (String, Canvas) {
    let (measured, _) = words::measured_and_skipped(summary);
    let title = title(&measured);
    let how = "Held by one instance while its workload idles; kernel memory is what the host's kernel keeps for it. \
               Peak: most ever charged to its memory cgroup. A file page is charged to whoever read it first, so \
               what was in the cache before is in the bar and not in the peak.";
    let mut canvas = Canvas::titled(&title, how);
    if measured.is_empty() {
        canvas.paragraph("No contender could run here.", LABEL_SIZE, INK, false);
        return (title, canvas);
    }

    let most = measured
        .iter()
        .filter_map(|contender| contender.memory.as_ref())
        .map(total)
        .max()
        .unwrap_or(0);
    let names: Vec<String> = measured
        .iter()
        .map(|contender| {
            layout::shorten(
                &words::label(&contender.name, &summary.provenance),
                LONGEST_NAME,
                LABEL_SIZE,
            )
        })
        .collect();
    let widest = names
        .iter()
        .map(|name| layout::text_width(name, LABEL_SIZE) * layout::BOLD)
        .fold(0.0, f64::max);
    let left = MARGIN + widest + 10.0;
    let scale = Scale::linear(0.0, (most as f64).max(1.0), left, WIDTH - MARGIN - TOTAL_ROOM);
    for (contender, name) in measured.iter().zip(names) {
        let y = canvas.y + BAR / 2.0;
        canvas.heading(&name, (MARGIN, y), LABEL_SIZE);
        match &contender.memory {
            Some(memory) => bar(&mut canvas, &contender.name, memory, &scale, left),
            None => {
                canvas.label("not measured", (left, y), Anchor::Start, SMALL_SIZE, GREY);
                canvas.y += BAR;
            }
        }
        canvas.y += 12.0;
    }
    (title, canvas)
}

/// The pieces of an instance, none of them counted twice.
fn pieces(memory: &Memory) -> Vec<Piece> {
    let (unique, shared) = (memory.unique_bytes, memory.shared_bytes);
    let guest = memory.guest_touched_bytes;
    // Guest pages are counted among the private ones first; what does not fit there can only be among the shared.
    let in_unique = guest.unwrap_or(0).min(unique.unwrap_or(0));
    let in_shared = (guest.unwrap_or(0) - in_unique).min(shared.unwrap_or(0));
    let mut pieces = Vec::new();
    if let Some(guest) = guest {
        // Where neither kind of page is known, the guest's are the only ones that are.
        let known = if unique.or(shared).is_some() {
            in_unique + in_shared
        } else {
            guest
        };
        pieces.push(Piece {
            what: "guest touched",
            bytes: Some(known),
            color: okabe_ito::ORANGE,
        });
    }
    let private = unique.map(|bytes| bytes - in_unique);
    pieces.push(Piece {
        what: "private",
        bytes: private,
        color: okabe_ito::BLUE,
    });
    pieces.push(Piece {
        what: "shared",
        bytes: shared.map(|bytes| bytes - in_shared),
        color: okabe_ito::SKY_BLUE,
    });
    pieces.push(Piece {
        what: "kernel",
        bytes: memory.kernel_bytes,
        color: okabe_ito::PURPLE,
    });
    pieces
}

/// What is known of an instance's memory, summed.
fn total(memory: &Memory) -> u64 {
    pieces(memory).iter().filter_map(|piece| piece.bytes).sum()
}

fn is_complete(memory: &Memory) -> bool {
    pieces(memory).iter().all(|piece| piece.bytes.is_some())
}

fn title(measured: &[&Contender]) -> String {
    let known = |name: &str| {
        let memory = measured
            .iter()
            .find(|contender| contender.name == name)?
            .memory
            .as_ref()?;
        is_complete(memory).then(|| total(memory)).filter(|total| *total > 0)
    };
    match (known("vm"), known("container")) {
        (Some(vm), Some(container)) => format!(
            "An idle VM holds {}, an idle container {}: {} times as much",
            words::bytes(vm),
            words::bytes(container),
            words::ratio(vm as f64 / container as f64)
        ),
        (None, Some(container)) => format!("An idle container holds {}", words::bytes(container)),
        (Some(vm), None) => format!("An idle VM holds {}", words::bytes(vm)),
        (None, None) => "What one idle instance holds, as far as this host can tell".to_string(),
    }
}

fn bar(canvas: &mut Canvas, name: &str, memory: &Memory, scale: &Scale, left: f64) {
    let (top, bottom) = (canvas.y, canvas.y + BAR);
    let mut sum = 0;
    for piece in pieces(memory) {
        let Some(bytes) = piece.bytes.filter(|bytes| *bytes > 0) else {
            continue;
        };
        let from = scale.place(sum as f64);
        sum += bytes;
        let place = [from, top, scale.place(sum as f64), bottom];
        canvas.hint(place, format!("{name}: {} {}", piece.what, words::bytes(bytes)));
        canvas.draw(Shape::Bar(place, piece.color));
    }
    canvas.draw(Shape::Line(vec![(left, top - 2.0), (left, bottom + 2.0)], FAINT, 1));
    let anything = pieces(memory).iter().any(|piece| piece.bytes.is_some());
    let total = match (anything, is_complete(memory)) {
        (false, _) => "not known here".to_string(),
        (true, true) => words::bytes(sum),
        (true, false) => format!("≥ {}", words::bytes(sum)),
    };
    canvas.label(
        &total,
        (scale.place(sum as f64) + 6.0, canvas.y + BAR / 2.0),
        Anchor::Start,
        LABEL_SIZE,
        INK,
    );
    canvas.y = bottom + 2.0;
    parts(canvas, memory, left, anything);
}

/// The pieces in words below their bar, each behind a square of its colour.
fn parts(canvas: &mut Canvas, memory: &Memory, left: f64, anything: bool) {
    let mut texts: Vec<(String, Option<RGBColor>)> = Vec::new();
    if anything {
        texts.extend(pieces(memory).into_iter().map(|piece| match piece.bytes {
            Some(bytes) => (format!("{} {}", piece.what, words::bytes(bytes)), Some(piece.color)),
            None => (format!("{} not known here", piece.what), None),
        }));
    }
    texts.extend(
        memory
            .peak_bytes
            .map(|bytes| (format!("peak {}", words::bytes(bytes)), None)),
    );
    texts.extend(
        memory
            .guest_configured_bytes
            .map(|bytes| (format!("guest may use {}", words::bytes(bytes)), None)),
    );
    texts.extend(memory.note.iter().map(|note| (note.clone(), None)));
    canvas.legend(&texts, left);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(memory: &Memory) -> Vec<(&'static str, Option<u64>)> {
        pieces(memory)
            .into_iter()
            .map(|piece| (piece.what, piece.bytes))
            .collect()
    }

    #[test]
    fn guest_pages_are_not_counted_twice() {
        let mut memory = Memory {
            unique_bytes: Some(700),
            shared_bytes: Some(300),
            kernel_bytes: Some(400),
            guest_touched_bytes: Some(500),
            ..Memory::default()
        };
        // 500 of the 700 private bytes are the guest's.
        let expected = [
            ("guest touched", Some(500)),
            ("private", Some(200)),
            ("shared", Some(300)),
            ("kernel", Some(400)),
        ];
        assert_eq!(amounts(&memory), expected);
        assert_eq!(total(&memory), 700 + 300 + 400);
        // 800: all 700 private ones and 100 of the shared ones.
        memory.guest_touched_bytes = Some(800);
        let expected = [
            ("guest touched", Some(800)),
            ("private", Some(0)),
            ("shared", Some(200)),
            ("kernel", Some(400)),
        ];
        assert_eq!(amounts(&memory), expected);
        assert_eq!(total(&memory), 700 + 300 + 400);
    }

    #[test]
    fn what_is_not_known_is_not_a_zero() {
        let memory = Memory {
            unique_bytes: Some(700),
            ..Memory::default()
        };
        assert_eq!(
            amounts(&memory),
            [("private", Some(700)), ("shared", None), ("kernel", None)]
        );
        assert!(!is_complete(&memory));
    }
}
