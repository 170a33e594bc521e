//! `lab line`: what it costs a guest to print one line of text, by the ways it has to its host.
//!
//! The same guest (`guest-images/printer`) on the same machine prints the same lines, and only the way differs: the serial
//! port, where each byte is an exit; the debug port, where one exit says where the line is; the virtio console, where one
//! exit says that there is something in a queue and two more deal with the interrupt. What a line cost stands in the
//! ledger (`vmm run --trace`), whose dividers the guest sets between lines. The ways take turns, round by round, and the
//! serial port runs twice in every round, for the null test. What the host received is compared with what was to be printed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::results::{Entry, Line, Study};
use super::{Bench, Common, Error, footer, keep};
use crate::contenders::{Skipped, vm};
use crate::interrupt::Interrupt;
use crate::stats::percentile::{distribution, median};
use crate::table::{self, Paper};
use crate::trace::{self, Exit, Trace};
use crate::{charts, launch, schedule, stats, words};

/// Longest a run may take: at 1000 bytes a line the serial port alone is 50 000 exits.
const LIMIT: Duration = Duration::from_secs(120);
/// Rounds that fill caches before anything counts.
const WARMUPS: usize = 1;
/// Lines in each run; a run's figure is the median of their costs.
const LINES: usize = 50;
/// What the ledger calls the exits between lines.
const DIVIDER: &str = "divider";

/// A way from a guest to its host.
struct Way {
    /// Its name in results and charts.
    name: &'static str,
    /// The guest's argument.
    argument: &'static str,
    /// What the ledger calls the device.
    device: &'static str,
}

/// The first is what the others are held against.
const WAYS: [Way; 3] = [
    Way {
        name: "serial port",
        argument: "serial",
        device: "serial",
    },
    Way {
        name: "debug port",
        argument: "debug",
        device: "doorbell",
    },
    Way {
        name: "virtio-console",
        argument: "virtio",
        device: "virtio-console",
    },
];

/// Options of `lab line`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Runs of each way, of 50 lines each.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Length of the line in bytes, its newline included.
    #[arg(long, default_value_t = 80, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub bytes: u32,
    /// Idle time before each launch, in milliseconds.
    #[arg(long, default_value_t = 10, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub gap_ms: u64,
    /// Where to, and how printed.
    #[command(flatten)]
    pub common: Common,
}

/// What one run said: medians over its lines.
#[derive(Serialize)]
struct Reading {
    way: &'static str,
    /// The serial port once more, for the null test.
    null: bool,
    /// Position in the whole series.
    sequence: usize,
    #[serde(flatten)]
    cost: Cost,
}

/// What a line cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Cost {
    exits: u64,
    /// From leaving the guest for the first byte until it goes on behind the last, the guest's own part and KVM's included.
    ns: u64,
    /// Of it, in the VMM's hands.
    host_ns: u64,
}

/// Has the guest print by every way.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<String, Error> {
    let mut bench = Bench::set_up("line", &options.common, &[], u64::from(options.runs))?;
    bench.provenance.gap_ms = options.gap_ms;
    // The one there can be says that no cgroup accounts for memory, which nobody weighs here.
    bench.notes.clear();
    bench.notes.push(
        "The guest does the least a driver can: it never asks the serial port whether there is room, and polls instead of taking the \
         virtio console's interrupt. Times are the ledger's, whose own work is in none of them"
            .into(),
    );
    let kernel = bench.image.folder().join("printer");
    fs::write(&kernel, guest_images::PRINTER).map_err(Error::file("write", &kernel))?;
    let mut costs: BTreeMap<usize, Vec<Cost>> = BTreeMap::new();
    let mut skipped: BTreeMap<usize, Skipped> = BTreeMap::new();
    print(&mut bench, &kernel, options, &mut costs, &mut skipped, interrupt)?;
    if interrupt.requested() {
        bench
            .notes
            .push("Interrupted: not every way has the runs that were asked for.".into());
    }
    let entries = WAYS.iter().enumerate().filter_map(|(place, way)| {
        if let Some(reason) = skipped.remove(&place) {
            return Some(Entry::skipped(way.name, reason));
        }
        Some(Entry::found(way.name, evaluate(&costs, place, options.bytes)?))
    });
    let (study, folder) = bench.finish(entries.collect())?;
    let chart = keep(&charts::line::draw(&study)?, &folder)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text(&study, &folder, &chart)),
    }
}

/// All rounds. The place behind the last way is the serial port again.
fn print(
    bench: &mut Bench,
    kernel: &Path,
    options: &Options,
    costs: &mut BTreeMap<usize, Vec<Cost>>,
    skipped: &mut BTreeMap<usize, Skipped>,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let rounds = schedule::rounds(WAYS.len() + 1, WARMUPS + options.runs as usize);
    for (sequence, (round, place)) in rounds
        .into_iter()
        .enumerate()
        .flat_map(|(round, order)| order.into_iter().map(move |place| (round, place)))
        .enumerate()
    {
        let null = place == WAYS.len();
        let way = if null { 0 } else { place };
        if skipped.contains_key(&way) {
            continue;
        }
        if interrupt.pause(Duration::from_millis(options.gap_ms)) {
            return Ok(());
        }
        match once(bench, kernel, &WAYS[way], options.bytes as usize, interrupt)? {
            Ok(cost) if round >= WARMUPS => {
                costs.entry(place).or_default().push(cost);
                bench.note(&Reading {
                    way: WAYS[way].name,
                    null,
                    sequence,
                    cost,
                })?;
            }
            Ok(_) => {}
            Err(reason) => drop(skipped.insert(way, reason)),
        }
    }
    Ok(())
}

/// One run: [`LINES`] lines by one way.
fn once(
    bench: &Bench,
    kernel: &Path,
    way: &Way,
    bytes: usize,
    interrupt: &Interrupt,
) -> Result<Result<Cost, Skipped>, Error> {
    let ledger: PathBuf = bench.image.folder().join("trace");
    let mut command = Command::new(&bench.launchers.vmm);
    // The same machine for all, so that an exit costs each the same.
    command
        .env_clear()
        .args(["run", "--machine", "pc", "--console", "virtio", "--no-init", "--kernel"])
        .arg(kernel)
        .arg("--trace")
        .arg(&ledger)
        .args(["--", way.argument, &bytes.to_string(), &LINES.to_string()]);
    let outcome = launch::launch(&mut command, None, LIMIT, interrupt)?;
    let failed = |reason: String| {
        Ok(Err(Skipped {
            reason,
            fix: vm::fix(outcome.exit_status),
        }))
    };
    if !outcome.reached_the_finish_line(0) {
        return failed(format!("the VM {}", outcome.complaint(LIMIT)));
    }
    if outcome.stdout != expected(bytes, LINES) {
        return failed(format!(
            "what arrived here is not what the guest was to print: {} bytes instead of {}",
            outcome.stdout.len(),
            bytes * LINES
        ));
    }
    let trace = match trace::read(&ledger) {
        Ok(trace) => trace,
        Err(error) => return failed(error.to_string()),
    };
    let lines = lines(&trace, way.device);
    let middle = |figure: fn(&Cost) -> u64| {
        let mut values: Vec<u64> = lines.iter().map(figure).collect();
        median(&mut values).map(|value| value.round() as u64)
    };
    match (
        middle(|line| line.exits),
        middle(|line| line.ns),
        middle(|line| line.host_ns),
    ) {
        (Some(exits), Some(ns), Some(host_ns)) if lines.len() == LINES => Ok(Ok(Cost { exits, ns, host_ns })),
        _ => failed(format!("the ledger holds {} lines instead of {LINES}", lines.len())),
    }
}

/// What the guest prints: the alphabet as often as it takes, and a newline.
fn expected(bytes: usize, lines: usize) -> Vec<u8> {
    let line: Vec<u8> = (b'a'..=b'z').cycle().take(bytes - 1).chain([b'\n']).collect();
    line.repeat(lines)
}

/// The cost of each line: the device's exits between two dividers.
fn lines(trace: &Trace, device: &str) -> Vec<Cost> {
    let is = |exit: &Exit, name: &str| exit.device.as_deref() == Some(name);
    let mut pieces: Vec<&[Exit]> = trace.exits.split(|exit| is(exit, DIVIDER)).collect();
    // Before the first divider the guest gets ready, behind the last it ends.
    if pieces.len() < 2 {
        return Vec::new();
    }
    pieces.pop();
    let cost = |piece: &&[Exit]| {
        let exits: Vec<&Exit> = piece.iter().filter(|exit| is(exit, device)).collect();
        Cost {
            exits: exits.len() as u64,
            ns: exits.iter().map(|exit| exit.guest_ns + exit.host_ns).sum(),
            host_ns: exits.iter().map(|exit| exit.host_ns).sum(),
        }
    };
    pieces[1..].iter().map(cost).collect()
}

fn evaluate(costs: &BTreeMap<usize, Vec<Cost>>, place: usize, bytes: u32) -> Option<Line> {
    let of = |place: usize, figure: fn(&Cost) -> u64| -> Vec<u64> {
        costs.get(&place).into_iter().flatten().map(figure).collect()
    };
    let [first, other] = [&WAYS[0], &WAYS[place]].map(|way| way.name);
    let (own, serial) = (of(place, |cost| cost.ns), of(0, |cost| cost.ns));
    Some(Line {
        bytes: u64::from(bytes),
        lines: LINES as u64,
        exits: median(&mut of(place, |cost| cost.exits))?,
        ns: distribution(&own)?,
        host_ns: distribution(&of(place, |cost| cost.host_ns))?,
        relative: (place != 0 && !serial.is_empty()).then(|| stats::compare(first, &serial, other, &own)),
        null_test: (place == 0).then(|| stats::null_test(first, &own, &of(WAYS.len(), |cost| cost.ns))),
    })
}

/// Whether the serial port agreed with itself.
pub fn trusted(study: &Study<Line>) -> bool {
    let serial = study.of(WAYS[0].name).and_then(|line| line.null_test.as_ref());
    serial.is_some_and(|test| test.passed)
}

fn text(study: &Study<Line>, folder: &Path, chart: &Path) -> String {
    let paper = Paper::of_stdout();
    let header = ["way", "exits", "time", "in the VMM", "n", "serial port takes × (95%)"];
    let mut table = table::table(paper, &header, |index| index > 0);
    let trusted = study.of(WAYS[0].name).is_none() || trusted(study);
    let relative = |line: &Line| match &line.relative {
        None => "1".into(),
        Some(_) if !trusted => "no verdict".into(),
        Some(found) => words::ratio_with_interval(found),
    };
    for (name, line) in study.measured() {
        table.add_row([
            name.to_owned(),
            words::axis_figure(line.exits),
            words::duration(line.ns.p50),
            words::duration(line.host_ns.p50),
            line.ns.n.to_string(),
            relative(line),
        ]);
    }
    let doubts = match trusted {
        true => String::new(),
        false => {
            "The serial port differs from itself or scatters too far: the counts stand, no verdict on the times.\n"
                .into()
        }
    };
    let footer = footer(study, folder, Some(chart));
    let Some((_, line)) = study.measured().next() else {
        return "No guest printed here.\n\n".to_owned() + &footer;
    };
    let title = table::paragraph(
        &format!(
            "One line of {} bytes, medians (KVM backend {}):",
            line.bytes, study.provenance.kvm_backend
        ),
        0,
        paper,
    );
    title + &table::lines(&table) + "\n" + &doubts + &footer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(device: &str, guest_ns: u64, host_ns: u64) -> Exit {
        Exit {
            vcpu: 0,
            left_ns: 0,
            guest_ns,
            host_ns,
            reason: "port write".into(),
            device: Some(device.into()),
        }
    }

    #[test]
    fn a_line_is_what_lies_between_two_dividers() {
        let trace = Trace {
            exits: vec![
                exit("serial", 1000, 1000),
                exit(DIVIDER, 500, 500),
                exit("serial", 10, 1),
                exit("serial", 20, 2),
                exit(DIVIDER, 500, 500),
                exit("serial", 30, 3),
                // Somebody else's exit in the middle of a line is not the line's.
                exit("i8042", 700, 700),
                exit(DIVIDER, 500, 500),
                exit("exit", 900, 900),
            ],
            ..Trace::default()
        };
        let cost = |exits, ns, host_ns| Cost { exits, ns, host_ns };
        assert_eq!(lines(&trace, "serial"), [cost(2, 33, 3), cost(1, 33, 3)]);
        assert_eq!(lines(&Trace::default(), "serial"), []);
    }

    #[test]
    fn what_is_to_be_printed_is_as_long_as_asked_for() {
        assert_eq!(expected(2, 3), b"a\na\na\n");
        assert_eq!(expected(28, 1), b"abcdefghijklmnopqrstuvwxyza\n");
    }
}
