//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use protocol::phase::Phase;

use crate::book;
use crate::commands::{AroundTheRace, Claims, Explain, Export};
use crate::compare::{self, Options};
use crate::contenders::{DEFAULT, NAMES};
use crate::doctor::trial::{self, Trial};
use crate::testbed::{self, inside};
use crate::{ladder, modes, overhead, restore_cost, study};

/// Races a virtual machine, a container and their peers with the same program, and shows where the time and the pages go.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the lab can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Race the contenders; print and keep what was found.
    Compare(Compare),
    /// Climb from a plain process to a container and to a VM, one step after the other; tell what each step costs.
    Ladder(ladder::Arguments),
    /// Measure the harness itself: its own launch against a bare posix_spawn of the same program.
    Overhead(overhead::Arguments),
    /// Draw the charts of a results folder anew, those of its studies too, or the exits in a trace.
    Charts {
        /// The results folder; with a trace.jsonl in it, its exits are drawn too.
        #[arg(required_unless_present = "trace")]
        dir: Option<PathBuf>,
        /// Draw the exits in this trace (vmm run --trace FILE) into a file of the same name that ends in .svg.
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the report of a results folder anew, charts included.
    Report {
        /// The results folder.
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a results folder in a format other programs read.
    Export(Export),
    /// Tell where a chart came from, and draw it anew from its samples.
    Explain(Explain),
    /// Check the sentences this project says about VMs and containers.
    Claims(Claims),
    /// Print a script that completes this command's words in a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print the manual page (lab man | man -l -).
    Man,
    /// Find out, by trying, what this machine offers for isolating programs.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the book, with your own charts beside the recorded ones.
    Book(book::Options),
    /// Run a command on an emulated computer with hardware virtualization and cgroup v2.
    Testbed(testbed::Options),
    /// The first process of that computer.
    #[command(name = inside::SUBCOMMAND, hide = true)]
    TestbedInit,
    /// Restore a VM from a snapshot, with its pages copied when touched and beforehand; tell the two costs apart.
    RestoreCost(RestoreCost),
    /// Memory, density, running cost, identity, surface.
    #[command(flatten)]
    Study(study::Command),
    /// One attempt of `doctor`, in a process of its own.
    #[command(name = trial::SUBCOMMAND, hide = true)]
    Trial {
        /// What to attempt.
        what: Trial,
    },
}

/// Options of `lab restore-cost`.
#[derive(Args, Debug)]
pub struct RestoreCost {
    /// Restores of each kind.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// The mark the snapshot is taken at: "guest kernel entry", "user mode entry", "first output".
    #[arg(long, default_value = "user mode entry", value_name = "MARK", value_parser = mark)]
    pub at: Phase,
    /// The lesson the workload runs, with its arguments.
    #[arg(long, default_value = "hello", value_name = "W")]
    pub workload: String,
    /// Idle time before each launch, in milliseconds.
    #[arg(long, default_value_t = 30, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub gap_ms: u64,
    /// Instead: run N clones of an idle machine at once, and tell what each further one adds to the host's memory.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=1000))]
    pub clones: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn mark(name: &str) -> Result<Phase, String> {
    Phase::from_name(name).ok_or_else(|| {
        "no mark is called that: \"guest kernel entry\", \"user mode entry\" and \"first output\" are".to_owned()
    })
}

impl RestoreCost {
    /// The options in the harness's own terms.
    pub fn options(&self) -> restore_cost::Options {
        restore_cost::Options {
            runs: self.runs as usize,
            workload: self.workload.split_whitespace().map(str::to_owned).collect(),
            at: self.at,
            gap: Duration::from_millis(self.gap_ms),
        }
    }
}

/// Options of `lab compare`.
#[derive(Args, Debug)]
pub struct Compare {
    /// Timed launches of each contender.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Who races, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = DEFAULT, value_parser = NAMES)]
    pub contenders: Vec<String>,
    /// The lesson the workload runs, with its arguments: "hello", "memory 16", ...
    #[arg(long, default_value = "hello", value_name = "W")]
    pub workload: String,
    /// Idle time before each launch, in milliseconds.
    #[arg(long, default_value_t = 30, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub gap_ms: u64,
    /// Longest a launch may take, in seconds.
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub limit_s: u64,
    /// The results folder [default: lab-results/TIME].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Race this vmm instead of the one inside this program [env: LAB_VMM].
    #[arg(long, value_name = "FILE")]
    pub vmm: Option<PathBuf>,
    /// Race this container instead of the one inside this program [env: LAB_CONTAINER].
    #[arg(long, value_name = "FILE")]
    pub container: Option<PathBuf>,
    /// What to do besides racing.
    #[command(flatten)]
    pub around: AroundTheRace,
    /// Other conditions than one warm start after another.
    #[command(flatten)]
    pub modes: modes::Arguments,
}

impl Compare {
    /// The options in the harness's own terms.
    pub fn options(self) -> Options {
        let mut contenders: Vec<String> = Vec::new();
        for name in self.contenders {
            if !contenders.contains(&name) {
                contenders.push(name);
            }
        }
        Options {
            runs: self.runs as usize,
            contenders,
            workload: self.workload.split_whitespace().map(str::to_owned).collect(),
            gap: Duration::from_millis(self.gap_ms),
            limit: Duration::from_secs(self.limit_s),
            out: self.out.unwrap_or_else(compare::default_folder),
            vmm: self.vmm,
            container: self.container,
        }
    }
}
