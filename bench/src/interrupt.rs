//! Ctrl-C and SIGTERM end a series cleanly: the launch under way is stopped, what it made is removed, samples are kept.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Tells whether somebody asked the lab to stop. Cheap to clone; all clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP. The second of them ends the process at once, for whoever cannot wait.
    ///
    /// # Errors
    /// What sigaction(2) said.
    pub fn install() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        let asked_before = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked_before))?;
            flag::register(signal, Arc::clone(&asked_before))?;
            flag::register_usize(signal, Arc::clone(&interrupt.signal), signal as usize)?;
        }
        Ok(interrupt)
    }

    /// The signal that asked, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// Whether to stop.
    pub fn requested(&self) -> bool {
        self.signal().is_some()
    }
}
