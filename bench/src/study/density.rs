//! `lab density`: how much memory one more idle instance takes.
//!
//! Instances are started one after another; at each size the books are read; a line through the readings of one instance
//! and more has the marginal memory for its slope. What the first instance brings along (caches filled, modules' own
//! tables) stays out of the slope and is told apart.
//!
//! Nothing is started below a floor of free memory, and whatever ends the series ends its instances.

mod ksm;
mod line;

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::books;
use super::instances::{self, Instances};
use super::results::{Density, Entry, Point, Series, Slope, Study};
use super::{Bench, Common, Error, footer, keep, once_each};
use crate::charts;
use crate::contenders::{Contender, NAMES, Skipped};
use crate::interrupt::Interrupt;
use crate::table::{self, Paper};
use crate::words;

/// Who is multiplied when nobody is named.
const DEFAULT: [&str; 6] = ["process", "container", "vm-restored", "vm", "crun", "runc"];

/// Memory that is always left to the rest of the host, in bytes ...
const FLOOR: u64 = 2 << 30;
/// ... or this part of all there is, when that is less: a small machine can be measured too.
const FLOOR_SHARE: u64 = 4;

/// Sizes besides none and one, evenly spaced.
const SIZES: u64 = 8;

/// Options of `lab density`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Instances of each at the most.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(4..=10_000))]
    pub up_to: u64,
    /// Who is multiplied, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = DEFAULT, value_parser = NAMES)]
    pub contenders: Vec<String>,
    /// Then once more with kernel same-page merging: switched on for the whole machine for as long as this takes, but only
    /// these instances take part.
    #[arg(long)]
    pub ksm: bool,
    /// Where to, and how printed.
    #[command(flatten)]
    pub common: Common,
}

#[derive(Serialize)]
struct Reading<'a> {
    contender: &'a str,
    merging: bool,
    #[serde(flatten)]
    point: Point,
}

/// Multiplies each contender.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<String, Error> {
    let names = once_each(&options.contenders);
    instances::make_room_for(options.up_to)?;
    let mut bench = Bench::set_up("density", &options.common, &names, options.up_to)?;
    let merging = match (options.ksm, ksm::missing()) {
        (true, None) => true,
        (true, Some(reason)) => {
            bench.notes.push(format!("Page sharing was not measured: {reason}."));
            false
        }
        (false, None) => {
            bench
                .notes
                .push("Page sharing was not asked for: --ksm measures with it too.".into());
            false
        }
        (false, Some(_)) => false,
    };
    let mut entries = Vec::new();
    for name in &names {
        if interrupt.requested() {
            break;
        }
        let contender = match bench.contender(name) {
            Ok(contender) => contender,
            Err(skipped) => {
                entries.push(Entry::skipped(name, skipped));
                continue;
            }
        };
        let found = series(&mut bench, &*contender, options.up_to, None, interrupt).and_then(|apart| {
            let mut merged = None;
            if merging && !interrupt.requested() {
                let on = ksm::On::switch()?;
                merged = Some(series(&mut bench, &*contender, options.up_to, Some(&on), interrupt)?);
            }
            Ok(Density { apart, merged })
        });
        match found {
            Ok(found) => entries.push(Entry::found(name, found)),
            Err(Error::NotIdle { complaint, fix, .. }) => {
                let reason = format!("its launcher {complaint}");
                entries.push(Entry::skipped(name, Skipped { reason, fix }));
            }
            Err(error) => return Err(error),
        }
    }
    if interrupt.requested() {
        bench.notes.push("Interrupted: not every series is whole.".into());
    }
    let (study, folder) = bench.finish(entries)?;
    let chart = keep(&charts::density::draw(&study)?, &folder)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text(&study, &folder, &chart)),
    }
}

/// None, one, and [`SIZES`] more up to the most.
fn sizes(up_to: u64) -> Vec<u64> {
    let mut sizes: Vec<u64> = (1..=SIZES).map(|step| (up_to * step / SIZES).max(1)).collect();
    sizes.extend([0, 1]);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn series(
    bench: &mut Bench,
    contender: &dyn Contender,
    up_to: u64,
    merging: Option<&ksm::On>,
    interrupt: &Interrupt,
) -> Result<Series, Error> {
    let accounting = bench.accounting.take();
    let found = grow(bench, contender, accounting.as_ref(), up_to, merging, interrupt);
    bench.accounting = accounting;
    found
}

fn grow(
    bench: &mut Bench,
    contender: &dyn Contender,
    accounting: Option<&crate::accounting::Accounting>,
    up_to: u64,
    merging: Option<&ksm::On>,
    interrupt: &Interrupt,
) -> Result<Series, Error> {
    // One that nobody counts: caches are full and a snapshot is taken before the empty host is read.
    Instances::of(contender, accounting, false)?.start()?;
    let mut instances = Instances::of(contender, accounting, merging.is_some())?;
    let mut points = Vec::new();
    let mut stopped = None;
    for size in sizes(up_to) {
        while (instances.count() as u64) < size && stopped.is_none() {
            stopped = reason_to_stop(interrupt)?;
            if stopped.is_some() {
                break;
            }
            match instances.start() {
                Ok(()) => {}
                // The first must start. When a later one does not, the host has no more to give: that is a finding.
                Err(error) if instances.count() > 0 => stopped = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        instances.settle();
        if let Some(on) = merging.filter(|_| instances.count() > 0) {
            on.wait_for_scans(interrupt);
        }
        let account = instances.account();
        let point = Point {
            instances: instances.count() as u64,
            charged_bytes: account.and_then(|account| account.usage()),
            kernel_bytes: account.and_then(|account| account.kernel()),
            available_bytes: books::meminfo()?.available,
            merged_bytes: merging.map(|_| ksm::saved_bytes()),
        };
        bench.note(&Reading {
            contender: contender.name(),
            merging: merging.is_some(),
            point,
        })?;
        points.push(point);
        if stopped.is_some() {
            break;
        }
    }
    Ok(evaluate(points, stopped))
}

fn reason_to_stop(interrupt: &Interrupt) -> Result<Option<String>, Error> {
    let books = books::meminfo()?;
    let floor = FLOOR.min(books.total / FLOOR_SHARE);
    Ok(if interrupt.requested() {
        Some("interrupted".into())
    } else if books.available < floor {
        Some(format!(
            "the host has {} left, and {} are left to it at least",
            words::bytes(books.available),
            words::bytes(floor)
        ))
    } else {
        None
    })
}

fn evaluate(points: Vec<Point>, stopped: Option<String>) -> Series {
    let line = |figure: &dyn Fn(&Point) -> Option<f64>| -> Option<Slope> {
        let from_one = points.iter().filter(|point| point.instances > 0);
        let places: Vec<(f64, f64)> = from_one
            .filter_map(|point| Some((point.instances as f64, figure(point)?)))
            .collect();
        line::through(&places)
    };
    let charged = line(&|point| Some(point.charged_bytes? as f64));
    let empty = points.first().map_or(0, |point| point.available_bytes) as f64;
    let available = line(&|point| Some(empty - point.available_bytes as f64));
    let charge = |instances| {
        let point = points.iter().find(|point| point.instances == instances)?;
        Some(point.charged_bytes? as f64)
    };
    Series {
        first_bytes: charge(1).zip(charge(0)).map(|(one, none)| one - none),
        points,
        charged,
        available,
        stopped,
    }
}

/// A slope with its interval, or a dash.
pub fn slope(slope: Option<Slope>) -> String {
    slope.map_or("-".into(), |slope| words::bytes_with_interval(slope.bytes, slope.ci95))
}

fn text(study: &Study<Density>, folder: &Path, chart: &Path) -> String {
    let paper = Paper::of_stdout();
    let header = [
        "contender",
        "up to",
        "first",
        "each more, charged (95%)",
        "each more, MemAvailable (95%)",
    ];
    let mut table = table::table(paper, &header, |index| index > 0);
    let mut after = String::new();
    for (name, found) in study.measured() {
        for (label, series) in [
            (name.to_owned(), Some(&found.apart)),
            (format!("{name}, KSM"), found.merged.as_ref()),
        ] {
            let Some(series) = series else { continue };
            table.add_row([
                label.clone(),
                series.points.last().map_or(0, |point| point.instances).to_string(),
                series
                    .first_bytes
                    .map_or("-".into(), |bytes| words::bytes(bytes.max(0.0) as u64)),
                slope(series.charged),
                slope(series.available),
            ]);
            if let Some(stopped) = &series.stopped {
                after += &table::paragraph(&format!("{label} ended early: {stopped}."), 2, paper);
            }
        }
    }
    after += &table::paragraph(
        "Charged: user pages and kernel memory in the instances' cgroup. MemAvailable: what the host lost, everybody \
         else's doing included. The interval is Student's for a straight line; readings of one growing series hang \
         together, so it is rather too narrow.",
        2,
        paper,
    );
    table::lines(&table) + "\n" + &after + &footer(study, folder, Some(chart))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_begin_with_none_and_one_and_end_with_the_most() {
        assert_eq!(sizes(1000), [0, 1, 125, 250, 375, 500, 625, 750, 875, 1000]);
        assert_eq!(sizes(4), [0, 1, 2, 3, 4]);
        assert_eq!(sizes(8), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn the_first_instance_is_not_in_the_slope() {
        let point = |instances, charged| Point {
            instances,
            charged_bytes: Some(charged),
            kernel_bytes: None,
            available_bytes: 10_000_000 - charged,
            merged_bytes: None,
        };
        let series = evaluate(
            vec![
                point(0, 50),
                point(1, 5050),
                point(2, 6050),
                point(3, 7050),
                point(4, 8050),
            ],
            None,
        );
        assert_eq!(series.first_bytes, Some(5000.0));
        assert_eq!(series.charged.unwrap().bytes, 1000.0);
        assert_eq!(series.available.unwrap().bytes, 1000.0);
        assert_eq!(series.charged.unwrap().intercept_bytes, 4050.0);
    }

    #[test]
    fn without_an_account_nothing_is_said_of_the_charge() {
        let point = |instances| Point {
            instances,
            charged_bytes: None,
            kernel_bytes: None,
            available_bytes: 10_000_000 - 1000 * instances,
            merged_bytes: None,
        };
        let series = evaluate((0..5).map(point).collect(), None);
        assert_eq!((series.first_bytes, series.charged), (None, None));
        assert_eq!(series.available.unwrap().bytes, 1000.0);
    }
}
