//! The lessons, and how much work is in each.

use crate::conditions::Resource;

/// What a lesson needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A processor and memory: any contender has them.
    Nothing,
    /// A file on a disk.
    Disk,
    /// A peer.
    Net,
}

impl Need {
    /// What work on it makes tasks wait for, by itself. The peer works beside the program.
    pub fn waiting(self) -> Option<Resource> {
        match self {
            Need::Nothing => None,
            Need::Disk => Some(Resource::Disk),
            Need::Net => Some(Resource::Processor),
        }
    }
}

/// A lesson.
pub struct Lesson {
    /// Its name, one word.
    pub name: &'static str,
    /// The same in the workload's words.
    pub words: &'static [&'static str],
    /// The argument: rounds, MiB, calls.
    pub amount: u64,
    /// Operations for each unit of the argument.
    pub operations: u64,
    /// What one operation is.
    pub unit: &'static str,
    /// What it needs.
    pub need: Need,
}

/// Long enough to time (some milliseconds on a current machine), short enough where every call leaves the guest.
pub const LESSONS: [Lesson; 7] = [
    Lesson {
        name: "cpu",
        words: &["cpu"],
        amount: 5_000_000,
        operations: 1,
        unit: "round",
        need: Need::Nothing,
    },
    // In pages of 4 KiB; well below the 64 MiB a guest has.
    Lesson {
        name: "memory",
        words: &["memory"],
        amount: 16,
        operations: 256,
        unit: "page",
        need: Need::Nothing,
    },
    Lesson {
        name: "syscalls",
        words: &["syscalls"],
        amount: 5_000,
        operations: 1,
        unit: "call",
        need: Need::Nothing,
    },
    Lesson {
        name: "disk-read",
        words: &["disk", "read"],
        amount: 400,
        operations: 1,
        unit: "read",
        need: Need::Disk,
    },
    Lesson {
        name: "disk-write",
        words: &["disk", "write"],
        amount: 50,
        operations: 1,
        unit: "write",
        need: Need::Disk,
    },
    Lesson {
        name: "net-request",
        words: &["net", "request"],
        amount: 500,
        operations: 1,
        unit: "exchange",
        need: Need::Net,
    },
    // In pieces of 64 KiB, as the workload writes them.
    Lesson {
        name: "net-stream",
        words: &["net", "stream"],
        amount: 16,
        operations: 16,
        unit: "64 KiB",
        need: Need::Net,
    },
];

/// Their names, for the command line.
pub const NAMES: [&str; LESSONS.len()] = {
    let mut names = [""; LESSONS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = LESSONS[i].name;
        i += 1;
    }
    names
};

impl Lesson {
    /// The workload's arguments for so much of it; what it works on comes behind.
    pub fn arguments(&self, amount: u64) -> Vec<String> {
        let words = self.words.iter().map(|&word| word.to_owned());
        words.chain([amount.to_string()]).collect()
    }

    /// Name and argument, as results call it.
    pub fn full_name(&self) -> String {
        format!("{} {}", self.name, self.amount)
    }
}

/// The lesson that results call so.
pub fn of(full_name: &str) -> Option<&'static Lesson> {
    let name = full_name.split(' ').next().unwrap_or_default();
    LESSONS.iter().find(|lesson| lesson.name == name)
}

/// What one operation of a lesson is called.
pub fn unit(full_name: &str) -> &'static str {
    of(full_name).map_or("operation", |lesson| lesson.unit)
}
