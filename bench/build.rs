//! Builds the launchers `vmm` and `container` as static programs, and the engine that `container` becomes for what has a
//! name, so that `lab` carries them whichever way it was built itself, and notes the revision they were built from.

use std::process::Command;

use guest_builder::{Binary, Error, STATIC_LINUX};

fn main() {
    guest_builder::run(build);
}

fn build() -> Result<(), Error> {
    guest_builder::rerun_if_changed([
        "build.rs",
        "src",
        "../vmm",
        "../container",
        "../guest-images",
        "../Cargo.toml",
        "../Cargo.lock",
    ]);
    for (package, name, variable) in [
        ("vmm", "vmm", "LAB_BUILT_VMM"),
        ("container", "container", "LAB_BUILT_CONTAINER"),
        ("container", "container-engine", "LAB_BUILT_ENGINE"),
    ] {
        let path = guest_builder::build(Binary {
            package,
            name,
            target: STATIC_LINUX,
            profile: "launcher",
            features: "",
            // Position-independent, unlike the workload: relocating itself costs a launcher some 0.1 ms of its start,
            // and buys address space randomization for the process that faces the guest.
            flags: "",
        })?;
        println!("cargo::rustc-env={variable}={}", path.display());
    }
    if let Some(revision) = git_revision() {
        println!("cargo::rustc-env=LAB_GIT_REVISION={revision}");
    }
    Ok(())
}

/// The commit, with `-dirty` when tracked files differ from it. None outside a git checkout.
fn git_revision() -> Option<String> {
    // HEAD changes on a switch of branch, logs/HEAD on every commit.
    for name in ["HEAD", "logs/HEAD"] {
        guest_builder::rerun_if_changed([git(&["rev-parse", "--git-path", name])?]);
    }
    let revision = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() {
        revision
    } else {
        format!("{revision}-dirty")
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
