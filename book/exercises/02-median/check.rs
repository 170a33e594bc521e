pub fn check() {
    // One sample of seven was disturbed: another program ran in its middle.
    let quiet = [100, 101, 99, 100, 102, 98, 100];
    let disturbed = [200, 203, 197, 200, 9_000, 198, 200];
    assert_eq!(verdict(&quiet, &disturbed), Some(2.0));
    assert_eq!(verdict(&disturbed, &quiet), Some(0.5));
    // An even number of samples has two in its middle.
    assert_eq!(verdict(&[10, 20], &[30, 60]), Some(3.0));
    assert_eq!(verdict(&[], &[1]), None);
    assert_eq!(verdict(&[1], &[]), None);
}
