//! The ladder: which containers are run, one below the other.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use protocol::status;

use super::{Error, Peel};
use crate::namespaces::Namespace;
use crate::program::WORKLOAD;

/// The name of the bottom rung.
const NOTHING_LEFT: &str = "all of them";

/// One container, or none.
pub struct Rung {
    /// What is left out.
    pub without: Vec<Namespace>,
    /// Which of them is the new one; `None` for the whole container and for the plain process.
    pub taken: Option<Namespace>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a rung showed.
pub enum Outcome {
    /// The program ran.
    Ran {
        /// Its standard output.
        output: String,
        /// Its status.
        status: i32,
        /// The command line, to be tried by hand.
        command: String,
    },
    /// This container cannot be, and why.
    Refused(String),
}

impl Rung {
    /// What was taken away last.
    pub fn name(&self) -> &'static str {
        match self.taken {
            Some(namespace) => namespace.name(),
            None if self.without.is_empty() => "nothing",
            None => NOTHING_LEFT,
        }
    }

    /// A heading.
    pub fn title(&self) -> String {
        let names: Vec<_> = self.without.iter().map(|namespace| namespace.name()).collect();
        match self.taken {
            Some(taken) if names.len() > 1 => {
                format!("without {} (and {}):", taken, names[..names.len() - 1].join(", "))
            }
            Some(taken) => format!("without {taken}:"),
            None if names.is_empty() => "the whole container:".into(),
            None => "no container at all, a plain process of the host:".into(),
        }
    }
}

/// Runs the program on every rung. What is refused is said, and stays for the rungs below.
pub fn climb_down(peel: &Peel) -> Result<Vec<Rung>, Error> {
    let mut rungs = vec![Rung {
        without: Vec::new(),
        taken: None,
        outcome: run(peel, &[])?,
    }];
    if let Some(Outcome::Refused(reason)) = rungs.first().map(|rung| &rung.outcome) {
        return Err(Error::Whole(reason.clone()));
    }
    let mut without = Vec::new();
    for &namespace in &peel.order {
        without.push(namespace);
        let outcome = run(peel, &without)?;
        let refused = matches!(outcome, Outcome::Refused(_));
        rungs.push(Rung {
            without: without.clone(),
            taken: Some(namespace),
            outcome,
        });
        if refused {
            without.pop();
        }
    }
    rungs.push(Rung {
        without: Namespace::ALL.to_vec(),
        taken: None,
        outcome: run_plainly(peel)?,
    });
    Ok(rungs)
}

/// `container run --without ... PROGRAM`.
pub fn command(peel: &Peel, without: &[Namespace]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("run");
    if !without.is_empty() {
        let names: Vec<_> = without.iter().map(|namespace| namespace.name()).collect();
        command.args(["--without", &names.join(",")]);
    }
    // Without a mount table of its own it has no root of its own either: the program is looked for on the host.
    if let Some(rootfs) = peel.rootfs.as_ref().filter(|_| !without.contains(&Namespace::Mount)) {
        command.arg("--rootfs").arg(rootfs);
    }
    command.arg("--");
    if peel.program.is_empty() {
        command.args([WORKLOAD, "whoami"]);
    } else {
        command.args(&peel.program);
    }
    command
}

fn run(peel: &Peel, without: &[Namespace]) -> Result<Outcome, Error> {
    let mut command = command(peel, without);
    let words: Vec<_> = command
        .get_args()
        .map(OsStr::to_string_lossy)
        .map(String::from)
        .collect();
    let outcome = finish(&mut command, format!("container {}", words.join(" ")))?;
    Ok(match outcome {
        (Outcome::Ran { status, .. }, said) if status == i32::from(status::LAUNCHER_FAILED) => {
            Outcome::Refused(said.trim().trim_start_matches("container: ").to_owned())
        }
        (outcome, _) => outcome,
    })
}

/// The program as any process of the host is started.
fn run_plainly(peel: &Peel) -> Result<Outcome, Error> {
    let Some((program, arguments)) = peel.program.split_first() else {
        let failed = |source: std::io::Error| Error::Start {
            what: WORKLOAD.into(),
            source,
        };
        // Not closed at exec: it is what is executed.
        let file = memfd_create(WORKLOAD, MFdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::fs::File::from(file.try_clone().map_err(failed)?)
            .write_all(guest_images::WORKLOAD)
            .map_err(failed)?;
        return Ok(finish(Command::new(path).arg("whoami"), "workload whoami".into())?.0);
    };
    let words: Vec<_> = peel
        .program
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // A program that exists in the image only has no plain process to compare with.
    match finish(Command::new(program).args(arguments), words.join(" ")) {
        Ok((outcome, _)) => Ok(outcome),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}

fn finish(command: &mut Command, line: String) -> Result<(Outcome, String), Error> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|source| Error::Start {
        what: line.clone(),
        source,
    })?;
    let status = std::os::unix::process::ExitStatusExt::signal(&output.status).map_or_else(
        || output.status.code().unwrap_or_default(),
        |signal| i32::from(status::SIGNAL_BASE) + signal,
    );
    let ran = Outcome::Ran {
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        status,
        command: line,
    };
    Ok((ran, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A shell on every rung, one after the other, each until the user leaves it. `say` announces what comes.
pub fn shells(peel: &Peel, mut say: impl FnMut(&str)) -> Result<(), Error> {
    let mut peel = peel.clone();
    if peel.program.is_empty() {
        peel.program = vec![OsString::from("sh")];
    }
    let mut without = Vec::new();
    let rungs = std::iter::once(None).chain(peel.order.clone().into_iter().map(Some));
    for taken in rungs {
        without.extend(taken);
        let rung = Rung {
            without: without.clone(),
            taken,
            outcome: Outcome::Refused(String::new()),
        };
        say(&format!("{} leave the shell (exit) for the next one", rung.title()));
        let status = command(&peel, &without).status().map_err(|source| Error::Start {
            what: "the shell".into(),
            source,
        })?;
        if status.code() == Some(i32::from(status::LAUNCHER_FAILED)) {
            say("refused, and kept from here on");
            without.pop();
        }
    }
    Ok(())
}
