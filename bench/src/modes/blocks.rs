//! How a block of starts is made under each condition.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use protocol::marks::monotonic_ns;

use super::Mode;
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
    sequence: u64,
    samples: Vec<Sample>,
    failed: BTreeMap<String, Skipped>,
}

/// One start, and when it was due if that is not when it was made.
type Start = (Option<u64>, Result<Outcome, race::Error>);

impl<'a> Runner<'a> {
    /// Nothing started yet.
    pub fn new(options: &'a Options, folder: &'a mut Folder, interrupt: &'a Interrupt) -> Runner<'a> {
        Runner {
            options,
            folder,
            interrupt,
            sequence: 0,
            samples: Vec::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Every sample, and the series that failed on the way, by name.
    pub fn finish(self) -> (Vec<Sample>, BTreeMap<String, Skipped>) {
        (self.samples, self.failed)
    }

    /// At least `starts` starts of `contender` under `mode`, written down as `name`'s.
    ///
    /// # Errors
    /// Interruption, and failures of the harness. A contender that fails ends its series only.
    pub fn block(
        &mut self,
        contender: &dyn Contender,
        mode: Mode,
        name: &str,
        starts: usize,
    ) -> Result<(), race::Error> {
        if self.failed.contains_key(name) {
            return Ok(());
        }
        match mode {
            Mode::Cold => self.one_by_one(contender, name, starts, true),
            Mode::Warm => self.one_by_one(contender, name, starts, false),
            Mode::Running(n) => self.with_running(contender, name, starts, n as usize),
            Mode::AtOnce(n) => {
                for _ in 0..starts.div_ceil(n as usize) {
                    self.pause()?;
                    let due = vec![None; n as usize];
                    let made = self.together(contender, &due);
                    self.keep_all(contender, name, made)?;
                }
                Ok(())
            }
            Mode::Rate(rate) => {
                self.pause()?;
                // A moment for the threads to be there before the first is due.
                let first = monotonic_ns() + 20_000_000;
                let due: Vec<_> = (0..starts)
                    .map(|i| Some(first + (i as f64 * 1e9 / rate) as u64))
                    .collect();
                let made = self.together(contender, &due);
                self.keep_all(contender, name, made)
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
        name: &str,
        starts: usize,
        cold: bool,
    ) -> Result<(), race::Error> {
        for _ in 0..starts {
            if cold {
                drop_caches().map_err(|source| race::Error::Prepare {
                    contender: name.into(),
                    source,
                })?;
            }
            self.pause()?;
            let id = self.next_id();
            let made = (None, once(contender, &id, self.options, self.interrupt));
            self.keep_all(contender, name, vec![(id, made)])?;
            if self.failed.contains_key(name) {
                break;
            }
        }
        Ok(())
    }

    /// Each start in a thread of its own: when it is due, or all together.
    fn together(&mut self, contender: &dyn Contender, due: &[Option<u64>]) -> Vec<(String, Start)> {
        let ids: Vec<String> = due.iter().map(|_| self.next_id()).collect();
        let (options, interrupt) = (self.options, self.interrupt);
        let ready = Barrier::new(due.len());
        thread::scope(|scope| {
            let threads: Vec<_> = due
                .iter()
                .zip(&ids)
                .map(|(&due, id)| {
                    let ready = &ready;
                    scope.spawn(move || {
                        ready.wait();
                        let wait = due.map_or(0, |due| due.saturating_sub(monotonic_ns()));
                        thread::sleep(Duration::from_nanos(wait));
                        (due, once(contender, id, options, interrupt))
                    })
                })
                .collect();
            let made = threads.into_iter().zip(&ids).filter_map(|(thread, id)| {
                // A thread that panicked has printed why; its start is missing from the samples.
                Some((id.clone(), thread.join().ok()?))
            });
            made.collect()
        })
    }

    fn with_running(
        &mut self,
        contender: &dyn Contender,
        name: &str,
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
                    self.give_up(contender, name, reason, 0);
                    break;
                }
                Err(error) => result = Err(error),
            }
        }
        if result.is_ok() && idle.len() == n {
            result = self.one_by_one(contender, name, starts, false);
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

    fn keep_all(
        &mut self,
        contender: &dyn Contender,
        name: &str,
        made: Vec<(String, Start)>,
    ) -> Result<(), race::Error> {
        let mut result = Ok(());
        for (_, (due, outcome)) in made {
            let outcome = match outcome {
                Ok(outcome) => outcome,
                // The others of the block are kept first.
                Err(error) => {
                    result = Err(error);
                    continue;
                }
            };
            let complaint = (!outcome.reached_the_finish_line(0)).then(|| outcome.complaint(self.options.limit));
            let sample = sample(name, self.samples.len() as u64 + 1, due, &outcome);
            self.folder.append(&sample)?;
            self.samples.push(sample);
            if let Some(complaint) = complaint {
                self.give_up(contender, name, complaint, outcome.exit_status);
            }
        }
        result
    }

    fn next_id(&mut self) -> String {
        self.sequence += 1;
        format!("isolation-lab-{}-{}", std::process::id(), self.sequence)
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
