//! Made-up results for the tests of what draws and prints. No figure in here was measured.

use fastrand::Rng;

use crate::results::{
    Comparison, Contender, Mark, Memory, NullTest, Provenance, Purpose, SCHEMA, Sample, Status, Summary,
};
use crate::stats;

/// A median start of `p50` ns for a contender, with `spread` (0.05: 5%) of tail.
pub type Racer = (&'static str, u64, f64);

const KIB: u64 = 1024;

/// What a good run on a good day looks like.
pub fn typical() -> Summary {
    typical_run().0
}

/// The same with its samples.
pub fn typical_run() -> (Summary, Vec<Sample>) {
    let racers = [
        ("process", 1_200_000, 0.1),
        ("container", 2_100_000, 0.1),
        ("vm", 2_310_000, 0.1),
        ("crun", 12_800_000, 0.2),
        ("runc", 47_000_000, 0.3),
    ];
    race(&racers, 50, &[])
}

/// A host without /dev/kvm and without runc.
pub fn without_kvm() -> Summary {
    without_kvm_run().0
}

/// The same with its samples.
pub fn without_kvm_run() -> (Summary, Vec<Sample>) {
    let skipped = [
        (
            "vm",
            "there is no /dev/kvm",
            "load the module for this processor (modprobe kvm_intel or kvm_amd), or switch \
          virtualization on in the firmware",
        ),
        ("runc", "runc is not installed", "apt-get install runc"),
    ];
    race(
        &[("process", 1_200_000, 0.1), ("container", 2_100_000, 0.1)],
        50,
        &skipped,
    )
}

/// Eight contenders within one percent of each other.
pub fn many() -> Summary {
    many_run().0
}

/// The same with its samples.
pub fn many_run() -> (Summary, Vec<Sample>) {
    let racers = [
        "process",
        "container",
        "vm",
        "crun",
        "runc",
        "podman-with-a-long-name",
        "youki",
        "firecracker",
    ];
    let racers: Vec<Racer> = racers
        .into_iter()
        .enumerate()
        .map(|(i, name)| (name, 5_000_000 + i as u64 * 6_000, 0.002))
        .collect();
    race(&racers, 40, &[])
}

/// Three contenders a thousand times apart.
pub fn far_apart_run() -> (Summary, Vec<Sample>) {
    race(
        &[
            ("process", 400_000, 0.1),
            ("container", 4_000_000, 0.2),
            ("vm", 30_000_000_000, 0.3),
        ],
        20,
        &[],
    )
}

/// One contender, one run.
pub fn single_run() -> (Summary, Vec<Sample>) {
    race(&[("container", 2_100_000, 0.1)], 1, &[])
}

/// Nobody could run.
pub fn empty() -> Summary {
    empty_run().0
}

/// The same with its (no) samples.
pub fn empty_run() -> (Summary, Vec<Sample>) {
    race(
        &[],
        0,
        &[
            ("vm", "there is no /dev/kvm", "load the module"),
            ("container", "no user namespaces", "run as root"),
        ],
    )
}

/// Interleaved runs of made-up racers.
pub fn race(racers: &[Racer], n: u64, skipped: &[(&str, &str, &str)]) -> (Summary, Vec<Sample>) {
    let mut random = Rng::with_seed(7);
    let mut samples = Vec::new();
    for round in 0..n {
        for (index, (name, p50, spread)) in racers.iter().enumerate() {
            for purpose in [Purpose::Timed, Purpose::Phases, Purpose::Memory] {
                // A floor, and an exponential tail whose median lies at the given p50.
                let tail = -(1.0 - random.f64()).ln() / std::f64::consts::LN_2;
                let took = *p50 as f64 * (1.0 - spread + spread * tail);
                let sequence = (round * racers.len() as u64 + index as u64) * 3;
                samples.push(sample(name, purpose, sequence, took as u64));
            }
        }
    }

    let mut contenders: Vec<Contender> = racers.iter().map(|(name, ..)| measured(name, &samples)).collect();
    contenders.extend(skipped.iter().map(|(name, reason, fix)| Contender {
        reason: Some((*reason).into()),
        fix: Some((*fix).into()),
        ..blank(name, Status::Skipped)
    }));
    let mut comparisons = Vec::new();
    for (a, b) in racers
        .iter()
        .map(|(name, ..)| (*name, "process"))
        .chain([("vm", "container"), ("vm", "crun")])
    {
        let (a_times, b_times) = (times(a, &samples), times(b, &samples));
        if a != b && !a_times.is_empty() && !b_times.is_empty() {
            comparisons.push(comparison(a, &a_times, b, &b_times));
        }
    }
    let null_test = racers.first().map(|(name, ..)| NullTest {
        contender: (*name).into(),
        ratio: 1.004,
        ci95: [0.981, 1.02],
        passed: true,
    });
    (
        Summary {
            schema: SCHEMA,
            provenance: provenance(n),
            contenders,
            comparisons,
            null_tests: Vec::new(),
            null_test,
        },
        samples,
    )
}

/// Medians' ratio with an interval of 5% to either side: a bootstrap for each example would take the tests seconds.
fn comparison(a: &str, a_times: &[u64], b: &str, b_times: &[u64]) -> Comparison {
    let p50 = |times: &[u64]| stats::distribution(times).map_or(f64::NAN, |found| found.p50 as f64);
    let ratio = p50(a_times) / p50(b_times);
    Comparison {
        a: a.into(),
        b: b.into(),
        ratio,
        ci95: [ratio * 0.95, ratio * 1.05],
    }
}

fn times(name: &str, samples: &[Sample]) -> Vec<u64> {
    let timed = samples
        .iter()
        .filter(|sample| sample.contender == name && sample.purpose == Purpose::Timed);
    timed
        .filter_map(|sample| Some(sample.first_byte_ns? - sample.start_ns))
        .collect()
}

fn measured(name: &str, samples: &[Sample]) -> Contender {
    let own: Vec<Sample> = samples
        .iter()
        .filter(|sample| sample.contender == name)
        .cloned()
        .collect();
    let startup_ns = stats::distribution(&times(name, samples));
    Contender {
        startup_ns,
        memory: memory(name),
        phases: stats::phases(&own),
        ..blank(name, Status::Measured)
    }
}

fn blank(name: &str, status: Status) -> Contender {
    Contender {
        name: name.into(),
        status,
        reason: None,
        fix: None,
        details: [("command".to_string(), format!("{name} run /bin/workload hello"))].into(),
        startup_ns: None,
        total_ns: None,
        memory: None,
        phases: Vec::new(),
        workload_sha256: None,
        checksum: None,
    }
}

fn memory(name: &str) -> Option<Memory> {
    let (unique, shared, kernel, peak) = match name {
        "process" => (60, 20, 90, 312),
        "container" => (110, 60, 380, 640),
        "vm" => (720, 340, 420, 1434),
        "runc" => (9_300, 1_100, 1_500, 21_000),
        "crun" => (480, 350, 700, 3_100),
        _ => {
            return Some(Memory {
                note: Some("no memory cgroup here".into()),
                ..Memory::default()
            });
        }
    };
    Some(Memory {
        peak_bytes: Some(peak * KIB),
        idle_bytes: Some((unique + kernel) * KIB),
        kernel_bytes: Some(kernel * KIB),
        unique_bytes: Some(unique * KIB),
        shared_bytes: Some(shared * KIB),
        guest_configured_bytes: (name == "vm").then_some(65_536 * KIB),
        guest_touched_bytes: (name == "vm").then_some(512 * KIB),
        note: None,
    })
}

fn sample(name: &str, purpose: Purpose, sequence: u64, took: u64) -> Sample {
    let start_ns = 81_000_000_000_000 + sequence * 100_000_000;
    let of_vm = [
        ("process start", 0.18, "vmm"),
        ("KVM opened", 0.19, "vmm"),
        ("VM created", 0.33, "vmm"),
        ("memory mapped", 0.335, "vmm"),
        ("kernel loaded", 0.45, "vmm"),
        ("vCPU ready", 0.56, "vmm"),
        ("guest kernel entry", 0.60, "guest"),
        ("user mode entry", 0.85, "guest"),
        ("first output", 0.98, "vmm"),
    ];
    let of_container = [
        ("process start", 0.2, "container"),
        ("cgroup made", 0.35, "container"),
        ("clone returned", 0.66, "container"),
        ("user map written", 0.67, "container"),
        ("mounts done", 0.79, "container"),
        ("pivot done", 0.8, "container"),
        ("privileges dropped", 0.89, "container"),
        ("exec", 0.895, "container"),
    ];
    let marks = match (purpose, name) {
        (Purpose::Phases, "vm") => &of_vm[..],
        (Purpose::Phases, "container") => &of_container[..],
        _ => &[],
    };
    Sample {
        contender: name.into(),
        purpose,
        sequence,
        start_ns,
        first_byte_ns: Some(start_ns + took),
        end_ns: start_ns + took + 400_000,
        exit_status: 0,
        marks: marks
            .iter()
            .map(|(mark, share, emitter)| Mark {
                name: (*mark).into(),
                ns: start_ns + (took as f64 * share) as u64,
                emitter: (*emitter).into(),
            })
            .collect(),
        memory: None,
    }
}

fn provenance(n: u64) -> Provenance {
    Provenance {
        date: "2026-11-23T21:30:00Z".into(),
        cpu: "Example Processor 8C @ 2.60GHz".into(),
        cpus: 2,
        memory_bytes: 24 << 30,
        kernel: "6.18.0-example".into(),
        kvm_backend: "pvm".into(),
        nested: true,
        emulated: false,
        cgroup_mode: "hybrid".into(),
        load: [0.42, 0.31, 0.2],
        governor: None,
        thp: "madvise".into(),
        ksm: false,
        uid: 0,
        git_revision: Some("0123abc-dirty".into()),
        kernel_sha256: Some("ab".repeat(32)),
        workload_sha256: "cd".repeat(32),
        n,
        gap_ms: 30,
        workload: vec!["hello".into()],
        command: vec!["lab".into(), "compare".into(), "--runs".into(), n.to_string()],
        prediction: None,
        conditions: None,
        notes: Vec::new(),
    }
}
