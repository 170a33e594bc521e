//! `lab`: the command.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench::cli::{Cli, Command};
use bench::compare::{self, compare};
use bench::interrupt::Interrupt;
use bench::results::{Sample, Summary};
use bench::testbed::{Ended, inside};
use bench::{
    book, charts, commands, doctor, ladder, modes, overhead, race, report, restore_cost, store, study, testbed, trace,
    words,
};
use clap::Parser;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // Whoever reads our output has seen enough (`lab compare | head`): no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // If even standard error is gone, the exit status still says it.
            // Every error of the lab names its cause itself: the chain of sources would say it twice.
            let _ = writeln!(io::stderr(), "lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Compare(arguments) => {
            let around = arguments.around.clone();
            if around.without_a_race()? {
                return Ok(ExitCode::SUCCESS);
            }
            let older = around.older()?;
            let guess = around.guess()?;
            let interrupt = Interrupt::install()
                .map_err(|error| anyhow::anyhow!("cannot take over SIGINT and SIGTERM: {error}"))?;
            arguments.modes.pin()?;
            let modes = arguments.modes.clone();
            let options = arguments.options();
            if modes.asked() {
                return under_conditions(&modes, &options, around.json, &interrupt);
            }
            let mut done = match (compare(&options, &interrupt), interrupt.signal()) {
                (Ok(done), _) => done,
                // Stopped before there was anything to keep.
                (Err(compare::Error::Race(race::Error::Interrupted)), Some(signal)) => {
                    let signal_name = words::signal(signal);
                    let _ = writeln!(
                        io::stderr(),
                        "lab: {signal_name} ended the race before its first launch"
                    );
                    return Ok(ended_by(signal));
                }
                (Err(error), _) => return Err(error.into()),
            };
            if let Some(signal) = done.interrupted {
                let _ = writeln!(
                    io::stderr(),
                    "lab: {} interrupted the race after {} of {} timed runs; what was measured until then is kept",
                    words::signal(signal),
                    done.runs,
                    options.runs
                );
            }
            if guess.is_some() {
                done.summary.provenance.prediction = guess;
                done.unsaved = done.unsaved.or(done.folder.write_summary(&done.summary).err());
            }
            let folder = done.folder.path();
            let kept = match done.unsaved.take() {
                Some(error) => Err(error.into()),
                None => draw(&done.summary, &done.samples, folder)
                    .and_then(|_| Ok(report::write(&done.summary, &done.samples, folder)?)),
            };
            // The race is over and its figures are known, whether or not they could be kept.
            commands::tell(&around, older.as_ref(), &options, &done, &interrupt)?;
            let report = kept?;
            if !around.json {
                let folder = done.folder.path();
                writeln!(
                    io::stdout(),
                    "results: {}\nreport:  {}",
                    folder.display(),
                    report.display()
                )?;
            }
            Ok(done.interrupted.map_or(ExitCode::SUCCESS, ended_by))
        }
        Command::Ladder(arguments) => climb(&arguments),
        Command::Overhead(arguments) => {
            let interrupt = Interrupt::install()
                .map_err(|error| anyhow::anyhow!("cannot take over SIGINT and SIGTERM: {error}"))?;
            let overhead = overhead::measure(&arguments, &interrupt)?;
            let text = match arguments.json {
                true => serde_json::to_string_pretty(&overhead)?,
                false => overhead.to_string(),
            };
            writeln!(io::stdout().lock(), "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Charts { dir, trace, json } => {
            let mut files = Vec::new();
            if let Some(dir) = dir {
                if dir.join(store::SUMMARY).is_file() {
                    let (summary, samples) = (store::read_summary(&dir)?, store::read_samples(&dir)?);
                    files.extend(draw(&summary, &samples, &dir)?);
                }
                files.extend(charts::write_studies(&dir)?);
                let kept = dir.join("trace.jsonl");
                if kept.exists() {
                    let path = dir.join("charts/exits.svg");
                    charts::write_exits(&trace::read(&kept)?, &path)?;
                    files.push(path);
                }
                anyhow::ensure!(
                    !files.is_empty(),
                    "{} holds nothing a chart could be drawn from: neither {} nor the file of a study (density.json, ...) \
                     nor trace.jsonl",
                    dir.display(),
                    store::SUMMARY
                );
            }
            if let Some(trace) = trace {
                let path = trace.with_extension("svg");
                charts::write_exits(&trace::read(&trace)?, &path)?;
                files.push(path);
            }
            commands::wrote(&files, json)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Report { dir, json } if !dir.join(store::SUMMARY).is_file() => {
            charts::write_studies(&dir)?;
            commands::wrote(&[report::write_of_studies(&dir)?], json)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Report { dir, json } => {
            let (summary, samples) = (store::read_summary(&dir)?, store::read_samples(&dir)?);
            draw(&summary, &samples, &dir)?;
            charts::write_studies(&dir)?;
            commands::wrote(&[report::write(&summary, &samples, &dir)?], json)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Export(export) => export.run(),
        Command::Explain(explain) => explain.run(),
        Command::Claims(claims) => claims.run(),
        Command::Completions { shell } => commands::completions(shell),
        Command::Man => commands::man(),
        Command::Doctor { json } => {
            let findings = doctor::examine();
            let text = if json {
                doctor::json(&findings)? + "\n"
            } else {
                doctor::text(&findings, columns())
            };
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Book(options) => {
            let page = book::make(&options)?;
            commands::wrote(&[page], options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Testbed(options) => in_the_testbed(&options),
        Command::TestbedInit => anyhow::bail!(inside::init()),
        Command::RestoreCost(arguments) => {
            let interrupt = Interrupt::install()
                .map_err(|error| anyhow::anyhow!("cannot take over SIGINT and SIGTERM: {error}"))?;
            if let Some(clones) = arguments.clones {
                let weight = restore_cost::weigh_clones(&arguments.options(), clones as usize, &interrupt)?;
                let text = match arguments.json {
                    true => serde_json::to_string_pretty(&weight)?,
                    false => weight.to_string(),
                };
                writeln!(io::stdout().lock(), "{text}")?;
                return Ok(ExitCode::SUCCESS);
            }
            let cost = restore_cost::measure(&arguments.options(), &interrupt)?;
            let text = match arguments.json {
                true => serde_json::to_string_pretty(&cost)?,
                false => cost.to_string(),
            };
            writeln!(io::stdout().lock(), "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Study(command) => {
            let interrupt = Interrupt::install()
                .map_err(|error| anyhow::anyhow!("cannot take over SIGINT and SIGTERM: {error}"))?;
            let text = study::run(&command, &interrupt)?;
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(interrupt.signal().map_or(ExitCode::SUCCESS, ended_by))
        }
        Command::Trial { what } => {
            what.attempt().map_err(anyhow::Error::msg)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Starts the contenders under other conditions than a race's; prints the figures and keeps the chart.
fn under_conditions(
    arguments: &modes::Arguments,
    options: &compare::Options,
    json: bool,
    interrupt: &Interrupt,
) -> anyhow::Result<ExitCode> {
    let done = modes::measure(arguments, options, interrupt)?;
    let charts = draw(&done.summary, &done.samples, done.folder.path())?;
    let ended = done.interrupted.map_or(ExitCode::SUCCESS, ended_by);
    let mut out = io::stdout().lock();
    if json {
        let told = modes::told(&done.summary, done.folder.path());
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(ended);
    }
    write!(out, "{}", modes::text(&done.summary))?;
    writeln!(out, "\nresults: {}", done.folder.path().display())?;
    for chart in charts {
        writeln!(out, "chart:   {}", chart.display())?;
    }
    Ok(ended)
}

/// Climbs both ladders; prints the steps and keeps the chart.
fn climb(arguments: &ladder::Arguments) -> anyhow::Result<ExitCode> {
    let interrupt =
        Interrupt::install().map_err(|error| anyhow::anyhow!("cannot take over SIGINT and SIGTERM: {error}"))?;
    let done = ladder::climb(arguments, &interrupt)?;
    let charts = draw(&done.summary, &done.samples, done.folder.path())?;
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&done.summary)?)?;
    } else {
        let ladders = ladder::ladders(&done.summary, &done.samples);
        write!(out, "{}", ladder::text(&done.summary, &ladders))?;
        writeln!(out, "results: {}", done.folder.path().display())?;
        for chart in charts {
            writeln!(out, "chart:   {}", chart.display())?;
        }
    }
    Ok(done.interrupted.map_or(ExitCode::SUCCESS, ended_by))
}

/// Runs a command in the testbed; ends as it ended.
fn in_the_testbed(options: &testbed::Options) -> anyhow::Result<ExitCode> {
    let interrupt =
        Interrupt::install().map_err(|error| anyhow::anyhow!("cannot take over SIGINT and SIGTERM: {error}"))?;
    match testbed::run(options, &interrupt) {
        Ok(Ended::Command(status)) => Ok(ExitCode::from(status)),
        Ok(Ended::TimedOut) => {
            let limit = options.timeout.unwrap_or_default();
            let _ = writeln!(
                io::stderr(),
                "lab: the command did not end within {limit} s; the testbed was ended"
            );
            Ok(ExitCode::from(testbed::TIMED_OUT))
        }
        Ok(Ended::Interrupted(signal)) => {
            let _ = writeln!(io::stderr(), "lab: {} ended the testbed", words::signal(signal));
            Ok(ended_by(signal))
        }
        Err(testbed::Error::Output(error)) => Err(error.into()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "lab: {error}");
            Ok(ExitCode::from(error.status()))
        }
    }
}

/// 128 + signal, as a shell reports a program the signal ended.
fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
}

/// Draws the charts into the results folder.
fn draw(summary: &Summary, samples: &[Sample], folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(charts::write_all(summary, samples, &folder.join("charts"))?)
}

/// Columns of the terminal; 80 where there is none, or it does not know its size (a serial console says 0).
fn columns() -> usize {
    let width = comfy_table::Table::new().width().filter(|&width| width > 0);
    width.map_or(80, usize::from)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
