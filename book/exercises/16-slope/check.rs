pub fn check() {
    let close = |found: Option<f64>, expected: f64| found.is_some_and(|found| (found - expected).abs() < 1e-6);
    // 10,000 that all of them share, and 1,500 for each.
    let line: Vec<(f64, f64)> = [1.0, 2.0, 4.0, 8.0].iter().map(|n| (*n, 10_000.0 + 1_500.0 * n)).collect();
    assert!(close(marginal(&line), 1_500.0), "what is there once must drop out: {:?}", marginal(&line));
    // Noise in the middle that a slope by the ends would not see.
    assert!(close(marginal(&[(1.0, 10.0), (2.0, 30.0), (3.0, 20.0)]), 5.0));
    // In any order.
    assert!(close(marginal(&[(3.0, 20.0), (1.0, 10.0), (2.0, 30.0)]), 5.0));
    assert_eq!(marginal(&[(4.0, 10.0), (4.0, 12.0)]), None);
    assert_eq!(marginal(&[(4.0, 10.0)]), None);
    assert_eq!(marginal(&[]), None);
}
