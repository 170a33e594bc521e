//! The commands that work on results once they are there, and what `lab compare` does after its race.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde::Serialize;

use crate::baseline::{self, Changes};
use crate::claims::{self, Outcome};
use crate::cli::Cli;
use crate::compare::{self, Done, Options};
use crate::explain::explain;
use crate::export::{Format, export};
use crate::interrupt::Interrupt;
use crate::mistakes::{self, Mistake, Shown};
use crate::results::{Sample, Summary};
use crate::{predict, store, table, verdict, words};

/// Starts under these conditions are no race of all against all, which is what the options below are about.
const OTHER_CONDITIONS: [&str; 4] = ["cold", "concurrency", "rate", "running"];

/// What to do with a race besides racing.
#[derive(Args, Clone, Debug)]
pub struct AroundTheRace {
    /// Tell what changed since the results in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = OTHER_CONDITIONS)]
    pub baseline: Option<PathBuf>,
    /// Do not race: compare the baseline with the results in this folder.
    #[arg(long, value_name = "DIR", requires = "baseline", conflicts_with_all = ["mistake", "predict"])]
    pub results: Option<PathBuf>,
    /// After the honest race, repeat a flaw of published comparisons and show what it does to the verdict.
    #[arg(long, value_name = "KIND", conflicts_with_all = OTHER_CONDITIONS)]
    pub mistake: Option<Mistake>,
    /// Guess first how many times as long as a container a VM takes to start; asks when no guess is given.
    #[arg(long, value_name = "GUESS", num_args = 0..=1, value_parser = predict::parse, conflicts_with_all = OTHER_CONDITIONS)]
    pub predict: Option<Option<f64>>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `lab export`.
#[derive(Args, Debug)]
pub struct Export {
    /// The results folder.
    pub dir: PathBuf,
    /// csv: every sample; json: summary and samples; markdown: the figures as a table.
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    pub format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// Options of `lab explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// The chart.
    pub chart: PathBuf,
    /// The results folder it came from [default: the folder above the chart's].
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `lab claims`.
#[derive(Args, Debug)]
pub struct Claims {
    /// Results to hold the claims against, of `lab compare`, `lab ladder` and `lab density`; without any, those they speak of race first.
    pub dirs: Vec<PathBuf>,
    /// Claims of your own instead of the project's.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Timed launches of each contender in that race.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Where that race keeps its results [default: lab-results/TIME].
    #[arg(long, value_name = "DIR", conflicts_with = "dirs")]
    pub out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl AroundTheRace {
    /// The guess, asked for if need be; None when none was wanted.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub fn guess(&self) -> Result<Option<f64>, predict::Error> {
        match self.predict {
            None => Ok(None),
            Some(Some(guess)) => Ok(Some(guess)),
            Some(None) => predict::ask().map(Some),
        }
    }

    /// The baseline, read before the race: one that cannot be read must not cost a race, and the race may replace it.
    ///
    /// # Errors
    /// What keeps the folder from being read.
    pub fn older(&self) -> Result<Option<Older>, store::Error> {
        self.baseline.as_deref().map(Older::read).transpose()
    }

    /// Prints what changed between two folders, when no race was wanted. Returns whether that was so.
    ///
    /// # Errors
    /// What keeps a folder from being read.
    pub fn without_a_race(&self) -> anyhow::Result<bool> {
        let (Some(old), Some(new)) = (&self.baseline, &self.results) else {
            return Ok(false);
        };
        let (old, new) = (Older::read(old)?, Older::read(new)?);
        let changes = old.changes(&new.summary, &new.samples);
        let text = match self.json {
            true => pretty(&changes)?,
            false => table::changes(&changes),
        };
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(true)
    }
}

/// Results a race is compared with.
pub struct Older {
    summary: Summary,
    samples: Vec<Sample>,
}

impl Older {
    fn read(folder: &Path) -> Result<Older, store::Error> {
        Ok(Older {
            summary: store::read_summary(folder)?,
            samples: store::read_samples(folder)?,
        })
    }

    fn changes(&self, summary: &Summary, samples: &[Sample]) -> Changes {
        baseline::changes((&self.summary, &self.samples), (summary, samples))
    }
}

/// Everything `lab compare` has to say, for `--json`.
#[derive(Serialize)]
struct Told<'a> {
    verdict: String,
    results: &'a Path,
    summary: &'a Summary,
    changes: Option<Changes>,
    mistake: Option<Shown>,
}

/// Prints what a finished race showed; then compares it with `older` results and repeats the mistake asked for.
///
/// # Errors
/// What kept a part of it from being done; everything before is printed.
pub fn tell(
    around: &AroundTheRace,
    older: Option<&Older>,
    options: &Options,
    done: &Done,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let (summary, samples) = (&done.summary, &done.samples);
    let width = words_width();
    if !around.json {
        let mut out = io::stdout().lock();
        writeln!(out, "{}\n{}", table::startup(summary), table::phases(summary))?;
        let mut paragraphs = vec![verdict::sentence(summary)];
        if let (Some(guess), Some(found)) = (
            summary.provenance.prediction,
            words::comparison(summary, "vm", "container"),
        ) {
            paragraphs.push(predict::judgement(guess, found.ratio, found.ci95));
        }
        for text in paragraphs {
            let lines = words::wrap(&text, width, |line| line.chars().count() as f64);
            writeln!(out, "{}\n", lines.join("\n"))?;
        }
    }
    let changes = older.map(|older| older.changes(summary, samples));
    if let (Some(changes), false) = (&changes, around.json) {
        writeln!(io::stdout().lock(), "{}", table::changes(changes))?;
    }
    let mistake = match around.mistake {
        Some(mistake) if done.interrupted.is_none() => Some(mistakes::repeat(
            mistake,
            options,
            samples,
            done.folder.path(),
            interrupt,
        )?),
        _ => None,
    };
    match (&mistake, around.json) {
        (Some(shown), false) => writeln!(io::stdout().lock(), "{}", table::mistake(shown))?,
        (_, true) => {
            let told = Told {
                verdict: verdict::sentence(summary),
                results: done.folder.path(),
                summary,
                changes,
                mistake,
            };
            io::stdout().lock().write_all(pretty(&told)?.as_bytes())?;
        }
        _ => {}
    }
    Ok(())
}

/// Prints the files a command wrote, one a line or as JSON.
///
/// # Errors
/// When standard output fails.
pub fn wrote(files: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        out.write_all(pretty(&serde_json::json!({ "files": files }))?.as_bytes())?;
        return Ok(());
    }
    for path in files {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

impl Export {
    /// Prints the results in another format.
    ///
    /// # Errors
    /// What keeps the folder from being read.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let format = if self.json { Format::Json } else { self.format };
        let text = export(
            &store::read_summary(&self.dir)?,
            &store::read_samples(&self.dir)?,
            format,
        )?;
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Explain {
    /// Prints where a chart came from.
    ///
    /// # Errors
    /// See [`explain`].
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let found = explain(&self.chart, self.results.as_deref())?;
        let text = match self.json {
            true => pretty(&found)?,
            false => found.to_string(),
        };
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Claims {
    /// Holds the claims against results; fails when a robust one fails.
    ///
    /// # Errors
    /// A file of claims that cannot be read, or a race without a result.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let text = match &self.file {
            None => claims::CLAIMS.to_owned(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| anyhow::anyhow!("cannot read the claims {}: {error}", file.display()))?,
        };
        let claims = claims::parse(&text)?;
        let results = match self.dirs.is_empty() {
            true => {
                let (summary, samples) = self.race(claims::contenders(&claims))?;
                vec![claims::Results::of_race(summary, samples)]
            }
            false => {
                let read = |dir: &PathBuf| claims::Results::read(dir);
                self.dirs.iter().map(read).collect::<Result<_, _>>()?
            }
        };
        let judged = claims::judge(&claims, &results);
        let text = match self.json {
            true => pretty(&judged)?,
            false => table::claims(&judged),
        };
        io::stdout().lock().write_all(text.as_bytes())?;
        let broken = judged
            .iter()
            .any(|claim| claim.robust && claim.outcome == Outcome::Fails);
        Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn race(&self, contenders: Vec<String>) -> anyhow::Result<(Summary, Vec<Sample>)> {
        let interrupt =
            Interrupt::install().map_err(|error| anyhow::anyhow!("cannot take over SIGINT and SIGTERM: {error}"))?;
        let options = compare::Options::for_claims(
            contenders,
            self.runs as usize,
            self.out.clone().unwrap_or_else(compare::default_folder),
        );
        let done = compare::compare(&options, &interrupt)?;
        Ok((done.summary, done.samples))
    }
}

/// Prints a completion script for `shell`.
///
/// # Errors
/// When standard output fails.
pub fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lab", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page: the command's own, then one for each of its subcommands.
///
/// # Errors
/// When standard output fails.
pub fn man() -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let name = format!("lab {}", subcommand.get_name());
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        page.extend_from_slice(format!(".SH {}\n{}\n", name.to_uppercase(), roff(&about)).as_bytes());
        let man = clap_mangen::Man::new(subcommand.clone().bin_name(name));
        let mut options = Vec::new();
        man.render_options_section(&mut options)?;
        // Its heading would stand beside those of the commands; a subsection belongs to one.
        page.extend_from_slice(
            String::from_utf8_lossy(&options)
                .replace(".SH OPTIONS", ".SS Options")
                .as_bytes(),
        );
    }
    io::stdout().lock().write_all(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// Text for a manual page: a point at the start of a line would be a request, a backslash an escape.
fn roff(text: &str) -> String {
    text.replace('\\', "\\\\").replace("\n.", "\n\\&.").replace('-', "\\-")
}

fn pretty(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Columns of running text: those of the tables.
fn words_width() -> f64 {
    f64::from(table::width())
}
