pub fn check() {
    assert_eq!(backend("fpu vmx sse", &["kvm", "kvm_intel"]), Backend::Vmx);
    assert_eq!(backend("fpu svm sse", &["kvm_amd", "kvm"]), Backend::Svm);
    assert_eq!(backend("fpu sse", &["kvm", "kvm_pvm"]), Backend::Pvm);
    // The processor could, and nobody has loaded the module.
    assert_eq!(backend("fpu vmx sse", &["kvm"]), Backend::None);
    assert_eq!(backend("fpu vmx", &[]), Backend::None);
    // vmx_lam is another flag than vmx.
    assert_eq!(backend("fpu vmx_lam", &["kvm", "kvm_pvm"]), Backend::Pvm);
}
