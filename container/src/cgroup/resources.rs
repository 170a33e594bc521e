//! The `resources` of a config.json, in the files of both versions.
//!
//! One word of the specification (config-linux, "Control groups"), one line here, and beside it the file it means on
//! version 1 and on version 2. Where the two versions count differently, the specification's number is version 1's and
//! is converted.

use std::borrow::Cow;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::place::{Place, Places};
use super::{Error, device_rules, write};
use crate::errno::of;
use nix::errno::Errno;

/// The period in which a quota of processor time counts, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// What to write, for which controller.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    controller: &'static str,
    file: Cow<'static, str>,
    value: String,
    /// Kernels without the feature lack the file, and what was asked for holds without it.
    optional: bool,
}

impl Write {
    fn new(controller: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Write {
        Write {
            controller,
            file: file.into(),
            value: value.to_string(),
            optional: false,
        }
    }

    fn optional(self) -> Write {
        Write { optional: true, ..self }
    }
}

/// The v1 names of the controllers these resources set a limit with.
pub fn limited(resources: &LinuxResources) -> Vec<&'static str> {
    let mut names: Vec<_> = v1(resources).into_iter().map(|write| write.controller).collect();
    names.dedup();
    names
}

/// Sets the limits, and where `devices` is true the rules on devices.
pub fn apply(places: &Places, resources: &LinuxResources, devices: bool) -> Result<(), Error> {
    let v1 = v1(resources);
    for place in &places.0 {
        match place.v2 {
            true => {
                let taken = |controller: &str| {
                    places
                        .0
                        .iter()
                        .any(|other| other.controllers.iter().any(|name| name == controller))
                };
                let left = v2(resources)
                    .into_iter()
                    .filter(|write| !taken(v1_name(write.controller)));
                left.into_iter().try_for_each(|write| perform(place, &write))?;
                for (file, value) in resources.unified().iter().flatten() {
                    if file.contains('/') {
                        return Err(Error::NoFile { file: file.clone() });
                    }
                    perform(place, &Write::new("unified", file.clone(), value))?;
                }
            }
            false => {
                let ours = |write: &&Write| place.controllers.iter().any(|name| name == write.controller);
                let writes: Vec<&Write> = v1.iter().filter(ours).collect();
                perform_all(place, &writes)?;
            }
        }
    }
    let missing = v1
        .iter()
        .find(|write| !write.optional && places.with(write.controller).is_none());
    if let Some(write) = missing {
        return Err(Error::NoController {
            controller: write.controller,
        });
    }
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) && !places.0.iter().any(|place| place.v2)
    {
        return Err(Error::NoController {
            controller: "any controller of version 2 (\"unified\")",
        });
    }
    match devices {
        true => device_rules::apply(places, resources.devices().as_deref().unwrap_or_default()),
        false => Ok(()),
    }
}

fn v1_name(controller: &'static str) -> &'static str {
    if controller == "io" { "blkio" } else { controller }
}

/// Writes in order. Where one is refused because of what another will change (memory and memory+swap are bounds of each
/// other, and which must move first depends on where they were), it gets a second chance behind the others.
fn perform_all(place: &Place, writes: &[&Write]) -> Result<(), Error> {
    let mut refused = Vec::new();
    for write in writes {
        if perform(place, write).is_err() {
            refused.push(*write);
        }
    }
    refused.into_iter().try_for_each(|write| perform(place, write))
}

fn perform(place: &Place, setting: &Write) -> Result<(), Error> {
    let file = place.directory.join(&*setting.file);
    match write(&file, &setting.value) {
        Err(error) if setting.optional && matches!(of(&error), Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(Error::Limit {
            file,
            value: setting.value.clone(),
            errno: of(&error),
        }),
        Ok(()) => Ok(()),
    }
}

/// -1 is "no limit" in the specification.
fn or_max(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

fn v1(resources: &LinuxResources) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut add = |write| writes.push(write);
    if let Some(memory) = resources.memory() {
        let mut bytes =
            |file: &'static str, value: Option<i64>| _ = value.map(|value| add(Write::new("memory", file, value)));
        bytes("memory.limit_in_bytes", memory.limit());
        bytes("memory.memsw.limit_in_bytes", memory.swap());
        bytes("memory.soft_limit_in_bytes", memory.reservation());
        bytes("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp());
        if let Some(swappiness) = memory.swappiness() {
            add(Write::new("memory", "memory.swappiness", swappiness));
        }
        if memory.disable_oom_killer() == Some(true) {
            add(Write::new("memory", "memory.oom_control", 1));
        }
    }
    if let Some(cpu) = resources.cpu() {
        v1_cpu(cpu, &mut add);
    }
    if let Some(pids) = resources.pids() {
        // Here 0 is no limit too: a container without any process could not be started.
        let limit = if pids.limit() > 0 { pids.limit() } else { -1 };
        add(Write::new("pids", "pids.max", or_max(limit)));
    }
    if let Some(block_io) = resources.block_io() {
        v1_block_io(block_io, &mut add);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        add(Write::new("hugetlb", file, limit.limit()));
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            add(Write::new("net_cls", "net_cls.classid", class));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            add(Write::new("net_prio", "net_prio.ifpriomap", value));
        }
    }
    rdma(resources, &mut add);
    writes
}

fn v1_cpu(cpu: &LinuxCpu, add: &mut impl FnMut(Write)) {
    if let Some(shares) = cpu.shares() {
        add(Write::new("cpu", "cpu.shares", shares));
    }
    if let Some(period) = cpu.period() {
        add(Write::new("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota() {
        add(Write::new("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = cpu.burst() {
        add(Write::new("cpu", "cpu.cfs_burst_us", burst));
    }
    if let Some(period) = cpu.realtime_period() {
        add(Write::new("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime() {
        add(Write::new("cpu", "cpu.rt_runtime_us", runtime));
    }
    if let Some(idle) = cpu.idle() {
        add(Write::new("cpu", "cpu.idle", idle));
    }
    for (file, set) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(set) = set.as_ref().filter(|set| !set.is_empty()) {
            add(Write::new("cpuset", file, set));
        }
    }
}

fn v1_block_io(block_io: &LinuxBlockIo, add: &mut impl FnMut(Write)) {
    if let Some(weight) = block_io.weight().filter(|&weight| weight > 0) {
        // Which of the two there is depends on the scheduler; without either, weights have nobody to follow them.
        add(Write::new("blkio", "blkio.weight", weight).optional());
        add(Write::new("blkio", "blkio.bfq.weight", weight).optional());
    }
    if let Some(weight) = block_io.leaf_weight() {
        add(Write::new("blkio", "blkio.leaf_weight", weight).optional());
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            add(Write::new("blkio", "blkio.weight_device", value.clone()).optional());
            add(Write::new("blkio", "blkio.bfq.weight_device", value).optional());
        }
    }
    for (file, _, devices) in throttles(block_io) {
        for device in devices {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            add(Write::new("blkio", file, value));
        }
    }
}

/// For each kind of throttle: its file on v1, its key in v2's `io.max`, its devices.
fn throttles(block_io: &LinuxBlockIo) -> [(&'static str, &'static str, &[LinuxThrottleDevice]); 4] {
    let read_bytes = block_io.throttle_read_bps_device().as_deref().unwrap_or_default();
    let write_bytes = block_io.throttle_write_bps_device().as_deref().unwrap_or_default();
    let reads = block_io.throttle_read_iops_device().as_deref().unwrap_or_default();
    let writes = block_io.throttle_write_iops_device().as_deref().unwrap_or_default();
    [
        ("blkio.throttle.read_bps_device", "rbps", read_bytes),
        ("blkio.throttle.write_bps_device", "wbps", write_bytes),
        ("blkio.throttle.read_iops_device", "riops", reads),
        ("blkio.throttle.write_iops_device", "wiops", writes),
    ]
}

fn rdma(resources: &LinuxResources, add: &mut impl FnMut(Write)) {
    for (device, limit) in resources.rdma().iter().flatten() {
        let or_max = |limit: Option<u32>| limit.map_or("max".into(), |limit| limit.to_string());
        let value = format!(
            "{device} hca_handle={} hca_object={}",
            or_max(limit.hca_handles()),
            or_max(limit.hca_objects())
        );
        add(Write::new("rdma", "rdma.max", value));
    }
}

fn v2(resources: &LinuxResources) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut add = |write| writes.push(write);
    if let Some(memory) = resources.memory() {
        v2_memory(memory, &mut add);
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|&shares| shares > 0) {
            add(Write::new("cpu", "cpu.weight", weight_of_shares(shares)));
        }
        if cpu.quota().is_some() || cpu.period().is_some() {
            let quota = cpu
                .quota()
                .filter(|&quota| quota > 0)
                .map_or("max".into(), |quota| quota.to_string());
            add(Write::new(
                "cpu",
                "cpu.max",
                format!("{quota} {}", cpu.period().unwrap_or(PERIOD_US)),
            ));
        }
        if let Some(burst) = cpu.burst() {
            add(Write::new("cpu", "cpu.max.burst", burst));
        }
        if let Some(idle) = cpu.idle() {
            add(Write::new("cpu", "cpu.idle", idle));
        }
        for (file, set) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(set) = set.as_ref().filter(|set| !set.is_empty()) {
                add(Write::new("cpuset", file, set));
            }
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit() } else { -1 };
        add(Write::new("pids", "pids.max", or_max(limit)));
    }
    if let Some(block_io) = resources.block_io() {
        if let Some(weight) = block_io.weight().filter(|&weight| weight > 0) {
            add(Write::new("io", "io.bfq.weight", weight).optional());
            add(Write::new("io", "io.weight", format!("default {}", io_weight(weight))).optional());
        }
        for device in block_io.weight_device().iter().flatten() {
            if let Some(weight) = device.weight() {
                let value = format!("{}:{} {}", device.major(), device.minor(), io_weight(weight));
                add(Write::new("io", "io.weight", value).optional());
            }
        }
        for (_, key, devices) in throttles(block_io) {
            for device in devices {
                let rate = if device.rate() == 0 {
                    "max".into()
                } else {
                    device.rate().to_string()
                };
                add(Write::new(
                    "io",
                    "io.max",
                    format!("{}:{} {key}={rate}", device.major(), device.minor()),
                ));
            }
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        add(Write::new(
            "hugetlb",
            format!("hugetlb.{}.max", limit.page_size()),
            limit.limit(),
        ));
    }
    rdma(resources, &mut add);
    writes
}

fn v2_memory(memory: &LinuxMemory, add: &mut impl FnMut(Write)) {
    if let Some(limit) = memory.limit() {
        add(Write::new("memory", "memory.max", or_max(limit)));
    }
    if let Some(swap) = memory.swap() {
        // Memory and swap together in the specification; swap alone in version 2.
        let swap = match memory.limit() {
            Some(limit) if swap >= 0 && limit >= 0 => (swap - limit).max(0),
            _ => swap,
        };
        add(Write::new("memory", "memory.swap.max", or_max(swap)).optional());
    }
    if let Some(reservation) = memory.reservation() {
        add(Write::new("memory", "memory.low", or_max(reservation)));
    }
}

/// Version 1 has shares from 2 to 262144 (default 1024), version 2 weights from 1 to 10000 (default 100): the formula
/// is runc's and crun's, so that an engine finds what it expects.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Version 1 has 10 to 1000, version 2 has 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn files(writes: Vec<Write>) -> Vec<(String, String)> {
        writes
            .into_iter()
            .map(|write| (write.file.into_owned(), write.value))
            .collect()
    }

    #[test]
    fn every_word_means_a_file_in_both_versions() {
        let resources: LinuxResources = serde_json::from_value(json!({
            "memory": {"limit": 1000, "swap": 1500, "reservation": 500},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1"},
            "pids": {"limit": 7},
            "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
        }))
        .unwrap();
        let pair = |(file, value): &(&str, &str)| ((*file).to_owned(), (*value).to_owned());
        let expected_v1 = [
            ("memory.limit_in_bytes", "1000"),
            ("memory.memsw.limit_in_bytes", "1500"),
            ("memory.soft_limit_in_bytes", "500"),
            ("cpu.shares", "1024"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "7"),
            ("blkio.weight", "500"),
            ("blkio.bfq.weight", "500"),
            ("blkio.throttle.read_bps_device", "8:0 600"),
            ("hugetlb.2MB.limit_in_bytes", "4096"),
        ];
        assert_eq!(files(v1(&resources)), expected_v1.iter().map(pair).collect::<Vec<_>>());
        let expected_v2 = [
            ("memory.max", "1000"),
            ("memory.swap.max", "500"),
            ("memory.low", "500"),
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "7"),
            ("io.bfq.weight", "500"),
            ("io.weight", "default 4950"),
            ("io.max", "8:0 rbps=600"),
            ("hugetlb.2MB.max", "4096"),
        ];
        assert_eq!(files(v2(&resources)), expected_v2.iter().map(pair).collect::<Vec<_>>());
    }

    #[test]
    fn no_limit_is_spelled_as_each_file_wants_it() {
        let resources: LinuxResources =
            serde_json::from_value(json!({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": 0}})).unwrap();
        assert_eq!(files(v1(&resources))[0].1, "-1");
        assert_eq!(files(v2(&resources))[0].1, "max");
        assert_eq!(files(v2(&resources)).last().unwrap().1, "max");
    }
}
