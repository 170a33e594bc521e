//! `lab surface`: how much of the host can be reached from inside, and who survives what the workload does.
//!
//! What can be reached is asked of the kernel: the seccomp filters of the process that stands between the workload and
//! the host. In a container that is the workload itself; a VM's workload reaches the guest's kernel only, and behind that
//! stands the VMM, whose filter is what a guest that broke out would meet.
//!
//! What is survived is tried, within bounds: a program that crashes, and one that wants more memory than it may have,
//! while another instance idles beside it.

mod filter;

use std::path::Path;
use std::time::Duration;

use clap::Args;

use self::filter::Answer;
use super::books;
use super::instances::Instances;
use super::memory::{Variant, Varied};
use super::results::{Entry, Study, Surface, Trial};
use super::{Bench, Common, Error, footer, once_each};
use crate::contenders::{Contender, NAMES, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::memory::smaps;
use crate::race;
use crate::table::{self, Paper};
use crate::words;

/// Who is tried when nobody is named.
const DEFAULT: [&str; 5] = ["process", "container", "vm", "crun", "runc"];
/// Longest a trial may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Four times what the bounded ones may have, and no danger to a host where nothing bounds it.
const TOO_MUCH_MIB: &str = "256";
/// The container's bound: as much as a guest has.
const BOUND: Variant = Variant::adding("memory", &["--memory", "64M"]);

/// Options of `lab surface`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Who is tried, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = DEFAULT, value_parser = NAMES)]
    pub contenders: Vec<String>,
    /// Where to, and how printed.
    #[command(flatten)]
    pub common: Common,
}

/// Tries every contender.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<String, Error> {
    let names = once_each(&options.contenders);
    let mut bench = Bench::set_up("surface", &options.common, &names, 1)?;
    bench.notes.push(
        "Not tried: forking without end and a panic of the guest's kernel, for which the workload has no lesson, and the \
         system calls made over a run"
            .into(),
    );
    let mut entries = Vec::new();
    for name in &names {
        if interrupt.requested() {
            break;
        }
        let found = match bench.contender(name) {
            Ok(contender) => examine(&bench, &*contender, interrupt)?,
            Err(skipped) => Err(skipped),
        };
        match found {
            Ok(surface) => {
                bench.note(&serde_json::json!({ "contender": name, "surface": surface }))?;
                entries.push(Entry::found(name, surface));
            }
            Err(skipped) => entries.push(Entry::skipped(name, skipped)),
        }
    }
    let (study, folder) = bench.finish(entries)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text(&study, &folder)),
    }
}

fn examine(bench: &Bench, contender: &dyn Contender, interrupt: &Interrupt) -> Result<Result<Surface, Skipped>, Error> {
    // OCI runtimes are given one cgroup: for them a plain process idles beside.
    let alone = matches!(contender.name(), "crun" | "runc");
    let mut sibling = Instances::of(contender, bench.accounting.as_ref(), false)?;
    match sibling.start() {
        Ok(()) => {}
        Err(Error::NotIdle { complaint, fix, .. }) => {
            return Ok(Err(Skipped {
                reason: format!("its launcher {complaint}"),
                fix,
            }));
        }
        Err(error) => return Err(error),
    }
    sibling.settle();
    let launcher = sibling.launchers().next().unwrap_or_default();
    let family = smaps::with_descendants(launcher);
    let is_workload = |pid: &&u32| books::name(**pid) == "workload";
    let behind = family.iter().find(is_workload).copied().unwrap_or(launcher);
    let threads = match filter::of_process(behind) {
        Ok(threads) => threads,
        Err(error) => {
            return Ok(Err(Skipped {
                reason: format!("the seccomp filter of process {behind} cannot be read: {error}"),
                fix: "run as root, on a kernel with CONFIG_CHECKPOINT_RESTORE".into(),
            }));
        }
    };
    // What any of its threads may do, the process may.
    let answer = |number| {
        let answers = || threads.iter().map(|filters| filter::answer(filters, number));
        match (
            answers().any(|one| one == Answer::Through),
            answers().any(|one| one == Answer::Depends),
        ) {
            (true, _) => Answer::Through,
            (false, true) => Answer::Depends,
            (false, false) => Answer::Refused,
        }
    };
    let count = |wanted| filter::numbers().filter(|&number| answer(number) == wanted).count() as u64;
    let mut surface = Surface {
        behind: books::name(behind),
        reachable: count(Answer::Through),
        depending: count(Answer::Depends),
        known: filter::numbers().count() as u64,
        trials: Vec::new(),
    };
    if alone {
        drop(sibling);
        for (what, lesson) in LESSONS {
            surface
                .trials
                .push(attempt(contender, what, lesson, "none", None, interrupt)?);
        }
        return Ok(Ok(surface));
    }
    for (what, lesson) in LESSONS {
        let bounded = Varied {
            contender,
            variant: &BOUND,
        };
        let trial = match contender.name() {
            "container" if what == "memory" => {
                attempt(&bounded, what, lesson, "--memory 64M", Some(launcher), interrupt)?
            }
            "vm" => attempt(
                contender,
                what,
                lesson,
                "the guest has 64 MiB",
                Some(launcher),
                interrupt,
            )?,
            _ => attempt(contender, what, lesson, "none", Some(launcher), interrupt)?,
        };
        surface.trials.push(trial);
    }
    Ok(Ok(surface))
}

/// What is tried, and the workload's words for it.
const LESSONS: [(&str, &[&str]); 2] = [("crash", &["crash"]), ("memory", &["memory", TOO_MUCH_MIB])];

fn attempt(
    contender: &dyn Contender,
    what: &str,
    lesson: &[&str],
    bound: &str,
    sibling: Option<u32>,
    interrupt: &Interrupt,
) -> Result<Trial, Error> {
    let id = format!("isolation-lab-{}-surface-{what}", std::process::id());
    let workload: Vec<String> = lesson.iter().map(|word| (*word).to_owned()).collect();
    let request = Request {
        id: &id,
        workload: &workload,
        marks_fd: None,
    };
    let outcome = race::once(contender, &request, false, LIMIT, interrupt)?;
    let said = match outcome.stderr.trim() {
        "" => String::from_utf8_lossy(&outcome.stdout).trim().to_owned(),
        words => words.to_owned(),
    };
    Ok(Trial {
        what: what.into(),
        bound: bound.into(),
        status: outcome.exit_status,
        said,
        // Without a sibling there is the host itself: the lab, which says this.
        sibling_survived: sibling.is_none_or(|pid| books::tables_and_threads(pid).is_some()),
    })
}

fn text(study: &Study<Surface>, folder: &Path) -> String {
    let paper = Paper::of_stdout();
    let mut table = table::table(
        paper,
        &["contender", "filter of", "host calls through", "by argument", "of"],
        |index| index > 1,
    );
    for (name, found) in study.measured() {
        table.add_row([
            name.to_owned(),
            found.behind.clone(),
            found.reachable.to_string(),
            found.depending.to_string(),
            found.known.to_string(),
        ]);
    }
    let mut out = table::lines(&table) + "\n";
    for (name, found) in study.measured() {
        for trial in &found.trials {
            let others = if trial.sibling_survived {
                "the rest lives on"
            } else {
                "its sibling ended too"
            };
            let line = format!(
                "{name}, {} (bound: {}): status {}; {others}; said: {}",
                trial.what,
                trial.bound,
                trial.status,
                if trial.said.is_empty() {
                    "nothing".into()
                } else {
                    words::brief(&trial.said)
                },
            );
            out += &table::paragraph(&line, 2, paper);
        }
    }
    out + "\n" + &footer(study, folder, None)
}
