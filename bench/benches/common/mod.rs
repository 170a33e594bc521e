//! What both benches need: the image, the launchers, one launch.

// Each bench is a crate of its own and uses its half of this.
#![allow(dead_code)]

use std::time::Duration;

use bench::accounting::{self, Accounting};
use bench::contenders::{self, Contender, Request, Setup};
use bench::image::Image;
use bench::interrupt::Interrupt;
use bench::launchers::Launchers;
use bench::{memory, race};

/// The two sides.
pub const SIDES: [&str; 2] = ["container", "vm"];

const LIMIT: Duration = Duration::from_secs(30);

/// A prepared lab.
pub struct Lab {
    image: Image,
    launchers: Launchers,
    accounting: Result<Accounting, accounting::Error>,
    interrupt: Interrupt,
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
        let (_, memory) = weighed.unwrap_or_else(|error| give_up(&error));
        memory
            .peak_bytes
            .unwrap_or_else(|| give_up(&"this kernel does not tell the peak of a cgroup"))
    }
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
