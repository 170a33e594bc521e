//! The attack surface: how many of the host's system calls are open to whoever stands before them, how many a run made, and
//! where what the workload does to its kernel ended.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::layout::{self, Scale};
use super::{Chart, Error, okabe_ito, study};
use crate::study::results::{Study, Surface, Trial};
use crate::study::surface::trials::{Reach, WHAT};
use crate::words;

/// Height of a row of the upper part, and of a bar in it.
const ROW: f64 = 24.0;
const BAR: f64 = 10.0;
const NAME_ROOM: f64 = 120.0;
const FIGURE_ROOM: f64 = 250.0;
/// Of a cell's text, and the most lines of it.
const TINY: f64 = 11.0;
const LINE: f64 = 14.0;
const LINES: usize = 4;
const RADIUS: f64 = 6.0;
/// Room for what was tried.
const TRIED_ROOM: f64 = 90.0;
/// The sheet, for the inside of a ring.
const SHEET: plotters::style::RGBColor = plotters::style::RGBColor(255, 255, 255);

/// Draws it.
///
/// # Errors
/// See [`Error`].
pub fn draw(found: &Study<Surface>) -> Result<Chart, Error> {
    let (title, canvas) = sheet(found);
    study::finish("surface", title, canvas, found)
}

pub(super) fn sheet(found: &Study<Surface>) -> (String, Canvas) {
    let title = title(found);
    let how = "Above: host system calls that the seccomp filter lets through, of all there are; the pale end by argument; \
               the black dot: different ones made over a run. Of a container the workload's own, of a VM the VMM's. Below: \
               what the workload did, how it ended, and who lived on. Dot: it ended there. Ring: only the lab stood in its way. \
               Cross: others suffered.";
    let mut canvas = Canvas::titled(&title, how);
    let all: Vec<(&str, &Surface)> = found.measured().collect();
    if all.is_empty() {
        canvas.paragraph("No contender could be tried here.", LABEL_SIZE, INK, false);
        return (title, canvas);
    }
    calls(&mut canvas, found, &all);
    matrix(&mut canvas, &all);
    (title, canvas)
}

/// One row for each contender: what its filter lets through, what it made.
fn calls(canvas: &mut Canvas, found: &Study<Surface>, all: &[(&str, &Surface)]) {
    let (left, right) = (MARGIN + NAME_ROOM, WIDTH - MARGIN - FIGURE_ROOM);
    let known = all.iter().map(|(_, surface)| surface.known).max().unwrap_or(1).max(1) as f64;
    let scale = Scale::linear(0.0, known, left, right);
    let bottom = canvas.y + ROW * all.len() as f64;
    for tick in layout::linear_ticks(known, right - left) {
        let x = scale.place(tick);
        canvas.draw(Shape::Line(vec![(x, canvas.y), (x, bottom)], FAINT, 1));
        let text = words::axis_figure(tick);
        canvas.label(&text, (x, bottom + 12.0), Anchor::Middle, SMALL_SIZE, GREY);
    }
    for (name, surface) in all {
        let y = canvas.y + ROW / 2.0;
        let label = layout::shorten(&words::label(name, &found.provenance), NAME_ROOM - 12.0, LABEL_SIZE);
        canvas.label(&label, (left - 8.0, y), Anchor::End, LABEL_SIZE, INK);
        let made = surface.observed.as_ref().map_or_else(String::new, |observed| {
            let each = observed.calls.iter().map(|(call, count)| format!("{call} {count}"));
            format!(
                "; over a run of {}: {}",
                observed.lesson,
                each.collect::<Vec<_>>().join(", ")
            )
        });
        canvas.hint(
            [MARGIN, canvas.y, WIDTH - MARGIN, canvas.y + ROW],
            format!(
                "{name}: the filter of {} lets {} calls through, {} more by argument{made}",
                surface.behind, surface.reachable, surface.depending
            ),
        );
        let (through, argument) = (surface.reachable as f64, surface.depending as f64);
        let bar = |from: f64, to: f64| [scale.place(from), y - BAR / 2.0, scale.place(to), y + BAR / 2.0];
        canvas.draw(Shape::Bar(bar(0.0, through), study::color(name)));
        canvas.draw(Shape::Bar(bar(through, through + argument), okabe_ito::GREY));
        let mut text = match surface.depending {
            0 => format!("{} of {}", surface.reachable, surface.known),
            some => format!("{} (+{some}) of {}", surface.reachable, surface.known),
        };
        if let Some(observed) = &surface.observed {
            let at = (scale.place(observed.distinct() as f64), y);
            canvas.draw(Shape::Dot(at, 5.0, SHEET));
            canvas.draw(Shape::Dot(at, 3.5, okabe_ito::BLACK));
            text += &format!("; made {}", observed.distinct());
        }
        let text = layout::shorten(&text, FIGURE_ROOM - 16.0, SMALL_SIZE);
        canvas.label(&text, (right + 12.0, y), Anchor::Start, SMALL_SIZE, GREY);
        canvas.y += ROW;
    }
    let at = ((left + right) / 2.0, bottom + 28.0);
    canvas.label("host system calls", at, Anchor::Middle, SMALL_SIZE, GREY);
    canvas.y = bottom + 46.0;
}

/// One row for each thing that was tried, one column for each contender.
fn matrix(canvas: &mut Canvas, all: &[(&str, &Surface)]) {
    let left = MARGIN + TRIED_ROOM;
    let width = (WIDTH - MARGIN - left) / all.len() as f64;
    let column = |index: usize| left + width * (index as f64 + 0.5);
    for (index, (name, _)) in all.iter().enumerate() {
        let name = layout::shorten(name, width - 6.0, SMALL_SIZE);
        canvas.label(&name, (column(index), canvas.y + 8.0), Anchor::Middle, SMALL_SIZE, INK);
    }
    canvas.y += 22.0;
    for what in WHAT {
        let cells: Vec<Option<&Trial>> = all
            .iter()
            .map(|(_, surface)| surface.trials.iter().find(|trial| trial.what == what))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let top = canvas.y;
        canvas.draw(Shape::Line(vec![(MARGIN, top), (WIDTH - MARGIN, top)], FAINT, 1));
        canvas.label(tried(what), (MARGIN, top + 12.0), Anchor::Start, SMALL_SIZE, INK);
        let mut lines = 0;
        for (index, trial) in cells.iter().enumerate() {
            let Some(trial) = trial else { continue };
            mark(canvas, trial.reach(), (column(index), top + 12.0));
            let (x, half) = (column(index), width / 2.0);
            let name = all[index].0;
            canvas.hint(
                [x - half, top, x + half, top + 28.0 + LINE],
                format!(
                    "{name}, {} (bound: {}): {}; {}",
                    trial.lesson,
                    trial.bound,
                    trial.ending(),
                    trial.others()
                ),
            );
            let texts = in_words(trial, width - 8.0);
            for (row, text) in texts.iter().enumerate() {
                let at = (column(index), top + 28.0 + LINE * row as f64);
                canvas.label(text, at, Anchor::Middle, TINY, GREY);
            }
            lines = lines.max(texts.len());
        }
        canvas.y = top + 28.0 + LINE * lines as f64;
    }
}

/// What was tried, for a row's name.
fn tried(what: &str) -> &str {
    match what {
        "crash" => "it crashes",
        "panic" => "kernel panic",
        "memory" => "takes memory",
        "forks" => "forks on",
        other => other,
    }
}

/// How it ended and who lived on, in lines that fit.
fn in_words(trial: &Trial, width: f64) -> Vec<String> {
    let measure = |line: &str| layout::text_width(line, TINY);
    let mut lines = words::wrap(&trial.ending(), width, measure);
    lines.extend(words::wrap(&trial.others(), width, measure));
    lines.truncate(LINES);
    lines.iter().map(|line| layout::shorten(line, width, TINY)).collect()
}

fn mark(canvas: &mut Canvas, reach: Reach, (x, y): (f64, f64)) {
    match reach {
        Reach::Contained => canvas.draw(Shape::Dot((x, y), RADIUS, okabe_ito::BLUE)),
        Reach::Unbounded => {
            canvas.draw(Shape::Dot((x, y), RADIUS, okabe_ito::ORANGE));
            canvas.draw(Shape::Dot((x, y), RADIUS - 2.5, SHEET));
        }
        Reach::Spread => {
            let (low, high) = (-RADIUS + 1.0, RADIUS - 1.0);
            for (from, to) in [(low, high), (high, low)] {
                let stroke = vec![(x + low, y + from), (x + high, y + to)];
                canvas.draw(Shape::Line(stroke, okabe_ito::VERMILION, 3));
            }
        }
    }
}

fn title(found: &Study<Surface>) -> String {
    let (Some(vm), Some(container)) = (found.of("vm"), found.of("container")) else {
        return "What of the host can be reached from inside, and who survives what".into();
    };
    let made = |surface: &Surface| {
        surface
            .observed
            .as_ref()
            .map(super::super::study::results::Observed::distinct)
    };
    let made = match (made(vm), made(container)) {
        (Some(vm), Some(container)) => format!("; over a run they made {vm} and {container}"),
        _ => String::new(),
    };
    format!(
        "A VM's launcher may make {} of the host's {} system calls, a container's program {}{made}",
        vm.reachable, vm.known, container.reachable
    )
}
