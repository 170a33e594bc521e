//! Memory against the number of idle instances: a dot for each reading, the line through them, its slope at its end.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::{Chart, Error, study};
use crate::study::results::{Density, Series, Study};
use crate::words;

/// Least height of the field.
const HEIGHT: f64 = 360.0;
/// Room for the labels of the vertical axis, and for those at the lines' ends.
const AXIS_ROOM: f64 = 70.0;
const LABEL_ROOM: f64 = 250.0;
/// Height of one of a label's two lines.
const LINE: f64 = 15.0;
/// Height of both with the gap to the next.
const LABEL: f64 = 2.0 * LINE + 2.0;
const DOT: f64 = 3.5;

/// A line of the chart.
struct Curve<'a> {
    name: String,
    contender: &'a str,
    series: &'a Series,
    merged: bool,
}

/// Draws it.
pub fn draw(found: &Study<Density>) -> Result<Chart, Error> {
    let (title, canvas) = sheet(found);
    study::finish("density", title, canvas, found)
}

pub(super) fn sheet(found: &Study<Density>) -> (String, Canvas) {
    let title = title(found);
    let how = "Memory charged to the instances' cgroup, user pages and kernel memory, while all of them idle; dots are \
               readings, lines least squares through one instance and more. The label: bytes for each further \
               instance, with its 95% interval.";
    let mut canvas = Canvas::titled(&title, how);
    let curves: Vec<Curve> = curves(found);
    let points = || curves.iter().flat_map(|curve| &curve.series.points);
    let most = points().filter_map(|point| point.charged_bytes).max().unwrap_or(0) as f64;
    let size = points().map(|point| point.instances).max().unwrap_or(0) as f64;
    if most == 0.0 || size == 0.0 {
        canvas.paragraph("No contender was charged anything here.", LABEL_SIZE, INK, false);
        return (title, canvas);
    }
    // Tall enough for a label for each line.
    let height = HEIGHT.max(LABEL * curves.len() as f64 + LINE);
    let (left, right) = (MARGIN + AXIS_ROOM, WIDTH - MARGIN - LABEL_ROOM);
    let (top, bottom) = (canvas.y + 8.0, canvas.y + 8.0 + height);
    let across = Scale::linear(0.0, size, left, right);
    let up = Scale::linear(0.0, most * 1.04, bottom, top);
    axes(&mut canvas, &across, &up, (left, right), (size, most));

    let mut labels = Vec::new();
    for curve in &curves {
        let color = study::color(curve.contender);
        let place = |instances: f64, bytes: f64| (across.place(instances), up.place(bytes));
        let last = curve.series.points.last().map_or(0, |point| point.instances) as f64;
        let mut end = 0.0;
        if let Some(line) = curve.series.charged {
            end = line.intercept_bytes + line.bytes * last;
            let points = vec![place(1.0, line.intercept_bytes + line.bytes), place(last, end)];
            canvas.draw(Shape::Line(points, color, if curve.merged { 1 } else { 2 }));
        }
        for point in &curve.series.points {
            let Some(bytes) = point.charged_bytes else { continue };
            let radius = if curve.merged { DOT - 1.0 } else { DOT };
            let (x, y) = place(point.instances as f64, bytes as f64);
            canvas.hint(
                [x - radius, y - radius, x + radius, y + radius],
                format!(
                    "{}: {} idle, {} charged",
                    curve.name,
                    point.instances,
                    words::bytes(bytes)
                ),
            );
            canvas.draw(Shape::Dot((x, y), radius, color));
            end = if curve.series.charged.is_none() {
                bytes as f64
            } else {
                end
            };
        }
        let slope = curve.series.charged.map_or("no slope".into(), |line| {
            format!("{} each", words::bytes_with_interval(line.bytes, line.ci95))
        });
        labels.push((up.place(end), curve.name.clone(), slope, color));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Down from the highest label, each as near its line as those above it allow; then up again from the lowest.
    let mut rows: Vec<f64> = Vec::new();
    for (y, ..) in &labels {
        let free = rows.last().map_or(top, |above| above + LABEL);
        rows.push(y.max(free));
    }
    let mut free = bottom - LINE;
    for row in rows.iter_mut().rev() {
        *row = row.min(free);
        free = *row - LABEL;
    }
    for ((_, name, slope, color), y) in labels.iter().zip(rows) {
        canvas.draw(Shape::Bar([right + 8.0, y - 5.0, right + 14.0, y + 5.0], *color));
        for (text, y, color) in [(name, y, INK), (slope, y + LINE, GREY)] {
            let text = layout::shorten(text, LABEL_ROOM - 20.0, SMALL_SIZE);
            canvas.label(&text, (right + 18.0, y), Anchor::Start, SMALL_SIZE, color);
        }
    }
    canvas.y = bottom + 44.0;
    (title, canvas)
}

fn curves(found: &Study<Density>) -> Vec<Curve<'_>> {
    let mut curves = Vec::new();
    for (contender, density) in found.measured() {
        let name = words::label(contender, &found.provenance);
        let merged = density.merged.as_ref();
        let kinds = [
            (name.clone(), Some(&density.apart), false),
            (format!("{name}, KSM"), merged, true),
        ];
        curves.extend(kinds.into_iter().filter_map(|(name, series, merged)| {
            Some(Curve {
                name,
                contender,
                series: series?,
                merged,
            })
        }));
    }
    curves
}

fn axes(canvas: &mut Canvas, across: &Scale, up: &Scale, (left, right): (f64, f64), (size, most): (f64, f64)) {
    const MIB: f64 = 1_048_576.0;
    let (top, bottom) = (up.place(most * 1.04), up.place(0.0));
    for tick in layout::linear_ticks(most / MIB, HEIGHT) {
        let y = up.place(tick * MIB);
        canvas.draw(Shape::Line(vec![(left, y), (right, y)], FAINT, 1));
        canvas.label(
            &words::axis_figure(tick),
            (left - 8.0, y),
            Anchor::End,
            SMALL_SIZE,
            GREY,
        );
    }
    for tick in layout::linear_ticks(size, right - left)
        .into_iter()
        .filter(|tick| tick.fract() == 0.0)
    {
        let x = across.place(tick);
        canvas.draw(Shape::Line(vec![(x, bottom), (x, bottom + 4.0)], GREY, 1));
        canvas.label(
            &words::axis_figure(tick),
            (x, bottom + 14.0),
            Anchor::Middle,
            SMALL_SIZE,
            GREY,
        );
    }
    canvas.label("MiB", (MARGIN, top), Anchor::Start, SMALL_SIZE, GREY);
    canvas.label(
        "idle instances",
        ((left + right) / 2.0, bottom + 32.0),
        Anchor::Middle,
        SMALL_SIZE,
        GREY,
    );
    canvas.draw(Shape::Line(vec![(left, top), (left, bottom), (right, bottom)], GREY, 1));
}

fn title(found: &Study<Density>) -> String {
    let slope = |name: &str| {
        let bytes = found.of(name)?.apart.charged?.bytes;
        (bytes > 0.0).then_some(bytes)
    };
    let size = |bytes: f64| words::bytes(bytes.round() as u64);
    match (slope("vm"), slope("container")) {
        (Some(vm), Some(container)) => {
            format!(
                "One more idle VM takes {}, one more container {}",
                size(vm),
                size(container)
            )
        }
        (Some(vm), None) => format!("One more idle VM takes {}", size(vm)),
        (None, Some(container)) => format!("One more idle container takes {}", size(container)),
        (None, None) => "Memory against the number of idle instances".into(),
    }
}
