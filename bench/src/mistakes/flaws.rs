//! The mistakes themselves: each a few lines that differ from the honest race in one thing.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use protocol::marks::monotonic_ns;

use super::{CONTAINER, Error, Flawed, Mistake, NAMES, Sides, VM};
use crate::contenders::Request;
use crate::image::PROGRAM;
use crate::launch::{self, Outcome, Running};
use crate::race;
use crate::schedule;
use crate::stats;

/// The mark a VM monitor's own boot timer stops at.
const KERNEL_ENTRY: &str = "guest kernel entry";
/// What an ordinary image holds beside the program, in bytes.
const BALLAST: usize = 16 << 20;
/// Instances weighed of each side.
const WEIGHED: usize = 6;
/// As in `memory::weigh`.
const SETTLE: Duration = Duration::from_millis(50);
const FAREWELL: Duration = Duration::from_secs(2);
/// Launches of one side in a row when they come at a rate.
const BURST: usize = 10;
/// Time between two arrivals over the slower side's median start: busy, but not more than it can serve.
const SLACK: f64 = 1.15;

impl Sides<'_> {
    /// One launch that reached its finish line.
    fn launch(&self, side: usize, marks: bool) -> Result<Outcome, Error> {
        let request = Request {
            id: &self.id(),
            workload: &self.options.workload,
            marks_fd: None,
        };
        let contender = &*self.contenders[side];
        let outcome = race::once(contender, &request, marks, self.options.limit, self.interrupt)?;
        self.finished(side, outcome)
    }

    fn finished(&self, side: usize, outcome: Outcome) -> Result<Outcome, Error> {
        match outcome.reached_the_finish_line(self.status) {
            true => Ok(outcome),
            false => Err(Error::Failed {
                side: NAMES[side],
                complaint: outcome.complaint(self.options.limit),
            }),
        }
    }

    fn id(&self) -> String {
        format!("isolation-lab-{}-mistake", std::process::id())
    }

    fn pause(&self, time: Duration) -> Result<(), Error> {
        match self.interrupt.pause(time) {
            true => Err(race::Error::Interrupted.into()),
            false => Ok(()),
        }
    }

    /// As the honest race goes about it: every side once a round, every other round backwards, a gap before each launch.
    fn interleaved(
        &self,
        gap: Duration,
        mut one: impl FnMut(usize) -> Result<Flawed, Error>,
    ) -> Result<Vec<Flawed>, Error> {
        let mut values = Vec::new();
        for round in schedule::rounds(NAMES.len(), self.options.runs) {
            for side in round {
                self.pause(gap)?;
                values.push(one(side)?);
            }
        }
        Ok(values)
    }
}

/// Start line to finish line.
fn startup(outcome: &Outcome) -> u64 {
    outcome.first_byte_ns.unwrap_or(outcome.end_ns) - outcome.start_ns
}

fn value(mistake: Mistake, side: usize, flawed: u64, honest: Option<u64>) -> Flawed {
    Flawed {
        mistake,
        side: NAMES[side],
        flawed,
        honest,
    }
}

/// One side after the other instead of in turn.
pub(super) fn block_order(sides: &Sides, again: &mut Vec<Flawed>) -> Result<Vec<Flawed>, Error> {
    let block = |side: usize| -> Result<Vec<Flawed>, Error> {
        (0..sides.options.runs)
            .map(|_| {
                sides.pause(sides.options.gap)?;
                Ok(value(
                    Mistake::BlockOrder,
                    side,
                    startup(&sides.launch(side, false)?),
                    None,
                ))
            })
            .collect()
    };
    let values = [block(CONTAINER)?, block(VM)?].concat();
    *again = block(CONTAINER)?;
    Ok(values)
}

/// A finish line of its own for each side.
pub(super) fn finish_line(sides: &Sides) -> Result<Vec<Flawed>, Error> {
    sides.interleaved(sides.options.gap, |side| {
        let outcome = sides.launch(side, side == VM)?;
        let end = match side {
            VM => {
                let entry = outcome.marks.iter().find(|mark| mark.name == KERNEL_ENTRY);
                let missing = || Error::Failed {
                    side: NAMES[VM],
                    complaint: format!("reported no mark \"{KERNEL_ENTRY}\""),
                };
                entry.ok_or_else(missing)?.ns
            }
            _ => outcome.end_ns,
        };
        Ok(value(
            Mistake::FinishLine,
            side,
            end.saturating_sub(outcome.start_ns),
            None,
        ))
    })
}

/// The same root in the format one side likes and the other does not.
pub(super) fn format(sides: &Sides) -> Result<Vec<Flawed>, Error> {
    let root = sides.image.rootfs();
    let ballast = root.join("etc/ballast");
    fs::write(&ballast, vec![0x5a; BALLAST]).map_err(|source| Error::Write { path: ballast, source })?;
    sides.interleaved(sides.options.gap, |side| {
        let outcome = match side {
            VM => {
                let mut command = Command::new(&sides.launchers.vmm);
                command.env_clear().arg("run").arg("--rootfs").arg(&root);
                command.arg("--").arg(PROGRAM).args(&sides.options.workload);
                let outcome = launch::launch(&mut command, None, sides.options.limit, sides.interrupt);
                let outcome = outcome.map_err(|source| race::Error::Launch {
                    contender: NAMES[VM].into(),
                    source,
                })?;
                sides.finished(VM, outcome)?
            }
            _ => sides.launch(side, false)?,
        };
        Ok(value(Mistake::Format, side, startup(&outcome), None))
    })
}

/// Two measures that share a name.
pub(super) fn rss(sides: &Sides) -> Result<Vec<Flawed>, Error> {
    let accounting = crate::accounting::Accounting::create().ok();
    let mut values = Vec::new();
    for round in schedule::rounds(NAMES.len(), WEIGHED) {
        for side in round {
            sides.pause(sides.options.gap)?;
            let contender = &*sides.contenders[side];
            let (_, memory) = crate::memory::weigh(
                contender,
                &sides.id(),
                accounting.as_ref(),
                sides.options.limit,
                sides.interrupt,
            )?;
            let honest = memory.held_bytes().ok_or_else(|| Error::Missing {
                side: NAMES[side],
                reason: memory
                    .note
                    .clone()
                    .unwrap_or_else(|| "this host does not account its memory".into()),
            })?;
            values.push(value(Mistake::Rss, side, weigh_wrongly(sides, side)?, Some(honest)));
        }
    }
    Ok(values)
}

/// What a table of published figures would hold, in bytes.
fn weigh_wrongly(sides: &Sides, side: usize) -> Result<u64, Error> {
    let (contender, id) = (&*sides.contenders[side], sides.id());
    let idle = ["idle".to_owned()];
    let request = Request {
        id: &id,
        workload: &idle,
        marks_fd: None,
    };
    let mut command = contender.command(&request).map_err(crate::memory::Error::from)?;
    let failed = |source| Error::from(crate::memory::Error::Launch(source));
    let mut running = Running::start(&mut command, None, sides.options.limit, sides.interrupt).map_err(failed)?;
    let idles = running.wait_for_first_byte().map_err(failed)?;
    sleep(SETTLE);
    let processes = crate::memory::with_descendants(running.pid());
    let found = match side {
        VM => processes.iter().map(|pid| status(*pid, "VmSize:")).sum(),
        // The workload is the youngest of the launcher's descendants.
        _ => processes.last().map_or(0, |pid| status(*pid, "VmRSS:")),
    };
    contender.clean_up(&id);
    running.ask_to_end(FAREWELL);
    let outcome = running.wait_for_end().map_err(failed)?;
    contender.clean_up(&id);
    match idles {
        true => Ok(found),
        false => Err(Error::Failed {
            side: NAMES[side],
            complaint: outcome.complaint(sides.options.limit),
        }),
    }
}

/// A size in /proc/PID/status, which tells it in KiB; 0 for a process that is gone.
fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}

/// Launches due at a rate; what waits in the queue forgotten.
pub(super) fn closed_loop(sides: &Sides, honest: &[Vec<u64>; 2]) -> Result<Vec<Flawed>, Error> {
    let middle = |times: &Vec<u64>| stats::distribution(times).map_or(0, |found| found.p50);
    let slower = honest.iter().map(middle).max().unwrap_or(0);
    // The next launch can begin when the launcher before it has ended: a few probes say how long that is.
    let mut whole = Vec::new();
    for _ in 0..BURST {
        let outcome = sides.launch(VM, false)?;
        whole.push(outcome.end_ns - outcome.start_ns);
    }
    let every = (middle(&whole).max(slower) as f64 * SLACK) as u64;
    let mut values = Vec::new();
    for round in schedule::rounds(NAMES.len(), sides.options.runs.div_ceil(BURST)) {
        for side in round {
            sides.pause(sides.options.gap)?;
            let began = monotonic_ns();
            for arrival in 0..BURST as u64 {
                let due = began + arrival * every;
                if let Some(early) = due.checked_sub(monotonic_ns()) {
                    sides.pause(Duration::from_nanos(early))?;
                }
                let outcome = sides.launch(side, false)?;
                let finish = outcome.first_byte_ns.unwrap_or(outcome.end_ns);
                let honest = Some(finish.saturating_sub(due));
                values.push(value(Mistake::ClosedLoop, side, startup(&outcome), honest));
            }
        }
    }
    Ok(values)
}

/// One launch on the heels of the other.
pub(super) fn no_gaps(sides: &Sides) -> Result<Vec<Flawed>, Error> {
    sides.interleaved(Duration::ZERO, |side| {
        Ok(value(Mistake::NoGaps, side, startup(&sides.launch(side, false)?), None))
    })
}
