//! Where things go on a chart: pure arithmetic, without a drawing in sight.
//!
//! An SVG is drawn in whatever font the reader's machine has, so nobody here can measure a text. Widths are estimated
//! from the widest of the common fonts; what fits by that estimate fits everywhere.

/// How much wider a bold text is than a plain one.
pub const BOLD: f64 = 1.1;

/// Width of `text` in pixels at a font size in pixels: never less than what a common sans-serif font needs.
///
/// Advance widths of DejaVu Sans, the widest of the usual ones, rounded up by class of glyph.
pub fn text_width(text: &str, size: f64) -> f64 {
    let em = |letter: char| match letter {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '·' => 0.34,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' => 0.42,
        'c' | 's' | 'z' => 0.56,
        'k' | 'v' | 'x' | 'y' => 0.6,
        'm' | 'M' | 'W' | '%' | '@' | '—' => 1.0,
        'w' | '×' | '+' | '<' | '>' | '=' | '≥' => 0.84,
        'A'..='Z' => 0.8,
        ' '..='~' | '–' | 'µ' => 0.65,
        _ => 1.1,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// `text`, cut with an ellipsis to fit into `width` pixels.
pub fn shorten(text: &str, width: f64, size: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_string();
    }
    let mut short = text.to_string();
    while short.pop().is_some() {
        let cut = format!("{}…", short.trim_end());
        if text_width(&cut, size) <= width {
            return cut;
        }
    }
    String::new()
}

/// A scale from values to pixels, linear or logarithmic.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    left: f64,
    right: f64,
    is_log: bool,
}

impl Scale {
    /// `low` at pixel `left` and `high` at pixel `right`, in equal steps. `high` must lie above `low`.
    pub fn linear(low: f64, high: f64, left: f64, right: f64) -> Scale {
        Scale {
            low,
            high,
            left,
            right,
            is_log: false,
        }
    }

    /// The same in equal ratios. Both ends must be positive.
    pub fn log(low: f64, high: f64, left: f64, right: f64) -> Scale {
        Scale {
            low,
            high,
            left,
            right,
            is_log: true,
        }
    }

    /// Where `value` lies, in pixels; values outside the scale are put at its ends.
    pub fn place(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }
}

/// Smallest ratio between the ends of a log axis. Starts within 1% of each other should look as close as they are.
const NARROWEST_SPAN: f64 = 1.3;

/// The ends of a log axis that holds `low` to `high` with a little air, and is never too narrow to be honest.
pub fn log_domain(low: f64, high: f64) -> (f64, f64) {
    const AIR: f64 = 1.08;
    let (low, high) = (low / AIR, high * AIR);
    let missing = (NARROWEST_SPAN / (high / low)).max(1.0).sqrt();
    (low / missing, high * missing)
}

/// Least distance between two ticks of an axis, in pixels: a label of six digits and some air.
const TICK_DISTANCE: f64 = 54.0;

/// Round values for a log axis from `low` to `high` that is `width` pixels long: as many as its labels leave room for.
pub fn log_ticks(low: f64, high: f64, width: f64) -> Vec<f64> {
    const FAMILIES: [&[f64]; 6] = [
        &[
            1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0,
        ],
        &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        &[1.0, 2.0, 3.0, 5.0, 7.0],
        &[1.0, 2.0, 5.0],
        &[1.0, 3.0],
        &[1.0],
    ];
    let scale = Scale::log(low, high, 0.0, width);
    let apart = |ticks: &[f64]| {
        ticks
            .windows(2)
            .all(|pair| scale.place(pair[1]) - scale.place(pair[0]) >= TICK_DISTANCE)
    };
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let candidates = FAMILIES.iter().map(|family| {
        let all = decades
            .clone()
            .flat_map(|decade| family.iter().map(move |digit| digit * 10f64.powi(decade)));
        all.filter(|tick| (low..=high).contains(tick)).collect::<Vec<f64>>()
    });
    let even = even_ticks(low, high).into_iter().filter(|ticks| ticks.len() > 2);
    even.chain(candidates).find(|ticks| apart(ticks)).unwrap_or_else(|| {
        // So many decades that even the powers of ten crowd: every third.
        decades
            .step_by(3)
            .map(|decade| 10f64.powi(decade))
            .filter(|tick| (low..=high).contains(tick))
            .collect()
    })
}

/// On an axis of less than an octave or so, even steps read best: the ways to take them, the finest first.
fn even_ticks(low: f64, high: f64) -> Vec<Vec<f64>> {
    const NARROW: f64 = 2.5;
    if high / low > NARROW {
        return Vec::new();
    }
    let finest = ((high - low) / 100.0).log10().floor() as i32;
    let steps = (finest..finest + 4).flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)));
    // A tick is a whole number of steps, so that 0.1 + 0.2 stays 0.3.
    let ticks = |step: f64| ((low / step).ceil() as u64..=(high / step).floor() as u64).map(move |k| k as f64 * step);
    steps.map(|step| ticks(step).collect()).collect()
}

/// Round values from 0 up to `high` for a linear axis `width` pixels long, in steps of 1, 2 or 5 times a power of ten.
pub fn linear_ticks(high: f64, width: f64) -> Vec<f64> {
    if high <= 0.0 {
        return vec![0.0];
    }
    let most = (width / TICK_DISTANCE).max(1.0);
    let decade = 10f64.powf((high / most).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * decade)
        .find(|step| high / step <= most);
    let step = step.unwrap_or(10.0 * decade);
    (0..=(high / step + 1e-9).floor() as usize)
        .map(|count| count as f64 * step)
        .collect()
}

/// Rows for flags: texts that hang to the right of poles at given places, as on a row of flagpoles.
///
/// `flags` are (pole, length of the text with its gaps), sorted by pole. A flag flies above every pole it reaches over;
/// row 0 is the lowest. Then no text lies on another, and no pole runs through a text.
pub fn flag_rows(flags: &[(f64, f64)]) -> Vec<usize> {
    let mut rows = vec![0; flags.len()];
    for (index, (pole, length)) in flags.iter().enumerate().rev() {
        let beneath = flags[index + 1..]
            .iter()
            .zip(&rows[index + 1..])
            .filter(|((other, _), _)| *other < pole + length);
        rows[index] = beneath.map(|(_, row)| row + 1).max().unwrap_or(0);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_by_hand() {
        // "ab" = 2 * 0.65 em, "il" = 2 * 0.34 em, "VM" = 0.8 + 1.0 em, at 10 pixels.
        for (text, width) in [("ab", 13.0), ("il", 6.8), ("VM", 18.0), ("", 0.0)] {
            assert!((text_width(text, 10.0) - width).abs() < 1e-9, "{text}");
        }
        assert_eq!(shorten("abcdef", 39.0, 10.0), "abcdef");
        // a, b, c and the ellipsis: 6.5 + 6.5 + 5.6 + 11 = 29.6.
        assert_eq!(shorten("abcdef", 30.0, 10.0), "abc…");
        assert_eq!(shorten("abcdef", 1.0, 10.0), "");
    }

    #[test]
    fn scales_by_hand() {
        let log = Scale::log(1.0, 100.0, 0.0, 200.0);
        assert_eq!(
            [0.1, 1.0, 10.0, 100.0, 1000.0].map(|v| log.place(v).round()),
            [0.0, 0.0, 100.0, 200.0, 200.0]
        );
        let linear = Scale::linear(0.0, 4.0, 100.0, 200.0);
        assert_eq!([0.0, 1.0, 4.0].map(|v| linear.place(v)), [100.0, 125.0, 200.0]);
    }

    #[test]
    fn log_ticks_fill_the_axis_without_crowding() {
        let cases: [(f64, f64, f64, &[f64]); 5] = [
            (1.0, 100.0, 600.0, &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]),
            (1.0, 2.0, 600.0, &[1.0, 1.2, 1.4, 1.6, 1.8, 2.0]),
            (3.5, 7.2, 600.0, &[3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0]),
            (0.4, 40_000.0, 500.0, &[1.0, 10.0, 100.0, 1000.0, 10_000.0]),
            (1e-6, 1e9, 300.0, &[1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9]),
        ];
        for (low, high, width, expected) in cases {
            let ticks = log_ticks(low, high, width);
            assert_eq!(ticks.len(), expected.len(), "{low}..{high}: {ticks:?}");
            assert!(
                ticks.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-9),
                "{low}..{high}: {ticks:?}"
            );
        }
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(linear_ticks(2.34, 600.0), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(
            linear_ticks(10.0, 600.0),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
        );
        assert_eq!(linear_ticks(0.0, 600.0), [0.0]);
    }

    #[test]
    fn a_narrow_domain_is_widened_and_a_wide_one_only_aired() {
        let (low, high) = log_domain(5.0, 5.05);
        assert!((high / low - 1.3).abs() < 1e-9, "{low} {high}");
        let (low, high) = log_domain(1.0, 100.0);
        assert!(
            (low - 1.0 / 1.08).abs() < 1e-9 && (high - 108.0).abs() < 1e-9,
            "{low} {high}"
        );
    }

    #[test]
    fn flags_fly_above_the_poles_they_reach_over() {
        // Far apart: all in the lowest row. Close together: a staircase down to the right.
        assert_eq!(flag_rows(&[(0.0, 50.0), (100.0, 50.0), (200.0, 50.0)]), [0, 0, 0]);
        assert_eq!(flag_rows(&[(0.0, 50.0), (10.0, 50.0), (20.0, 50.0)]), [2, 1, 0]);
        // The first reaches over the second only; the third stands free.
        assert_eq!(flag_rows(&[(0.0, 50.0), (40.0, 50.0), (95.0, 50.0)]), [1, 0, 0]);
        assert_eq!(flag_rows(&[(5.0, 9.0), (5.0, 9.0)]), [1, 0]);
        assert_eq!(flag_rows(&[]), [0; 0]);
    }
}
