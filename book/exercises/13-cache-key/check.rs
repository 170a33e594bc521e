pub fn check() {
    let steps: [&[&str]; 7] = [
        &["sha256:1", "RUN", "ab", "c"],
        &["sha256:1", "RUN", "a", "bc"],
        &["sha256:1", "RUN", "abc"],
        &["sha256:1", "RUN", "abc", ""],
        &["sha256:1", "RUN", "", "abc"],
        &["sha256:1R", "UN", "abc"],
        &["sha256:2", "RUN", "abc"],
    ];
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(key(step), key(step));
        for other in &steps[..index] {
            assert_ne!(key(step), key(other), "{step:?} and {other:?} are different steps");
        }
    }
}
