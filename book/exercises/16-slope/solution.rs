/// What one instance more costs: the slope of the line that fits `points` (N, bytes in all) best, by least squares.
/// None where the points do not determine one.
pub fn marginal(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean_n = points.iter().map(|(n, _)| n).sum::<f64>() / count;
    let mean_bytes = points.iter().map(|(_, bytes)| bytes).sum::<f64>() / count;
    let together: f64 = points.iter().map(|(n, bytes)| (n - mean_n) * (bytes - mean_bytes)).sum();
    let spread: f64 = points.iter().map(|(n, _)| (n - mean_n).powi(2)).sum();
    // One N alone, however often, has no slope; nor has nothing.
    (spread > 0.0).then(|| together / spread)
}
