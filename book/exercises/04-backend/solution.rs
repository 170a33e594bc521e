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
    let can = |flag| flags.split_whitespace().any(|found| found == flag);
    let loaded = |module| modules.contains(&module);
    if can("vmx") && loaded("kvm_intel") {
        Backend::Vmx
    } else if can("svm") && loaded("kvm_amd") {
        Backend::Svm
    } else if loaded("kvm_pvm") {
        Backend::Pvm
    } else {
        Backend::None
    }
}
