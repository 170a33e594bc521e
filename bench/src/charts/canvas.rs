//! A sheet to draw on: shapes are collected, then written as one SVG.
//!
//! Collecting first lets a chart grow as tall as its content, and lets a test ask whether any two texts touch.

use plotters::prelude::{
    Circle, Color, EmptyElement, IntoDrawingArea, IntoTextStyle, PathElement, RGBColor, Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, ShapeStyle};

use serde::Serialize;

use super::{Error, layout};
use crate::words;

/// Width of every chart in pixels: legible in a page of text, and the whole of a small window.
pub const WIDTH: f64 = 800.0;
/// Distance of text and figures from the edge of the sheet, in pixels.
pub const MARGIN: f64 = 20.0;

/// Text, and lines that carry meaning.
pub const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Text of second rank. 5.7:1 against the white sheet, above the 4.5:1 WCAG 2 asks for.
pub const GREY: RGBColor = RGBColor(0x66, 0x66, 0x66);
/// Grid lines: there to be read along, not to be seen.
pub const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// The sheet is white on any page, dark ones too: the colours were chosen against white.
const WHITE: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// No font is shipped: the reader's own, whichever comes first.
const FONTS: &str = "Helvetica, Arial, sans-serif";

/// Size of a chart's title.
const TITLE_SIZE: f64 = 17.0;
/// Size of labels.
pub const LABEL_SIZE: f64 = 13.0;
/// Size of captions and of text of second rank.
pub const SMALL_SIZE: f64 = 12.0;
/// Plotters divides a font's size by this before it writes it to an SVG.
const PLOTTERS_FONT_SCALE: f64 = 1.24;

/// Which point of a text stands at the place given. Vertically it is always the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// Something drawn. Places are pixels from the upper left corner.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A filled rectangle: left, top, right, bottom.
    Bar([f64; 4], RGBColor),
    /// A line through points, this many pixels thick.
    Line(Vec<(f64, f64)>, RGBColor, u32),
    /// A filled circle: centre and radius.
    Dot((f64, f64), f64, RGBColor),
    /// A text.
    Text {
        /// What it says.
        text: String,
        /// Where its anchor stands.
        at: (f64, f64),
        /// Which point of it that is.
        anchor: Anchor,
        /// Height in pixels.
        size: f64,
        /// Its colour.
        color: RGBColor,
        /// Whether it is bold.
        bold: bool,
    },
}

/// What a reader who points at a part of the chart is told: left, top, right, bottom of that part, and the words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hint(pub [f64; 4], pub String);

/// The sheet.
#[derive(Debug, Default)]
pub struct Canvas {
    shapes: Vec<Shape>,
    hints: Vec<Hint>,
    /// Where the next line of running text begins, in pixels from the top.
    pub y: f64,
}

impl Canvas {
    /// An empty sheet with the chart's title, a sentence, and a line that says how to read it.
    pub fn titled(title: &str, how_to_read: &str) -> Canvas {
        let mut canvas = Canvas {
            y: MARGIN,
            ..Canvas::default()
        };
        canvas.paragraph(title, TITLE_SIZE, INK, true);
        canvas.paragraph(how_to_read, SMALL_SIZE, GREY, false);
        canvas.y += 8.0;
        canvas
    }

    /// Adds a shape.
    pub fn draw(&mut self, shape: Shape) {
        self.shapes.push(shape);
    }

    /// Adds what a part of the chart says when it is pointed at. It is no part of the picture: a page may use it.
    pub fn hint(&mut self, part: [f64; 4], says: String) {
        self.hints.push(Hint(part.map(f64::round), says));
    }

    /// All hints, in the order they were added.
    pub fn take_hints(&mut self) -> Vec<Hint> {
        std::mem::take(&mut self.hints)
    }

    /// Adds a label.
    pub fn label(&mut self, text: &str, at: (f64, f64), anchor: Anchor, size: f64, color: RGBColor) {
        self.draw(Shape::Text {
            text: text.to_string(),
            at,
            anchor,
            size,
            color,
            bold: false,
        });
    }

    /// Adds a bold label in ink that begins at a place.
    pub fn heading(&mut self, text: &str, at: (f64, f64), size: f64) {
        let text = text.to_string();
        self.draw(Shape::Text {
            text,
            at,
            anchor: Anchor::Start,
            size,
            color: INK,
            bold: true,
        });
    }

    /// Adds running text below what is there, as wide as the sheet.
    pub fn paragraph(&mut self, text: &str, size: f64, color: RGBColor, bold: bool) {
        let measure = |line: &str| layout::text_width(line, size) * if bold { layout::BOLD } else { 1.0 };
        for text in words::wrap(text, WIDTH - 2.0 * MARGIN, measure) {
            let line = size * 1.4;
            let at = (MARGIN, self.y + line / 2.0);
            self.draw(Shape::Text {
                text,
                at,
                anchor: Anchor::Start,
                size,
                color,
                bold,
            });
            self.y += line;
        }
    }

    /// Words one behind the other from `left`, each behind a square of its colour if it has one, in as many lines as it
    /// takes.
    pub fn legend(&mut self, texts: &[(String, Option<RGBColor>)], left: f64) {
        const LINE: f64 = 17.0;
        const SWATCH: f64 = 14.0;
        let (mut x, mut y) = (left, self.y + LINE / 2.0);
        for (text, color) in texts {
            let swatch = if color.is_some() { SWATCH } else { 0.0 };
            let text = layout::shorten(text, WIDTH - MARGIN - left - swatch, SMALL_SIZE);
            let width = layout::text_width(&text, SMALL_SIZE);
            if x > left && x + swatch + width > WIDTH - MARGIN {
                (x, y) = (left, y + LINE);
            }
            if let Some(color) = *color {
                self.draw(Shape::Bar([x, y - 5.0, x + 10.0, y + 5.0], color));
            }
            self.label(&text, (x + swatch, y), Anchor::Start, SMALL_SIZE, GREY);
            x += swatch + width + SWATCH;
        }
        self.y = y + LINE / 2.0;
    }

    /// The boxes of all texts (left, top, right, bottom) by the widths estimated for them, with what they say.
    #[cfg(test)]
    pub fn text_boxes(&self) -> Vec<([f64; 4], &str)> {
        let texts = self.shapes.iter().filter_map(|shape| {
            let Shape::Text {
                text,
                at: (x, y),
                anchor,
                size,
                bold,
                ..
            } = shape
            else {
                return None;
            };
            let width = layout::text_width(text, *size) * if *bold { layout::BOLD } else { 1.0 };
            let left = match anchor {
                Anchor::Start => *x,
                Anchor::Middle => x - width / 2.0,
                Anchor::End => x - width,
            };
            Some(([left, y - size / 2.0, left + width, y + size / 2.0], text.as_str()))
        });
        texts.collect()
    }

    /// Writes the sheet as SVG, `title` and `metadata` (JSON) inside it.
    pub fn into_svg(self, title: &str, metadata: &str) -> Result<String, Error> {
        let size = (WIDTH as u32, (self.y + MARGIN).ceil() as u32);
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let failed = |error: &dyn std::fmt::Display| Error::Draw { why: error.to_string() };
            area.fill(&WHITE).map_err(|error| failed(&error))?;
            for shape in &self.shapes {
                render(shape, &area).map_err(|error| failed(&error))?;
            }
            area.present().map_err(|error| failed(&error))?;
        }
        Ok(describe(&svg, title, metadata))
    }
}

type Area<'a> = plotters::drawing::DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type DrawResult = Result<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>>;

fn render(shape: &Shape, area: &Area) -> DrawResult {
    let pixel = |(x, y): (f64, f64)| (x.round() as i32, y.round() as i32);
    match shape {
        Shape::Bar([left, top, right, bottom], color) => area.draw(&Rectangle::new(
            [pixel((*left, *top)), pixel((*right, *bottom))],
            color.filled(),
        )),
        Shape::Line(points, color, thickness) => {
            let style = ShapeStyle {
                color: color.to_rgba(),
                filled: false,
                stroke_width: *thickness,
            };
            area.draw(&PathElement::new(
                points.iter().copied().map(pixel).collect::<Vec<_>>(),
                style,
            ))
        }
        Shape::Dot(centre, radius, color) => area.draw(&Circle::new(pixel(*centre), *radius, color.filled())),
        Shape::Text {
            text,
            at,
            anchor,
            size,
            color,
            bold,
        } => {
            let horizontal = match anchor {
                Anchor::Start => HPos::Left,
                Anchor::Middle => HPos::Center,
                Anchor::End => HPos::Right,
            };
            let font = (
                FONTS,
                size * PLOTTERS_FONT_SCALE,
                if *bold { FontStyle::Bold } else { FontStyle::Normal },
            );
            let style = font
                .into_text_style(area)
                .color(color)
                .pos(Pos::new(horizontal, VPos::Center));
            area.draw(&(EmptyElement::at(pixel(*at)) + Text::new(printable(text), (0, 0), style)))
        }
    }
}

/// Text without the control characters that XML forbids even when escaped.
fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '\u{fffd}' } else { letter })
        .collect()
}

/// Puts a title for screen readers and the provenance for programs behind the opening tag.
fn describe(svg: &str, title: &str, metadata: &str) -> String {
    let (tag, rest) = svg.split_once('>').unwrap_or((svg, ""));
    let [title, metadata] = [title, metadata].map(|text| escape(&printable(text)));
    format!("{tag} role=\"img\">\n<title>{title}</title>\n<metadata>{metadata}</metadata>{rest}")
}

/// `text` with the characters escaped that mean something in XML and HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
