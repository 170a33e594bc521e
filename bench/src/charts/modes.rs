//! Start-up against what was varied: the number of workers, the number running, the rate.
//!
//! Levels stand at equal distances in the order they were asked for; medians are joined by a line that bears the contender's
//! name at its end, and a thin bar reaches up to the 90th percentile.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::startup::tick_label;
use crate::modes::{LEVEL, MODE, OF, doubt};
use crate::results::{Distribution, Status, Summary};
use crate::words::{self, Difference};

/// Height of one panel's plot.
const HEIGHT: f64 = 220.0;
/// Room for the vertical axis.
const AXIS_ROOM: f64 = 54.0;
/// Room for names at the ends of lines.
const NAMES: f64 = 190.0;
/// Distance of two contenders' dots at the same level.
const ASIDE: f64 = 5.0;
/// Room for what stands against a verdict, beside a panel's heading.
const WARNING: f64 = 420.0;
/// Least distance of two names.
const APART: f64 = 16.0;

/// One contender's line.
struct Line {
    name: String,
    /// The last series on it, by its name in the summary.
    last: String,
    /// Place among the panel's levels, and what was found there.
    points: Vec<(usize, Distribution)>,
}

/// What is varied, its levels, and a line per contender.
type Panel<'a> = (&'a str, (Vec<String>, Vec<Line>));

/// The chart; None when the results hold no such series.
pub(super) fn sheet(summary: &Summary) -> Option<(String, Canvas)> {
    let mut kinds: Vec<&str> = Vec::new();
    for contender in &summary.contenders {
        if let Some(kind) = contender
            .details
            .get(MODE)
            .filter(|_| contender.status == Status::Measured)
            && !kinds.contains(&kind.as_str())
        {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return None;
    }
    let panels: Vec<Panel> = kinds
        .into_iter()
        .map(|kind| (kind, panel_data(summary, kind)))
        .collect();
    let title = title(summary, &panels);
    let how = "Each dot is a median start, from the start line to the first byte; the thin line above it reaches to the 90th \
               percentile. Milliseconds, log scale; lower is faster.";
    let mut canvas = Canvas::titled(&title, how);
    for (kind, (levels, lines)) in &panels {
        panel(&mut canvas, summary, kind, levels, lines);
    }
    Some((title, canvas))
}

fn panel_data(summary: &Summary, kind: &str) -> (Vec<String>, Vec<Line>) {
    let mut levels: Vec<String> = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    for contender in &summary.contenders {
        let detail = |key: &str| contender.details.get(key).map(String::as_str);
        let (Some(found), Some(level), Some(name)) = (contender.startup_ns, detail(LEVEL), detail(OF)) else {
            continue;
        };
        if detail(MODE) != Some(kind) {
            continue;
        }
        let place = levels.iter().position(|known| known == level).unwrap_or_else(|| {
            levels.push(level.into());
            levels.len() - 1
        });
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => {
                line.points.push((place, found));
                line.last.clone_from(&contender.name);
            }
            None => lines.push(Line {
                name: name.into(),
                last: contender.name.clone(),
                points: vec![(place, found)],
            }),
        }
    }
    (levels, lines)
}

fn panel(canvas: &mut Canvas, summary: &Summary, kind: &str, levels: &[String], lines: &[Line]) {
    let top_of = |found: &Distribution| found.p90.unwrap_or(found.p50).max(1);
    let points = || lines.iter().flat_map(|line| &line.points).map(|(_, found)| found);
    let lowest = points().map(|found| found.p50.max(1)).min().unwrap_or(1) as f64 / 1e6;
    let highest = points().map(top_of).max().unwrap_or(1) as f64 / 1e6;
    let (low, high) = layout::log_domain(lowest, highest);
    canvas.heading(&format!("Start-up by {kind}"), (MARGIN, canvas.y + 10.0), LABEL_SIZE);
    if let Some(warning) = warning(summary, kind) {
        let text = layout::shorten(&warning, WARNING, SMALL_SIZE);
        canvas.label(&text, (WIDTH - MARGIN, canvas.y + 10.0), Anchor::End, SMALL_SIZE, INK);
    }
    let (left, right) = (MARGIN + AXIS_ROOM, WIDTH - MARGIN - NAMES);
    let (top, bottom) = (canvas.y + 32.0, canvas.y + 32.0 + HEIGHT);
    // Upwards: larger values at smaller places.
    let height = Scale::log(low, high, bottom, top);
    for tick in layout::log_ticks(low, high, HEIGHT) {
        let y = height.place(tick);
        canvas.draw(Shape::Line(vec![(left, y), (right, y)], FAINT, 1));
        canvas.label(&tick_label(tick), (left - 8.0, y), Anchor::End, SMALL_SIZE, GREY);
    }
    let step = (right - left) / levels.len() as f64;
    let x = |place: usize| left + step * (place as f64 + 0.5);
    for (place, level) in levels.iter().enumerate() {
        let text = layout::shorten(level, step - 6.0, SMALL_SIZE);
        canvas.label(&text, (x(place), bottom + 14.0), Anchor::Middle, SMALL_SIZE, GREY);
    }
    let middle = (left + right) / 2.0;
    canvas.label(
        &format!("{kind}; milliseconds upwards"),
        (middle, bottom + 32.0),
        Anchor::Middle,
        SMALL_SIZE,
        GREY,
    );

    let mut ends = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        // Side by side, so that no thin line hides another.
        let aside = (index as f64 - (lines.len() - 1) as f64 / 2.0) * ASIDE;
        let color = super::color(summary, &line.name);
        let place =
            |(place, found): &(usize, Distribution)| (x(*place) + aside, height.place(found.p50.max(1) as f64 / 1e6));
        let path: Vec<(f64, f64)> = line.points.iter().map(place).collect();
        for ((at, from), (_, found)) in path.iter().zip(&line.points) {
            let to = height.place(top_of(found) as f64 / 1e6);
            canvas.draw(Shape::Line(vec![(*at, *from), (*at, to)], color, 1));
            let p90 = found
                .p90
                .map_or_else(String::new, |p90| format!(", p90 {}", words::duration(p90)));
            canvas.hint(
                [at - 4.0, from - 4.0, at + 4.0, from + 4.0],
                format!(
                    "{}: p50 {}{p90}, n = {}",
                    line.name,
                    words::duration(found.p50),
                    found.n
                ),
            );
            canvas.draw(Shape::Dot((*at, *from), 4.0, color));
        }
        if let (Some(&end), Some((_, found))) = (path.last(), line.points.last()) {
            let name = words::label(&line.name, &summary.provenance);
            let text = format!("{name} {}", words::duration(found.p50));
            ends.push((end, layout::shorten(&text, NAMES - 24.0, SMALL_SIZE), color));
        }
        canvas.draw(Shape::Line(path, color, 2));
    }
    ends.sort_by(|(one, ..), (other, ..)| one.1.total_cmp(&other.1));
    let places = spread(&ends.iter().map(|((_, y), ..)| *y).collect::<Vec<_>>(), APART);
    let lowest = places.last().copied().unwrap_or(bottom);
    for ((end, text, color), y) in ends.into_iter().zip(places) {
        canvas.draw(Shape::Line(vec![end, (right + 4.0, y), (right + 10.0, y)], color, 1));
        canvas.label(&text, (right + 14.0, y), Anchor::Start, SMALL_SIZE, INK);
    }
    canvas.y = (bottom + 46.0).max(lowest + APART);
}

/// Which of the panel's levels cannot be judged.
fn warning(summary: &Summary, kind: &str) -> Option<String> {
    let mut levels: Vec<&str> = Vec::new();
    for found in &summary.comparisons {
        let series = summary.contenders.iter().find(|one| one.name == found.a);
        let Some(details) = series.map(|one| &one.details) else {
            continue;
        };
        if let (Some(mode), Some(level)) = (details.get(MODE), details.get(LEVEL))
            && mode == kind
            && !levels.contains(&level.as_str())
            && doubt(summary, found).is_some()
        {
            levels.push(level);
        }
    }
    (!levels.is_empty()).then(|| format!("no verdict at {}: too few starts, or too noisy", levels.join(", ")))
}

/// Places in ascending order moved down as little as needed to be `apart` from each other.
fn spread(places: &[f64], apart: f64) -> Vec<f64> {
    let mut spread: Vec<f64> = Vec::with_capacity(places.len());
    for &place in places {
        let least = spread.last().map_or(place, |last| last + apart);
        spread.push(place.max(least));
    }
    spread
}

/// How much the last level of the first panel that shows it costs against its first; only what this run can tell.
fn title(summary: &Summary, panels: &[Panel]) -> String {
    let told = |line: &Line| {
        let found = summary.comparisons.iter().find(|found| found.a == line.last)?;
        let apart = words::difference(found) == Difference::Apart && doubt(summary, found).is_none();
        apart.then(|| format!("{} {} times as long", line.name, words::ratio(found.ratio)))
    };
    let sentence = panels.iter().find_map(|(kind, (levels, lines))| {
        let told: Vec<String> = lines.iter().filter_map(told).take(3).collect();
        let (first, last) = (levels.first()?, levels.last()?);
        (!told.is_empty()).then(|| {
            format!(
                "A start at {last} instead of {first} ({kind}) takes {}",
                told.join(", ")
            )
        })
    });
    sentence.unwrap_or_else(|| "No condition here changes a start by more than this run can tell".into())
}

#[cfg(test)]
pub(crate) use tests::example;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    pub fn example(names: &[&str], levels: &[u64]) -> Summary {
        let racers: Vec<examples::Racer> = names.iter().map(|_| ("x", 2_000_000, 0.1)).collect();
        let (mut summary, _) = examples::race(&racers, 12, &[]);
        let blank = summary.contenders[0].clone();
        summary.contenders.clear();
        for (index, name) in names.iter().enumerate() {
            for level in levels {
                let mut one = blank.clone();
                one.name = format!("{name}, {level} workers");
                let p50 = 1_000_000 + level * 300_000 + index as u64 * 1_000;
                one.startup_ns = one.startup_ns.map(|found| Distribution {
                    p50,
                    p90: Some(p50 * 2),
                    ..found
                });
                let level = level.to_string();
                for (key, value) in [(MODE, "number of workers"), (LEVEL, level.as_str()), (OF, *name)] {
                    one.details.insert(key.into(), value.into());
                }
                summary.contenders.push(one);
            }
        }
        summary
    }

    #[test]
    fn names_never_touch_however_close_the_lines() {
        let long = "a-contender-with-a-name-that-is-longer-than-the-sheet-is-wide";
        for names in [
            &["vm"][..],
            &["process", "container", "vm", "crun", "runc", long, "podman", "qemu"],
        ] {
            for levels in [&[1][..], &[1, 2, 4, 8, 16, 32, 64, 128, 256, 1000]] {
                let (title, canvas) = sheet(&example(names, levels)).unwrap();
                super::super::tests::assert_apart("modes", &title, &canvas);
            }
        }
        assert!(sheet(&examples::typical()).is_none(), "a race has no such series");
    }

    #[test]
    fn places_by_hand() {
        assert_eq!(spread(&[10.0, 12.0, 50.0], 16.0), [10.0, 26.0, 50.0]);
        assert_eq!(spread(&[], 16.0), [0.0; 0]);
    }
}
