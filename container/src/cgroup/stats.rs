//! What a container has used, as its cgroups account it: the figures of `events --stats`.
//!
//! The shape is the one runc prints and engines read (its `types/events.go`): version 1's words, into which version 2's
//! are translated.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::place::{Place, Places};

/// The figures of a container's cgroups.
pub fn read(places: &Places) -> Value {
    let mut data = Map::new();
    if let Some(place) = places.with("cpuacct") {
        data.insert("cpu".into(), cpu(place, places));
    }
    if let Some(place) = places.with("memory") {
        data.insert("memory".into(), memory(place));
    }
    if let Some(place) = places.with("pids") {
        let limit = number(place, "pids.max");
        let mut pids = json!({ "current": number(place, "pids.current").unwrap_or(0) });
        // "max" is no number: no limit, no member.
        if let Some(limit) = limit {
            pids["limit"] = json!(limit);
        }
        data.insert("pids".into(), pids);
    }
    if let Some(place) = places.with("blkio") {
        data.insert("blkio".into(), block_io(place));
    }
    data.insert(
        "hugetlb".into(),
        places.with("hugetlb").map_or_else(|| json!({}), huge_pages),
    );
    data.insert("intel_rdt".into(), json!({}));
    Value::Object(data)
}

/// Times the out-of-memory killer has struck.
pub fn out_of_memory_kills(places: &Places) -> u64 {
    let Some(place) = places.with("memory") else { return 0 };
    let file = if place.v2 {
        "memory.events"
    } else {
        "memory.oom_control"
    };
    table(place, file).get("oom_kill").copied().unwrap_or(0)
}

fn text(place: &Place, file: &str) -> String {
    fs::read_to_string(place.directory.join(file)).unwrap_or_default()
}

fn number(place: &Place, file: &str) -> Option<u64> {
    text(place, file).trim().parse().ok()
}

/// A file of lines `key number`.
fn table(place: &Place, file: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text(place, file).lines().filter_map(pair).collect()
}

fn cpu(place: &Place, places: &Places) -> Value {
    let limits = places
        .with("cpu")
        .map(|place| table(place, "cpu.stat"))
        .unwrap_or_default();
    let of = |key: &str| limits.get(key).copied().unwrap_or(0);
    const NS_PER_US: u64 = 1000;
    let (usage, throttled_time) = match place.v2 {
        true => (
            json!({
                "total": of("usage_usec") * NS_PER_US,
                "kernel": of("system_usec") * NS_PER_US,
                "user": of("user_usec") * NS_PER_US,
            }),
            of("throttled_usec") * NS_PER_US,
        ),
        false => {
            let per_cpu: Vec<u64> = text(place, "cpuacct.usage_percpu")
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            (
                json!({
                    "total": number(place, "cpuacct.usage").unwrap_or(0),
                    "percpu": per_cpu,
                    "kernel": number(place, "cpuacct.usage_sys").unwrap_or(0),
                    "user": number(place, "cpuacct.usage_user").unwrap_or(0),
                }),
                of("throttled_time"),
            )
        }
    };
    json!({
        "usage": usage,
        "throttling": {
            "periods": of("nr_periods"),
            "throttledPeriods": of("nr_throttled"),
            "throttledTime": throttled_time,
        },
    })
}

fn memory(place: &Place) -> Value {
    let raw = table(place, "memory.stat");
    let entry = |usage: Option<u64>, max: Option<u64>, limit: Option<u64>, fails: Option<u64>| {
        // No limit is the greatest number of pages there is, as version 1 has it.
        json!({
            "limit": limit.unwrap_or(u64::MAX),
            "usage": usage.unwrap_or(0),
            "max": max.unwrap_or(0),
            "failcnt": fails.unwrap_or(0),
        })
    };
    if place.v2 {
        let fails = table(place, "memory.events").get("max").copied();
        let read = |file| number(place, file);
        return json!({
            "cache": raw.get("file").copied().unwrap_or(0),
            "usage": entry(read("memory.current"), read("memory.peak"), read("memory.max"), fails),
            "swap": entry(read("memory.swap.current"), read("memory.swap.peak"), read("memory.swap.max"), None),
            "raw": raw,
        });
    }
    let group = |prefix: &str| {
        let read = |file: &str| number(place, &format!("{prefix}.{file}"));
        entry(
            read("usage_in_bytes"),
            read("max_usage_in_bytes"),
            read("limit_in_bytes"),
            read("failcnt"),
        )
    };
    json!({
        "cache": raw.get("cache").copied().unwrap_or(0),
        "usage": group("memory"),
        "swap": group("memory.memsw"),
        "kernel": group("memory.kmem"),
        "kernelTCP": group("memory.kmem.tcp"),
        "raw": raw,
    })
}

fn block_io(place: &Place) -> Value {
    let mut bytes = Vec::new();
    let mut operations = Vec::new();
    let mut add = |device: &str, operation: &str, value: u64, to_bytes: bool| {
        let Some((major, minor)) = device.split_once(':') else {
            return;
        };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else {
            return;
        };
        let entry = json!({ "major": major, "minor": minor, "op": operation, "value": value });
        if to_bytes {
            bytes.push(entry)
        } else {
            operations.push(entry)
        }
    };
    if place.v2 {
        for line in text(place, "io.stat").lines() {
            let mut words = line.split(' ');
            let device = words.next().unwrap_or_default();
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let value = value.parse().unwrap_or(0);
                match key {
                    "rbytes" => add(device, "Read", value, true),
                    "wbytes" => add(device, "Write", value, true),
                    "rios" => add(device, "Read", value, false),
                    "wios" => add(device, "Write", value, false),
                    _ => {}
                }
            }
        }
    } else {
        let files = [
            ("blkio.throttle.io_service_bytes_recursive", true),
            ("blkio.throttle.io_serviced_recursive", false),
        ];
        for (file, to_bytes) in files {
            for line in text(place, file).lines() {
                if let [device, operation, value] = line.split(' ').collect::<Vec<_>>()[..] {
                    add(device, operation, value.parse().unwrap_or(0), to_bytes);
                }
            }
        }
    }
    json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations })
}

fn huge_pages(place: &Place) -> Value {
    let sizes = files(&place.directory).into_iter().filter_map(|name| {
        let end = if place.v2 { ".current" } else { ".usage_in_bytes" };
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(end)?;
        (!size.contains('.')).then(|| size.to_owned())
    });
    let entry = |size: String| {
        let read = |file: &str| number(place, &format!("hugetlb.{size}.{file}"));
        let (usage, max, fails) = match place.v2 {
            true => (
                read("current"),
                None,
                table(place, &format!("hugetlb.{size}.events")).get("max").copied(),
            ),
            false => (read("usage_in_bytes"), read("max_usage_in_bytes"), read("failcnt")),
        };
        let figures = json!({ "usage": usage.unwrap_or(0), "max": max.unwrap_or(0), "failcnt": fails.unwrap_or(0) });
        (size, figures)
    };
    Value::Object(sizes.map(entry).collect())
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
