// ANCHOR: stub
/// What one instance more costs: the slope of the line that fits `points` (N, bytes in all) best, by least squares.
/// None where the points do not determine one.
pub fn marginal(points: &[(f64, f64)]) -> Option<f64> {
    let (last_n, last_bytes) = points.last()?;
    Some(last_bytes / last_n)
}
// ANCHOR_END: stub
