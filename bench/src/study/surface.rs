//! `lab surface`: how much of the host can be reached from inside, and who survives what the workload does.
//!
//! What can be reached is asked of the kernel (`filter.rs`): the seccomp filters of the process that stands between the
//! workload and the host. In a container that is the workload itself; a VM's workload reaches the guest's kernel only, and
//! behind that stands the VMM, whose filter is what a guest that broke out would meet. What is reached over a run is
//! observed (`observed.rs`). What is survived is [tried](trials), within bounds, while another instance idles beside it.

mod filter;
mod observed;
pub mod trials;

use std::path::Path;
use std::time::Duration;

use clap::Args;

use self::filter::Answer;
use self::trials::Witnesses;
use super::books;
use super::instances::Instances;
use super::results::{Entry, Observed, Study, Surface};
use super::{Bench, Common, Error, footer, keep, once_each};
use crate::charts;
use crate::contenders::{Contender, NAMES, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::memory::smaps;
use crate::table::{self, Paper};
use crate::words;

/// Who is tried when nobody is named.
const DEFAULT: [&str; 6] = ["process", "container", "vm", "vm-linux", "crun", "runc"];
/// What is run while its system calls are watched: the lesson that asks its kernel for most.
const WATCHED: &str = "whoami";
/// Longest a watched run may take; every system call stops it twice.
const LIMIT: Duration = Duration::from_secs(60);

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
    let host = match bench.contender("process") {
        Ok(host) => host,
        // It needs nothing that a lab which got this far lacks.
        Err(skipped) => return Err(Error::NoHost(skipped.reason)),
    };
    let mut entries = Vec::new();
    for name in &names {
        if interrupt.requested() {
            bench.notes.push("Interrupted: not everybody was tried.".into());
            break;
        }
        let found = match bench.contender(name) {
            Ok(contender) => examine(&mut bench, &*contender, &*host, interrupt)?,
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
    let chart = keep(&charts::surface::draw(&study)?, &folder)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text(&study, &folder, &chart)),
    }
}

type Found = Result<Surface, Skipped>;

fn examine(
    bench: &mut Bench,
    contender: &dyn Contender,
    host: &dyn Contender,
    interrupt: &Interrupt,
) -> Result<Found, Error> {
    let observed = observe(bench, contender)?;
    let mut looked_at = Instances::of(contender, bench.accounting.as_ref(), false)?;
    match looked_at.start() {
        Ok(()) => {}
        Err(Error::NotIdle { complaint, fix, .. }) => {
            return Ok(Err(Skipped {
                reason: format!("its launcher {complaint}"),
                fix,
            }));
        }
        Err(error) => return Err(error),
    }
    looked_at.settle();
    let launcher = looked_at.launchers().next().unwrap_or_default();
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
    let name = books::name(behind);
    // Reading a filter stops every thread for a moment, which a VMM may take for a wish to end. So whoever is to live on
    // through the trials is another, whom nobody looked at so closely.
    drop(looked_at);
    let mut sibling = Instances::of(contender, bench.accounting.as_ref(), false)?;
    sibling.start()?;
    sibling.settle();
    let family: Vec<u32> = sibling.launchers().flat_map(smaps::with_descendants).collect();
    let witnesses = Witnesses { sibling: &family, host };
    Ok(Ok(Surface {
        behind: name,
        reachable: count(Answer::Through),
        depending: count(Answer::Depends),
        known: filter::numbers().count() as u64,
        observed,
        trials: trials::all(contender, &witnesses, interrupt)?,
    }))
}

/// Watches one run. What cannot be watched is told in a note: the rest of the study does not hang on it.
fn observe(bench: &mut Bench, contender: &dyn Contender) -> Result<Option<Observed>, Error> {
    let id = format!("isolation-lab-{}-surface-watched", std::process::id());
    let words = [WATCHED.to_owned()];
    let request = Request {
        id: &id,
        workload: &words,
        marks_fd: None,
    };
    let command = contender.command_beside(&request, None);
    let command = command.map_err(|source| Error::Prepare {
        contender: contender.name().into(),
        source,
    })?;
    let why = match observed::over(command, WATCHED, LIMIT) {
        Ok(Some(observed)) => return Ok(Some(observed)),
        Ok(None) => "nobody was seen who stands between its workload and the host".into(),
        Err(error) => error.to_string(),
    };
    contender.clean_up(&id);
    bench.notes.push(format!(
        "{}: its system calls were not watched: {why}",
        contender.name()
    ));
    Ok(None)
}

fn text(study: &Study<Surface>, folder: &Path, chart: &Path) -> String {
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
        if let Some(observed) = &found.observed {
            let each = observed.calls.iter().map(|(call, count)| format!("{call} {count}"));
            let each = each.collect::<Vec<_>>().join(", ");
            let line = format!(
                "{name}, over a run of {}: {} different calls, {} together: {each}",
                observed.lesson,
                observed.distinct(),
                observed.made()
            );
            out += &table::paragraph(&line, 2, paper);
        }
    }
    out += "\n";
    for (name, found) in study.measured() {
        for trial in &found.trials {
            let said = match (trial.answers(), trial.said.lines().next()) {
                (Some(answers), _) => answers,
                (None, None) => "nothing".into(),
                (None, Some(line)) => words::brief(line),
            };
            let line = format!(
                "{name}, {} (bound: {}): {}; {}; said: {said}",
                trial.lesson,
                trial.bound,
                trial.ending(),
                trial.others(),
            );
            out += &table::paragraph(&line, 2, paper);
        }
    }
    out + "\n" + &footer(study, folder, Some(chart))
}
