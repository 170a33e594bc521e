//! How sure a ratio is: the percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
//! chapter 13).
//!
//! The samples are the best picture there is of what the machine would have done in another series. So: draw as many
//! samples as there were, with replacement, from each contender's; take the ratio of the two medians; do that many
//! times; the middle 95% of those ratios is the interval. Nothing is assumed about the shape of the distributions,
//! which for start-up times is far from normal.
//!
//! The seed is fixed: the same samples give the same interval, on every machine.

use fastrand::Rng;

use super::percentile::{median, percentile};
use crate::results::{Comparison, NullTest};

/// Redraws per interval. At 10,000 the ends of a 95% interval rest on 250 redraws each, and move in the third digit
/// at most from seed to seed.
const REDRAWS: usize = 10_000;

/// Any fixed number does; this one is the day it was written.
const SEED: u64 = 20_261_123;

/// Fewest samples on each side for an interval to mean 95%. Of five samples all lie on one side of the true median
/// once in 16 series (2 / 2^5 = 6%): no interval between the smallest and the largest can be surer than that. Six
/// give 97%.
pub const FEWEST_FOR_AN_INTERVAL: u64 = 6;

/// How far from 1 the interval of a null test may lie as a whole. With many runs an interval gets so narrow that it
/// shows a true difference too small to matter. A bias of 2% cannot change the second digit of a ratio up to 2.5 by
/// more than the rounding does (0.02 * 2.5 = 0.05), and that is where a verdict is a close call.
pub const NULL_TOLERANCE: f64 = 0.02;

/// How wide the interval of a null test may be: its high end over its low end. A wide interval contains 1 whatever the
/// machine does, so a test without this bound is passed best by the noisiest machine. Above 2 the run could not tell a
/// contender from one twice as slow, and a factor of two is what the lab is asked about.
pub const NULL_WIDEST: f64 = 2.0;

/// Compares contender `a` with contender `b` by the ratio of the medians of their samples, with its 95% interval.
///
/// Without samples on both sides there is no ratio: it and the interval are NaN. Ask
/// [`distribution`](super::distribution) first. Below [`FEWEST_FOR_AN_INTERVAL`] samples the interval is too narrow.
pub fn compare(a: &str, a_samples: &[u64], b: &str, b_samples: &[u64]) -> Comparison {
    let (ratio, ci95) = ratio_of_medians(a_samples, b_samples, REDRAWS, SEED);
    Comparison {
        a: a.to_string(),
        b: b.to_string(),
        ratio,
        ci95,
    }
}

/// Compares two interleaved series of the same contender. They differ in nothing, so a difference is the machine's.
///
/// Passed when the interval [shows no difference](shows_no_difference) and is [narrow enough](narrow_enough) for that
/// to mean something. Never passed without samples.
// ANCHOR: null_test
pub fn null_test(contender: &str, first: &[u64], second: &[u64]) -> NullTest {
    let (ratio, ci95) = ratio_of_medians(first, second, REDRAWS, SEED);
    NullTest {
        contender: contender.to_string(),
        ratio,
        ci95,
        passed: shows_no_difference(ci95) && narrow_enough(ci95),
    }
}
// ANCHOR_END: null_test

/// Whether a null test's interval contains 1, or lies within [`NULL_TOLERANCE`] of it as a whole.
pub fn shows_no_difference([low, high]: [f64; 2]) -> bool {
    let contains_one = low <= 1.0 && 1.0 <= high;
    let is_negligible = low >= 1.0 - NULL_TOLERANCE && high <= 1.0 + NULL_TOLERANCE;
    contains_one || is_negligible
}

/// Whether a null test's interval is at most [`NULL_WIDEST`] from end to end.
pub fn narrow_enough([low, high]: [f64; 2]) -> bool {
    high / low <= NULL_WIDEST
}

/// Draws that [`of_medians`] makes at most for one figure, all sets together: a tenth of a second's work.
const MOST_DRAWS: usize = 50_000_000;

/// A figure computed from the medians of several sets of samples, with its 95% bootstrap interval. None when a set is empty.
///
/// Each set is redrawn for itself, so the sets must be of launches that do not depend on one another. With very large
/// sets there are fewer redraws (never below 500): their intervals are narrow, and need no third digit.
pub fn of_medians(sets: &[&[u64]], figure: impl Fn(&[f64]) -> f64) -> Option<(f64, [f64; 2])> {
    let medians = |drawn: &mut [Vec<u64>]| drawn.iter_mut().map(|set| median(set)).collect::<Option<Vec<f64>>>();
    let mut drawn: Vec<Vec<u64>> = sets.iter().map(|set| set.to_vec()).collect();
    let found = figure(&medians(&mut drawn)?);
    let size: usize = sets.iter().map(|set| set.len()).sum();
    let redraws = (MOST_DRAWS / size.max(1)).clamp(500, REDRAWS);
    let mut random = Rng::with_seed(SEED);
    let mut figures: Vec<f64> = (0..redraws)
        .filter_map(|_| {
            for (set, drawn) in sets.iter().zip(&mut drawn) {
                redraw(set, drawn, &mut random);
            }
            Some(figure(&medians(&mut drawn)?))
        })
        .collect();
    figures.sort_unstable_by(f64::total_cmp);
    let end = |p| percentile(&figures, p).unwrap_or(found);
    Some((found, [end(0.025), end(0.975)]))
}

fn ratio_of_medians(a: &[u64], b: &[u64], redraws: usize, seed: u64) -> (f64, [f64; 2]) {
    let ratio = |a: &mut [u64], b: &mut [u64]| Some(median(a)? / median(b)?);
    let (mut a_drawn, mut b_drawn) = (a.to_vec(), b.to_vec());
    let Some(found) = ratio(&mut a_drawn, &mut b_drawn) else {
        return (f64::NAN, [f64::NAN; 2]);
    };

    let mut random = Rng::with_seed(seed);
    let mut ratios: Vec<f64> = (0..redraws)
        .filter_map(|_| {
            redraw(a, &mut a_drawn, &mut random);
            redraw(b, &mut b_drawn, &mut random);
            ratio(&mut a_drawn, &mut b_drawn)
        })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let end = |p| percentile(&ratios, p).unwrap_or(found);
    (found, [end(0.025), end(0.975)])
}

/// Fills `drawn` with samples picked at random, each as often as chance has it.
fn redraw(samples: &[u64], drawn: &mut [u64], random: &mut Rng) {
    for slot in drawn {
        *slot = samples[random.usize(..samples.len())];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_medians() {
        // Medians: (20 + 30) / 2 = 25 and 10; 25 / 10 = 2.5. The means, 265 and 10, would say 26.5.
        let found = compare("vm", &[10, 20, 30, 1000], "process", &[9, 10, 11]);
        assert_eq!(
            (found.a.as_str(), found.b.as_str(), found.ratio),
            ("vm", "process", 2.5)
        );
        assert!(found.ci95[0] <= 2.5 && 2.5 <= found.ci95[1]);
    }

    #[test]
    fn two_values_by_hand() {
        // Two samples {100, 300} drawn twice: median 100 one time in 4, 200 two times, 300 one time. Over a constant
        // 100 the ratios are 1 (25%), 2 (50%) and 3 (25%): the 2.5% and 97.5% points are 1 and 3.
        let found = compare("a", &[100, 300], "b", &[100, 100]);
        assert_eq!((found.ratio, found.ci95), (2.0, [1.0, 3.0]));
    }

    #[test]
    fn any_figure_of_medians_has_an_interval() {
        // As in `two_values_by_hand`: the ratios are 1, 2 and 3, so one less than them are 0, 1 and 2.
        let found = of_medians(&[&[100, 300], &[100, 100]], |medians| medians[0] / medians[1] - 1.0);
        assert_eq!(found, Some((1.0, [0.0, 2.0])));
        assert_eq!(of_medians(&[&[1], &[]], |medians| medians[0]), None);
    }

    #[test]
    fn equal_samples_leave_no_doubt_and_none_leave_no_ratio() {
        let found = compare("a", &[40; 9], "b", &[20; 9]);
        assert_eq!((found.ratio, found.ci95), (2.0, [2.0, 2.0]));
        let single = compare("a", &[30], "b", &[20]);
        assert_eq!((single.ratio, single.ci95), (1.5, [1.5, 1.5]));
        for (a, b) in [(&[][..], &[1][..]), (&[1], &[]), (&[], &[])] {
            let none = compare("a", a, "b", b);
            assert!(none.ratio.is_nan() && none.ci95[0].is_nan() && none.ci95[1].is_nan());
            assert!(!null_test("a", a, b).passed);
        }
    }

    #[test]
    fn the_same_samples_give_the_same_interval() {
        let a: Vec<u64> = (0..50).map(|i| 2_000_000 + i * i * 317).collect();
        let b: Vec<u64> = (0..50).map(|i| 1_000_000 + i * 9_001).collect();
        assert_eq!(compare("a", &a, "b", &b), compare("a", &a, "b", &b));
        // The order in which they came does not matter to the figures, only to the draw.
        let reversed: Vec<u64> = a.iter().rev().copied().collect();
        let (forward, backward) = (compare("a", &a, "b", &b), compare("a", &reversed, "b", &b));
        assert_eq!(forward.ratio, backward.ratio);
        for end in 0..2 {
            assert!((forward.ci95[end] / backward.ci95[end] - 1.0).abs() < 0.02);
        }
    }

    #[test]
    fn the_interval_holds_the_true_ratio_about_95_times_in_100() {
        // Skewed samples, as start-up times are: 1 ms plus an exponential of mean 0.5 ms, whose median is
        // 1 + 0.5 ln 2; and 1.7 times that. The true ratio of medians is 1.7.
        const SERIES: u64 = 400;
        let mut held = 0;
        for series in 0..SERIES {
            let mut random = Rng::with_seed(series);
            let mut draw = |scale: f64| -> Vec<u64> {
                (0..30)
                    .map(|_| ((1.0 - 0.5 * (1.0 - random.f64()).ln()) * scale * 1e6) as u64)
                    .collect()
            };
            let (a, b) = (draw(1.7), draw(1.0));
            let (_, [low, high]) = ratio_of_medians(&a, &b, 400, series);
            held += u64::from(low <= 1.7 && 1.7 <= high);
        }
        let share = held as f64 / SERIES as f64;
        assert!((0.90..=0.99).contains(&share), "{share}");
    }

    #[test]
    fn the_null_test_passes_what_shows_no_difference() {
        assert!(shows_no_difference([0.9, 1.2]), "wide, but 1 is within");
        assert!(
            shows_no_difference([1.005, 1.015]),
            "a difference, but a negligible one"
        );
        assert!(
            !shows_no_difference([1.005, 1.03]),
            "a difference that may be more than negligible"
        );
        assert!(!shows_no_difference([0.7, 0.95]));
        assert!(!shows_no_difference([f64::NAN, f64::NAN]));
        let slow: Vec<u64> = (0..40).map(|i| 1_100_000 + i * 100).collect();
        let fast: Vec<u64> = (0..40).map(|i| 1_000_000 + i * 100).collect();
        assert!(!null_test("process", &slow, &fast).passed);
        // 1 to 20 ms on both sides: no difference to be seen, and none of less than a factor of 2 could be.
        let scattered: Vec<u64> = (1..=20).map(|i| i * 1_000_000).collect();
        let noisy = null_test("process", &scattered, &scattered);
        assert!(shows_no_difference(noisy.ci95) && !noisy.passed, "{noisy:?}");
        assert!(narrow_enough([0.7, 1.4]) && !narrow_enough([0.49, 5.3]));
        assert!(!narrow_enough([0.0, 1.0]) && !narrow_enough([f64::NAN, f64::NAN]));
        assert!(null_test("process", &slow, &slow).passed);
    }
}
