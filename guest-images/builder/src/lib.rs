//! Builds packages of this workspace for a target other than the host's, from inside a build script.
//!
//! The lab kernel is built for `x86_64-unknown-none`, the workload and the launchers for `x86_64-unknown-linux-musl`.
//! Cargo's own way to depend on a binary for another target (artifact dependencies) is not stable, so build scripts
//! call cargo once more, with a target directory of its own: the outer cargo holds the lock of the usual one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, io};

/// Bare metal: the lab kernel.
pub const BARE_METAL: &str = "x86_64-unknown-none";
/// Static Linux programs: the workload and the launchers.
pub const STATIC_LINUX: &str = "x86_64-unknown-linux-musl";

/// Handed down to nested builds, so that all of them share one directory and build everything once.
const SHARED_DIRECTORY: &str = "ISOLATION_LAB_NESTED_TARGET";

/// What kept a nested build from finishing. The text names cause and cure.
#[derive(Debug)]
pub enum Error {
    /// The host is not x86-64 Linux.
    Host(String),
    /// A Rust target is missing and could not be added.
    Target(String),
    /// Cargo could not be run, or failed.
    Cargo(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Host(text) | Error::Target(text) | Error::Cargo(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// Refuses, in one sentence, to build for anything but x86-64 Linux.
fn require_x86_64_linux() -> Result<(), Error> {
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if os == "linux" && arch == "x86_64" {
        return Ok(());
    }
    Err(Error::Host(format!(
        "Isolation Lab runs on x86-64 Linux only (this build is for {arch} {os}): it drives KVM's x86 interface and Linux namespaces."
    )))
}

/// What a build script's `main` does: refuses any host but x86-64 Linux, builds, and ends with cargo's own error message
/// when that fails, not with a backtrace.
pub fn run(build: impl FnOnce() -> Result<(), Error>) {
    if let Err(error) = require_x86_64_linux().and_then(|()| build()) {
        for line in error.to_string().lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1)
    }
}

/// A binary to build.
#[derive(Clone, Copy, Debug)]
pub struct Binary<'a> {
    /// The package.
    pub package: &'a str,
    /// The binary in it.
    pub name: &'a str,
    /// For which target.
    pub target: &'a str,
    /// Under which cargo profile.
    pub profile: &'a str,
    /// With which of the package's features, separated by commas.
    pub features: &'a str,
    /// With which flags for the compiler.
    pub flags: &'a str,
}

/// Builds a binary of this workspace; returns its path. Adds the target through rustup when it is missing.
pub fn build(binary: Binary<'_>) -> Result<PathBuf, Error> {
    let Binary {
        package,
        name,
        target,
        profile,
        features,
        flags,
    } = binary;
    require_target(target)?;
    let target_dir = nested_target_dir()?.join(target);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--package", package, "--bin", name])
        .args(["--target", target, "--profile", profile, "--features", features])
        .arg("--target-dir")
        .arg(&target_dir)
        .env(SHARED_DIRECTORY, nested_target_dir()?);
    forget_outer_build(&mut command);
    if !flags.is_empty() {
        command.env("RUSTFLAGS", flags);
    }
    let output = command.output().map_err(|e| {
        Error::Cargo(format!(
            "cannot run {} to build {name} for {target}: {e}",
            cargo.display()
        ))
    })?;
    if !output.status.success() {
        return Err(Error::Cargo(format!(
            "building {name} for {target} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(target_dir.join(target).join(profile).join(name))
}

/// The outer build's flags, wrappers and target belong to the outer build: clippy's compiler wrapper, a sanitizer's
/// flags or another target directory would change what runs on the inside, or build it a second time.
fn forget_outer_build(command: &mut Command) {
    const NAMES: [&str; 7] = [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "CLIPPY_ARGS",
    ];
    const PREFIXES: [&str; 6] = [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_PKG_",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if NAMES.contains(&text) || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

/// One directory for every nested build of a checkout: `nested` in the outermost target directory.
fn nested_target_dir() -> Result<PathBuf, Error> {
    if let Some(shared) = env::var_os(SHARED_DIRECTORY) {
        return Ok(PathBuf::from(shared));
    }
    let out = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .ok_or_else(|| Error::Cargo("OUT_DIR is not set: call this from a build script".into()))?;
    // Cargo marks target directories with this file, the one for a single target too: the outermost is the root.
    let root = out.ancestors().filter(|dir| dir.join("CACHEDIR.TAG").exists()).last();
    Ok(root.unwrap_or(&out).join("nested"))
}

fn require_target(target: &str) -> Result<(), Error> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|e| Error::Target(format!("cannot run {}: {e}", rustc.display())))?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    let library = Path::new(&sysroot).join("lib/rustlib").join(target).join("lib");
    if library.exists() {
        return Ok(());
    }
    let by_hand = format!("rustup target add {BARE_METAL} {STATIC_LINUX}");
    match Command::new("rustup").args(["target", "add", target]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::Target(format!(
            "the Rust target {target} is missing and rustup could not add it:\n{}\nOnce that is mended, run: {by_hand}",
            String::from_utf8_lossy(&output.stderr)
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Target(format!(
            "the Rust target {target} is missing and there is no rustup to add it. With rustup (https://rustup.rs) the command is: {by_hand}"
        ))),
        Err(error) => Err(Error::Target(format!(
            "cannot run rustup to add the Rust target {target}: {error}"
        ))),
    }
}

/// Tells cargo to run the build script again when anything below these paths changes.
pub fn rerun_if_changed<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) {
    for path in paths {
        println!("cargo::rerun-if-changed={}", path.as_ref().display());
    }
}
