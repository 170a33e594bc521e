//! The isolation matrix: what of each contender's world is its own. A filled dot: its own. A ring: the host's.

use super::canvas::{Anchor, Canvas, FAINT, GREY, INK, LABEL_SIZE, MARGIN, SMALL_SIZE, Shape, WIDTH};
use super::{Chart, Error, layout, okabe_ito, study};
use crate::study::results::{Aspect, Identity, Study};
use crate::words;

const ROW: f64 = 34.0;
/// Size and height of a line of what the program saw.
const TINY: f64 = 10.0;
const TINY_LINE: f64 = 12.0;
/// What does not fit into so many of them is cut; the hint has all of it.
const LINES: usize = 3;
const NAME_ROOM: f64 = 100.0;
const RADIUS: f64 = 6.0;
/// The sheet, for the inside of a ring.
const SHEET: plotters::style::RGBColor = plotters::style::RGBColor(255, 255, 255);

/// Draws it.
pub fn draw(found: &Study<Identity>) -> Result<Chart, Error> {
    let (title, canvas) = sheet(found);
    study::finish("isolation", title, canvas, found)
}

pub(super) fn sheet(found: &Study<Identity>) -> (String, Canvas) {
    let title = title(found);
    let how = "Filled dot: its own. Ring: the host's, as every program there sees it. Dash: nothing inside tells. Below: \
               what the program saw.";
    let mut canvas = Canvas::titled(&title, how);
    let identities: Vec<(&str, &Identity)> = found.measured().collect();
    let Some((_, first)) = identities.first() else {
        canvas.paragraph("No contender could be asked here.", LABEL_SIZE, INK, false);
        return (title, canvas);
    };
    let left = MARGIN + NAME_ROOM;
    let width = (WIDTH - MARGIN - left) / identities.len() as f64;
    let column = |index: usize| left + width * (index as f64 + 0.5);
    for (index, (name, _)) in identities.iter().enumerate() {
        let name = layout::shorten(name, width - 6.0, SMALL_SIZE);
        canvas.label(&name, (column(index), canvas.y + 8.0), Anchor::Middle, SMALL_SIZE, INK);
    }
    canvas.y += 22.0;
    for (row, aspect) in first.aspects.iter().enumerate() {
        let cells = identities.iter().filter_map(|(_, identity)| identity.aspects.get(row));
        let lines = cells
            .map(|aspect| lines(&aspect.inside, width).len())
            .max()
            .unwrap_or(1);
        let height = ROW + TINY_LINE * lines.saturating_sub(1) as f64;
        let (top, y) = (canvas.y, canvas.y + 10.0);
        canvas.draw(Shape::Line(vec![(MARGIN, top), (WIDTH - MARGIN, top)], FAINT, 1));
        let name = layout::shorten(&aspect.name, NAME_ROOM - 6.0, LABEL_SIZE);
        canvas.label(&name, (MARGIN, y), Anchor::Start, LABEL_SIZE, INK);
        for (index, (contender, identity)) in identities.iter().enumerate() {
            let Some(aspect) = identity.aspects.get(row) else {
                continue;
            };
            let whose = match aspect.shared {
                Some(false) => "its own",
                Some(true) => "the host's",
                None => "nothing tells whose",
            };
            let (x, half) = (column(index), width / 2.0);
            canvas.hint(
                [x - half, top, x + half, top + height],
                format!("{contender}, {}: {whose}: {}", aspect.name, aspect.inside),
            );
            cell(&mut canvas, aspect, (x, y), width);
        }
        canvas.y += height;
    }
    (title, canvas)
}

fn cell(canvas: &mut Canvas, aspect: &Aspect, (x, y): (f64, f64), width: f64) {
    match aspect.shared {
        Some(false) => canvas.draw(Shape::Dot((x, y), RADIUS, okabe_ito::BLUE)),
        Some(true) => {
            canvas.draw(Shape::Dot((x, y), RADIUS, okabe_ito::VERMILION));
            canvas.draw(Shape::Dot((x, y), RADIUS - 2.0, SHEET));
        }
        None => canvas.draw(Shape::Line(vec![(x - RADIUS, y), (x + RADIUS, y)], GREY, 2)),
    }
    for (index, line) in lines(&aspect.inside, width).iter().enumerate() {
        let y = y + 15.0 + TINY_LINE * index as f64;
        canvas.label(line, (x, y), Anchor::Middle, TINY, GREY);
    }
}

/// The text of a cell.
fn lines(text: &str, width: f64) -> Vec<String> {
    let room = width - 4.0;
    let mut lines = words::wrap(text, room, |line| layout::text_width(line, TINY));
    if lines.len() > LINES {
        lines.truncate(LINES);
        if let Some(last) = lines.last_mut() {
            *last = layout::shorten(&format!("{last} …"), room, TINY);
        }
    }
    lines
}

fn title(found: &Study<Identity>) -> String {
    let own = |name: &str| {
        let aspects = &found.of(name)?.aspects;
        Some((
            aspects.iter().filter(|aspect| aspect.shared == Some(false)).count(),
            aspects.len(),
        ))
    };
    match (own("vm"), own("container")) {
        (Some((vm, of)), Some((container, _))) => {
            format!("Of {of} things a program can see, a VM's are its own in {vm}, a container's in {container}")
        }
        _ => "What of a program's world is its own".into(),
    }
}
