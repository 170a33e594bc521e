//! Unpacking a layer against `tar -x`: the same archive, both as processes, in turns; and how much memory each took.
//!
//! Ours also checks two digests on the way, `tar` none. Both are timed from before the start of the process until it has
//! ended; files go to the page cache, neither waits for the disk. `cargo bench -p container --bench unpack`

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]
#![allow(clippy::zombie_processes, reason = "wait4 waits, and says how much memory it was")]
#![allow(missing_docs, reason = "a program")]

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use container::image::layer::archive::{Kind, Member};
use container::image::layer::stream::LayerStream;
use container::image::layer::unpack::{Limits, unpack};
use container::image::layer::write::ArchiveWriter;

/// Rounds: each unpacks with both, in turns of ABBA.
const ROUNDS: usize = 10;

const MIB: u64 = 1 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, archive, into] = arguments.as_slice()
        && verb == "unpack"
    {
        return unpack_once(Path::new(archive), Path::new(into));
    }
    // cargo bench -- --test: one pass to see that it runs.
    let rounds = if arguments.iter().any(|argument| argument == "--test") {
        1
    } else {
        ROUNDS
    };
    let directory = tempfile::tempdir().unwrap();
    println!("layer            ours p50    tar p50  speed  peak memory ours   n");
    for (name, total) in [("50 MB", 50 * MIB), ("200 MB", 200 * MIB)] {
        let plain = directory.path().join("layer.tar");
        write_layer(&plain, total);
        compare(&format!("{name} tar"), &plain, "-xf", directory.path(), rounds);
        let compressed = directory.path().join("layer.tar.gz");
        let mut gzip = Command::new("gzip");
        gzip.arg("-c").arg(&plain).stdout(File::create(&compressed).unwrap());
        assert!(gzip.status().unwrap().success());
        compare(&format!("{name} tar.gz"), &compressed, "-xzf", directory.path(), rounds);
    }
}

fn compare(name: &str, archive: &Path, option: &str, directory: &Path, rounds: usize) {
    let own = std::env::current_exe().unwrap();
    let ours = |into: &Path| {
        let mut command = Command::new(&own);
        command.arg("unpack").arg(archive).arg(into);
        run(command)
    };
    let theirs = |into: &Path| {
        let mut command = Command::new("tar");
        command.arg(option).arg(archive).arg("-C").arg(into);
        run(command)
    };
    let (mut a, mut b, mut peak) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        let order = if round % 2 == 0 {
            [true, false, false, true]
        } else {
            [false, true, true, false]
        };
        for is_ours in order {
            let into = directory.join("into");
            fs::create_dir(&into).unwrap();
            if is_ours {
                let (took, memory) = ours(&into);
                a.push(took);
                peak = peak.max(memory);
            } else {
                b.push(theirs(&into).0);
            }
            fs::remove_dir_all(&into).unwrap();
        }
    }
    let (ours, tar) = (median(&mut a), median(&mut b));
    println!(
        "{name:<14} {:>8.1} ms {:>7.1} ms  {:>5.2}  {:>10.1} MiB     {:>4}",
        ours.as_secs_f64() * 1e3,
        tar.as_secs_f64() * 1e3,
        tar.as_secs_f64() / ours.as_secs_f64(),
        peak as f64 / MIB as f64,
        a.len()
    );
}

/// How long a process took, and its peak memory in bytes.
fn run(mut command: Command) -> (Duration, u64) {
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).spawn().unwrap();
    let mut status = 0;
    // SAFETY: all zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to the two variables whose addresses it is given; the child is ours to wait for.
    let pid = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
    let took = start.elapsed();
    assert_eq!((pid, status), (child.id() as i32, 0), "{command:?}");
    (took, usage.ru_maxrss as u64 * 1024)
}

fn unpack_once(archive: &Path, into: &Path) {
    let mut stream = LayerStream::new(File::open(archive).unwrap(), u64::MAX).unwrap();
    unpack(&mut stream, into, &[], Limits::default()).unwrap();
    stream.finish().unwrap();
}

/// Half the bytes in files of 20 MB, as programs and libraries have it, half in files of 50 kB; all of it as compressible
/// as machine code is, to a third or so.
fn write_layer(path: &Path, total: u64) {
    let mut archive = ArchiveWriter::new(BufWriter::new(File::create(path).unwrap()));
    let mut written = 0;
    let mut number = 0;
    while written < total {
        let size = if written < total / 2 { 20_000_000 } else { 50_000 };
        let member = Member {
            path: format!("usr/lib/{}/file-{number}", number % 50).into_bytes(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1_700_000_000, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            size,
            parts: None,
        };
        archive.append(&member, Noise(number)).unwrap();
        written += size;
        number += 1;
    }
    archive.finish().unwrap().flush().unwrap();
}

/// Bytes of which every fourth is noise.
struct Noise(u64);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for (index, byte) in buffer.iter_mut().enumerate() {
            if index % 4 == 0 {
                // Knuth's linear congruential generator (MMIX).
                self.0 = self
                    .0
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
            }
            *byte = if index % 4 == 0 {
                (self.0 >> 56) as u8
            } else {
                index as u8 & 3
            };
        }
        Ok(buffer.len())
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
