//! `lab compare`: the whole comparison, top to bottom.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::accounting::Accounting;
use crate::conditions::{self, Reading};
use crate::contenders::{self, Contender, Request, Setup, Skipped};
use crate::evaluate::{self, Known};
use crate::image::{self, Image};
use crate::interrupt::Interrupt;
use crate::launchers::{self, Launchers};
use crate::provenance;
use crate::race::{self, Race, Rules};
use crate::results::{Provenance, Purpose, Sample, Summary};
use crate::series_namespace;
use crate::store::{self, Folder};

/// Rounds that fill caches before anything counts.
const WARMUPS: usize = 3;
/// Rounds with marks. Phases are medians; more rounds would only make the race longer.
const PHASE_ROUNDS: usize = 15;
/// Weighed rounds. Memory varies little from launch to launch.
const MEMORY_ROUNDS: usize = 5;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Timed launches of each contender.
    pub runs: usize,
    /// Names of the contenders, in the order of the tables.
    pub contenders: Vec<String>,
    /// The workload's arguments.
    pub workload: Vec<String>,
    /// Idle time before each launch.
    pub gap: Duration,
    /// Longest a launch may take.
    pub limit: Duration,
    /// The results folder.
    pub out: PathBuf,
    /// A `vmm` other than the one inside this program.
    pub vmm: Option<PathBuf>,
    /// A `container` other than the one inside this program.
    pub container: Option<PathBuf>,
}

impl Options {
    /// A race of `contenders` with the lab's defaults.
    pub fn for_claims(contenders: Vec<String>, runs: usize, out: PathBuf) -> Options {
        Options {
            runs,
            contenders,
            workload: vec!["hello".into()],
            gap: Duration::from_millis(30),
            limit: Duration::from_secs(30),
            out,
            vmm: None,
            container: None,
        }
    }
}

/// What ends a comparison without a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launchers could not be unpacked.
    #[error(transparent)]
    Launchers(#[from] launchers::Error),
    /// The image could not be made, or is not the same on every side.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The results could not be kept.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The race ended early.
    #[error(transparent)]
    Race(#[from] race::Error),
    /// The workload is no use for a race, even without any isolation.
    #[error("the workload `{workload}` {problem}")]
    Workload {
        /// Its arguments.
        workload: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The same program computed something else.
    #[error(
        "{contender} printed the checksum {found} where the plain process printed {expected}: the same bytes did not do \
         the same work, so their times cannot be compared. Nothing was raced"
    )]
    Checksum {
        /// The contender.
        contender: String,
        /// Its checksum, or what it printed instead.
        found: String,
        /// The plain process's.
        expected: String,
    },
}

/// A finished comparison.
#[derive(Debug)]
pub struct Done {
    /// What was found.
    pub summary: Summary,
    /// Every sample behind it.
    pub samples: Vec<Sample>,
    /// Where both lie. Locked against other labs until charts and report are there too.
    pub folder: Folder,
    /// Why the summary is not in the folder, if it could not be written. A finished race is worth reading all the same.
    pub unsaved: Option<store::Error>,
    /// The signal that ended the race early, if one did.
    pub interrupted: Option<i32>,
    /// Timed launches that each contender has at least: all that were asked for, unless the race ended early.
    pub runs: usize,
}

/// Compares, and leaves samples and summary in the results folder.
///
/// # Errors
/// See [`Error`]. Samples taken before an error are in the folder.
pub fn compare(options: &Options, interrupt: &Interrupt) -> Result<Done, Error> {
    let launchers = Launchers::find(options.vmm.as_deref(), options.container.as_deref())?;
    let image = Image::build()?;
    let mut provenance = describe(options);
    let accounting = open_accounting(&mut provenance);
    provenance
        .notes
        .extend(series_namespace::enter_if_crun_needs_it(&options.contenders));
    let setup = Setup {
        image: &image,
        launchers: &launchers,
        cgroup: accounting.as_ref().and_then(Accounting::path),
    };

    let reference = Reference::take(options, &setup, interrupt)?;
    let (mut known, ready) = try_out(options, &setup, &reference, interrupt)?;
    let mut folder = Folder::create(&options.out)?;

    let rules = Rules {
        workload: options.workload.clone(),
        expected_status: reference.status,
        gap: options.gap,
        limit: options.limit,
    };
    let null = null_contender(&ready);
    let reading = Reading::now();
    let mut race = Race::new(
        rules,
        &ready,
        &mut folder,
        interrupt,
        progress(launches(&ready, options.runs)),
    );
    let ran = run(&mut race, options.runs, null, accounting.as_ref());
    let (samples, failed) = race.finish();
    reading.close(&mut provenance, &conditions::daemons(&options.contenders));

    // Whatever ended the race, what was measured until then is evaluated and kept.
    let interrupted = match &ran {
        Err(race::Error::Interrupted) => interrupt.signal(),
        _ => None,
    };
    if interrupted.is_some() {
        provenance
            .notes
            .push("The race was interrupted: not every contender has the runs that were asked for.".into());
    }
    for (name, entry) in &mut known {
        entry.skipped = failed.get(name).cloned().or(entry.skipped.take());
    }
    let null = null.map(|index| ready[index].name());
    let summary = evaluate::summary(provenance, &known, &samples, null);
    match ran {
        Ok(()) | Err(race::Error::Interrupted) => {}
        Err(error) => return Err(error.into()),
    }
    let unsaved = folder.write_summary(&summary).err();
    let fewest = ready
        .iter()
        .map(|contender| timed_launches(contender.name(), &samples))
        .min();
    Ok(Done {
        runs: fewest.unwrap_or(0),
        summary,
        samples,
        folder,
        unsaved,
        interrupted,
    })
}

/// The passes of a race. Only one of them is timed; each of the others has its reason not to be.
fn run(race: &mut Race, runs: usize, null: Option<usize>, accounting: Option<&Accounting>) -> Result<(), race::Error> {
    let Some(null) = null else { return Ok(()) };
    race.pass(Purpose::Warmup, WARMUPS)?;
    race.timed_pass(runs, null)?;
    race.pass(Purpose::Phases, PHASE_ROUNDS.min(runs))?;
    race.memory_pass(MEMORY_ROUNDS.min(runs), accounting)
}

fn timed_launches(name: &str, samples: &[Sample]) -> usize {
    let timed = samples.iter().filter(|sample| sample.purpose == Purpose::Timed);
    timed.filter(|sample| sample.contender == name).count()
}

fn describe(options: &Options) -> Provenance {
    Provenance {
        n: options.runs as u64,
        gap_ms: u64::try_from(options.gap.as_millis()).unwrap_or(u64::MAX),
        workload: options.workload.clone(),
        ..provenance::collect()
    }
}

fn open_accounting(provenance: &mut Provenance) -> Option<Accounting> {
    match Accounting::create() {
        Ok(accounting) => Some(accounting),
        Err(error) => {
            provenance.notes.push(format!(
                "Peak and kernel memory are missing: {error}. Run as root, or where cgroups are delegated, to have them."
            ));
            None
        }
    }
}

/// What the workload does without any isolation: the measure of whether a contender really ran it.
struct Reference {
    status: i32,
    checksum: String,
}

impl Reference {
    fn take(options: &Options, setup: &Setup, interrupt: &Interrupt) -> Result<Reference, Error> {
        let unusable = |problem: String| Error::Workload {
            workload: options.workload.join(" "),
            problem,
        };
        if options.workload.first().is_some_and(|lesson| lesson == "idle") {
            return Err(unusable(
                "never ends: it is what memory is weighed with, not a race".into(),
            ));
        }
        let process = contenders::prepare("process", setup).map_err(|skipped| unusable(skipped.reason))?;
        let outcome = first_launch(&*process, &options.workload, options.limit, interrupt)?;
        // Wrong usage ends with 2, before any lesson.
        if outcome.timed_out || outcome.first_byte_ns.is_none() || outcome.exit_status == 2 {
            return Err(unusable(format!(
                "has no finish line even as a plain process, its first byte of output: it {}",
                outcome.complaint(options.limit)
            )));
        }
        let cpu = first_launch(&*process, &["cpu".into()], options.limit, interrupt)?;
        Ok(Reference {
            status: outcome.exit_status,
            checksum: checksum(&cpu.stdout),
        })
    }
}

/// One launch before the race, whose time nobody notes.
fn first_launch(
    contender: &dyn Contender,
    workload: &[String],
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<crate::launch::Outcome, race::Error> {
    let id = format!(
        "isolation-lab-{}-{}",
        std::process::id(),
        workload.first().map_or("", String::as_str)
    );
    let request = Request {
        id: &id,
        workload,
        marks_fd: None,
    };
    race::once(contender, &request, false, limit, interrupt)
}

/// Every contender asked for with what is known of it, and those that proved they can race.
type TriedOut = (Vec<(String, Known)>, Vec<Box<dyn Contender>>);

fn try_out(options: &Options, setup: &Setup, reference: &Reference, interrupt: &Interrupt) -> Result<TriedOut, Error> {
    let mut known = Vec::new();
    let mut ready = Vec::new();
    for name in &options.contenders {
        let mut entry = Known::default();
        match contenders::prepare(name, setup) {
            Ok(contender) => {
                entry.details = contender.details();
                if contender.runs_the_workload() {
                    entry.workload_sha256 = Some(contender.workload_sha256(setup.image)?);
                }
                match prove(&*contender, options, reference, interrupt)? {
                    Ok(checksum) => {
                        entry.checksum = checksum;
                        ready.push(contender);
                    }
                    Err(skipped) => entry.skipped = Some(skipped),
                }
            }
            Err(skipped) => entry.skipped = Some(skipped),
        }
        known.push((name.clone(), entry));
    }
    Ok((known, ready))
}

/// Has `contender` run the workload, then `cpu`; returns the checksum it printed, or None for a floor, which only has to
/// reach its finish line.
fn prove(
    contender: &dyn Contender,
    options: &Options,
    reference: &Reference,
    interrupt: &Interrupt,
) -> Result<Result<Option<String>, Skipped>, Error> {
    let cpu = ["cpu".to_owned()];
    let mut printed = Vec::new();
    let proofs = match contender.runs_the_workload() {
        true => vec![(&options.workload[..], reference.status), (&cpu, 0)],
        false => vec![(&options.workload[..], 0)],
    };
    for (workload, status) in proofs {
        let outcome = match first_launch(contender, workload, options.limit, interrupt) {
            Ok(outcome) => outcome,
            Err(error @ (race::Error::Launch { .. } | race::Error::Prepare { .. })) => {
                return Ok(Err(Skipped {
                    reason: error.to_string(),
                    fix: contender.fix(0),
                }));
            }
            Err(error) => return Err(error.into()),
        };
        if !outcome.reached_the_finish_line(status) {
            return Ok(Err(Skipped {
                reason: format!("its launcher {}", outcome.complaint(options.limit)),
                fix: contender.fix(outcome.exit_status),
            }));
        }
        printed = outcome.stdout;
    }
    if !contender.runs_the_workload() {
        return Ok(Ok(None));
    }
    let found = checksum(&printed);
    if found != reference.checksum {
        return Err(Error::Checksum {
            contender: contender.name().into(),
            found,
            expected: reference.checksum.clone(),
        });
    }
    Ok(Ok(Some(found)))
}

/// The checksum in what `cpu` printed; all of it when there is none, so that a difference shows what came instead. Around its
/// line a guest's kernel may have put some of its own: QEMU's serial port carries both.
fn checksum(stdout: &[u8]) -> String {
    let found = stdout.split(|&byte| byte == b'\n').find_map(|line| {
        let json: serde_json::Value = serde_json::from_slice(line).ok()?;
        Some(json["checksum"].as_str()?.to_owned())
    });
    match found {
        Some(checksum) => checksum,
        None => String::from_utf8_lossy(stdout).trim().to_owned(),
    }
}

/// The contender that races against itself: `container` for choice, because it is in the middle of the field and does
/// what the others do, several processes and much of the kernel.
pub(crate) fn null_contender(ready: &[Box<dyn Contender>]) -> Option<usize> {
    let container = ready.iter().position(|contender| contender.name() == "container");
    container.or_else(|| (!ready.is_empty()).then_some(0))
}

/// How many launches [`run`] makes, for the bar.
fn launches(ready: &[Box<dyn Contender>], runs: usize) -> usize {
    let with_phases = ready.iter().filter(|contender| contender.reports_phases()).count();
    let null = if ready.is_empty() { 0 } else { runs };
    ready.len() * (WARMUPS + runs + MEMORY_ROUNDS.min(runs)) + null + with_phases * PHASE_ROUNDS.min(runs)
}

/// A bar on a terminal; nothing elsewhere.
fn progress(launches: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(launches as u64), ProgressDrawTarget::stderr_with_hz(4));
    match ProgressStyle::with_template("{bar:40} {pos}/{len} launches, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The default results folder: a name that sorts by time and needs no quoting.
pub fn default_folder() -> PathBuf {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    Path::new("lab-results").join(now.replace(':', "-"))
}
