// ANCHOR: stub
/// What a KVM stands on.
#[derive(Debug, PartialEq, Eq)]
pub enum Backend {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
    /// Software alone.
    Pvm,
    /// There is no KVM, or none that is loaded.
    None,
}

/// `flags` is the flags line of /proc/cpuinfo, `modules` the names in /sys/module.
pub fn backend(flags: &str, modules: &[&str]) -> Backend {
    if flags.contains("vmx") { Backend::Vmx } else { Backend::None }
}
// ANCHOR_END: stub
