//! The start-up chart: for every moment, the share of starts that were over by then (an empirical distribution
//! function). Every sample is a step in it: nothing is averaged, binned or left out.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use crate::results::{Contender, Purpose, Sample, Summary};
use crate::verdict;
use crate::words::{self, Difference};

/// Height of the plot in pixels.
const HEIGHT: f64 = 280.0;
/// Room for the labels of the vertical axis.
const AXIS_ROOM: f64 = 44.0;
/// Height of one row of flags.
const FLAG: f64 = 20.0;
/// From a flag's pole to its text.
const FLAG_GAP: f64 = 6.0;

/// One contender's curve.
struct Curve<'a> {
    contender: &'a Contender,
    /// Its timed starts in milliseconds, sorted.
    times: Vec<f64>,
    p50: f64,
    flag: String,
}

/// How the horizontal axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// Equal ratios are equal distances: the one contenders from 0.3 to 300 ms are all seen on.
    Log,
    /// Equal times are equal distances, from 0: what a log axis makes look alike is as far apart as it is.
    Linear,
}

/// Where the plot lies on its sheet, and what its ends stand for, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    left: f64,
    right: f64,
    low: f64,
    high: f64,
}

pub(super) fn sheet(summary: &Summary, samples: &[Sample]) -> (String, Canvas) {
    let (title, canvas, _) = sheet_on(summary, samples, Axis::Log);
    (title, canvas)
}

/// What a program needs to read values off the chart: the place of the plot and each curve's percentiles, as JSON.
pub(super) fn values(summary: &Summary, samples: &[Sample], axis: Axis, place: Place) -> serde_json::Value {
    let curves: Vec<serde_json::Value> = curves(summary, samples)
        .iter()
        .map(|curve| {
            let at = |percent: u32| crate::stats::percentile::percentile(&curve.times, f64::from(percent) / 100.0);
            // A microsecond is finer than any pixel.
            let quantiles: Vec<f64> = (0..=100).filter_map(at).map(|ms| (ms * 1e3).round() / 1e3).collect();
            serde_json::json!({ "name": curve.contender.name, "quantiles": quantiles })
        })
        .collect();
    serde_json::json!({
        "left": place.left, "right": place.right, "low": place.low, "high": place.high,
        "log": axis == Axis::Log, "curves": curves,
    })
}

pub(super) fn sheet_on(summary: &Summary, samples: &[Sample], axis: Axis) -> (String, Canvas, Option<Place>) {
    let curves = curves(summary, samples);
    let title = title(summary, &curves);
    let how = "Height: share of starts whose first byte of output had arrived by then. Each flag stands on the median. \
               Further left is faster; every step is one run.";
    let mut canvas = Canvas::titled(&title, how);
    let ends = curves
        .iter()
        .flat_map(|curve| [curve.times.first(), curve.times.last()])
        .flatten();
    let ends = ends.fold(None, |range: Option<(f64, f64)>, end| {
        Some(range.map_or((*end, *end), |(low, high)| (low.min(*end), high.max(*end))))
    });
    let Some((low, high)) = ends else {
        canvas.paragraph("There is no timed run to show.", LABEL_SIZE, INK, false);
        return (title, canvas, None);
    };
    let domain = match axis {
        Axis::Log => layout::log_domain(low, high),
        Axis::Linear => (0.0, high * 1.05),
    };
    let place = plot(&mut canvas, summary, &curves, axis, domain);
    (title, canvas, Some(place))
}

/// The curves in the order of their medians.
fn curves<'a>(summary: &'a Summary, samples: &[Sample]) -> Vec<Curve<'a>> {
    let mut curves: Vec<Curve> = summary
        .contenders
        .iter()
        .filter_map(|contender| {
            let mut times: Vec<u64> = samples
                .iter()
                .filter(|sample| sample.contender == contender.name && sample.purpose == Purpose::Timed)
                .filter_map(|sample| sample.first_byte_ns?.checked_sub(sample.start_ns))
                // A log axis has no zero; no start takes less than a nanosecond.
                .map(|ns| ns.max(1))
                .collect();
            times.sort_unstable();
            let p50 = crate::stats::percentile::percentile(&times, 0.5)?;
            let name = words::label(&contender.name, &summary.provenance);
            let flag = format!(
                "{} {}",
                layout::shorten(&name, 220.0, LABEL_SIZE),
                words::duration(p50.round() as u64)
            );
            let times = times.into_iter().map(|ns| ns as f64 / 1e6).collect();
            Some(Curve {
                contender,
                times,
                p50: p50 / 1e6,
                flag,
            })
        })
        .collect();
    curves.sort_by(|one, other| one.p50.total_cmp(&other.p50));
    curves
}

fn title(summary: &Summary, curves: &[Curve]) -> String {
    let found = |name: &str| curves.iter().find(|curve| curve.contender.name == name);
    let shown = |curve: &Curve| words::duration((curve.p50 * 1e6).round() as u64);
    if let (Some(vm), Some(container)) = (found("vm"), found("container")) {
        let ratio = words::comparison(summary, "vm", "container").map_or_else(String::new, |found| {
            match words::difference(&found) {
                Difference::Apart => format!(": {} times as long", words::ratio(found.ratio)),
                Difference::Alike => ": equally fast".to_string(),
                Difference::Unknown => "; this run cannot tell them apart".to_string(),
            }
        });
        // What the verdict may not say, the title may not either.
        let ratio = match verdict::obstacle(summary) {
            Some(_) => "; this run gives no verdict".to_string(),
            None => ratio,
        };
        return format!(
            "A VM has started after {}, a container after {} (medians){ratio}",
            shown(vm),
            shown(container)
        );
    }
    match curves {
        [] => "No contender could be started here".to_string(),
        [only] => format!(
            "{} has started after {} (median)",
            words::spoken(&only.contender.name),
            shown(only)
        ),
        [first, .., last] => format!(
            "{} has started after {}, {} after {} (medians)",
            words::spoken(&first.contender.name),
            shown(first),
            words::spoken_within(&last.contender.name),
            shown(last)
        ),
    }
}

fn plot(canvas: &mut Canvas, summary: &Summary, curves: &[Curve], axis: Axis, (low, high): (f64, f64)) -> Place {
    let along = |right: f64| match axis {
        Axis::Log => Scale::log(low, high, MARGIN + AXIS_ROOM, right),
        Axis::Linear => Scale::linear(low, high, MARGIN + AXIS_ROOM, right),
    };
    let lengths: Vec<f64> = curves
        .iter()
        .map(|curve| layout::text_width(&curve.flag, LABEL_SIZE) + 2.0 * FLAG_GAP)
        .collect();
    let left = MARGIN + AXIS_ROOM;
    let reach = |scale: &Scale| {
        let ends = curves
            .iter()
            .zip(&lengths)
            .map(|(curve, length)| scale.place(curve.p50) + length);
        ends.fold(0.0, f64::max)
    };
    // When a flag would leave the sheet, the plot makes room for the longest one at its right.
    let mut right = WIDTH - MARGIN - 10.0;
    if reach(&along(right)) > WIDTH - MARGIN {
        right = WIDTH - MARGIN - lengths.iter().copied().fold(0.0, f64::max);
    }
    let scale = along(right);

    let flags: Vec<(f64, f64)> = curves
        .iter()
        .zip(&lengths)
        .map(|(curve, length)| (scale.place(curve.p50), *length))
        .collect();
    let rows = layout::flag_rows(&flags);
    let top = canvas.y + FLAG * (rows.iter().max().map_or(0, |row| row + 1) as f64) + 4.0;
    let bottom = top + HEIGHT;
    axes(canvas, &scale, axis, (low, high), [left, top, right, bottom]);

    let height = |share: f64| bottom - share * HEIGHT;
    for (curve, ((pole, _), row)) in curves.iter().zip(flags.iter().zip(rows)) {
        let color = super::color(summary, &curve.contender.name);
        let y = top - 4.0 - FLAG * (row as f64 + 0.5);
        canvas.draw(Shape::Line(
            vec![(*pole, height(0.5)), (*pole, y - FLAG * 0.35)],
            color,
            1,
        ));
        canvas.draw(Shape::Line(steps(curve, &scale, height, right), color, 2));
        canvas.draw(Shape::Dot((*pole, height(0.5)), 4.0, color));
        canvas.draw(Shape::Bar([*pole, y - FLAG * 0.35, pole + 4.0, y + FLAG * 0.35], color));
        canvas.label(&curve.flag, (pole + FLAG_GAP + 2.0, y), Anchor::Start, LABEL_SIZE, INK);
    }
    canvas.y = bottom + 44.0;
    guess(canvas, summary, curves, &scale, (low, high), [top, bottom]);
    Place { left, right, low, high }
}

/// What the reader guessed before the race: a dashed line where the VM's median would stand.
fn guess(
    canvas: &mut Canvas,
    summary: &Summary,
    curves: &[Curve],
    scale: &Scale,
    (low, high): (f64, f64),
    [top, bottom]: [f64; 2],
) {
    let (Some(guess), Some(container)) = (
        summary.provenance.prediction,
        curves.iter().find(|curve| curve.contender.name == "container"),
    ) else {
        return;
    };
    let guessed = guess * container.p50;
    let text = format!(
        "The guess before the race: a VM takes {} times as long as a container, {}",
        words::ratio(guess),
        words::duration((guessed * 1e6).round() as u64)
    );
    if (low..=high).contains(&guessed) {
        const DASH: f64 = 6.0;
        let x = scale.place(guessed);
        let mut y = top;
        while y < bottom {
            canvas.draw(Shape::Line(vec![(x, y), (x, (y + DASH).min(bottom))], INK, 2));
            y += 2.0 * DASH;
        }
        canvas.paragraph(&format!("{text} (dashed line)."), LABEL_SIZE, INK, false);
    } else {
        canvas.paragraph(&format!("{text}: outside this chart."), LABEL_SIZE, INK, false);
    }
}

/// The staircase of one contender: up by 1/n at each of its times.
fn steps(curve: &Curve, scale: &Scale, height: impl Fn(f64) -> f64, right: f64) -> Vec<(f64, f64)> {
    let n = curve.times.len() as f64;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (index, time) in curve.times.iter().enumerate() {
        let x = scale.place(*time);
        let above = height((index + 1) as f64 / n);
        // Steps within one pixel are one step to the eye: a hundred thousand samples need no more points than the plot
        // has columns, and look the same.
        match points.last_mut() {
            Some(last) if index > 0 && last.0.round() == x.round() => last.1 = above,
            _ => {
                points.push((x, height(index as f64 / n)));
                points.push((x, above));
            }
        }
    }
    // All starts are over, and stay so: a short run-out shows that the curve ends at 100%.
    if let Some((x, y)) = points.last().copied() {
        points.push(((x + 12.0).min(right), y));
    }
    points
}

fn axes(canvas: &mut Canvas, scale: &Scale, axis: Axis, (low, high): (f64, f64), [left, top, right, bottom]: [f64; 4]) {
    for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
        let y = bottom - percent / 100.0 * (bottom - top);
        canvas.draw(Shape::Line(vec![(left, y), (right, y)], FAINT, 1));
        canvas.label(&format!("{percent}%"), (left - 8.0, y), Anchor::End, SMALL_SIZE, GREY);
    }
    let (ticks, name) = match axis {
        Axis::Log => (
            layout::log_ticks(low, high, right - left),
            "milliseconds from the start line, log scale",
        ),
        Axis::Linear => (
            layout::linear_ticks(high, right - left),
            "milliseconds from the start line",
        ),
    };
    for tick in ticks {
        let x = scale.place(tick);
        canvas.draw(Shape::Line(vec![(x, top), (x, bottom)], FAINT, 1));
        canvas.draw(Shape::Line(vec![(x, bottom), (x, bottom + 5.0)], GREY, 1));
        canvas.label(&tick_label(tick), (x, bottom + 14.0), Anchor::Middle, SMALL_SIZE, GREY);
    }
    canvas.label(
        name,
        ((left + right) / 2.0, bottom + 32.0),
        Anchor::Middle,
        SMALL_SIZE,
        GREY,
    );
}

/// A round number without the zeros that `0.1 + 0.2` leaves behind.
pub(super) fn tick_label(tick: f64) -> String {
    let text = words::significant(tick, 3);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        text
    }
}
