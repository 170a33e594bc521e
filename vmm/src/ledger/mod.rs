//! The ledger: every time the guest needed its host, one line each. `vmm run --trace FILE`.
//!
//! Between two exits the guest is alone with the processor. The ledger therefore knows the price of a machine: what the
//! guest asked for, of which device, from which line of its kernel, how long it was away before and how long it had to
//! wait. What KVM settles by itself it cannot see; KVM's own counts ([`statistics`]) stand beside it at the end.
//!
//! Watching costs the run 0.9 us of processor time for each exit, file included (95%: 0.88 to 0.97; 40 runs of each kind,
//! interleaved, of a guest that left 20 001 times, at 9 us an exit: a tenth more). Most of it is in none of the ledger's
//! times: the clock is read again once an exit is noted. Without `--trace` it is one branch ([`crate::watch`]).
//!
//! FILE holds JSON lines. The first says what ran; one for each exit follows, in order for each vCPU (sort by `left_ns`
//! for one order of all); the last holds KVM's counts. Times are nanoseconds, `left_ns` on CLOCK_MONOTONIC. What is not known
//! is not there.
//!
//! A guest makes as many exits as it likes, and would fill the host's disk with them. So the file has a largest size
//! (`--trace-limit`); the last line then says how many exits are not in it, and the summary counts those too.
//!
//! ```json
//! {"trace":1,"kernel":"the lab kernel","vcpus":1}
//! {"vcpu":0,"left_ns":7012345,"guest_ns":98000,"host_ns":6100,"reason":"port write","device":"doorbell","address":"0xc0c","bytes":4,"rip":"0xffffffff80140e7e","symbol":"kernel::host::ring+0x1e"}
//! {"kvm":{"vm":{"pages_4k":58},"vcpus":[{"exits":91,"io_exits":19}]}}
//! ```

mod account;
mod book;
mod entry;
pub mod statistics;
mod summary;
pub mod symbols;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{VcpuFd, VmFd};

pub use account::Account;
use book::Book;
pub use book::{LIMIT, Place};
use entry::Entry;
use statistics::{Counts, Statistics};
use symbols::Symbols;

use crate::kernel::Kernel;

/// No ledger can be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trace cannot be written.
    #[error("cannot write the trace {path}: {source}")]
    Write {
        /// Where it was to go.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The symbols.
    #[error(transparent)]
    Symbols(#[from] symbols::Error),
}

/// The ledger of one machine. Each vCPU keeps an [`Account`] and hands it over now and then.
pub struct Ledger {
    path: PathBuf,
    symbols: Symbols,
    vm: Option<Statistics>,
    vcpus: Mutex<Vec<Option<Statistics>>>,
    book: Mutex<Book>,
}

impl Ledger {
    /// Opens a ledger that goes to `place`; `symbols` names the file with the kernel's symbols where that is not the kernel.
    pub fn open(
        place: Place<'_>,
        kernel: &Kernel,
        symbols: Option<&Path>,
        vm: &VmFd,
        vcpus: u8,
    ) -> Result<Arc<Ledger>, Error> {
        let symbols = Symbols::of(kernel, symbols)?;
        let failed = |source| Error::Write {
            path: place.path.into(),
            source,
        };
        let kernel = match kernel {
            Kernel::Lab => "the lab kernel".into(),
            Kernel::File(path) => path.display().to_string(),
        };
        let kernel = entry::quoted(&kernel);
        let book = Book::open(place, &format!(r#"{{"trace":1,"kernel":{kernel},"vcpus":{vcpus}}}"#)).map_err(failed)?;
        Ok(Arc::new(Ledger {
            path: place.path.into(),
            symbols,
            vm: Statistics::open(vm).ok(),
            vcpus: Mutex::default(),
            book: Mutex::new(book),
        }))
    }

    /// Opens the account of the next vCPU.
    pub fn account(self: &Arc<Self>, vcpu: &mut VcpuFd) -> Account {
        let mut vcpus = lock(&self.vcpus);
        vcpus.push(Statistics::open(vcpu).ok());
        Account::open(self.clone(), vcpus.len() - 1, vcpu)
    }

    /// Takes over what an account holds.
    fn enter(&self, vcpu: usize, entries: &[Entry]) {
        let mut book = lock(&self.book);
        for entry in entries {
            book.enter(vcpu, entry, &self.symbols);
        }
    }

    /// Writes KVM's counts behind the last exit and the summary to standard error.
    ///
    /// # Errors
    /// When the trace could not be written.
    pub fn close(&self) -> Result<(), Error> {
        let counts = Counts::read(self.vm.as_ref(), &lock(&self.vcpus));
        let mut book = lock(&self.book);
        eprint!("{}", summary::text(&book.totals, &counts, &self.symbols));
        if let Some(text) = book.complaint(&self.path) {
            eprintln!("{text}");
        }
        let written = book.close(&counts);
        written.map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// Writes what was handed over so far, for whom there may be no close.
    fn flush(&self) {
        lock(&self.book).flush();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
