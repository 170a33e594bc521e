pub fn check() {
    let launch = |start, first_byte| Launch { start, first_byte };
    assert_eq!(startup(&launch(1_000, Some(3_500))), Some(2_500));
    assert_eq!(startup(&launch(1_000, Some(1_000))), Some(0));
    // A launcher that fails is fast. It must not win the race.
    assert_eq!(startup(&launch(1_000, None)), None);
    assert_eq!(startup(&launch(3_500, Some(1_000))), None);
}
