//! What one instance weighs: the workload idles, and the host's books are read.
//!
//! Two books, because each hides something. The accounting cgroup counts all that was charged to the launch, kernel
//! memory included, but not the pages of programs that were in the page cache before. The processes' smaps_rollup
//! counts every page they map, split into those nobody else maps (unique) and their share of the others, but no kernel
//! memory.

pub(crate) mod smaps;

pub(crate) use smaps::with_descendants;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;

use crate::accounting::{Account, Accounting};
use crate::contenders::{Contender, Request};
use crate::interrupt::Interrupt;
use crate::launch::{self, Outcome, Running};
use crate::results::Memory;

/// After the workload's line, what the launchers still do (close, unmap, wait) settles within this.
const SETTLE: Duration = Duration::from_millis(50);
/// A launcher that is asked to end gets this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a launch has no weight.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The harness could not launch.
    #[error(transparent)]
    Launch(#[from] launch::Error),
    /// A file the launch needs could not be written.
    #[error("cannot prepare the launch: {0}")]
    Prepare(#[from] io::Error),
    /// The workload never idled.
    #[error("the launcher {complaint}")]
    NotIdle {
        /// What happened instead.
        complaint: String,
        /// The launcher's exit status.
        status: i32,
    },
}

/// Launches `idle`, weighs it, ends it.
///
/// # Errors
/// See [`Error`]. Figures this host does not offer are no error: the note says why they are missing.
pub fn weigh(
    contender: &dyn Contender,
    id: &str,
    accounting: Option<&Accounting>,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<(Outcome, Memory), Error> {
    let idle = ["idle".to_owned()];
    let request = Request {
        id,
        workload: &idle,
        marks_fd: None,
    };
    let mut command = contender.command(&request)?;
    let mut notes = Vec::new();
    let account = enter_account(&mut command, contender.name(), accounting, &mut notes);

    let mut running = Running::start(&mut command, None, limit, interrupt)?;
    let weighed = match running.wait_for_first_byte() {
        Ok(true) => {
            sleep(SETTLE);
            Ok(read(&running, contender, account.as_ref(), &mut notes))
        }
        Ok(false) => Err(None),
        Err(error) => Err(Some(error)),
    };
    contender.clean_up(id);
    running.ask_to_end(FAREWELL);
    let ended = running.wait_for_end();
    contender.clean_up(id);
    let mut memory = match weighed {
        Ok(memory) => memory,
        Err(Some(error)) => return Err(error.into()),
        Err(None) => {
            let outcome = ended?;
            return Err(Error::NotIdle {
                complaint: outcome.complaint(limit),
                status: outcome.exit_status,
            });
        }
    };
    memory.peak_bytes = account.as_ref().and_then(Account::peak);
    if !notes.is_empty() {
        memory.note = Some(notes.join("; "));
    }
    Ok((ended?, memory))
}

/// Makes the child enter a fresh account between fork and exec, so that everything it ever allocates is charged there.
fn enter_account(
    command: &mut Command,
    contender: &str,
    accounting: Option<&Accounting>,
    notes: &mut Vec<String>,
) -> Option<Account> {
    let opened = accounting?
        .open(contender)
        .and_then(|account| Ok((account.entrance()?, account)));
    let (entrance, account) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            notes.push(error.to_string());
            return None;
        }
    };
    let enter = move || {
        // "0" means: the process that writes.
        // SAFETY: the descriptor is open, the closure owns it; write(2) is async-signal-safe.
        let written = unsafe { libc::write(entrance.as_raw_fd(), b"0".as_ptr().cast(), 1) };
        Errno::result(written).map(drop).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes one async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(enter) };
    Some(account)
}

fn read(running: &Running, contender: &dyn Contender, account: Option<&Account>, notes: &mut Vec<String>) -> Memory {
    let mut memory = Memory::default();
    let processes = smaps::with_descendants(running.pid());
    if let Some(account) = account {
        memory.idle_bytes = account.usage();
        memory.kernel_bytes = account.kernel();
        let outside = processes.iter().filter(|&&pid| !account.charges(pid)).count();
        if outside > 0 {
            notes.push(format!(
                "{outside} of its processes left the accounting cgroup: peak, idle and kernel lack them"
            ));
        }
    }
    match smaps::usage(&processes) {
        Ok(usage) => {
            memory.unique_bytes = Some(usage.unique);
            memory.shared_bytes = Some(usage.shared);
        }
        Err(error) => notes.push(error.to_string()),
    }
    if let Some(file) = contender.guest_file() {
        match smaps::guest_memory(running.pid(), file) {
            Ok(guest) => {
                memory.guest_configured_bytes = Some(guest.configured);
                memory.guest_touched_bytes = Some(guest.touched);
            }
            Err(error) => notes.push(error.to_string()),
        }
    }
    memory
}
