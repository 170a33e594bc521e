//! Version 1: one hierarchy per controller, so one directory per limit (kernel documents `admin-guide/cgroup-v1`).

use super::hierarchy::Hierarchy;
use super::{Controller, Group, Setting};

/// The period in which a quota of processor time counts, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The cgroup that enforces `limit` in `hierarchy`.
pub(super) fn group(hierarchy: &Hierarchy, name: &str, controller: Controller, limit: u64) -> Group {
    let setting = |file, value: u64, optional| Setting {
        file,
        value: value.to_string(),
        optional,
    };
    // ANCHOR: limits
    let settings = match controller {
        Controller::Memory => vec![
            setting("memory.limit_in_bytes", limit, false),
            // Memory and swap together: the same number leaves no swap. Absent without swap accounting.
            setting("memory.memsw.limit_in_bytes", limit, true),
        ],
        Controller::Cpu => vec![
            setting("cpu.cfs_period_us", PERIOD_US, false),
            setting("cpu.cfs_quota_us", limit * PERIOD_US / 1000, false),
        ],
        Controller::Pids => vec![setting("pids.max", limit, false)],
    };
    // ANCHOR_END: limits
    Group {
        directory: hierarchy.own.join(name),
        settings,
        v2: false,
    }
}
