//! What makes measurements waver, or means something other than it seems.

use super::{Finding, Standing};
use crate::{host, words};

/// Above this load per processor, somebody else is running much of the time.
const QUIET: f64 = 0.3;

/// Everything about the machine's peace.
pub fn examine() -> Vec<Finding> {
    vec![processor(), governor(), load(), huge_pages(), same_page_merging()]
}

fn processor() -> Finding {
    let name = "processor";
    if host::emulated() {
        let found = format!("{}, emulated by QEMU", host::cpu_model());
        Finding::new(name, Standing::Limited, found, words::EMULATED)
    } else {
        Finding::new(
            name,
            Standing::Good,
            host::cpu_model(),
            "It executes what it is given; nobody translates.",
        )
    }
}

fn governor() -> Finding {
    let name = "frequency governor";
    match host::governor().as_deref() {
        Some("performance") => Finding::new(name, Standing::Good, "performance", "The clock does not wait for load."),
        Some(other) => Finding::new(
            name,
            Standing::Limited,
            other,
            "After the idle gap the clock is low, and a short start is over before it rises: it varies more.",
        )
        .fix("sudo cpupower frequency-set -g performance"),
        None => Finding::new(
            name,
            Standing::Good,
            "none",
            "The frequency is not this kernel's to set, as in most VMs.",
        ),
    }
}

fn load() -> Finding {
    let name = "load";
    let [last_minute, ..] = host::load();
    let per_cpu = last_minute / host::cpus() as f64;
    let found = format!("{last_minute} on {} processors", host::cpus());
    if per_cpu <= QUIET {
        Finding::new(name, Standing::Good, found, "The machine is quiet.")
    } else {
        Finding::new(
            name,
            Standing::Limited,
            found,
            "Others are at work: the spread grows, and the null test may refuse a verdict.",
        )
        .fix("wait, or stop what runs")
    }
}

fn huge_pages() -> Finding {
    let name = "transparent huge pages";
    let setting = host::transparent_huge_pages();
    if setting == "always" {
        Finding::new(
            name,
            Standing::Limited,
            setting,
            "One touched byte may cost 2 MiB, in processes and guests alike: memory figures are larger than elsewhere.",
        )
        .fix("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
    } else {
        Finding::new(name, Standing::Good, setting, "Memory is counted in pages of 4 KiB.")
    }
}

fn same_page_merging() -> Finding {
    let name = "kernel same-page merging";
    if host::same_page_merging() {
        Finding::new(
            name,
            Standing::Limited,
            "running",
            "Equal pages of guests may become one: what is unique to a VM looks smaller than it is.",
        )
        .fix("echo 2 | sudo tee /sys/kernel/mm/ksm/run")
    } else {
        Finding::new(name, Standing::Good, "off", "Every page counted exists.")
    }
}
