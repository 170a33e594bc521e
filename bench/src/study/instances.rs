//! Idle instances of a contender, started one after another and ended together.
//!
//! Whatever ends the study (its own end, an error, Ctrl-C) ends the instances: the value's drop kills every launcher,
//! and what its launcher leaves is killed by way of the accounting cgroup all of them are in.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Error;
use crate::accounting::{Account, Accounting};
use crate::contenders::{Contender, Request};
use crate::interrupt::Interrupt;
use crate::launch::Running;

/// After the last workload's line, what launchers still do (close, unmap, wait) settles within this.
const SETTLE: Duration = Duration::from_millis(200);
/// Longest one start may take.
const LIMIT: Duration = Duration::from_secs(60);
/// A killed launcher's keeper has removed the container's cgroups within this.
const KEEPERS: Duration = Duration::from_secs(2);
/// prctl(2): every page of this process and of those it starts may be merged (Linux 6.4; across execve since 6.7).
const PR_SET_MEMORY_MERGE: i32 = 67;

/// The instances of one contender.
pub struct Instances<'a> {
    contender: &'a dyn Contender,
    account: Option<Account>,
    mergeable: bool,
    running: Vec<(String, Running)>,
}

impl<'a> Instances<'a> {
    /// None yet. With `mergeable`, the kernel may merge their equal pages.
    ///
    /// # Errors
    /// When the accounting cgroup cannot be made.
    pub fn of(
        contender: &'a dyn Contender,
        accounting: Option<&Accounting>,
        mergeable: bool,
    ) -> Result<Instances<'a>, Error> {
        let account = accounting
            .map(|accounting| accounting.open(contender.name()))
            .transpose()?;
        Ok(Instances {
            contender,
            account,
            mergeable,
            running: Vec::new(),
        })
    }

    /// Their accounting cgroup.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// How many idle.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// The launchers' process ids.
    pub fn launchers(&self) -> impl Iterator<Item = u32> {
        self.running.iter().map(|(_, running)| running.pid())
    }

    /// Starts one more, and waits until its workload says that it idles.
    ///
    /// # Errors
    /// [`Error::NotIdle`] with the launcher's words, or why nothing could be launched.
    pub fn start(&mut self) -> Result<(), Error> {
        let id = format!(
            "isolation-lab-{}-{}-{}",
            std::process::id(),
            self.contender.name(),
            self.count()
        );
        let idle = ["idle".to_owned()];
        let request = Request {
            id: &id,
            workload: &idle,
            marks_fd: None,
        };
        let mut command = self
            .contender
            .command_beside(&request, None)
            .map_err(|source| Error::Prepare {
                contender: self.contender.name().into(),
                source,
            })?;
        let entrance = self.account.as_ref().map(Account::entrance).transpose()?;
        let mergeable = self.mergeable;
        let enter = move || {
            if let Some(entrance) = &entrance {
                // "0" means: the process that writes.
                // SAFETY: the descriptor is open, the closure owns it; write(2) is async-signal-safe.
                Errno::result(unsafe { libc::write(entrance.as_raw_fd(), b"0".as_ptr().cast(), 1) })?;
            }
            if mergeable {
                // SAFETY: takes integers only; a bare system call.
                Errno::result(unsafe { libc::prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) })?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two async-signal-safe calls and allocates nothing.
        unsafe { command.pre_exec(enter) };
        // An interrupt of its own, which never comes: the study looks between launches, and ends all of them together.
        let mut running = Running::start(&mut command, None, LIMIT, &Interrupt::default())?;
        if running.wait_for_first_byte()? {
            self.running.push((id, running));
            return Ok(());
        }
        self.contender.clean_up(&id);
        let outcome = running.wait_for_end()?;
        Err(Error::NotIdle {
            contender: self.contender.name().into(),
            complaint: outcome.complaint(LIMIT),
            fix: self.contender.fix(outcome.exit_status),
        })
    }

    /// Waits for the launchers to come to rest.
    pub fn settle(&self) {
        sleep(SETTLE);
    }
}

impl Drop for Instances<'_> {
    fn drop(&mut self) {
        for (id, running) in &self.running {
            self.contender.clean_up(id);
            running.kill();
        }
        // Whoever outlived its launcher is still in the cgroup nobody else is in: a launcher's keeper, who removes the
        // container's own cgroups and goes by itself, if it is let; and whatever else is left.
        if let Some(account) = &self.account {
            account.wait_until_empty(KEEPERS);
            account.kill_all();
        }
        for (_, running) in self.running.drain(..) {
            // Killed above: there is nothing to learn from its end.
            let _ = running.wait_for_end();
        }
    }
}

/// Lets this process hold the descriptors of `instances`: four each.
///
/// # Errors
/// When the hard limit forbids it.
pub fn make_room_for(instances: u64) -> Result<(), Error> {
    const EACH: u64 = 4;
    const OWN: u64 = 64;
    let needed = instances * EACH + OWN;
    let limits = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from);
    let (soft, hard) = limits.map_err(|source| Error::Descriptors { needed, source })?;
    if soft >= needed {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(io::Error::from);
    raised.map_err(|source| Error::Descriptors { needed, source })
}
