pub fn check() {
    let links = |pid: &str| -> Vec<(String, String)> {
        let kinds = ["mnt", "net", "pid", "user", "uts"];
        let link = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string();
        kinds.iter().map(|kind| ((*kind).to_owned(), link(kind))).collect()
    };
    // This process and itself: everything.
    let own = links("self");
    let own: Vec<(&str, &str)> = own.iter().map(|(kind, link)| (kind.as_str(), link.as_str())).collect();
    assert_eq!(shared(&own, &own), ["mnt", "net", "pid", "user", "uts"]);
    // A container that kept the host's network, as `--network host` does.
    let host = [("net", "net:[4026531833]"), ("pid", "pid:[4026531836]"), ("uts", "uts:[4026531838]")];
    let container = [("uts", "uts:[4026532317]"), ("pid", "pid:[4026532319]"), ("net", "net:[4026531833]")];
    assert_eq!(shared(&host, &container), ["net"]);
    // One kernel may lack a kind that another has.
    assert_eq!(shared(&[("time", "time:[4026531834]")], &host), [""; 0]);
}
