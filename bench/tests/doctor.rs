//! `lab doctor`, as a user runs it.

use std::process::Command;

#[test]
fn every_finding_says_what_it_means_and_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let names: Vec<&str> = findings
        .iter()
        .map(|finding| finding["name"].as_str().unwrap())
        .collect();
    for expected in [
        "/dev/kvm",
        "KVM backend",
        "namespaces",
        "overlay in a user namespace",
        "cgroup delegation",
        "crun",
    ] {
        assert!(names.contains(&expected), "{expected} is not among {names:?}");
    }
    for finding in findings {
        assert_ne!(finding["found"], "");
        assert_ne!(finding["meaning"], "");
    }
}

#[test]
fn what_doctor_tries_leaves_nothing_mounted() {
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    for trial in ["namespaces", "overlay"] {
        let output = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["trial", trial])
            .output()
            .unwrap();
        if !output.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    assert_eq!(mounts(), before);
}
