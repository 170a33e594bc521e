/// Which kinds of namespaces (`net`, `pid`, ...) two processes share: of each kind, whether both are in the same one.
///
/// `one` and `other` are the links of `/proc/PID/ns`: the kind, and what the link says.
pub fn shared<'a>(one: &[(&'a str, &str)], other: &[(&str, &str)]) -> Vec<&'a str> {
    one.iter().filter(|link| other.contains(link)).map(|(kind, _)| *kind).collect()
}
