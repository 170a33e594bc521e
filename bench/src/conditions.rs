//! What else the machine did meanwhile: load, pressure, stolen time and governor, read before a run and after it.
//!
//! The null test tells whether a run can be believed; this tells why not, and marks a run that others disturbed even where
//! its null test passed: the bounds below are stated with every mark. A series that makes tasks wait by itself, as one that
//! writes to the disk does, [says so](Resource): then their waiting tells nothing of others.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
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
/// Share of all processors' time in which they worked for neither the lab nor what it launched. The kernel's own threads, which
/// tidy up behind launches (about a hundredth, in a race and in a study alike), are in it.
const MOST_FOR_OTHERS: f64 = 0.10;

/// What a series may take up itself, so that it tells nothing of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Tasks wait for a processor.
    Processor,
    /// Tasks wait for memory that must be freed first.
    Memory,
    /// Tasks wait for a disk.
    Disk,
    /// Programs work for the series that nobody in it waits for, so that their processor time cannot be told from others'.
    Daemons,
}

/// Contenders whose containers are left to a daemon of theirs.
const WITH_DAEMONS: [&str; 2] = ["podman", "docker"];

/// [`Resource::Daemons`], when one of these contenders has any.
pub fn daemons(contenders: &[String]) -> Vec<Resource> {
    let any = contenders.iter().any(|name| WITH_DAEMONS.contains(&name.as_str()));
    any.then_some(Resource::Daemons).into_iter().collect()
}

/// One look at the machine.
#[derive(Clone, Debug)]
pub struct Reading {
    at_ns: u64,
    load: f64,
    governor: Option<String>,
    /// Microseconds of `some` pressure since boot: processor, memory, disks. None where the kernel keeps none.
    pressure_us: [Option<u64>; 3],
    /// Processor time since boot.
    processors: Option<Processors>,
    /// Processor time of the lab and of what it launched and waited for, in nanoseconds. None: getrusage(2) failed.
    own_ns: Option<u64>,
}

/// Processor time since boot, over all processors, in ticks (proc_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Processors {
    all: u64,
    /// Neither idle nor stolen.
    busy: u64,
    stolen: u64,
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
    /// Share of the processors' time in which they worked for neither the lab nor what it launched. None in results of an older lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_others: Option<f64>,
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
            processors: fs::read_to_string("/proc/stat").ok().and_then(|text| processors(&text)),
            own_ns: own_ns(),
        }
    }

    /// What happened since. What the series itself takes up, `own`, is told and not held against the run.
    pub fn until_now(&self, own: &[Resource]) -> Conditions {
        self.until(&Reading::now(), own)
    }

    fn until(&self, later: &Reading, own: &[Resource]) -> Conditions {
        let passed_us = (later.at_ns.saturating_sub(self.at_ns) as f64 / 1e3).max(1.0);
        let [cpu_pressure, memory_pressure, io_pressure] = std::array::from_fn(|i| {
            let waited = later.pressure_us[i]?.checked_sub(self.pressure_us[i]?)?;
            Some(waited as f64 / passed_us)
        });
        let passed = self.processors.zip(later.processors).and_then(|(before, after)| {
            Some(Processors {
                all: after.all.checked_sub(before.all).filter(|&all| all > 0)?,
                busy: after.busy.checked_sub(before.busy)?,
                stolen: after.stolen.checked_sub(before.stolen)?,
            })
        });
        let steal = passed.map(|passed| passed.stolen as f64 / passed.all as f64);
        let for_others = passed.and_then(|passed| {
            let own_ns = later.own_ns?.checked_sub(self.own_ns?)? as f64;
            let own = own_ns / 1e9 * ticks_per_second()?;
            // The kernel counts one of the two by sampling: a little less than nothing is nothing.
            Some((passed.busy as f64 - own).max(0.0) / passed.all as f64)
        });
        let telling = |what: Resource, share: Option<f64>| share.filter(|_| !own.contains(&what));
        let bounds = [
            (
                telling(Resource::Processor, cpu_pressure),
                MOST_CPU_PRESSURE,
                "tasks waited for a processor",
            ),
            (
                telling(Resource::Memory, memory_pressure),
                MOST_MEMORY_PRESSURE,
                "tasks waited for memory",
            ),
            (
                telling(Resource::Disk, io_pressure),
                MOST_IO_PRESSURE,
                "tasks waited for disks",
            ),
            (steal, MOST_STEAL, "the hypervisor took processors away"),
            (
                telling(Resource::Daemons, for_others),
                MOST_FOR_OTHERS,
                "processors worked for others",
            ),
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
            for_others,
            disturbed,
        }
    }

    /// Puts what happened since into the provenance, and when it disturbed the run, a note that every caption carries. `own` as
    /// for [`until_now`](Reading::until_now).
    pub fn close(&self, provenance: &mut Provenance, own: &[Resource]) {
        let conditions = self.until_now(own);
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
fn processors(text: &str) -> Option<Processors> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, idle, waiting, hard, soft, stolen] = *fields.first_chunk()?;
    let busy = user + nice + system + hard + soft;
    Some(Processors {
        all: busy + idle + waiting + stolen,
        busy,
        stolen,
    })
}

fn own_ns() -> Option<u64> {
    Some(processor_ns(UsageWho::RUSAGE_SELF)? + processor_ns(UsageWho::RUSAGE_CHILDREN)?)
}

/// Processor time, user's and system's together, in nanoseconds. Children count when they have been waited for, and with them
/// theirs (getrusage(2)).
pub fn processor_ns(who: UsageWho) -> Option<u64> {
    let usage = getrusage(who).ok()?;
    u64::try_from((usage.user_time() + usage.system_time()).num_nanoseconds()).ok()
}

/// The unit of /proc/stat: sysconf(3), _SC_CLK_TCK.
fn ticks_per_second() -> Option<f64> {
    Some(sysconf(SysconfVar::CLK_TCK).ok()?? as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// After so many seconds on two processors, of which one worked for `busy` seconds, for the lab or for others.
    fn reading(seconds: u64, cpu_us: u64, busy: f64, own: f64, stolen: u64) -> Reading {
        let ticks = ticks_per_second().unwrap();
        Reading {
            at_ns: seconds * SECOND,
            load: 1.0,
            governor: None,
            pressure_us: [Some(cpu_us), Some(0), None],
            processors: Some(Processors {
                all: (2.0 * seconds as f64 * ticks) as u64,
                busy: (busy * ticks) as u64,
                stolen,
            }),
            own_ns: Some((own * SECOND as f64) as u64),
        }
    }

    #[test]
    fn the_kernels_lines_are_read() {
        let text =
            "some avg10=0.00 avg60=0.12 avg300=0.10 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(some_total(text), Some(123_456));
        let found = Processors {
            all: 36,
            busy: 1 + 2 + 3 + 6 + 7,
            stolen: 8,
        };
        assert_eq!(processors("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 0\n"), Some(found));
        assert_eq!(processors("cpu  1 2\n"), None);
    }

    #[test]
    fn a_bound_that_is_passed_is_named_with_its_figure() {
        // Ten seconds; tasks waited for 2.5 s of them; one tick stolen, which is below the bound of 1%.
        let quiet = reading(0, 0, 0.0, 0.0, 0);
        let found = quiet.until(&reading(10, 2_500_000, 3.0, 3.0, 1), &[]);
        assert_eq!((found.cpu_pressure, found.io_pressure), (Some(0.25), None));
        assert!(found.steal.is_some_and(|share| share > 0.0 && share < MOST_STEAL));
        assert_eq!(found.for_others, Some(0.0));
        assert_eq!(
            found.disturbed,
            ["tasks waited for a processor 25% of the time (bound 10%)"]
        );
        assert!(found.note().unwrap().starts_with("Disturbed run: "));
        let calm = quiet.until(&reading(10, 500_000, 3.0, 2.0, 0), &[]);
        assert_eq!((calm.for_others, calm.note()), (Some(0.05), None));
    }

    #[test]
    fn a_series_that_makes_tasks_wait_is_marked_by_what_others_do_alone() {
        let quiet = reading(0, 0, 0.0, 0.0, 0);
        let own = quiet.until(&reading(10, 9_000_000, 18.0, 18.0, 0), &[Resource::Processor]);
        assert_eq!((own.cpu_pressure, own.note()), (Some(0.9), None));
        let engine = [Resource::Daemons];
        assert_eq!(quiet.until(&reading(10, 0, 18.0, 12.0, 0), &engine).note(), None);
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(daemons(&names(&["crun", "podman"])), engine);
        assert_eq!(daemons(&names(&["crun", "vm"])), []);
        let others = quiet.until(&reading(10, 9_000_000, 18.0, 12.0, 0), &[Resource::Processor]);
        assert_eq!(
            others.disturbed,
            ["processors worked for others 30% of the time (bound 10%)"]
        );
    }

    #[test]
    fn what_a_launched_program_works_is_the_labs_own() {
        let before = own_ns().unwrap();
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
        let status = std::process::Command::new("sh").args(["-c", work]).status().unwrap();
        assert!(status.success());
        // Far less than it takes anywhere, and more than starting a shell does.
        assert!(own_ns().unwrap() - before > 5_000_000);
    }
}
