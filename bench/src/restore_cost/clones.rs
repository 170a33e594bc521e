//! `lab restore-cost --clones N`: what one more clone of an idle machine weighs, when others of the same snapshot run already.
//!
//! A clone's memory is the snapshot's, page for page, until it writes; so the first pays for what all share, and the question
//! is what each further one adds. N are started in one accounting cgroup and stay idle; what the kernel has charged to it is
//! read after each, kernel memory included: second-level page tables, KVM's structures, stacks of threads, open files. The
//! weight is the slope over all but the first. Beside it stands what the processes' own books say, which know no kernel memory.
//!
//! Most of it is KVM's, and how much depends on who translates the guest's addresses. Where the processor does (nested paging), a
//! clone weighs some 570 KiB. The backend pvm shadows the guest's own page tables, and keeps two stocks of 40 pages for that with every
//! vCPU (KVM_ARCH_NR_OBJS_PER_MEMORY_CACHE in Linux's arch/x86/include/asm/kvm_types.h), and books on every page a guest could have:
//! 931 KiB, 801 of them the kernel's.

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;

use super::{Error, LIMIT};
use crate::accounting::{Account, Accounting};
use crate::conditions::{Conditions, Reading};
use crate::interrupt::Interrupt;
use crate::launch::Running;
use crate::memory::smaps;
use crate::{host, words};

/// After the workload's line, what the launcher still does settles within this.
const SETTLE: Duration = Duration::from_millis(100);
/// A launcher that is asked to end gets this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// What each further clone adds, in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Weight {
    /// Clones at once.
    pub clones: u64,
    /// Charged to the cgroup, user and kernel memory together.
    pub charged_bytes: f64,
    /// The kernel memory in it; None where the host does not count it apart.
    pub kernel_bytes: Option<f64>,
    /// Pages that only this clone maps, by the processes' own books.
    pub unique_bytes: f64,
    /// What else the machine did meanwhile.
    pub conditions: Conditions,
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = |bytes: f64| words::bytes(bytes.max(0.0) as u64);
        let kernel = self.kernel_bytes.map_or("not counted apart here".into(), size);
        write!(
            f,
            "Of {} idle clones of one snapshot each further one adds {} (kernel memory in it: {kernel}); pages that it alone maps: {}. KVM backend {}.",
            self.clones,
            size(self.charged_bytes),
            size(self.unique_bytes),
            host::kvm_backend()
        )?;
        self.conditions.note().map_or(Ok(()), |note| write!(f, "\n{note}"))
    }
}

/// Restores `clones` machines from `snapshot`, whose workload idles, and weighs them.
///
/// # Errors
/// When there is no accounting, or a clone does not come to idle.
pub fn weigh(vmm: &Path, snapshot: &Path, clones: usize, interrupt: &Interrupt) -> Result<Weight, Error> {
    let accounting = Accounting::create().map_err(|error| Error::Clones(error.to_string()))?;
    let account = accounting
        .open("clones")
        .map_err(|error| Error::Clones(error.to_string()))?;
    let before = Reading::now();
    let mut running: Vec<Running> = Vec::with_capacity(clones);
    let (mut charged, mut kernel, mut unique) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..clones {
        let mut command = Command::new(vmm);
        command.arg("restore").arg(snapshot);
        admit(&mut command, &account)?;
        let mut clone = Running::start(&mut command, None, LIMIT, interrupt)?;
        if !clone.wait_for_first_byte()? {
            return Err(Error::Restore(clone.wait_for_end()?.complaint(LIMIT)));
        }
        sleep(SETTLE);
        let usage = smaps::usage(&smaps::with_descendants(clone.pid()));
        unique.push(usage.map_err(|error| Error::Clones(error.to_string()))?.unique);
        running.push(clone);
        charged.extend(account.usage());
        kernel.extend(account.kernel());
    }
    for clone in &mut running {
        clone.ask_to_end(FAREWELL);
    }
    for clone in running {
        clone.wait_for_end()?;
    }
    let charged_bytes = slope(charged.get(1..).unwrap_or_default())
        .ok_or_else(|| Error::Clones("the cgroup's memory cannot be read".into()))?;
    Ok(Weight {
        clones: clones as u64,
        charged_bytes,
        kernel_bytes: slope(kernel.get(1..).unwrap_or_default()),
        unique_bytes: unique[1..].iter().sum::<u64>() as f64 / (clones - 1) as f64,
        conditions: before.until_now(&[]),
    })
}

/// Has the child enter the account between fork and exec.
fn admit(command: &mut Command, account: &Account) -> Result<(), Error> {
    let entrance = account.entrance().map_err(|error| Error::Clones(error.to_string()))?;
    let enter = move || {
        // "0" means: the process that writes.
        // SAFETY: the descriptor is open, the closure owns it; write(2) is async-signal-safe.
        let written = unsafe { libc::write(entrance.as_raw_fd(), b"0".as_ptr().cast(), 1) };
        Errno::result(written).map(drop).map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes one async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Growth from one reading to the next, by least squares. None for fewer than two.
fn slope(readings: &[u64]) -> Option<f64> {
    let count = readings.len() as f64;
    if count < 2.0 {
        return None;
    }
    let middle = (count - 1.0) / 2.0;
    let (mut above, mut below) = (0.0, 0.0);
    for (number, &reading) in readings.iter().enumerate() {
        let distance = number as f64 - middle;
        above += distance * reading as f64;
        below += distance * distance;
    }
    Some(above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_does_not_care_where_it_starts() {
        assert_eq!(slope(&[900, 1000, 1100, 1200]), Some(100.0));
        assert_eq!(slope(&[5]), None);
    }
}
