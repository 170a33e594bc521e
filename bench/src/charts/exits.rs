//! The exit timeline: when the guest ran, when it was out, and for whom.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::okabe_ito;
use super::startup::tick_label;
use super::{Chart, Error};
use crate::trace::{Exit, Trace};
use crate::words;

/// Height of one row.
const ROW: f64 = 24.0;
/// Height of a bar in it.
const BAR: f64 = 14.0;
/// Left of the timeline: room for a row's name.
const NAMES: f64 = 190.0;
/// Right of it: room for its figures.
const FIGURES: f64 = 150.0;
/// Most rows; what was rarer shares the last.
const ROWS_MAX: usize = 14;

/// One kind of exit.
struct Row<'t> {
    name: String,
    exits: Vec<&'t Exit>,
    host_ns: u64,
}

/// Draws the timeline of a trace.
pub fn draw(trace: &Trace) -> Result<Chart, Error> {
    let (title, mut canvas) = sheet(trace);
    let hints = canvas.take_hints();
    let metadata =
        serde_json::json!({ "chart": "exits", "title": title, "kernel": trace.kernel, "vcpus": trace.vcpus });
    let svg = canvas.into_svg(&title, &serde_json::to_string(&metadata)?)?;
    Ok(Chart {
        name: "exits",
        title,
        svg,
        hints,
    })
}

pub(super) fn sheet(trace: &Trace) -> (String, Canvas) {
    let rows = rows(trace);
    let begin = trace
        .exits
        .iter()
        .map(|exit| exit.left_ns.saturating_sub(exit.guest_ns))
        .min();
    let end = trace.exits.iter().map(|exit| exit.left_ns + exit.host_ns).max();
    let (Some(begin), Some(end)) = (begin, end) else {
        let title = "The guest never left".to_string();
        let canvas = Canvas::titled(&title, "No exit is in this trace.");
        return (title, canvas);
    };
    let title = title(trace, &rows, end - begin);
    let how = "Each bar is an exit, as long as the guest was out; at least a line wide. Right: how many, and their time \
               together. Top: where the guest itself was running.";
    let mut canvas = Canvas::titled(&title, how);

    let (left, right) = (MARGIN + NAMES, WIDTH - MARGIN - FIGURES);
    let milliseconds = |ns: u64| ns.saturating_sub(begin) as f64 / 1e6;
    let high = milliseconds(end).max(1e-6);
    let scale = Scale::linear(0.0, high, left, right);
    let (top, bottom) = (canvas.y, canvas.y + (rows.len() + 1) as f64 * ROW);
    let ticks = layout::linear_ticks(high, right - left);
    for &tick in &ticks {
        let x = scale.place(tick);
        canvas.draw(Shape::Line(vec![(x, top), (x, bottom)], FAINT, 1));
    }
    let place = |from: u64, to: u64| (scale.place(milliseconds(from)), scale.place(milliseconds(to)));
    let guest: u64 = trace.exits.iter().map(|exit| exit.guest_ns).sum();
    let ran = trace
        .exits
        .iter()
        .map(|exit| place(exit.left_ns.saturating_sub(exit.guest_ns), exit.left_ns));
    row(
        &mut canvas,
        "guest runs",
        &words::duration(guest),
        ran,
        okabe_ito::SKY_BLUE,
    );
    for kind in &rows {
        let out = kind
            .exits
            .iter()
            .map(|exit| place(exit.left_ns, exit.left_ns + exit.host_ns));
        let figures = format!("{} · {}", kind.exits.len(), words::duration(kind.host_ns));
        row(&mut canvas, &kind.name, &figures, out, okabe_ito::VERMILION);
    }
    for tick in ticks {
        let text = tick_label(tick);
        canvas.label(
            &text,
            (scale.place(tick), bottom + 12.0),
            Anchor::Middle,
            SMALL_SIZE,
            GREY,
        );
    }
    let name = "milliseconds since the guest was first entered";
    canvas.label(
        name,
        ((left + right) / 2.0, bottom + 30.0),
        Anchor::Middle,
        SMALL_SIZE,
        GREY,
    );
    canvas.y = bottom + 46.0;
    canvas.paragraph(&caption(trace), SMALL_SIZE, GREY, false);
    (title, canvas)
}

/// The kinds of exits, those that took longest first; the rarest together.
fn rows(trace: &Trace) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for exit in &trace.exits {
        let name = exit.name();
        let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            rows.push(Row {
                name,
                exits: Vec::new(),
                host_ns: 0,
            });
            rows.len() - 1
        });
        rows[at].exits.push(exit);
        rows[at].host_ns += exit.host_ns;
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.host_ns));
    if rows.len() > ROWS_MAX {
        let rest = rows.split_off(ROWS_MAX - 1);
        rows.push(Row {
            name: format!("{} other kinds", rest.len()),
            host_ns: rest.iter().map(|row| row.host_ns).sum(),
            exits: rest.into_iter().flat_map(|row| row.exits).collect(),
        });
    }
    rows
}

fn title(trace: &Trace, rows: &[Row<'_>], whole: u64) -> String {
    let host: u64 = rows.iter().map(|row| row.host_ns).sum();
    let times = match trace.exits.len() {
        1 => "once".to_string(),
        count => format!("{count} times"),
    };
    let largest = rows.first().map_or(String::new(), |row| {
        format!("; {} of that is “{}”", words::share(row.host_ns, host), row.name)
    });
    format!(
        "The guest left {times} in {} and was out for {}{largest}",
        words::duration(whole),
        words::duration(host)
    )
}

fn row(
    canvas: &mut Canvas,
    name: &str,
    figures: &str,
    bars: impl Iterator<Item = (f64, f64)>,
    color: plotters::style::RGBColor,
) {
    let y = canvas.y + ROW / 2.0;
    canvas.hint(
        [MARGIN, canvas.y, WIDTH - MARGIN, canvas.y + ROW],
        format!("{name}: {figures}"),
    );
    let name = layout::shorten(name, NAMES - 8.0, LABEL_SIZE);
    canvas.label(&name, (MARGIN + NAMES - 8.0, y), Anchor::End, LABEL_SIZE, INK);
    for [from, to] in by_pixel(bars) {
        canvas.draw(Shape::Bar([from, y - BAR / 2.0, to, y + BAR / 2.0], color));
    }
    let figures = layout::shorten(figures, FIGURES - 8.0, SMALL_SIZE);
    canvas.label(
        &figures,
        (WIDTH - MARGIN - FIGURES + 8.0, y),
        Anchor::Start,
        SMALL_SIZE,
        INK,
    );
    canvas.y += ROW;
}

/// Bars in whole pixels, one for all that touch: a trace has more exits than a sheet has pixels.
fn by_pixel(bars: impl Iterator<Item = (f64, f64)>) -> Vec<[f64; 2]> {
    let mut merged: Vec<[f64; 2]> = Vec::new();
    let mut sorted: Vec<_> = bars
        .map(|(from, to)| (from.round(), to.round().max(from.round() + 1.0)))
        .collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (from, to) in sorted {
        match merged.last_mut() {
            Some(last) if from <= last[1] => last[1] = last[1].max(to),
            _ => merged.push([from, to]),
        }
    }
    merged
}

fn caption(trace: &Trace) -> String {
    let vcpus = match trace.vcpus {
        1 => "one vCPU".to_string(),
        count => format!("{count} vCPUs, whose times add up"),
    };
    let alone = trace.counted_by_kvm.map_or(String::new(), |counted| {
        let alone = counted.saturating_sub(trace.exits.len() as u64 + trace.left_out);
        format!(
            " KVM counted {counted} exits of the processor; {alone} of them it settled alone, which is part of the guest's time here."
        )
    });
    let left_out = match trace.left_out {
        0 => String::new(),
        count => format!(" The trace was full before the guest's end: {count} further exits are not drawn."),
    };
    format!(
        "{}, {vcpus}. Times as the VMM saw them, its own bookkeeping included.{left_out}{alone}",
        trace.kernel
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(left_ns: u64, host_ns: u64, device: &str) -> Exit {
        Exit {
            vcpu: 0,
            left_ns,
            guest_ns: 1000,
            host_ns,
            reason: "port write".into(),
            device: Some(device.into()),
        }
    }

    fn trace(exits: Vec<Exit>) -> Trace {
        Trace {
            kernel: "the lab kernel".into(),
            vcpus: 1,
            exits,
            left_out: 0,
            counted_by_kvm: Some(50),
        }
    }

    #[test]
    fn the_title_says_who_took_the_time() {
        let exits = vec![exit(2_000_000, 30_000, "serial"), exit(3_000_000, 10_000, "exit")];
        let (title, _) = sheet(&trace(exits));
        assert_eq!(
            title,
            "The guest left 2 times in 1.01 ms and was out for 40.0 µs; 75% of that is “port write, serial”"
        );
        assert_eq!(sheet(&trace(Vec::new())).0, "The guest never left");
    }

    #[test]
    fn no_text_touches_another_whatever_the_devices_are_called() {
        let many = (0..40).map(|number| {
            exit(
                1_000_000 + number * 70_000,
                500,
                &format!("{}{number}", "device-".repeat(8)),
            )
        });
        for trace in [trace(many.collect()), trace(vec![exit(5000, 1, "serial")])] {
            let (_, canvas) = sheet(&trace);
            let boxes = canvas.text_boxes();
            for (index, ([left, top, right, bottom], text)) in boxes.iter().enumerate() {
                assert!(*left >= 0.0 && *right <= WIDTH, "{text}");
                for ([l, t, r, b], other) in &boxes[index + 1..] {
                    assert!(
                        right <= l || r <= left || bottom <= t || b <= top,
                        "“{text}” touches “{other}”"
                    );
                }
            }
        }
    }

    #[test]
    fn a_long_trace_makes_no_more_bars_than_there_are_pixels() {
        let bars = (0..100_000).map(|number| (number as f64 / 500.0, number as f64 / 500.0));
        assert_eq!(by_pixel(bars), [[0.0, 201.0]]);
        assert_eq!(by_pixel([(5.0, 5.2), (1.0, 2.0)].into_iter()), [[1.0, 2.0], [5.0, 6.0]]);
    }
}
