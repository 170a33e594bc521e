//! Running cost: for each lesson, each contender's time over the plain process's, with its interval, on a log axis.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::{Chart, Error, study};
use crate::study::cost::text::each;
use crate::study::cost::{doubt, unit};
use crate::study::results::{Cost, LessonCost, Study};
use crate::words;

const ROW: f64 = 22.0;
const NAME_ROOM: f64 = 150.0;
const FIGURE_ROOM: f64 = 240.0;
const DOT: f64 = 4.5;

/// Draws it.
pub fn draw(found: &Study<Cost>) -> Result<Chart, Error> {
    let (title, canvas) = sheet(found);
    study::finish("cost", title, canvas, found)
}

pub(super) fn sheet(found: &Study<Cost>) -> (String, Canvas) {
    let title = title(found);
    let how = "Time for the same work inside, by the program's own clock, over the plain process's: ratio of medians and \
               its 95% interval, log axis. At the right: what one operation takes, and how often it leaves the guest.";
    let mut canvas = Canvas::titled(&title, how);
    let compared = || {
        let all = found
            .measured()
            .flat_map(|(name, cost)| cost.lessons.iter().map(move |lesson| (name, lesson)));
        all.filter_map(|(name, lesson)| Some((name, lesson, usable(lesson)?)))
    };
    let ends = compared().flat_map(|(_, _, [low, _, high])| [low, high]);
    let (low, high) = ends.fold((1.0, 1.0), |(low, high): (f64, f64), end| (low.min(end), high.max(end)));
    let mut lessons: Vec<&str> = Vec::new();
    for (_, lesson, _) in compared() {
        if !lessons.contains(&lesson.lesson.as_str()) {
            lessons.push(&lesson.lesson);
        }
    }
    if lessons.is_empty() {
        canvas.paragraph("Nobody but the plain process worked here.", LABEL_SIZE, INK, false);
        return (title, canvas);
    }
    let (low, high) = layout::log_domain(low, high);
    let (left, right) = (MARGIN + NAME_ROOM, WIDTH - MARGIN - FIGURE_ROOM);
    let scale = Scale::log(low, high, left, right);
    let top = canvas.y;
    let mut rules = Vec::new();
    for lesson in lessons {
        canvas.heading(lesson, (MARGIN, canvas.y + ROW / 2.0), LABEL_SIZE);
        let doubted = doubt(found, lesson).is_some();
        if doubted {
            let at = (right + 12.0, canvas.y + ROW / 2.0);
            canvas.label(
                "too few runs, or too noisy: no verdict",
                at,
                Anchor::Start,
                SMALL_SIZE,
                INK,
            );
        }
        canvas.y += ROW;
        for (name, entry, [low, ratio, high]) in compared().filter(|(_, entry, _)| entry.lesson == lesson) {
            let y = canvas.y + ROW / 2.0;
            let label = words::label(name, &found.provenance);
            let label = layout::shorten(&label, NAME_ROOM - 20.0, LABEL_SIZE);
            canvas.label(&label, (left - 10.0, y), Anchor::End, LABEL_SIZE, INK);
            let color = study::color(name);
            let interval = match doubted {
                true => String::new(),
                false => format!(" (95% {} to {})", words::ratio(low), words::ratio(high)),
            };
            let said = figure(entry, (!doubted).then_some(ratio));
            canvas.hint(
                [MARGIN, canvas.y, WIDTH - MARGIN, canvas.y + ROW],
                format!("{name}, {}: {said}{interval}", entry.lesson),
            );
            rules.push(Shape::Line(
                vec![(scale.place(low), y), (scale.place(high), y)],
                color,
                2,
            ));
            rules.push(Shape::Dot((scale.place(ratio), y), DOT, color));
            canvas.label(&said, (right + 12.0, y), Anchor::Start, SMALL_SIZE, GREY);
            canvas.y += ROW;
        }
    }
    let bottom = canvas.y;
    for tick in layout::log_ticks(low, high, right - left) {
        let x = scale.place(tick);
        canvas.draw(Shape::Line(vec![(x, top + ROW), (x, bottom)], FAINT, 1));
        canvas.label(
            &words::axis_figure(tick),
            (x, bottom + 12.0),
            Anchor::Middle,
            SMALL_SIZE,
            GREY,
        );
    }
    let one = scale.place(1.0);
    canvas.draw(Shape::Line(vec![(one, top + ROW), (one, bottom)], GREY, 1));
    for shape in rules {
        canvas.draw(shape);
    }
    canvas.label(
        "times the plain process's time",
        ((left + right) / 2.0, bottom + 30.0),
        Anchor::Middle,
        SMALL_SIZE,
        GREY,
    );
    canvas.y = bottom + 42.0;
    (title, canvas)
}

/// Low end, ratio and high end, where all are figures a log axis can show.
fn usable(lesson: &LessonCost) -> Option<[f64; 3]> {
    let found = lesson.relative.as_ref()?;
    let all = [found.ci95[0], found.ratio, found.ci95[1]];
    all.iter()
        .all(|figure| figure.is_finite() && *figure > 0.0)
        .then_some(all)
}

/// Without a ratio where there is no verdict.
fn figure(entry: &LessonCost, ratio: Option<f64>) -> String {
    let exits = entry
        .exits_per_operation
        .map(|exits| format!(", {} exits", words::significant(exits, 2)));
    let ratio = ratio.map(|ratio| format!("× {}: ", words::ratio(ratio)));
    format!(
        "{}{}/{}{}",
        ratio.unwrap_or_default(),
        each(entry),
        unit(&entry.lesson),
        exits.unwrap_or_default()
    )
}

fn title(found: &Study<Cost>) -> String {
    let relative = |lesson: &str| {
        let cost = found.of("vm")?;
        let entry = cost
            .lessons
            .iter()
            .find(|entry| entry.lesson.split(' ').next() == Some(lesson))?;
        usable(entry)
            .filter(|_| doubt(found, &entry.lesson).is_none())
            .map(|[_, ratio, _]| words::ratio(ratio))
    };
    match (relative("cpu"), relative("syscalls")) {
        (Some(cpu), Some(calls)) => {
            format!("In a VM here a computation takes {cpu} times as long as outside, a system call {calls} times")
        }
        (None, Some(calls)) => format!("In a VM here a system call takes {calls} times as long as outside"),
        _ => "What work costs inside, relative to a plain process".into(),
    }
}
