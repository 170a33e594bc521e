//! Builds what runs on the inside and tells the library where it lies.

use guest_builder::{BARE_METAL, Binary, Error, STATIC_LINUX};

fn main() {
    guest_builder::run(build);
}

fn build() -> Result<(), Error> {
    guest_builder::rerun_if_changed([
        "build.rs",
        "kernel",
        "printer",
        "workload",
        "init",
        "protocol",
        "builder",
        "../Cargo.toml",
        "../Cargo.lock",
    ]);
    let kernel = guest_builder::build(Binary {
        package: "kernel",
        name: "kernel",
        target: BARE_METAL,
        profile: "guest",
        features: "bare-metal",
        flags: "",
    })?;
    let printer = guest_builder::build(Binary {
        package: "printer",
        name: "printer",
        target: BARE_METAL,
        profile: "guest",
        features: "bare-metal",
        // Where the linker puts a program without being told: at 2 MiB, which is memory in every machine.
        flags: "-Crelocation-model=static -Clink-arg=--no-pie",
    })?;
    let program = |package| {
        guest_builder::build(Binary {
            package,
            name: package,
            target: STATIC_LINUX,
            profile: "guest",
            features: "",
            // At a fixed address: nothing to relocate, so no page of the program is written to before it runs.
            flags: "-Crelocation-model=static",
        })
    };
    let workload = program("workload")?;
    let init = program("init")?;
    println!("cargo::rustc-env=LAB_KERNEL={}", kernel.display());
    println!("cargo::rustc-env=LAB_PRINTER={}", printer.display());
    println!("cargo::rustc-env=LAB_WORKLOAD={}", workload.display());
    println!("cargo::rustc-env=LAB_INIT={}", init.display());
    Ok(())
}
