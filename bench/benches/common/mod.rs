//! What both benches need: the image, the launchers, one launch.

// Each bench is a crate of its own and uses its half of this.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bench::accounting::{self, Accounting};
use bench::contenders::{self, Contender, Request, Setup};
use bench::image::Image;
use bench::interrupt::Interrupt;
use bench::launch::Outcome;
use bench::launchers::Launchers;
use bench::results::{Memory, Purpose, Sample};
use bench::{memory, race};

/// The two sides.
pub const SIDES: [&str; 2] = ["container", "vm"];

/// Every launch of every bench, one line each as in a results folder, the newest last: criterion keeps averages only.
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/criterion/samples.jsonl");

const LIMIT: Duration = Duration::from_secs(30);

/// A prepared lab.
pub struct Lab {
    image: Image,
    launchers: Launchers,
    accounting: Result<Accounting, accounting::Error>,
    interrupt: Interrupt,
    samples: RefCell<File>,
    sequence: Cell<u64>,
}

impl Lab {
    /// Prepares image and launchers, or ends the bench saying what failed.
    pub fn new() -> Lab {
        let launchers = Launchers::find(None, None).unwrap_or_else(|error| give_up(&error));
        let image = Image::build().unwrap_or_else(|error| give_up(&error));
        Lab {
            image,
            launchers,
            accounting: Accounting::create(),
            interrupt: Interrupt::default(),
            samples: RefCell::new(open_samples().unwrap_or_else(|error| give_up(&format!("{SAMPLES}: {error}")))),
            sequence: Cell::new(0),
        }
    }

    /// Writes one launch down. A line is one write: two benches at once do not mix theirs.
    fn log(&self, contender: &dyn Contender, purpose: Purpose, outcome: &Outcome, memory: Option<Memory>) {
        self.sequence.set(self.sequence.get() + 1);
        let sample = Sample {
            contender: contender.name().into(),
            purpose,
            sequence: self.sequence.get(),
            start_ns: outcome.start_ns,
            first_byte_ns: outcome.first_byte_ns,
            end_ns: outcome.end_ns,
            exit_status: outcome.exit_status,
            marks: Vec::new(),
            memory,
        };
        let line = serde_json::to_string(&sample).unwrap_or_else(|error| give_up(&error)) + "\n";
        if let Err(error) = self.samples.borrow_mut().write_all(line.as_bytes()) {
            give_up(&format!("cannot write {SAMPLES}: {error}"));
        }
    }

    /// Why memory cannot be accounted here.
    pub fn no_accounting(&self) -> Option<String> {
        self.accounting.as_ref().err().map(ToString::to_string)
    }

    /// The contender, if it can run here; otherwise says why not.
    pub fn contender(&self, name: &str) -> Option<Box<dyn Contender>> {
        let setup = Setup {
            image: &self.image,
            launchers: &self.launchers,
            cgroup: None,
        };
        let contender = match contenders::prepare(name, &setup) {
            Ok(contender) => contender,
            Err(skipped) => {
                eprintln!("skipped: {name}: {}. To change that: {}", skipped.reason, skipped.fix);
                return None;
            }
        };
        let outcome = race::once(&*contender, &hello(), false, LIMIT, &self.interrupt);
        let outcome = outcome.unwrap_or_else(|error| give_up(&error));
        if outcome.reached_the_finish_line(0) {
            return Some(contender);
        }
        eprintln!("skipped: {name}: its launcher {}", outcome.complaint(LIMIT));
        None
    }

    /// Start line to finish line of one launch.
    pub fn start(&self, contender: &dyn Contender) -> Duration {
        let outcome = race::once(contender, &hello(), false, LIMIT, &self.interrupt);
        let outcome = outcome.unwrap_or_else(|error| give_up(&error));
        self.log(contender, Purpose::Timed, &outcome, None);
        match outcome.first_byte_ns {
            Some(first_byte) if outcome.reached_the_finish_line(0) => {
                Duration::from_nanos(first_byte - outcome.start_ns)
            }
            _ => give_up(&outcome.complaint(LIMIT)),
        }
    }

    /// Peak memory of one launch, in bytes.
    pub fn peak(&self, contender: &dyn Contender) -> u64 {
        let id = format!("isolation-lab-bench-{}", std::process::id());
        let weighed = memory::weigh(contender, &id, self.accounting.as_ref().ok(), LIMIT, &self.interrupt);
        let (outcome, memory) = weighed.unwrap_or_else(|error| give_up(&error));
        self.log(contender, Purpose::Memory, &outcome, Some(memory.clone()));
        memory
            .peak_bytes
            .unwrap_or_else(|| give_up(&"this kernel does not tell the peak of a cgroup"))
    }
}

fn open_samples() -> std::io::Result<File> {
    if let Some(folder) = Path::new(SAMPLES).parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(SAMPLES)
}

fn hello() -> Request<'static> {
    static HELLO: std::sync::LazyLock<[String; 1]> = std::sync::LazyLock::new(|| ["hello".to_owned()]);
    Request {
        id: "isolation-lab-bench",
        workload: &*HELLO,
        marks_fd: None,
    }
}

fn give_up(reason: &dyn std::fmt::Display) -> ! {
    eprintln!("cannot go on: {reason}");
    std::process::exit(1)
}
