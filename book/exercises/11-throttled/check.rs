pub fn check() {
    // Version 1, and version 2, whose other lines begin alike.
    let v1 = "nr_periods 20\nnr_throttled 15\nthrottled_time 623690272\nnr_bursts 0\nburst_time 0\n";
    assert_eq!(throttled(v1), Some(0.75));
    let v2 = "usage_usec 253325\nuser_usec 1\nsystem_usec 0\nnr_periods 8\nnr_throttled 2\nthrottled_usec 1\nnr_bursts 0\n";
    assert_eq!(throttled(v2), Some(0.25));
    assert_eq!(throttled("nr_throttled 2\nnr_periods 4\n"), Some(0.5));
    // No limit, nothing to wait for.
    assert_eq!(throttled("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"), None);
    assert_eq!(throttled("usage_usec 10\n"), None);
}
