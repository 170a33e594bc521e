//! Builds that are cut off: whatever ends one, the store is whole, nothing is left, and the next build goes on from there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use container::image::Digest;

use builds::{Workshop, is_empty, outcome};
use common::{hear_the_keyboard, marker, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How many builds are cut off, each at another moment.
const CUTS: u32 = 20;

fn workshop() -> Result<Workshop, String> {
    let workshop = Workshop::with_busybox(
        "FROM scratch AS one\n\
         COPY busybox /bin/\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         RUN dd if=/dev/zero of=/large bs=64k count=16 2>/dev/null && rm /bin/yes\n\
         COPY src /src\n\
         FROM scratch\n\
         WORKDIR /w\n\
         COPY --from=one / /\n\
         RUN echo done > done; rm -r /src\n",
    )?;
    for number in 0..50 {
        workshop.file(&format!("src/{number}"), &number.to_string().repeat(1000));
    }
    Ok(workshop)
}

/// Every blob is what its name says, every image is whole, every unpacked layer is there with its description.
fn check(workshop: &Workshop) {
    let store = workshop.open();
    for blob in fs::read_dir(workshop.store().join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let digest = Digest::of(&fs::read(blob.path()).unwrap());
        assert_eq!(Some(digest.hex().as_str()), blob.file_name().to_str());
    }
    for entry in store.entries().unwrap() {
        let image = store.load(&entry).unwrap();
        assert!(image.blobs().iter().all(|blob| store.has_blob(blob)));
    }
    for layer in fs::read_dir(workshop.store().join("layers")).unwrap() {
        let layer = layer.unwrap().path();
        assert!(
            layer.join("diff").is_dir() && layer.join("layer.json").is_file(),
            "{layer:?}"
        );
    }
    drop(store);
    // Whoever opens the store alone clears it. A process that is just ending is still somebody, even without a command line.
    until("an empty directory for what is in the making", || {
        drop(workshop.open());
        is_empty(&workshop.store().join("tmp")).then_some(())
    });
}

/// Mounts, and processes whose command line has this text.
fn nothing_is_left(workshop: &Workshop, text: &str) {
    let store = workshop.store().display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&store), "{mounts}");
    until("the processes to end", || {
        let left = fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(text) && process.file_name().to_str() != Some(&std::process::id().to_string())
        });
        (!left).then_some(())
    });
}

#[test]
fn killed_at_many_points_the_store_stays_whole() {
    root_or_skip!();
    let workshop = match workshop() {
        Ok(workshop) => workshop,
        Err(reason) => skip!("{reason}"),
    };
    // One build in full says how long there is to cut in; what it made is thrown away.
    let began = Instant::now();
    workshop.build(&[]);
    let whole = began.elapsed();
    let expected = workshop.image().layers().to_vec();
    fs::remove_dir_all(workshop.store()).unwrap();
    let mut killed = 0;
    for cut in 0..CUTS {
        // From the start over and over at first, later from where the last one came to.
        if cut < CUTS / 2 && workshop.store().exists() {
            fs::remove_dir_all(workshop.store()).unwrap();
        }
        let mut command = workshop.command(if cut % 3 == 2 { &["--no-cache"] } else { &[] });
        let mut build = command.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(cut % (CUTS / 2)) / f64::from(CUTS / 2)));
        build.kill().unwrap();
        killed += u32::from(build.wait().unwrap().code().is_none());
        nothing_is_left(&workshop, &workshop.context().display().to_string());
        check(&workshop);
    }
    assert!(
        killed > CUTS / 4,
        "only {killed} of {CUTS} were cut off before their end"
    );
    workshop.build(&[]);
    check(&workshop);
    assert_eq!(
        workshop.image().layers(),
        expected,
        "interrupted or not, the layers are the same"
    );
}

#[test]
fn interrupted_from_the_keyboard_a_command_ends_with_its_build() {
    root_or_skip!();
    hear_the_keyboard();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let marker = marker(80 + signal as u32);
        let workshop = workshop_or_skip!(&format!(
            "FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"sleep\", \"{marker}\"]\n"
        ));
        let mut build = workshop.command(&[]).stderr(Stdio::null()).spawn().unwrap();
        let running = || {
            fs::read_dir("/proc").unwrap().flatten().any(|process| {
                let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&format!("sleep\0{marker}"))
            })
        };
        until("the command to run", || running().then_some(()));
        kill(Pid::from_raw(build.id() as i32), signal).unwrap();
        let status = build.wait().unwrap();
        assert!(!status.success());
        until("the command to end", || (!running()).then_some(()));
        nothing_is_left(&workshop, &marker);
        check(&workshop);
        workshop.file("Dockerfile", "FROM scratch\nCOPY busybox /bin/\n");
        assert_eq!(outcome(&workshop.build(&[]), "COPY busybox"), "cached");
    }
}

#[test]
fn two_builds_at_once_do_not_disturb_each_other() {
    root_or_skip!();
    let workshop = match workshop() {
        Ok(workshop) => workshop,
        Err(reason) => skip!("{reason}"),
    };
    let mut builds: Vec<_> = (0..4)
        .map(|_| workshop.command(&["-q"]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for build in &mut builds {
        assert!(build.wait().unwrap().success());
    }
    check(&workshop);
    assert_eq!(workshop.text("w/done"), "done\n");
}
