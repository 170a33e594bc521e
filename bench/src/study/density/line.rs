//! The straight line with the least squares, and how sure its slope is (any textbook: simple linear regression).

use super::super::results::Slope;

/// 97.5% points of Student's t for 1, 2, ... degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// The line through `places` (x, y). None for fewer than three, or all at one x: then nothing tells how sure it is.
pub fn through(places: &[(f64, f64)]) -> Option<Slope> {
    let n = places.len() as f64;
    let freedom = places.len().checked_sub(2).filter(|freedom| *freedom > 0)?;
    let mean = |of: fn(&(f64, f64)) -> f64| places.iter().map(of).sum::<f64>() / n;
    let (x_mean, y_mean) = (mean(|place| place.0), mean(|place| place.1));
    let spread: f64 = places.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    if spread == 0.0 {
        return None;
    }
    let slope = places.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
    let intercept = y_mean - slope * x_mean;
    let squares: f64 = places.iter().map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
    let error = (squares / freedom as f64 / spread).sqrt();
    let reach = error * T[freedom.min(T.len()) - 1];
    Some(Slope {
        bytes: slope,
        ci95: [slope - reach, slope + reach],
        intercept_bytes: intercept,
        n: places.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_by_hand() {
        // x 1 2 3 4, y 2 4 5 8: slope 1.9, intercept 0, squares 0.7; error sqrt(0.7 / 2 / 5) = 0.26458; t(2) = 4.303.
        let found = through(&[(1.0, 2.0), (2.0, 4.0), (3.0, 5.0), (4.0, 8.0)]).unwrap();
        assert!((found.bytes - 1.9).abs() < 1e-9 && found.intercept_bytes.abs() < 1e-9);
        assert!(
            (found.ci95[1] - found.bytes - 4.303 * 0.264_575).abs() < 1e-4,
            "{found:?}"
        );
        assert_eq!(through(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(through(&[(1.0, 1.0); 5]), None);
    }
}
