//! `lab compare --mistake KIND`: the flaws of published comparisons, repeated on purpose, to see the verdict move.
//!
//! The launches are real; only what is done with them is wrong, and in one way at a time ([`Mistake`]). The honest race
//! runs first and is kept as ever. Flawed launches go to `mistakes/` in the results folder, in a format of their own that
//! nothing else in the lab reads: they can never be taken for results.

mod flaws;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use crate::compare::Options;
use crate::contenders::{self, Contender, Setup};
use crate::image::{self, Image};
use crate::interrupt::Interrupt;
use crate::launchers::{self, Launchers};
use crate::results::{Comparison, Purpose, Sample};
use crate::{memory, race, stats};

/// A flaw of published comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mistake {
    /// All launches of one side, then all of the other: whatever the machine does meanwhile counts for one side only.
    BlockOrder,
    /// A finish line of its own for each side: the VM's at its guest kernel's entry, the container's at its launcher's end.
    FinishLine,
    /// The image in another format for each side: the VM is handed a directory with 16 MiB beside the program, which it
    /// must pack at every start; the container uses it as it is.
    Format,
    /// Another word for "memory" on each side: all that the VM has mapped, and the resident pages of one process.
    Rss,
    /// A generator that waits for the launch before: what queues up behind a slow start is not counted.
    ClosedLoop,
    /// No idle time between launches: what a first launch after a pause costs is never seen.
    NoGaps,
}

impl Mistake {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mistake::BlockOrder => "block-order",
            Mistake::FinishLine => "finish-line",
            Mistake::Format => "format",
            Mistake::Rss => "rss",
            Mistake::ClosedLoop => "closed-loop",
            Mistake::NoGaps => "no-gaps",
        }
    }

    /// What was done wrong, in a sentence.
    pub fn confession(self) -> &'static str {
        match self {
            Mistake::BlockOrder => {
                "all launches of the container came first, then all of the VM's, then the container's once more: nothing \
                 but their place in time differs between the two blocks of the container"
            }
            Mistake::FinishLine => {
                "the VM's clock stopped when its guest kernel was entered, the container's when its launcher had ended"
            }
            Mistake::Format => {
                "both were given a root directory with 16 MiB of other files; the VM had to pack it into an archive at \
                 each start, the container used it as it was"
            }
            Mistake::Rss => {
                "the VM's memory is all its processes have mapped (VmSize), the container's the resident pages of its \
                 workload alone (VmRSS), kernel memory left out"
            }
            Mistake::ClosedLoop => {
                "launches were due at a fixed rate, but each was timed from when it was begun, not from when it was due"
            }
            Mistake::NoGaps => "each launch followed the one before at once",
        }
    }
}

/// Why a mistake could not be repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launchers could not be unpacked.
    #[error(transparent)]
    Launchers(#[from] launchers::Error),
    /// The image could not be made.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A launch failed.
    #[error(transparent)]
    Race(#[from] race::Error),
    /// An instance could not be weighed.
    #[error("cannot weigh an instance: {0}")]
    Weigh(#[from] memory::Error),
    /// A side is missing.
    #[error(
        "the mistake needs vm and container to race, and {side} has no figures here: {reason}. The honest results are \
         kept; `lab doctor` says what to mend"
    )]
    Missing {
        /// Which side.
        side: &'static str,
        /// Why.
        reason: String,
    },
    /// A launch went wrong.
    #[error("a launch of {side} for the mistake {complaint}")]
    Failed {
        /// Which side.
        side: &'static str,
        /// How.
        complaint: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}. The honest results beside it are kept", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// One value made with a flaw.
#[derive(Clone, Debug, Serialize)]
struct Flawed {
    /// Which flaw: a line that says so cannot pass for a sample.
    mistake: Mistake,
    side: &'static str,
    /// Nanoseconds or bytes, by the flawed measure.
    flawed: u64,
    /// The same launch by the honest measure, where it can be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    honest: Option<u64>,
}

/// The verdict without and with the mistake.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Which.
    pub mistake: Mistake,
    /// What was done wrong.
    pub confession: &'static str,
    /// What is compared: `start-up time`, `memory`.
    pub figure: &'static str,
    /// The VM over the container, measured honestly.
    pub honest: Comparison,
    /// The same with the mistake.
    pub flawed: Comparison,
    /// What the mistake does to one side alone. Block order: the container's second block over its first, whose truth is
    /// 1. Closed loop: the VM timed from when it was due over from when it was begun.
    pub alone: Option<Comparison>,
    /// Whether the two intervals lie apart: the mistake moved the verdict by more than chance.
    pub moved: bool,
    /// Where the flawed values are.
    pub values: PathBuf,
}

/// Both sides, ready to launch.
struct Sides<'a> {
    image: &'a Image,
    launchers: &'a Launchers,
    contenders: [Box<dyn Contender>; 2],
    options: &'a Options,
    /// The status the workload ends with.
    status: i32,
    interrupt: &'a Interrupt,
}

/// Position of the container among the sides.
const CONTAINER: usize = 0;
/// Position of the VM.
const VM: usize = 1;
const NAMES: [&str; 2] = ["container", "vm"];

/// Repeats `mistake` after an honest race with `options` whose samples are `samples`.
///
/// # Errors
/// See [`Error`].
pub fn repeat(
    mistake: Mistake,
    options: &Options,
    samples: &[Sample],
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<Shown, Error> {
    let launchers = Launchers::find(options.vmm.as_deref(), options.container.as_deref())?;
    let image = Image::build()?;
    let setup = Setup {
        image: &image,
        launchers: &launchers,
        cgroup: None,
    };
    let side = |side: usize| {
        contenders::prepare(NAMES[side], &setup).map_err(|skipped| Error::Missing {
            side: NAMES[side],
            reason: skipped.reason,
        })
    };
    let timed = |side: usize| -> Result<Vec<u64>, Error> {
        let own = samples
            .iter()
            .filter(|s| s.contender == NAMES[side] && s.purpose == Purpose::Timed);
        let times: Vec<u64> = own.filter_map(Sample::startup_ns).collect();
        match times.is_empty() {
            true => Err(Error::Missing {
                side: NAMES[side],
                reason: "it has no timed launch in the honest race".into(),
            }),
            false => Ok(times),
        }
    };
    let honest = [timed(CONTAINER)?, timed(VM)?];
    let status = samples
        .iter()
        .find(|s| s.contender == NAMES[CONTAINER] && s.purpose == Purpose::Timed);
    let sides = Sides {
        image: &image,
        launchers: &launchers,
        contenders: [side(CONTAINER)?, side(VM)?],
        options,
        status: status.map_or(0, |sample| sample.exit_status),
        interrupt,
    };
    let mut again = Vec::new();
    let values = match mistake {
        Mistake::BlockOrder => flaws::block_order(&sides, &mut again)?,
        Mistake::FinishLine => flaws::finish_line(&sides)?,
        Mistake::Format => flaws::format(&sides)?,
        Mistake::Rss => flaws::rss(&sides)?,
        Mistake::ClosedLoop => flaws::closed_loop(&sides, &honest)?,
        Mistake::NoGaps => flaws::no_gaps(&sides)?,
    };
    let path = keep(mistake, &values, &again, folder)?;
    Ok(show(mistake, &values, &again, honest, path))
}

fn show(mistake: Mistake, values: &[Flawed], again: &[Flawed], raced: [Vec<u64>; 2], path: PathBuf) -> Shown {
    let of = |side: usize, value: fn(&Flawed) -> Option<u64>| -> Vec<u64> {
        values
            .iter()
            .filter(|v| v.side == NAMES[side])
            .filter_map(value)
            .collect()
    };
    let compare = |[container, vm]: &[Vec<u64>; 2]| stats::compare(NAMES[VM], vm, NAMES[CONTAINER], container);
    let flawed = [of(CONTAINER, |v| Some(v.flawed)), of(VM, |v| Some(v.flawed))];
    // The same launches by the honest measure where there is one; else the honest race.
    let same = [of(CONTAINER, |v| v.honest), of(VM, |v| v.honest)];
    let honest = if same.iter().all(|side| !side.is_empty()) {
        same
    } else {
        raced
    };
    let again: Vec<u64> = again.iter().map(|value| value.flawed).collect();
    let alone = match mistake {
        Mistake::BlockOrder => Some(("container, block 3", &again, "block 1", &flawed[CONTAINER])),
        Mistake::ClosedLoop => Some(("vm, from due", &honest[VM], "from begun", &flawed[VM])),
        _ => None,
    };
    let alone = alone.map(|(a, a_values, b, b_values)| stats::compare(a, a_values, b, b_values));
    let (honest, flawed) = (compare(&honest), compare(&flawed));
    Shown {
        mistake,
        confession: mistake.confession(),
        figure: if mistake == Mistake::Rss {
            "memory"
        } else {
            "start-up time"
        },
        moved: honest.ci95[1] < flawed.ci95[0] || flawed.ci95[1] < honest.ci95[0],
        honest,
        flawed,
        alone,
        values: path,
    }
}

/// Writes the flawed values where no reader of results looks.
fn keep(mistake: Mistake, values: &[Flawed], again: &[Flawed], folder: &Path) -> Result<PathBuf, Error> {
    let mistakes = folder.join("mistakes");
    let path = mistakes.join(format!("{}.jsonl", mistake.name()));
    let write = || -> io::Result<()> {
        fs::create_dir_all(&mistakes)?;
        let mut file = io::BufWriter::new(File::create(&path)?);
        for value in values.iter().chain(again) {
            serde_json::to_writer(&mut file, value)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    match write() {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::Write { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    fn values(mistake: Mistake) -> Vec<Flawed> {
        let value = |side, flawed| Flawed {
            mistake,
            side,
            flawed,
            honest: None,
        };
        (0..20u64)
            .flat_map(|i| [value("container", 1_000_000 + i), value("vm", 500_000 + i)])
            .collect()
    }

    #[test]
    fn a_verdict_that_moved_is_told_from_one_that_did_not() {
        let honest = |vm: u64| [vec![1_000_000; 20], (0..20).map(|i| vm + i).collect::<Vec<u64>>()];
        let shown = |vm| {
            let values = values(Mistake::NoGaps);
            show(Mistake::NoGaps, &values, &[], honest(vm), PathBuf::new())
        };
        assert!(shown(2_000_000).moved);
        assert!(!shown(500_000).moved);
        assert!((shown(500_000).flawed.ratio - 0.5).abs() < 0.01);
    }

    #[test]
    fn flawed_values_are_no_samples() {
        let dir = tempfile::tempdir().unwrap();
        let path = keep(Mistake::Rss, &values(Mistake::Rss), &[], dir.path()).unwrap();
        fs::copy(&path, dir.path().join(store::SAMPLES)).unwrap();
        assert!(
            store::read_samples(dir.path()).is_err(),
            "a flawed value was read as a sample"
        );
        assert!(
            fs::read_to_string(path)
                .unwrap()
                .lines()
                .all(|line| line.contains("\"mistake\":\"rss\""))
        );
    }
}
