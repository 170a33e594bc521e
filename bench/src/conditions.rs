//! What else the machine did meanwhile: load, pressure, stolen time and governor, read before a run and after it.
//!
//! The null test tells whether a run can be believed; this tells why not, and marks a run that others disturbed even where
//! its null test passed: the bounds below are stated with every mark.

use std::fs;

use protocol::marks::monotonic_ns;
use serde::{Deserialize, Serialize};

use crate::host;
use crate::results::Provenance;
use crate::words;

/// Share of the time in which some task waited for a processor although it could run. The lab's own launches wait a
/// little for each other; beyond a tenth it is somebody else's work they wait for.
const MOST_CPU_PRESSURE: f64 = 0.10;
/// The same for memory: an idle machine has none.
const MOST_MEMORY_PRESSURE: f64 = 0.01;
/// The same for disks.
const MOST_IO_PRESSURE: f64 = 0.10;
/// Share of processor time the hypervisor below gave to others (proc_stat(5), `steal`).
const MOST_STEAL: f64 = 0.01;

/// One look at the machine.
#[derive(Clone, Debug)]
pub struct Reading {
    at_ns: u64,
    load: f64,
    governor: Option<String>,
    /// Microseconds of `some` pressure since boot: processor, memory, disks. None where the kernel keeps none.
    pressure_us: [Option<u64>; 3],
    /// Processor time since boot in ticks: all of it, and what was stolen.
    ticks: Option<(u64, u64)>,
}

/// What happened between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// 1-minute load average before and after.
    pub load: [f64; 2],
    /// The governor before and after; None where there is none.
    pub governor: [Option<String>; 2],
    /// Share of the time in which some task waited for a processor (pressure stall information, `some`).
    pub cpu_pressure: Option<f64>,
    /// The same for memory.
    pub memory_pressure: Option<f64>,
    /// The same for disks.
    pub io_pressure: Option<f64>,
    /// Share of the processors' time that was stolen.
    pub steal: Option<f64>,
    /// Each bound that was passed, with the figure. Empty: nothing disturbed the run beyond them.
    pub disturbed: Vec<String>,
}

impl Reading {
    /// Looks now.
    pub fn now() -> Reading {
        Reading {
            at_ns: monotonic_ns(),
            load: host::load()[0],
            governor: host::governor(),
            pressure_us: ["cpu", "memory", "io"].map(|what| {
                let text = fs::read_to_string(format!("/proc/pressure/{what}")).ok()?;
                some_total(&text)
            }),
            ticks: fs::read_to_string("/proc/stat").ok().and_then(|text| ticks(&text)),
        }
    }

    /// What happened since.
    pub fn until_now(&self) -> Conditions {
        self.until(&Reading::now())
    }

    fn until(&self, later: &Reading) -> Conditions {
        let passed_us = (later.at_ns.saturating_sub(self.at_ns) as f64 / 1e3).max(1.0);
        let [cpu_pressure, memory_pressure, io_pressure] = std::array::from_fn(|i| {
            let waited = later.pressure_us[i]?.checked_sub(self.pressure_us[i]?)?;
            Some(waited as f64 / passed_us)
        });
        let steal = self.ticks.zip(later.ticks).and_then(|(before, after)| {
            let all = after.0.checked_sub(before.0).filter(|&all| all > 0)?;
            Some(after.1.checked_sub(before.1)? as f64 / all as f64)
        });
        let bounds = [
            (cpu_pressure, MOST_CPU_PRESSURE, "tasks waited for a processor"),
            (memory_pressure, MOST_MEMORY_PRESSURE, "tasks waited for memory"),
            (io_pressure, MOST_IO_PRESSURE, "tasks waited for disks"),
            (steal, MOST_STEAL, "the hypervisor took processors away"),
        ];
        let mut disturbed: Vec<String> = bounds
            .into_iter()
            .filter_map(|(found, most, what)| {
                let found = found.filter(|&found| found > most)?;
                let percent = |share: f64| words::significant(share * 100.0, 2);
                Some(format!(
                    "{what} {}% of the time (bound {}%)",
                    percent(found),
                    percent(most)
                ))
            })
            .collect();
        if self.governor != later.governor {
            disturbed.push("the governor changed".into());
        }
        Conditions {
            load: [self.load, later.load],
            governor: [self.governor.clone(), later.governor.clone()],
            cpu_pressure,
            memory_pressure,
            io_pressure,
            steal,
            disturbed,
        }
    }

    /// Puts what happened since into the provenance, and when it disturbed the run, a note that every caption carries.
    pub fn close(&self, provenance: &mut Provenance) {
        let conditions = self.until_now();
        provenance.notes.extend(conditions.note());
        provenance.conditions = Some(conditions);
    }
}

impl Conditions {
    /// The mark of a disturbed run.
    pub fn note(&self) -> Option<String> {
        (!self.disturbed.is_empty()).then(|| format!("Disturbed run: {}.", self.disturbed.join("; ")))
    }
}

/// `total=` of the line `some` (Linux, Documentation/accounting/psi.rst), in microseconds.
fn some_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split(' ')
        .find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

/// Of the line `cpu`: user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user's.
fn ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some((fields.get(..8)?.iter().sum(), fields[7]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at_ns: u64, cpu_us: u64, all: u64, stolen: u64) -> Reading {
        Reading {
            at_ns,
            load: 1.0,
            governor: None,
            pressure_us: [Some(cpu_us), Some(0), None],
            ticks: Some((all, stolen)),
        }
    }

    #[test]
    fn the_kernels_lines_are_read() {
        let text =
            "some avg10=0.00 avg60=0.12 avg300=0.10 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(some_total(text), Some(123_456));
        assert_eq!(ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 0\n"), Some((36, 8)));
        assert_eq!(ticks("cpu  1 2\n"), None);
    }

    #[test]
    fn a_bound_that_is_passed_is_named_with_its_figure() {
        // One second; tasks waited for 0.25 s of it; 1 of 200 ticks stolen, which is below the bound of 1%.
        let quiet = reading(0, 0, 0, 0);
        let found = quiet.until(&reading(1_000_000_000, 250_000, 200, 1));
        assert_eq!(
            (found.cpu_pressure, found.steal, found.io_pressure),
            (Some(0.25), Some(0.005), None)
        );
        assert_eq!(
            found.disturbed,
            ["tasks waited for a processor 25% of the time (bound 10%)"]
        );
        assert!(found.note().unwrap().starts_with("Disturbed run: "));
        let calm = quiet.until(&reading(1_000_000_000, 50_000, 200, 0));
        assert_eq!((calm.disturbed.len(), calm.note()), (0, None));
    }
}
