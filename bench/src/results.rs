//! The results folder: what every other part of the lab writes or reads.
//!
//! A folder holds `samples.jsonl` (every launch, one [`Sample`] a line, never trimmed), `summary.json` (one [`Summary`]),
//! `charts/*.svg` and `report.html`. Times are nanoseconds on CLOCK_MONOTONIC, sizes are bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::conditions::Conditions;

/// Version of the layout of `summary.json` and `samples.jsonl`. A reader refuses a newer one.
pub const SCHEMA: u32 = 1;

/// Why a launch was made. Only [`Purpose::Timed`] launches enter the start-up statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Fills caches before anything counts.
    Warmup,
    /// Start-up time, with nothing else asked of the launcher.
    Timed,
    /// The same contender once more, for the null test.
    Null,
    /// With marks, so that the phases are known. Marks cost a few microseconds each; these times stay apart.
    Phases,
    /// Inside an accounting cgroup, for peak memory. Entering it costs time; these times stay apart.
    Memory,
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Name of the contender.
    pub contender: String,
    /// Why it was made.
    pub purpose: Purpose,
    /// Position in the whole series, over all contenders: the interleaving can be read off.
    pub sequence: u64,
    /// Start line: just before the launcher was spawned.
    pub start_ns: u64,
    /// Finish line: the workload's first byte arrived. None when it never did.
    pub first_byte_ns: Option<u64>,
    /// The launcher was reaped.
    pub end_ns: u64,
    /// The launcher's exit status (128 + n when signal n ended it).
    pub exit_status: i32,
    /// Phase marks in the order they came, for [`Purpose::Phases`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// What the host accounted, for [`Purpose::Memory`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// One phase mark, as a launcher writes it (see `protocol::marks`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Name of the phase that is complete.
    pub name: String,
    /// When, on CLOCK_MONOTONIC.
    pub ns: u64,
    /// Who says so: `lab`, `vmm`, `guest`, `container`, ...
    pub emitter: String,
}

/// Where one instance's memory is, as the host accounts it. None: this host offers no way to know (see `note`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Peak charged to a memory cgroup around the whole launch: user pages, page cache it brought in, kernel memory.
    pub peak_bytes: Option<u64>,
    /// Charged while the workload idles, kernel memory included.
    pub idle_bytes: Option<u64>,
    /// Of `idle_bytes`: kernel memory (slab, page tables, stacks).
    pub kernel_bytes: Option<u64>,
    /// Private pages of all its processes together (smaps_rollup), while the workload idles.
    pub unique_bytes: Option<u64>,
    /// Proportional share of pages shared with others, same moment.
    pub shared_bytes: Option<u64>,
    /// VM only: guest memory the guest may use.
    pub guest_configured_bytes: Option<u64>,
    /// VM only: guest memory pages that exist, part of `unique_bytes` + `shared_bytes`.
    pub guest_touched_bytes: Option<u64>,
    /// What is missing here and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Memory {
    /// What an idle instance holds: its private pages, its share of shared ones, and kernel memory. None unless all are known.
    pub fn held_bytes(&self) -> Option<u64> {
        Some(self.unique_bytes? + self.shared_bytes? + self.kernel_bytes?)
    }

    /// The part of it that no other process has a share in. None unless known.
    pub fn private_bytes(&self) -> Option<u64> {
        Some(self.unique_bytes? + self.kernel_bytes?)
    }
}

/// Order statistics of a set of samples, in nanoseconds. A percentile the sample is too small for is None.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Number of samples.
    pub n: u64,
    /// Smallest.
    pub min: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile: None below 10 samples.
    pub p90: Option<u64>,
    /// 99th percentile: None below 100 samples.
    pub p99: Option<u64>,
    /// Largest.
    pub max: u64,
}

/// One phase of a typical run: medians over the runs with marks, relative to the start line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Name of the phase.
    pub name: String,
    /// When it began: where the phase before it ended. Nanoseconds after the start line.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// Who reported its end.
    pub emitter: String,
}

/// Whether a contender ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran and has numbers.
    Measured,
    /// It cannot run here; `reason` and `fix` say why and what would change that.
    Skipped,
}

/// All that is known of one contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// `process`, `container`, `vm`, `crun`, `runc`, ...
    pub name: String,
    /// Measured or skipped.
    pub status: Status,
    /// Why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What would let it run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The launcher's version as it states it, the command that was run, and the like.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
    /// Start line to finish line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_ns: Option<Distribution>,
    /// Start line to the launcher's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ns: Option<Distribution>,
    /// Medians over the memory runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Median phases, in order. Empty for contenders that report none.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// SHA-256 of the workload's bytes as this contender gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_sha256: Option<String>,
    /// The checksum the workload printed (`cpu`), which must be equal everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

impl Sample {
    /// Start line to finish line, in nanoseconds. None: it never crossed the finish line.
    pub fn startup_ns(&self) -> Option<u64> {
        self.first_byte_ns?.checked_sub(self.start_ns)
    }

    /// Start line to the launcher's end, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// `a`'s start-up time divided by `b`'s: ratio of medians, with a bootstrap interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Numerator.
    pub a: String,
    /// Denominator.
    pub b: String,
    /// p50 of `a` over p50 of `b`.
    pub ratio: f64,
    /// 95% bootstrap confidence interval of the ratio.
    pub ci95: [f64; 2],
}

/// The same contender against itself, in the same run. When it shows a difference, or is too wide to show one,
/// there is no verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NullTest {
    /// Which contender.
    pub contender: String,
    /// Ratio of medians of its two halves.
    pub ratio: f64,
    /// 95% bootstrap confidence interval of the ratio.
    pub ci95: [f64; 2],
    /// The interval contains 1, or lies within the stated tolerance around it; and it is narrow enough to have shown a
    /// difference, had there been one.
    pub passed: bool,
}

/// Where, when and on what a result was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// When the run began, RFC 3339, UTC.
    pub date: String,
    /// Processor model.
    pub cpu: String,
    /// Online processors.
    pub cpus: u64,
    /// Memory of the host, in bytes.
    pub memory_bytes: u64,
    /// Host kernel release.
    pub kernel: String,
    /// `vmx`, `svm`, `pvm` or `none`.
    pub kvm_backend: String,
    /// Whether the host itself runs under a hypervisor.
    pub nested: bool,
    /// Whether the host's processor is an emulator's: ratios hold, times do not.
    #[serde(default)]
    pub emulated: bool,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup_mode: String,
    /// 1-, 5- and 15-minute load averages when the run began.
    pub load: [f64; 3],
    /// cpufreq governor, when there is one.
    pub governor: Option<String>,
    /// Transparent huge pages: the setting in force.
    pub thp: String,
    /// Kernel same-page merging: running or not.
    pub ksm: bool,
    /// Effective user id the lab ran as.
    pub uid: u32,
    /// Git revision of the lab, with `-dirty` when the tree was.
    pub git_revision: Option<String>,
    /// SHA-256 of the guest kernel.
    pub kernel_sha256: Option<String>,
    /// SHA-256 of the workload.
    pub workload_sha256: String,
    /// Timed runs per contender.
    pub n: u64,
    /// Idle time between launches, in milliseconds.
    pub gap_ms: u64,
    /// The workload's arguments.
    pub workload: Vec<String>,
    /// The command line that made the result.
    pub command: Vec<String>,
    /// What the reader guessed beforehand: how many times as long as a container a VM takes to start (`--predict`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<f64>,
    /// What else the machine did during the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
    /// Anything a reader must know: "emulated CPU: ratios only", ...
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where, when and on what.
    pub provenance: Provenance,
    /// Every contender asked for, measured or not, in the order of the race.
    pub contenders: Vec<Contender>,
    /// Ratios with intervals. The first ones are each contender against `process`.
    pub comparisons: Vec<Comparison>,
    /// None when no contender could run.
    pub null_test: Option<NullTest>,
    /// Of series under other conditions, one for each condition: the same contender against itself under it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub null_tests: Vec<NullTest>,
}
