//! Builds what runs on the inside and tells the library where it lies.

use guest_builder::{BARE_METAL, Error, STATIC_LINUX};

fn main() {
    if let Err(error) = build() {
        guest_builder::fail(&error);
    }
}

fn build() -> Result<(), Error> {
    guest_builder::require_x86_64_linux()?;
    guest_builder::rerun_if_changed([
        "build.rs",
        "kernel",
        "workload",
        "protocol",
        "builder",
        "../Cargo.toml",
        "../Cargo.lock",
        "../.cargo",
    ]);
    let kernel = guest_builder::build("kernel", BARE_METAL, "guest", "")?;
    // At a fixed address: nothing to relocate, so no page of the program is written to before it runs.
    let workload = guest_builder::build("workload", STATIC_LINUX, "guest", "-Crelocation-model=static")?;
    println!("cargo::rustc-env=LAB_KERNEL={}", kernel.display());
    println!("cargo::rustc-env=LAB_WORKLOAD={}", workload.display());
    Ok(())
}
