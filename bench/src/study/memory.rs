//! `lab memory`: one idle instance, and everything it costs the host.
//!
//! What a process holds is read from one instance alone. What only the whole host or a whole cgroup counts (kernel
//! memory, the hypervisor's tables, MemAvailable) is read around several instances and divided: one alone drowns in the
//! machine's own coming and going, and a cgroup is charged in lots of up to 256 KiB per processor.
//!
//! Then the sum is held against what MemAvailable fell by, and the difference printed. File pages are in the ledger but
//! not in that sum: they lie in the page cache, which the host counts as available.

use std::path::Path;
use std::process;

use clap::Args;
use serde::Serialize;

use super::books::{self, KERNEL_STACK, Meminfo};
use super::instances::{self, Instances};
use super::results::{Entry, Ledger, Part, ProcessPages, Readings, Study};
use super::{Bench, Common, Error, footer, keep, once_each};
use crate::accounting::Account;
use crate::charts;
use crate::contenders::{Contender, NAMES, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::memory::smaps;
use crate::results::Provenance;
use crate::table::{self, Paper};
use crate::words;

/// Who is weighed when nobody is named.
const DEFAULT: [&str; 6] = ["process", "container", "vm-restored", "vm", "crun", "runc"];

/// Options of `lab memory`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Who is weighed, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = DEFAULT, value_parser = NAMES)]
    pub contenders: Vec<String>,
    /// How often.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Instances that host-wide counters are read around.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub instances: u32,
    /// Where to, and how printed.
    #[command(flatten)]
    pub common: Common,
}

/// One round's readings of one contender; per instance where counters are shared.
#[derive(Clone, Debug, Serialize)]
struct Round {
    contender: String,
    variant: Option<&'static str>,
    instances: u64,
    processes: Vec<ProcessPages>,
    anonymous: u64,
    guest_anonymous: u64,
    guest_configured: Option<u64>,
    file: u64,
    guest_file: u64,
    charged: Option<f64>,
    kernel: Option<f64>,
    second_level: Option<f64>,
    available: f64,
}

/// Weighs each contender.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<String, Error> {
    let names = once_each(&options.contenders);
    let mut bench = Bench::set_up("memory", &options.common, &names, u64::from(options.rounds))?;
    instances::make_room_for(u64::from(options.instances))?;
    let mut entries = Vec::new();
    for name in &names {
        let contender = match bench.contender(name) {
            Ok(contender) => contender,
            Err(skipped) => {
                entries.push(Entry::skipped(name, skipped));
                continue;
            }
        };
        match weigh(&mut bench, contender, options, interrupt) {
            Ok(Some(ledger)) => entries.push(Entry::found(name, ledger)),
            Ok(None) => break,
            Err(Error::NotIdle { complaint, fix, .. }) => {
                let reason = format!("its launcher {complaint}");
                entries.push(Entry::skipped(name, Skipped { reason, fix }));
            }
            Err(error) => return Err(error),
        }
    }
    if interrupt.requested() {
        bench.notes.push("Interrupted: not every contender was weighed.".into());
    }
    if entries.iter().filter_map(|entry| entry.found.as_ref()).any(drowned) {
        bench.notes.push(
            "MemAvailable moved by more than an instance weighs, whoever moved it: on a busy host the residue says how busy"
                .into(),
        );
    }
    let (study, folder) = bench.finish(entries)?;
    let chart = keep(&charts::ledger::draw(&study)?, &folder)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text(&study, &folder, &chart)),
    }
}

/// None: interrupted before there was a figure.
fn weigh(
    bench: &mut Bench,
    contender: Box<dyn Contender>,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Option<Ledger>, Error> {
    let variants: &[Variant] = if contender.name() == "container" {
        &VARIANTS
    } else {
        &[]
    };
    let mut rounds = Vec::new();
    let mut varied: Vec<Vec<Round>> = vec![Vec::new(); variants.len()];
    for _ in 0..options.rounds {
        if interrupt.requested() {
            break;
        }
        let round = once(bench, &*contender, None, options.instances)?;
        bench.note(&round)?;
        rounds.push(round);
        for (variant, found) in variants.iter().zip(&mut varied) {
            let with = Varied {
                contender: &*contender,
                variant,
            };
            match once(bench, &with, Some(variant.what), options.instances) {
                Ok(round) => {
                    bench.note(&round)?;
                    found.push(round);
                }
                // The thing cannot be told then; the rest of the ledger can.
                Err(Error::NotIdle { complaint, .. }) => {
                    let unknown = format!("What is not known: {}.", variant.what);
                    // Once, though each round's complaint has other names in it.
                    if !bench.notes.iter().any(|note| note.starts_with(&unknown)) {
                        bench.notes.push(format!("{unknown} Its launcher {complaint}"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    if rounds.is_empty() {
        return Ok(None);
    }
    let mut ledger = add_up(&rounds, &bench.provenance, contender.guest_file().is_some());
    let kernel = |rounds: &[Round]| Readings::of(&rounds.iter().filter_map(|round| round.kernel).collect::<Vec<_>>());
    for (variant, found) in variants.iter().zip(&varied) {
        let difference = kernel(&rounds)
            .zip(kernel(found))
            .map(|(plain, with)| with.median - plain.median);
        ledger.of_which.push(Part {
            what: variant.what.into(),
            bytes: difference.map(|bytes| if variant.takes_away { -bytes } else { bytes }),
            taken: true,
            source: format!("kernel memory, against `container run {}`", variant.arguments.join(" ")),
        });
    }
    Ok(Some(ledger))
}

/// A launch that differs in one thing, to find out by difference what the thing costs.
struct Variant {
    what: &'static str,
    arguments: &'static [&'static str],
    /// Whether the thing is left out (or else added).
    takes_away: bool,
}

const VARIANTS: [Variant; 2] = [
    Variant {
        what: "network namespace",
        arguments: &["--without", "net"],
        takes_away: true,
    },
    Variant {
        what: "a cgroup, if it had one",
        arguments: &["--memory", "64M", "--pids", "64"],
        takes_away: false,
    },
];

/// A contender launched with a variant's arguments.
struct Varied<'a> {
    contender: &'a dyn Contender,
    variant: &'a Variant,
}

impl Contender for Varied<'_> {
    fn name(&self) -> &'static str {
        self.contender.name()
    }

    fn command(&self, request: &Request) -> std::io::Result<process::Command> {
        let plain = self.contender.command(request)?;
        let mut arguments = plain.get_args();
        let mut command = process::Command::new(plain.get_program());
        command.env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // Options of `run` come before the program.
        command
            .args(arguments.next())
            .args(self.variant.arguments)
            .args(arguments);
        Ok(command)
    }

    fn details(&self) -> std::collections::BTreeMap<String, String> {
        self.contender.details()
    }

    fn fix(&self, status: i32) -> String {
        self.contender.fix(status)
    }
}

fn once(bench: &Bench, contender: &dyn Contender, variant: Option<&'static str>, many: u32) -> Result<Round, Error> {
    let mut instances = Instances::of(contender, bench.accounting.as_ref(), false)?;
    // Whatever the kernel keeps ready is there before anything is read.
    let before = (books::meminfo()?, charged(instances.account()));
    instances.start()?;
    instances.settle();
    let alone: Vec<u32> = instances.launchers().flat_map(smaps::with_descendants).collect();
    let launcher = instances.launchers().next().unwrap_or_default();
    let mut processes = Vec::new();
    let (mut anonymous, mut file) = (0, 0);
    for &pid in &alone {
        // A helper may end while it is looked at: then it is not part of an idle instance.
        let Ok(pages) = smaps::pages(pid) else { continue };
        let (table_bytes, threads) = books::tables_and_threads(pid).unwrap_or_default();
        anonymous += pages.anonymous;
        file += pages.file;
        processes.push(ProcessPages {
            name: books::name(pid),
            unique_bytes: pages.usage.unique,
            shared_bytes: pages.usage.shared,
            table_bytes,
            threads,
        });
    }
    let guest = contender
        .guest_file()
        .and_then(|file| smaps::guest_pages(launcher, file).ok());
    while instances.count() < many as usize {
        instances.start()?;
    }
    instances.settle();
    let after = (books::meminfo()?, charged(instances.account()));
    let each = |total: i128| total as f64 / f64::from(many);
    let grown = |after: Option<u64>, before: Option<u64>| Some(each(i128::from(after?) - i128::from(before?)));
    let second = |books: &Meminfo| books.second_level;
    Ok(Round {
        contender: contender.name().into(),
        variant,
        instances: u64::from(many),
        processes,
        guest_anonymous: guest.map_or(0, |guest| guest.anonymous),
        guest_file: guest.map_or(0, |guest| guest.file),
        guest_configured: guest.map(|guest| guest.configured),
        anonymous,
        file,
        charged: grown(after.1.0, before.1.0),
        kernel: grown(after.1.1, before.1.1),
        second_level: grown(second(&after.0), second(&before.0)),
        available: each(i128::from(before.0.available) - i128::from(after.0.available)),
    })
}

/// Usage and kernel memory of the cgroup.
fn charged(account: Option<&Account>) -> (Option<u64>, Option<u64>) {
    (account.and_then(Account::usage), account.and_then(Account::kernel))
}

fn add_up(rounds: &[Round], provenance: &Provenance, is_vm: bool) -> Ledger {
    let over =
        |figure: &dyn Fn(&Round) -> Option<f64>| Readings::of(&rounds.iter().filter_map(figure).collect::<Vec<_>>());
    let median = |figure: &dyn Fn(&Round) -> Option<f64>| over(figure).map(|found| found.median);
    let tables = |round: &Round| round.processes.iter().map(|process| process.table_bytes).sum::<u64>() as f64;
    let stacks =
        |round: &Round| (round.processes.iter().map(|process| process.threads).sum::<u64>() * KERNEL_STACK) as f64;
    let second = |round: &Round| round.second_level.filter(|bytes| is_vm && *bytes > 0.0);
    let part = |what: &str, bytes, taken, source: &str| Part {
        what: what.into(),
        bytes,
        taken,
        source: source.into(),
    };

    let mut parts = vec![part(
        "private pages",
        median(&|round| Some(round.anonymous.saturating_sub(round.guest_anonymous) as f64)),
        true,
        "smaps_rollup: Anonymous, less the guest's",
    )];
    if is_vm {
        let guest = median(&|round| round.guest_configured.map(|_| round.guest_anonymous as f64));
        parts.push(part(
            "guest pages",
            guest,
            true,
            "smaps: anonymous pages of the mapping guest-memory",
        ));
    }
    parts.push(part(
        "page tables",
        median(&|round| Some(tables(round))),
        true,
        "status: VmPTE of every process",
    ));
    if is_vm {
        let source = match provenance.kvm_backend.as_str() {
            "pvm" => {
                "meminfo: SecPageTables, which the KVM backend pvm may not fill; what it lacks is in other kernel memory"
            }
            _ => "meminfo: SecPageTables",
        };
        parts.push(part(
            "second-level tables",
            median(&|round| second(round)),
            true,
            source,
        ));
    }
    parts.push(part(
        "kernel stacks",
        median(&|round| Some(stacks(round))),
        true,
        "16 KiB for each thread",
    ));
    let rest = median(&|round| {
        let told_apart = tables(round) + stacks(round) + second(round).unwrap_or(0.0);
        Some((round.kernel? - told_apart).max(0.0))
    });
    parts.push(part(
        "other kernel memory",
        rest,
        true,
        "cgroup: kernel memory charged, less the three above: mostly slab",
    ));
    parts.push(part(
        "file pages",
        median(&|round| Some(round.file as f64)),
        false,
        "smaps_rollup: its proportional share of mapped files, alone on the host",
    ));

    let sum_bytes = parts
        .iter()
        .filter(|part| part.taken)
        .filter_map(|part| part.bytes)
        .sum();
    let available = over(&|round| Some(round.available));
    Ledger {
        parts,
        of_which: Vec::new(),
        sum_bytes,
        available_bytes: available,
        residue_bytes: available.map(|found| found.median - sum_bytes),
        processes: rounds.last().map(|round| round.processes.clone()).unwrap_or_default(),
        guest_configured_bytes: rounds.last().and_then(|round| round.guest_configured),
        instances: rounds.last().map_or(0, |round| round.instances),
    }
}

/// Whether the rounds' readings of MemAvailable lie further apart than what is weighed with them.
fn drowned(ledger: &Ledger) -> bool {
    ledger
        .available_bytes
        .is_some_and(|found| found.max - found.min > ledger.sum_bytes)
}

/// Bytes with their sign.
fn signed(bytes: f64) -> String {
    let size = words::bytes(bytes.abs().round() as u64);
    if bytes < 0.0 { format!("−{size}") } else { size }
}

fn text(study: &Study<Ledger>, folder: &Path, chart: &Path) -> String {
    let paper = Paper::of_stdout();
    let found: Vec<(&str, &Ledger)> = study.measured().collect();
    let mut rows: Vec<&str> = Vec::new();
    for part in found.iter().flat_map(|(_, ledger)| &ledger.parts) {
        if !rows.contains(&part.what.as_str()) {
            rows.push(&part.what);
        }
    }
    let mut header = vec![""];
    header.extend(found.iter().map(|(name, _)| *name));
    let mut table = table::table(paper, &header, |index| index > 0);
    let figure = |bytes: Option<f64>| bytes.map_or("-".to_owned(), signed);
    let mut add = |what: &str, cell: &dyn Fn(&Ledger) -> String| {
        let cells = found.iter().map(|(_, ledger)| cell(ledger));
        table.add_row(std::iter::once(what.to_owned()).chain(cells).collect::<Vec<_>>());
    };
    let of = |ledger: &Ledger, what: &str| {
        ledger
            .parts
            .iter()
            .find(|part| part.what == what)
            .and_then(|part| part.bytes)
    };
    for what in rows.iter().filter(|what| **what != "file pages") {
        add(what, &|ledger| figure(of(ledger, what)));
    }
    add("sum", &|ledger| signed(ledger.sum_bytes));
    add("MemAvailable fell by", &|ledger| {
        figure(ledger.available_bytes.map(|found| found.median))
    });
    add("residue", &|ledger| figure(ledger.residue_bytes));
    add("residue, least", &|ledger| {
        figure(ledger.available_bytes.map(|found| found.min - ledger.sum_bytes))
    });
    add("residue, most", &|ledger| {
        figure(ledger.available_bytes.map(|found| found.max - ledger.sum_bytes))
    });
    add("file pages (cache)", &|ledger| figure(of(ledger, "file pages")));
    add("guest may use", &|ledger| {
        figure(ledger.guest_configured_bytes.map(|bytes| bytes as f64))
    });
    add("processes", &|ledger| ledger.processes.len().to_string());
    let mut out = table::lines(&table) + "\n";
    for (name, ledger) in &found {
        for part in &ledger.of_which {
            out += &format!("{name}, {}: {} ({})\n", part.what, figure(part.bytes), part.source);
        }
        for process in &ledger.processes {
            out += &format!(
                "{name}, process {}: unique {}, shared {}, page tables {}, threads {}\n",
                process.name,
                words::bytes(process.unique_bytes),
                words::bytes(process.shared_bytes),
                words::bytes(process.table_bytes),
                process.threads
            );
        }
    }
    out + "\n" + &footer(study, folder, Some(chart))
}
