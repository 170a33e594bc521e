//! `lab cost`: what work costs inside a contender, once it runs.
//!
//! The lessons ([`lessons`]): a computation, memory, system calls, a disk and a network ([`crate::equipment`]).
//! The workload's lessons time themselves, so no start-up is in these figures. Contenders take turns, round by round, as
//! in a race; the plain process runs twice in every round, and where it seems to differ from itself the machine is too
//! noisy for a verdict. What explains a VM's figure is how often the guest is left: KVM's own count at the end of the
//! ledger (`vmm run --trace`) of two runs of different length, the difference of exits over the difference of work; the
//! median of three such pairs.

mod at_work;
pub mod lessons;
pub(crate) mod text;
mod trust;

use std::collections::BTreeMap;
use std::process;
use std::time::Duration;

use clap::Args;
use nix::sys::resource::UsageWho;
use serde::Serialize;

use self::at_work::{AtWork, Equipments};
pub use self::lessons::unit;
use self::lessons::{LESSONS, Lesson, Need};
pub use self::trust::doubt;
use super::results::{Cost, Entry, LessonCost, Readings, SkippedLesson};
use super::{Bench, Common, Error, keep, once_each};
use crate::contenders::{Contender, NAMES, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::{charts, conditions, race, schedule, stats, trace, words};

/// Who works when nobody is named.
const DEFAULT: [&str; 7] = ["process", "container", "vm", "vm-restored", "vm-linux", "crun", "runc"];
/// Longest a lesson may take.
const LIMIT: Duration = Duration::from_secs(120);
/// No clock worth reading tells whole milliseconds, but by chance once in a million runs.
const TICK_NS: u64 = 1_000_000;
/// Rounds that fill caches before anything counts.
const WARMUPS: usize = 1;
/// Pairs of runs whose exits are counted; the figure is their median. A device that is asked while it is at work is left
/// less often for each piece, so that timing decides the count.
const LEDGERS: usize = 3;

/// Options of `lab cost`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Runs of each lesson by each contender.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Who works, separated by commas. The plain process always does: the others are held against it.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = DEFAULT, value_parser = NAMES)]
    pub contenders: Vec<String>,
    /// What they work on, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = lessons::NAMES, value_parser = lessons::NAMES)]
    pub lessons: Vec<String>,
    /// Idle time before each launch, in milliseconds.
    #[arg(long, default_value_t = 10, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub gap_ms: u64,
    /// Where to, and how printed.
    #[command(flatten)]
    pub common: Common,
}

#[derive(Serialize)]
struct Reading<'a> {
    contender: &'a str,
    lesson: &'a str,
    /// The plain process once more, for the null test.
    null: bool,
    /// Position in the whole series.
    sequence: usize,
    #[serde(flatten)]
    run: Run,
}

/// One run, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    /// By the program's own clock.
    ns: u64,
    /// By the harness's: start line to the launcher's end. Never less.
    whole_ns: u64,
    /// Of `ns`, without a processor at the least. None where a lesson has something to wait for.
    waited_ns: Option<u64>,
}

/// Runs of each racer (the second plain process last), by lesson.
type Runs = BTreeMap<(usize, &'static str), Vec<Run>>;

/// Has every contender work.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<String, Error> {
    let mut names = once_each(&options.contenders);
    names.retain(|name| name != "process");
    names.insert(0, "process".into());
    let chosen = |lesson: &&Lesson| options.lessons.iter().any(|name| name == lesson.name);
    let lessons: Vec<&Lesson> = LESSONS.iter().filter(chosen).collect();
    let mut bench = Bench::set_up("cost", &options.common, &names, u64::from(options.runs))?;
    bench.provenance.gap_ms = options.gap_ms;
    bench
        .own
        .extend(lessons.iter().filter_map(|lesson| lesson.need.waiting()));
    let equipments = Equipments::make(&lessons, &bench.image);
    let mut ready: Vec<Box<dyn Contender>> = Vec::new();
    let mut skipped: BTreeMap<String, Skipped> = BTreeMap::new();
    for name in &names {
        match bench.contender(name) {
            Ok(contender) => ready.push(contender),
            Err(reason) => drop(skipped.insert(name.clone(), reason)),
        }
    }
    bench.notes.extend(equipments.notes(&ready));
    let mut work = Work {
        lessons: &lessons,
        equipments: &equipments,
        ready: &ready,
        runs: Runs::new(),
        failed: BTreeMap::new(),
        sequence: 0,
    };
    work.run(&mut bench, options, interrupt)?;
    if interrupt.requested() {
        bench
            .notes
            .push("Interrupted: not every contender has the runs that were asked for.".into());
    }
    let mut entries = Vec::new();
    for name in &names {
        let place = ready.iter().position(|contender| contender.name() == name);
        entries.push(match (skipped.remove(name), place) {
            (None, Some(place)) => {
                let exits = work.exits(&bench, place, interrupt);
                work.entry(place, &exits)
            }
            (Some(reason), _) => Entry::skipped(name, reason),
            (None, None) => continue,
        });
    }
    // What an engine or a disk keeps lies in the image's folder, which goes with the bench.
    drop(ready);
    drop(equipments);
    let (study, folder) = bench.finish(entries)?;
    let chart = keep(&charts::running_cost::draw(&study)?, &folder)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text::of(&study, &folder, &chart)),
    }
}

/// The runs, and what has come of them.
struct Work<'a> {
    lessons: &'a [&'static Lesson],
    equipments: &'a Equipments,
    ready: &'a [Box<dyn Contender>],
    runs: Runs,
    /// Who could not do which lesson: it is not tried again.
    failed: BTreeMap<(usize, &'static str), Skipped>,
    sequence: usize,
}

impl<'a> Work<'a> {
    fn run(&mut self, bench: &mut Bench, options: &Options, interrupt: &Interrupt) -> Result<(), Error> {
        for (index, lesson) in
            (0..self.ready.len()).flat_map(|index| self.lessons.iter().map(move |lesson| (index, lesson)))
        {
            if let Err(skipped) = self.at_work(index, lesson).and_then(|at_work| at_work.check()) {
                self.failed.insert((index, lesson.name), skipped);
            }
        }
        // One more place in every round: the plain process again.
        let null = self.ready.len();
        let rounds = schedule::rounds(null + 1, WARMUPS + options.runs as usize);
        for (round, order) in rounds.into_iter().enumerate() {
            for lesson in self.lessons {
                for &place in &order {
                    let index = if place == null { 0 } else { place };
                    if self.failed.contains_key(&(index, lesson.name)) {
                        continue;
                    }
                    if interrupt.pause(Duration::from_millis(options.gap_ms)) {
                        return Ok(());
                    }
                    let run = match self.once(index, lesson, interrupt) {
                        // What was measured until then is kept.
                        Err(Error::Race(race::Error::Interrupted)) => return Ok(()),
                        Err(error) => return Err(error),
                        Ok(Ok(found)) => found,
                        Ok(Err(reason)) => {
                            self.failed.insert((index, lesson.name), reason);
                            continue;
                        }
                    };
                    if round >= WARMUPS {
                        self.runs.entry((place, lesson.name)).or_default().push(run);
                        bench.note(&Reading {
                            contender: self.ready[index].name(),
                            lesson: lesson.name,
                            null: place == null,
                            sequence: self.sequence,
                            run,
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    fn once(&mut self, index: usize, lesson: &Lesson, interrupt: &Interrupt) -> Result<Result<Run, Skipped>, Error> {
        let at_work = match self.at_work(index, lesson) {
            Ok(at_work) => at_work,
            Err(skipped) => return Ok(Err(skipped)),
        };
        self.sequence += 1;
        let id = format!("isolation-lab-{}-cost-{}", process::id(), self.sequence);
        let request = Request {
            id: &id,
            workload: &lesson.arguments(lesson.amount),
            marks_fd: None,
        };
        let before = launched_ns();
        let outcome = at_work.launch(&request, LIMIT, interrupt)?;
        let launcher_ns = before.zip(launched_ns()).map(|(before, after)| after - before);
        // A guest's console is its standard output, what its kernel says included.
        let printed = String::from_utf8_lossy(&outcome.stdout);
        let answer = printed.lines().find(|line| line.starts_with('{')).unwrap_or_default();
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
        let ns = answer["ns"].as_u64().filter(|_| outcome.reached_the_finish_line(0));
        let Some(ns) = ns else {
            let printed = match printed.trim() {
                "" => String::new(),
                words => format!("; it printed: {words}"),
            };
            return Ok(Err(Skipped {
                reason: format!("its launcher {}{printed}", outcome.complaint(LIMIT)),
                fix: at_work.fix(outcome.exit_status),
            }));
        };
        let whole_ns = outcome.end_ns - outcome.start_ns;
        if ns > whole_ns {
            return Ok(Err(Skipped {
                reason: format!(
                    "it says that its work took {}, and the whole run took {}",
                    words::duration(ns),
                    words::duration(whole_ns)
                ),
                fix: "compare the clock inside with the host's; a program restored from a snapshot must do its work after that".into(),
            }));
        }
        if ns % TICK_NS == 0 {
            return Ok(Err(Skipped {
                reason: format!(
                    "its clock counts in whole milliseconds, too coarse for {} of work: its kernel fell back on the timer's tick",
                    words::duration(ns)
                ),
                fix: "try again on a quiet machine: an emulated guest's kernel measures its processor's clock as it starts".into(),
            }));
        }
        // A guest's kernel does not know when its VMM had no processor; the host's does, start included.
        let by_its_vmm = self.ready[index]
            .has_a_kernel_of_its_own()
            .then_some(launcher_ns)
            .flatten();
        let worked = [answer["cpu_ns"].as_u64(), by_its_vmm].into_iter().flatten().min();
        Ok(Ok(Run {
            ns,
            whole_ns,
            waited_ns: worked
                .filter(|_| lesson.need == Need::Nothing)
                .map(|worked| ns.saturating_sub(worked)),
        }))
    }

    fn at_work(&self, index: usize, lesson: &Lesson) -> Result<AtWork<'a>, Skipped> {
        Ok(AtWork::new(&*self.ready[index], self.equipments.of(lesson)?))
    }

    /// Exits for one operation of each lesson, by the ledger of a VM that starts from its kernel.
    fn exits(&self, bench: &Bench, index: usize, interrupt: &Interrupt) -> BTreeMap<&'static str, f64> {
        let mut found = BTreeMap::new();
        if !["vm", "vm-linux"].contains(&self.ready[index].name()) {
            return found;
        }
        for lesson in self.lessons {
            let Ok(at_work) = self.at_work(index, lesson) else {
                continue;
            };
            // What the start adds, and its scatter, must be little beside the difference.
            let (short, long) = ((lesson.amount / 2).max(1), lesson.amount * 2);
            let count = |amount| ledger(bench, &at_work, lesson, amount, interrupt);
            let operations = ((long - short) * lesson.operations) as f64;
            let pairs: Option<Vec<f64>> = (0..LEDGERS)
                .map(|_| Some(count(long)?.saturating_sub(count(short)?) as f64 / operations))
                .collect();
            // One that failed would leave a figure of the others.
            if let Some(each) = pairs.as_deref().and_then(Readings::of) {
                found.insert(lesson.name, each.median);
            }
        }
        found
    }

    fn entry(&self, place: usize, exits: &BTreeMap<&str, f64>) -> Entry<Cost> {
        let name = self.ready[place].name();
        let runs = |place: usize, lesson: &Lesson| self.runs.get(&(place, lesson.name)).map_or(&[][..], Vec::as_slice);
        let of = |place: usize, lesson: &Lesson| -> Vec<u64> { runs(place, lesson).iter().map(|run| run.ns).collect() };
        let measured = self.lessons.iter().filter_map(|lesson| {
            let own = &of(place, lesson);
            let plain = &of(0, lesson);
            Some(LessonCost {
                lesson: lesson.full_name(),
                operations: lesson.amount * lesson.operations,
                ns: stats::distribution(own)?,
                relative: (place != 0 && !plain.is_empty()).then(|| stats::compare(name, own, "process", plain)),
                exits_per_operation: exits.get(lesson.name).copied(),
                waited: waited(runs(place, lesson)),
                null_test: (place == 0).then(|| stats::null_test("process", own, &of(self.ready.len(), lesson))),
            })
        });
        let not_done = self.lessons.iter().filter_map(|lesson| {
            let skipped = self.failed.get(&(place, lesson.name))?;
            Some(SkippedLesson {
                lesson: lesson.full_name(),
                reason: skipped.reason.clone(),
                fix: skipped.fix.clone(),
            })
        });
        let cost = Cost {
            lessons: measured.collect(),
            skipped: not_done.collect(),
        };
        match (cost.lessons.is_empty(), cost.skipped.first()) {
            // Nothing worked: that is said of the contender as a whole.
            (true, Some(first)) => Entry::skipped(
                name,
                Skipped {
                    reason: format!("{}: {}", first.lesson, first.reason),
                    fix: first.fix.clone(),
                },
            ),
            _ => Entry::found(name, cost),
        }
    }
}

/// Of all the time of these runs, the share without a processor. None: at least one of them does not say.
fn waited(runs: &[Run]) -> Option<f64> {
    let waited: u64 = runs.iter().map(|run| run.waited_ns).sum::<Option<u64>>()?;
    let all: u64 = runs.iter().map(|run| run.ns).sum();
    (all > 0).then(|| waited as f64 / all as f64)
}

/// Processor time of every program this process has launched and waited for, in nanoseconds.
fn launched_ns() -> Option<u64> {
    conditions::processor_ns(UsageWho::RUSAGE_CHILDREN)
}

/// How often the guest was left in one run, by KVM's own count where there is one. None: the run failed, or left no ledger.
fn ledger(bench: &Bench, at_work: &AtWork, lesson: &Lesson, amount: u64, interrupt: &Interrupt) -> Option<u64> {
    let file = bench.image.folder().join(format!("trace-{}-{amount}", lesson.name));
    let plain = at_work
        .command(&Request {
            id: "ledger",
            workload: &lesson.arguments(amount),
            marks_fd: None,
        })
        .ok()?;
    let mut command = process::Command::new(plain.get_program());
    let mut arguments = plain.get_args();
    // Options of `run` come before the program.
    command
        .env_clear()
        .args(arguments.next())
        .arg("--trace")
        .arg(&file)
        .args(arguments);
    let launched = at_work.there(|| crate::launch::launch(&mut command, None, LIMIT, interrupt));
    let outcome = launched.ok()?.ok()?;
    if !outcome.reached_the_finish_line(0) {
        return None;
    }
    let trace = trace::read(&file).ok()?;
    // KVM counts the exits it serves itself too; the ledger only those that reach the VMM.
    Some(trace.counted_by_kvm.unwrap_or(trace.exits.len() as u64))
}
