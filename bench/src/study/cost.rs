//! `lab cost`: what work costs inside a contender, once it runs.
//!
//! The workload's lessons time themselves, so no start-up is in these figures. Contenders take turns, round by round, as
//! in a race; the plain process runs twice in every round, and where it seems to differ from itself the machine is too
//! noisy for a verdict. What explains a VM's figure is how often the guest is left: KVM's own count at the end of the
//! ledger (`vmm run --trace`) of two runs of different length, the difference of exits over the difference of work.

use std::collections::BTreeMap;
use std::path::Path;
use std::process;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::results::{Cost, Entry, LessonCost, Study};
use super::{Bench, Common, Error, footer, keep, once_each};
use crate::contenders::{Contender, NAMES, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::results::{Comparison, NullTest};
use crate::table::{self, Paper};
use crate::{charts, race, schedule, stats, trace, words};

/// Who works when nobody is named.
const DEFAULT: [&str; 6] = ["process", "container", "vm", "vm-restored", "crun", "runc"];
/// Longest a lesson may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Rounds that fill caches before anything counts.
const WARMUPS: usize = 1;

/// A lesson, and how much work is in it.
struct Lesson {
    /// Its name, which is its unit of argument too.
    name: &'static str,
    /// The argument: rounds, MiB, calls.
    amount: u64,
    /// Operations for each unit of the argument.
    operations: u64,
    /// What one operation is.
    unit: &'static str,
}

/// Long enough to time (some milliseconds on a current machine), short enough where every call leaves the guest.
const LESSONS: [Lesson; 3] = [
    Lesson {
        name: "cpu",
        amount: 5_000_000,
        operations: 1,
        unit: "round",
    },
    // In pages of 4 KiB; well below the 64 MiB a guest has.
    Lesson {
        name: "memory",
        amount: 16,
        operations: 256,
        unit: "page",
    },
    Lesson {
        name: "syscalls",
        amount: 5_000,
        operations: 1,
        unit: "call",
    },
];

/// Options of `lab cost`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Runs of each lesson by each contender.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Who works, separated by commas. The plain process always does: the others are held against it.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = DEFAULT, value_parser = NAMES)]
    pub contenders: Vec<String>,
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
    /// By the program's own clock.
    ns: u64,
    /// By the harness's: start line to the launcher's end. Never less.
    whole_ns: u64,
}

/// Times of each racer (the second plain process last), by lesson.
type Times = BTreeMap<(usize, &'static str), Vec<u64>>;

/// Has every contender work.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<String, Error> {
    let mut names = once_each(&options.contenders);
    names.retain(|name| name != "process");
    names.insert(0, "process".into());
    let mut bench = Bench::set_up("cost", &options.common, &names, u64::from(options.runs))?;
    bench.provenance.gap_ms = options.gap_ms;
    bench.notes.push(
        "disk and net are not measured: the lab kernel has neither, so a VM could not take part, and the workload has no \
         such lessons yet"
            .into(),
    );
    let mut ready: Vec<Box<dyn Contender>> = Vec::new();
    let mut skipped: BTreeMap<String, Skipped> = BTreeMap::new();
    for name in &names {
        match bench.contender(name) {
            Ok(contender) => ready.push(contender),
            Err(reason) => drop(skipped.insert(name.clone(), reason)),
        }
    }
    let times = work(&mut bench, &ready, options, &mut skipped, interrupt)?;
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
                let exits = exits(&bench, &*ready[place], interrupt);
                Entry::found(name, evaluate(&times, place, name, ready.len(), &exits))
            }
            (Some(reason), _) => Entry::skipped(name, reason),
            (None, None) => continue,
        });
    }
    let (study, folder) = bench.finish(entries)?;
    let chart = keep(&charts::running_cost::draw(&study)?, &folder)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text(&study, &folder, &chart)),
    }
}

fn work(
    bench: &mut Bench,
    ready: &[Box<dyn Contender>],
    options: &Options,
    skipped: &mut BTreeMap<String, Skipped>,
    interrupt: &Interrupt,
) -> Result<Times, Error> {
    let mut times = Times::new();
    let mut sequence = 0;
    // One more place in every round: the plain process again.
    let null = ready.len();
    for (round, order) in schedule::rounds(ready.len() + 1, WARMUPS + options.runs as usize)
        .into_iter()
        .enumerate()
    {
        for lesson in &LESSONS {
            for &place in &order {
                let contender = &*ready[if place == null { 0 } else { place }];
                if skipped.contains_key(contender.name()) {
                    continue;
                }
                if interrupt.pause(Duration::from_millis(options.gap_ms)) {
                    return Ok(times);
                }
                sequence += 1;
                let (ns, whole_ns) = match once(contender, lesson, sequence, interrupt)? {
                    Ok(found) => found,
                    Err(reason) => {
                        skipped.insert(contender.name().into(), reason);
                        continue;
                    }
                };
                if round >= WARMUPS {
                    times.entry((place, lesson.name)).or_default().push(ns);
                    let null = place == null;
                    let lesson = lesson.name;
                    bench.note(&Reading {
                        contender: contender.name(),
                        lesson,
                        null,
                        sequence,
                        ns,
                        whole_ns,
                    })?;
                }
            }
        }
    }
    Ok(times)
}

fn once(
    contender: &dyn Contender,
    lesson: &Lesson,
    sequence: usize,
    interrupt: &Interrupt,
) -> Result<Result<(u64, u64), Skipped>, Error> {
    let id = format!("isolation-lab-{}-cost-{sequence}", std::process::id());
    let workload = [lesson.name.to_owned(), lesson.amount.to_string()];
    let request = Request {
        id: &id,
        workload: &workload,
        marks_fd: None,
    };
    let outcome = race::once(contender, &request, false, LIMIT, interrupt)?;
    let answer: Option<serde_json::Value> = serde_json::from_slice(&outcome.stdout).ok();
    let ns = answer
        .and_then(|answer| answer["ns"].as_u64())
        .filter(|_| outcome.reached_the_finish_line(0));
    Ok(match ns {
        Some(ns) => Ok((ns, outcome.end_ns - outcome.start_ns)),
        None => Err(Skipped {
            reason: format!("{}: its launcher {}", lesson.name, outcome.complaint(LIMIT)),
            fix: contender.fix(outcome.exit_status),
        }),
    })
}

/// Exits for one operation of each lesson, by the ledger of a VM that starts from its kernel.
fn exits(bench: &Bench, contender: &dyn Contender, interrupt: &Interrupt) -> BTreeMap<&'static str, f64> {
    let mut found = BTreeMap::new();
    if contender.name() != "vm" {
        return found;
    }
    for lesson in &LESSONS {
        let (short, long) = ((lesson.amount / 10).max(1), (lesson.amount / 5).max(2));
        let count = |amount| ledger(bench, contender, lesson.name, amount, interrupt);
        if let (Some(fewer), Some(more)) = (count(short), count(long)) {
            let operations = (long - short) * lesson.operations;
            found.insert(lesson.name, more.saturating_sub(fewer) as f64 / operations as f64);
        }
    }
    found
}

/// How often the guest was left in one run, by KVM's own count where there is one. None: the run failed, or left no ledger.
fn ledger(bench: &Bench, contender: &dyn Contender, lesson: &str, amount: u64, interrupt: &Interrupt) -> Option<u64> {
    let file = bench.image.folder().join(format!("trace-{lesson}-{amount}"));
    let workload = [lesson.to_owned(), amount.to_string()];
    let plain = contender
        .command(&Request {
            id: "ledger",
            workload: &workload,
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
    let outcome = crate::launch::launch(&mut command, None, LIMIT, interrupt).ok()?;
    if !outcome.reached_the_finish_line(0) {
        return None;
    }
    let trace = trace::read(&file).ok()?;
    // KVM counts the exits it serves itself too; the ledger only those that reach the VMM.
    Some(trace.counted_by_kvm.unwrap_or(trace.exits.len() as u64))
}

fn evaluate(times: &Times, place: usize, name: &str, null: usize, exits: &BTreeMap<&str, f64>) -> Cost {
    let of = |place: usize, lesson: &Lesson| times.get(&(place, lesson.name)).map_or(&[][..], Vec::as_slice);
    let lessons = LESSONS.iter().filter_map(|lesson| {
        let own = of(place, lesson);
        let plain = of(0, lesson);
        Some(LessonCost {
            lesson: format!("{} {}", lesson.name, lesson.amount),
            operations: lesson.amount * lesson.operations,
            ns: stats::distribution(own)?,
            relative: (place != 0 && !plain.is_empty()).then(|| stats::compare(name, own, "process", plain)),
            exits_per_operation: exits.get(lesson.name).copied(),
            null_test: (place == 0).then(|| stats::null_test("process", own, of(null, lesson))),
        })
    });
    Cost {
        lessons: lessons.collect(),
    }
}

/// What one operation of a lesson is called.
pub fn unit(lesson: &str) -> &'static str {
    let name = lesson.split(' ').next().unwrap_or_default();
    LESSONS
        .iter()
        .find(|lesson| lesson.name == name)
        .map_or("operation", |lesson| lesson.unit)
}

/// Whether the plain process agreed with itself in this lesson.
pub fn trusted(study: &Study<Cost>, lesson: &str) -> bool {
    let plain = study
        .of("process")
        .and_then(|cost| cost.lessons.iter().find(|found| found.lesson == lesson));
    plain
        .and_then(|plain| plain.null_test.as_ref())
        .is_some_and(|test: &NullTest| test.passed)
}

fn text(study: &Study<Cost>, folder: &Path, chart: &Path) -> String {
    let paper = Paper::of_stdout();
    let header = ["lesson", "contender", "each", "n", "× process (95%)", "exits each"];
    let mut table = table::table(paper, &header, |index| index > 1);
    let mut doubts = String::new();
    for lesson in &LESSONS {
        for (name, cost) in study.measured() {
            let Some(found) = cost
                .lessons
                .iter()
                .find(|found| found.lesson.split(' ').next() == Some(lesson.name))
            else {
                continue;
            };
            let each = found.ns.p50 as f64 / found.operations as f64;
            let ratio = |found: &Comparison| words::ratio_with_interval(found);
            table.add_row([
                lesson.name.to_owned(),
                words::label(name, &study.provenance),
                format!("{} ns/{}", words::significant(each, 3), lesson.unit),
                found.ns.n.to_string(),
                found.relative.as_ref().map_or("1".into(), ratio),
                found
                    .exits_per_operation
                    .map_or("-".into(), |exits| words::significant(exits, 3)),
            ]);
            if name == "process" && !trusted(study, &found.lesson) {
                doubts += &table::paragraph(
                    &format!(
                        "{}: the plain process differs from itself or scatters too far; no verdict on it.",
                        lesson.name
                    ),
                    2,
                    paper,
                );
            }
        }
    }
    table::lines(&table) + "\n" + &doubts + &footer(study, folder, Some(chart))
}
