//! How a block of starts is made under each condition.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use protocol::marks::monotonic_ns;

use super::{Mode, Series};
use crate::compare::Options;
use crate::contenders::{Contender, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::launch::{Outcome, Running};
use crate::race;
use crate::results::{Mark, Purpose, Sample};
use crate::store::Folder;

/// Page cache, directory entries and inodes (Linux, Documentation/admin-guide/sysctl/vm.rst).
const ALL_CACHES: &str = "3";
/// An idle instance that is told to end gets this long.
const FAREWELL: Duration = Duration::from_secs(10);

/// Drops what the kernel keeps of files. What is being written stays.
pub fn drop_caches() -> io::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", ALL_CACHES)
}

/// Whether a folder's files are memory themselves.
pub fn is_tmpfs(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// Makes the starts and writes each down.
pub struct Runner<'a> {
    options: &'a Options,
    folder: &'a mut Folder,
    interrupt: &'a Interrupt,
    sequence: AtomicU64,
    samples: Vec<Sample>,
    failed: BTreeMap<String, Skipped>,
}

/// One start.
struct Start {
    purpose: Purpose,
    /// When it was due, if that is not when it was made.
    due: Option<u64>,
    outcome: Result<Outcome, race::Error>,
}

impl<'a> Runner<'a> {
    /// Nothing started yet.
    pub fn new(options: &'a Options, folder: &'a mut Folder, interrupt: &'a Interrupt) -> Runner<'a> {
        Runner {
            options,
            folder,
            interrupt,
            sequence: AtomicU64::new(0),
            samples: Vec::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Every sample, and the series that failed on the way, by name.
    pub fn finish(self) -> (Vec<Sample>, BTreeMap<String, Skipped>) {
        (self.samples, self.failed)
    }

    /// At least `starts` starts of `contender` that count, under the condition of `series`.
    ///
    /// # Errors
    /// Interruption, and failures of the harness. A contender that fails ends its series only.
    pub fn block(&mut self, contender: &dyn Contender, series: &Series, starts: usize) -> Result<(), race::Error> {
        if self.failed.contains_key(&series.name) {
            return Ok(());
        }
        match series.mode {
            Mode::Cold => self.one_by_one(contender, series, starts, true),
            Mode::Warm => self.one_by_one(contender, series, starts, false),
            Mode::Running(n) => self.with_running(contender, series, starts, n as usize),
            Mode::Workers(n) => {
                self.pause()?;
                let made = self.workers(contender, series.purpose, starts, n as usize);
                self.keep_all(contender, series, made)
            }
            Mode::Rate(rate) => {
                self.pause()?;
                // A moment for the threads to be there before the first is due.
                let first = monotonic_ns() + 20_000_000;
                let due: Vec<u64> = (0..starts).map(|i| first + (i as f64 * 1e9 / rate) as u64).collect();
                let made = self.arriving(contender, series.purpose, &due);
                self.keep_all(contender, series, made)
            }
        }
    }

    fn pause(&self) -> Result<(), race::Error> {
        match self.interrupt.pause(self.options.gap) {
            true => Err(race::Error::Interrupted),
            false => Ok(()),
        }
    }

    fn one_by_one(
        &mut self,
        contender: &dyn Contender,
        series: &Series,
        starts: usize,
        cold: bool,
    ) -> Result<(), race::Error> {
        for _ in 0..starts {
            if cold {
                drop_caches().map_err(|source| race::Error::Prepare {
                    contender: series.name.clone(),
                    source,
                })?;
            }
            self.pause()?;
            let made = Start {
                purpose: series.purpose,
                due: None,
                outcome: once(contender, &self.next_id(), self.options, self.interrupt),
            };
            self.keep_all(contender, series, vec![made])?;
            if self.failed.contains_key(&series.name) {
                break;
            }
        }
        Ok(())
    }

    /// `n` workers, each a closed loop: it starts the next as soon as its last has ended. What counts is started while all
    /// the others are at work: a worker's first start does not, for they begin together, and who has its share goes on until
    /// all have.
    fn workers(&self, contender: &dyn Contender, purpose: Purpose, starts: usize, n: usize) -> Vec<Start> {
        let share = starts.div_ceil(n);
        let (finished, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let together = Barrier::new(n);
        let worker = || {
            together.wait();
            let mut made: Vec<Start> = Vec::new();
            // One more than its share: the first.
            while finished.load(Ordering::SeqCst) < n && !failed.load(Ordering::SeqCst) {
                let counts = (1..=share).contains(&made.len());
                let outcome = once(contender, &self.next_id(), self.options, self.interrupt);
                if !outcome.as_ref().is_ok_and(|outcome| outcome.reached_the_finish_line(0)) {
                    failed.store(true, Ordering::SeqCst);
                }
                made.push(Start {
                    purpose: if counts { purpose } else { Purpose::Warmup },
                    due: None,
                    outcome,
                });
                if made.len() == share + 1 {
                    finished.fetch_add(1, Ordering::SeqCst);
                }
            }
            made
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..n).map(|_| scope.spawn(worker)).collect();
            // A thread that panicked has printed why; its starts are missing from the samples.
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .flatten()
                .collect()
        })
    }

    /// Each start in a thread of its own, when it is due.
    fn arriving(&self, contender: &dyn Contender, purpose: Purpose, due: &[u64]) -> Vec<Start> {
        let ready = Barrier::new(due.len());
        let start = |due: u64| {
            ready.wait();
            thread::sleep(Duration::from_nanos(due.saturating_sub(monotonic_ns())));
            Start {
                purpose,
                due: Some(due),
                outcome: once(contender, &self.next_id(), self.options, self.interrupt),
            }
        };
        let start = &start;
        thread::scope(|scope| {
            let threads: Vec<_> = due.iter().map(|&due| scope.spawn(move || start(due))).collect();
            // As above.
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    }

    fn with_running(
        &mut self,
        contender: &dyn Contender,
        series: &Series,
        starts: usize,
        n: usize,
    ) -> Result<(), race::Error> {
        let mut idle: Vec<(String, Running)> = Vec::new();
        let mut result = Ok(());
        while idle.len() < n && result.is_ok() {
            let id = self.next_id();
            match self.start_idle(contender, &id) {
                Ok(Ok(running)) => idle.push((id, running)),
                Ok(Err(complaint)) => {
                    let reason = format!("with {} of {n} running, the next {complaint}", idle.len());
                    self.give_up(contender, &series.name, reason, 0);
                    break;
                }
                Err(error) => result = Err(error),
            }
        }
        if result.is_ok() && idle.len() == n {
            result = self.one_by_one(contender, series, starts, false);
        }
        for (id, running) in &mut idle {
            contender.clean_up(id);
            running.ask_to_end(FAREWELL);
        }
        for (id, running) in idle {
            // What does not end when told is killed by its limit; how it ended is not what was measured.
            drop(running.wait_for_end());
            contender.clean_up(&id);
        }
        result
    }

    /// An instance that idles, or what it said instead.
    fn start_idle(&self, contender: &dyn Contender, id: &str) -> Result<Result<Running, String>, race::Error> {
        let request = Request {
            id,
            workload: &["idle".to_owned()],
            marks_fd: None,
        };
        let failed = |source| race::Error::Launch {
            contender: contender.name().into(),
            source,
        };
        let mut command = contender.command(&request).map_err(|source| race::Error::Prepare {
            contender: contender.name().into(),
            source,
        })?;
        if self.interrupt.requested() {
            return Err(race::Error::Interrupted);
        }
        // It has to outlast the block; the limit is for hearing from it.
        let whole = self.options.limit * 100;
        let mut running = Running::start(&mut command, None, whole, self.interrupt).map_err(failed)?;
        match running.wait_for_first_byte().map_err(failed)? {
            true => Ok(Ok(running)),
            false => {
                contender.clean_up(id);
                let outcome = running.wait_for_end().map_err(failed)?;
                Ok(Err(outcome.complaint(whole)))
            }
        }
    }

    fn keep_all(&mut self, contender: &dyn Contender, series: &Series, made: Vec<Start>) -> Result<(), race::Error> {
        let mut result = Ok(());
        for start in made {
            let outcome = match start.outcome {
                Ok(outcome) => outcome,
                // The others of the block are kept first.
                Err(error) => {
                    result = Err(error);
                    continue;
                }
            };
            let complaint = (!outcome.reached_the_finish_line(0)).then(|| outcome.complaint(self.options.limit));
            let mut sample = sample(&series.name, self.samples.len() as u64 + 1, start.due, &outcome);
            sample.purpose = start.purpose;
            self.folder.append(&sample)?;
            self.samples.push(sample);
            if let Some(complaint) = complaint {
                self.give_up(contender, &series.name, complaint, outcome.exit_status);
            }
        }
        result
    }

    fn next_id(&self) -> String {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        format!("isolation-lab-{}-{sequence}", std::process::id())
    }

    /// A series that fails once is over: its figures would be those of the starts that happened to work.
    fn give_up(&mut self, contender: &dyn Contender, name: &str, reason: String, status: i32) {
        let skipped = Skipped {
            reason,
            fix: contender.fix(status),
        };
        self.failed.entry(name.into()).or_insert(skipped);
    }
}

fn once(contender: &dyn Contender, id: &str, options: &Options, interrupt: &Interrupt) -> Result<Outcome, race::Error> {
    let request = Request {
        id,
        workload: &options.workload,
        marks_fd: None,
    };
    race::once(contender, &request, false, options.limit, interrupt)
}

/// The start line is when the start was due: a start that had to wait for its turn was late for whoever asked for it.
/// When it was really made is kept as a mark.
fn sample(name: &str, sequence: u64, due: Option<u64>, outcome: &Outcome) -> Sample {
    let launched = due.map(|_| Mark {
        name: "launched".into(),
        ns: outcome.start_ns,
        emitter: "lab".into(),
    });
    Sample {
        contender: name.into(),
        purpose: Purpose::Timed,
        sequence,
        start_ns: due.unwrap_or(outcome.start_ns),
        first_byte_ns: outcome.first_byte_ns,
        end_ns: outcome.end_ns,
        exit_status: outcome.exit_status,
        marks: launched.into_iter().collect(),
        memory: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_start_counts_from_when_it_was_due() {
        let outcome = Outcome {
            start_ns: 1_500,
            first_byte_ns: Some(2_000),
            end_ns: 2_100,
            exit_status: 0,
            timed_out: false,
            stdout: Vec::new(),
            stderr: String::new(),
            marks: Vec::new(),
        };
        let late = sample("vm, 20 per second", 1, Some(1_000), &outcome);
        assert_eq!((late.start_ns, late.first_byte_ns), (1_000, Some(2_000)));
        assert_eq!(late.marks[0].ns, 1_500);
        let closed = sample("vm, warm", 2, None, &outcome);
        assert_eq!((closed.start_ns, closed.marks.len()), (1_500, 0));
    }
}
