//! Reading the ledger of exits that `vmm run --trace FILE` kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// No trace to draw.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the trace {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not a trace: line {line}: {source}. `vmm run --trace FILE PROGRAM` writes one", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line of it.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The file does not begin as a trace does.
    #[error("{} is not a trace of format 1. `vmm run --trace FILE PROGRAM` writes one", .0.display())]
    Foreign(PathBuf),
}

/// A guest's exits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The kernel that ran.
    pub kernel: String,
    /// On how many vCPUs.
    pub vcpus: u32,
    /// Every exit, by time.
    pub exits: Vec<Exit>,
    /// How many exits came when the file was as large as it may be, and are in no line of it.
    pub left_out: u64,
    /// How often KVM itself says that a processor left the guest; None where it does not say.
    pub counted_by_kvm: Option<u64>,
}

/// One exit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Exit {
    /// Which vCPU.
    pub vcpu: u32,
    /// When, in nanoseconds on CLOCK_MONOTONIC.
    pub left_ns: u64,
    /// How long the guest had run before.
    pub guest_ns: u64,
    /// How long it was out.
    pub host_ns: u64,
    /// Why.
    pub reason: String,
    /// For which device.
    pub device: Option<String>,
}

impl Exit {
    /// Reason and device in a few words.
    pub fn name(&self) -> String {
        match (&self.device, self.reason.as_str()) {
            (Some(device), reason) => format!("{reason}, {device}"),
            (None, reason @ ("port read" | "port write" | "memory read" | "memory write")) => {
                format!("{reason}, nobody")
            }
            (None, reason) => reason.to_string(),
        }
    }
}

#[derive(Deserialize)]
struct Head {
    trace: u32,
    kernel: String,
    vcpus: u32,
}

#[derive(Deserialize)]
struct Tail {
    #[serde(default)]
    left_out: u64,
    kvm: Kvm,
}

#[derive(Deserialize)]
struct Kvm {
    vcpus: Vec<BTreeMap<String, u64>>,
}

/// Reads a trace. The last line of a VMM that was killed may be missing or half there.
pub fn read(path: &Path) -> Result<Trace, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    let mut lines = text.lines().enumerate().peekable();
    let head = lines
        .next()
        .and_then(|(_, line)| serde_json::from_str::<Head>(line).ok());
    let head = head
        .filter(|head| head.trace == 1)
        .ok_or_else(|| Error::Foreign(path.into()))?;
    let mut trace = Trace {
        kernel: head.kernel,
        vcpus: head.vcpus,
        ..Trace::default()
    };
    while let Some((number, line)) = lines.next() {
        let is_last = lines.peek().is_none();
        match serde_json::from_str(line) {
            Ok(exit) => trace.exits.push(exit),
            Err(_) if is_last => {
                let tail = serde_json::from_str::<Tail>(line).ok();
                trace.left_out = tail.as_ref().map_or(0, |tail| tail.left_out);
                let counts = tail.map(|tail| tail.kvm.vcpus);
                let exits =
                    |counts: Vec<BTreeMap<String, u64>>| counts.iter().filter_map(|vcpu| vcpu.get("exits")).sum();
                trace.counted_by_kvm = counts
                    .filter(|vcpus| vcpus.iter().any(|vcpu| !vcpu.is_empty()))
                    .map(exits);
            }
            Err(source) => {
                return Err(Error::Line {
                    path: path.into(),
                    line: number + 1,
                    source,
                });
            }
        }
    }
    trace.exits.sort_by_key(|exit| exit.left_ns);
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\"trace\":1,\"kernel\":\"the lab kernel\",\"vcpus\":2}\n";
    const EXIT: &str = "{\"vcpu\":1,\"left_ns\":70,\"guest_ns\":9,\"host_ns\":6,\"reason\":\"port write\",\"device\":\"doorbell\",\"address\":\"0xc0c\",\"bytes\":4,\"rip\":\"0x1\",\"symbol\":\"ring+0x1e\"}\n";
    const TAIL: &str = "{\"kvm\":{\"vm\":{},\"vcpus\":[{\"exits\":91},{\"exits\":9}]}}\n";

    fn trace(text: &str) -> Result<Trace, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn a_trace_is_read_in_the_order_of_time_whole_or_cut_short() {
        let earlier = EXIT.replace("70", "60").replace("\"device\":\"doorbell\",", "");
        let whole = trace(&[HEAD, EXIT, &earlier, TAIL].concat()).unwrap();
        assert_eq!(
            whole.exits.iter().map(|exit| exit.left_ns).collect::<Vec<_>>(),
            [60, 70]
        );
        assert_eq!(whole.counted_by_kvm, Some(100));
        assert_eq!(
            (whole.exits[0].name(), whole.exits[1].name()),
            ("port write, nobody".into(), "port write, doorbell".into())
        );
        let full = TAIL.replace("{\"kvm\"", "{\"left_out\":7,\"note\":\"the trace ends here\",\"kvm\"");
        let full = trace(&[HEAD, EXIT, &full].concat()).unwrap();
        assert_eq!(
            (full.exits.len(), full.left_out, full.counted_by_kvm),
            (1, 7, Some(100))
        );
        let cut = trace(&[HEAD, EXIT, &earlier[..30]].concat()).unwrap();
        assert_eq!((cut.exits.len(), cut.counted_by_kvm), (1, None));
    }

    #[test]
    fn something_else_is_refused_with_its_line() {
        assert!(matches!(trace(""), Err(Error::Foreign(_))));
        assert!(matches!(trace(&HEAD.replace(":1", ":2")), Err(Error::Foreign(_))));
        let error = trace(&[HEAD, "nonsense\n", EXIT].concat()).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("vmm run --trace"), "{error}");
    }
}
