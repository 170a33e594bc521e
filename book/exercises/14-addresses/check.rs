pub fn check() {
    let at = |last| Ipv4Addr::new(10, 213, 77, last);
    assert_eq!(lowest_free(at(0), 24, &[]), Some(at(2)));
    assert_eq!(lowest_free(at(0), 24, &[at(2), at(3)]), Some(at(4)));
    // The first of three has gone.
    assert_eq!(lowest_free(at(0), 24, &[at(4), at(3)]), Some(at(2)));
    assert_eq!(lowest_free(at(0), 24, &[at(2), at(4)]), Some(at(3)));
    // Eight addresses: network, bridge, five containers, broadcast.
    let five: Vec<Ipv4Addr> = (66..71).map(at).collect();
    assert_eq!(lowest_free(at(64), 29, &five[..4]), Some(at(70)));
    assert_eq!(lowest_free(at(64), 29, &five), None);
}
