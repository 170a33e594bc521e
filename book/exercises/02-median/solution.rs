/// How much slower `b` is than `a`: the ratio of their medians. None where one of them has no samples.
pub fn verdict(a: &[u64], b: &[u64]) -> Option<f64> {
    let median = |samples: &[u64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle] as f64),
            _ => Some((sorted[middle - 1] + sorted[middle]) as f64 / 2.0),
        }
    };
    Some(median(b)? / median(a)?)
}
