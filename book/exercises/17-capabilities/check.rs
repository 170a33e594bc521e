pub fn check() {
    assert_eq!(capabilities("CapEff:\t0000000000000420"), Some(vec!["KILL", "NET_BIND_SERVICE"]));
    assert_eq!(capabilities("CapEff:\t0000000000000001"), Some(vec!["CHOWN"]));
    assert_eq!(capabilities("CapEff:\t00000000000000a1"), Some(vec!["CHOWN", "KILL", "SETUID"]));
    assert_eq!(capabilities("CapEff:\t0000000000000000"), Some(vec![]));
    // What has no name here is left out.
    assert_eq!(capabilities("CapEff:\t0000000080002000"), Some(vec!["NET_RAW"]));
    assert_eq!(capabilities("Seccomp:\t2"), None);
    assert_eq!(capabilities("CapEff:\tnothing"), None);
}
