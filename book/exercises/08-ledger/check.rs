pub fn check() {
    let line = |device: &str, count, total_ns| Line {
        device: device.to_owned(),
        count,
        total_ns,
    };
    let exits = [("serial", 10), ("exit", 3), ("doorbell", 40), ("serial", 12), ("mark", 3), ("serial", 11)];
    let expected = [line("doorbell", 1, 40), line("serial", 3, 33), line("exit", 1, 3), line("mark", 1, 3)];
    assert_eq!(summary(&exits), expected);
    assert_eq!(summary(&[]), []);
}
