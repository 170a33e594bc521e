//! `lab` as the tests of the studies run it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bench::study::results::Study;

/// A condition that is waited for holds within this, on a loaded machine too.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// `lab` with these arguments, its temporary files where the test can look.
pub fn lab(place: &Path, arguments: &[&str]) -> Command {
    let temporary = place.join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .args(arguments)
        .arg("--json")
        .arg("--out")
        .arg(place.join("out"));
    command.env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

/// Runs a study to its end and reads what it prints.
pub fn run<T: serde::de::DeserializeOwned>(place: &Path, arguments: &[&str]) -> Study<T> {
    let output = lab(place, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// With `vm` where there is KVM.
pub fn contenders(without: &str) -> String {
    if Path::new("/dev/kvm").exists() {
        return format!("{without},vm");
    }
    println!("skipped: no /dev/kvm, so the VM takes no part");
    without.to_owned()
}

/// Processes whose command line names a path below `place`.
pub fn using(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(place).then_some(line)
    });
    lines.collect()
}
