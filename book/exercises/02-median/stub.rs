// ANCHOR: stub
/// How much slower `b` is than `a`: the ratio of their medians. None where one of them has no samples.
pub fn verdict(a: &[u64], b: &[u64]) -> Option<f64> {
    let mean = |samples: &[u64]| samples.iter().sum::<u64>() as f64 / samples.len() as f64;
    Some(mean(b) / mean(a))
}
// ANCHOR_END: stub
