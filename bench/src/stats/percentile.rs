//! Percentiles: the value below which a given share of the samples lies.
//!
//! Nine definitions are in use (Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American Statistician
//! 50(4), 1996). This is their type 7: sort, go `p * (n - 1)` steps from the smallest, and interpolate between the two
//! neighbours. NumPy, R and spreadsheets use it unless told otherwise, so a reader who loads `samples.jsonl` into any
//! of them finds the lab's figures again; and its 50th percentile is the median as everybody knows it.

use crate::results::Distribution;

/// Fewest samples for a 90th percentile: below it, that percentile is interpolated from the single largest sample.
const FEWEST_FOR_P90: usize = 10;
/// Fewest samples for a 99th percentile, for the same reason.
const FEWEST_FOR_P99: usize = 100;

/// The order statistics of `samples`, in the samples' unit, rounded to whole units. None when there are none.
pub fn distribution(samples: &[u64]) -> Option<Distribution> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let at = |p: f64| percentile(&sorted, p).map(|value| value.round() as u64);
    Some(Distribution {
        n: sorted.len() as u64,
        min,
        p50: at(0.50)?,
        p90: if sorted.len() >= FEWEST_FOR_P90 { at(0.90) } else { None },
        p99: if sorted.len() >= FEWEST_FOR_P99 { at(0.99) } else { None },
        max,
    })
}

/// The `p` quantile (0 to 1) of values sorted in ascending order, type 7 of Hyndman and Fan. None when there are none.
pub fn percentile<T: Copy + Into<Value>>(sorted: &[T], p: f64) -> Option<f64> {
    let steps = p.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let below: Value = (*sorted.get(steps.floor() as usize)?).into();
    let above: Value = (*sorted.get(steps.ceil() as usize)?).into();
    Some(below.0 + (above.0 - below.0) * steps.fract())
}

/// The median of values in any order, which it reorders: [`percentile`] at 0.5 without the cost of a full sort.
pub fn median(values: &mut [u64]) -> Option<f64> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let (below, &mut upper, _) = values.select_nth_unstable(n / 2);
    let lower = if n % 2 == 1 { upper } else { *below.iter().max()? };
    Some(lower as f64 + (upper - lower) as f64 / 2.0)
}

/// A sample as a number to interpolate. Nanoseconds stay exact up to 2^53, which is 104 days.
#[derive(Clone, Copy)]
pub struct Value(f64);

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value(value as f64)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_7_by_hand() {
        // 1 2 4 8, n = 4: the 25% point is 0.25 * 3 = 0.75 steps from 1, so 1 + 0.75 * (2 - 1) = 1.75;
        // the median is 1.5 steps, so 2 + 0.5 * (4 - 2) = 3; 90% is 2.7 steps, so 4 + 0.7 * (8 - 4) = 6.8.
        let sorted = [1u64, 2, 4, 8];
        for (p, value) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            let found = percentile(&sorted, p).unwrap();
            assert!((found - value).abs() < 1e-12, "{p}: {found} instead of {value}");
        }
        assert_eq!(percentile::<u64>(&[], 0.5), None);
    }

    #[test]
    fn ten_samples_in_any_order() {
        // 10, 20, ..., 100: p50 is 4.5 steps = 55; p90 is 0.9 * 9 = 8.1 steps = 90 + 0.1 * 10 = 91.
        let found = distribution(&[30, 10, 100, 20, 50, 40, 90, 60, 80, 70]).unwrap();
        let expected = Distribution {
            n: 10,
            min: 10,
            p50: 55,
            p90: Some(91),
            p99: None,
            max: 100,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_hundred_samples_have_a_99th_percentile() {
        // 1..=100: p99 is 0.99 * 99 = 98.01 steps from 1 = 99.01, rounded 99; p90 = 1 + 89.1 = 90.1, rounded 90;
        // p50 = 1 + 49.5 = 50.5, rounded 51.
        let found = distribution(&(1..=100).collect::<Vec<u64>>()).unwrap();
        assert_eq!((found.p50, found.p90, found.p99), (51, Some(90), Some(99)));
    }

    #[test]
    fn none_one_and_all_equal() {
        assert_eq!(distribution(&[]), None);
        assert_eq!(
            distribution(&[7]),
            Some(Distribution {
                n: 1,
                min: 7,
                p50: 7,
                p90: None,
                p99: None,
                max: 7
            })
        );
        let equal = distribution(&[5; 12]).unwrap();
        assert_eq!((equal.min, equal.p50, equal.p90, equal.max), (5, 5, Some(5), 5));
    }

    #[test]
    fn the_quick_median_is_the_50th_percentile() {
        let mut random = fastrand::Rng::with_seed(1);
        for n in 1..60 {
            let mut values: Vec<u64> = (0..n).map(|_| random.u64(0..50)).collect();
            let mut sorted = values.clone();
            sorted.sort_unstable();
            assert_eq!(median(&mut values), percentile(&sorted, 0.5), "{sorted:?}");
        }
        assert_eq!(median(&mut []), None);
    }
}
