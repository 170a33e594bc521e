//! Ctrl-C and SIGTERM end a series cleanly: the launch under way is stopped, what it made is removed, samples are kept.
//!
//! However many of these signals come, and however quickly: timeout(1) sends its signal to the command and to the
//! command's group, so one request arrives twice. Nothing here ends the process on the second; it only cuts short the
//! wait under way. There is nothing to be impatient about, since every wait of the lab has an end of its own. Who cannot
//! wait at all has SIGQUIT (Ctrl-\); the next lab then removes what this one left.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// A signal that arrives between the look at its flag and the wait does not end the wait: it is seen this much later.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Tells whether somebody asked the lab to stop. Cheap to clone; all clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP. When several come, the last names the exit status.
    ///
    /// # Errors
    /// What sigaction(2) said.
    pub fn install() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
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

    /// Sleeps for `time`, or until somebody asks to stop. Returns whether somebody did.
    pub fn pause(&self, time: Duration) -> bool {
        let begin = Instant::now();
        while !self.requested() {
            let left = time.saturating_sub(begin.elapsed());
            if left > LONGEST_WAIT {
                // poll(2) and not sleep: a signal ends it (EINTR), which is all that its result could tell.
                let _ = poll(
                    &mut [],
                    PollTimeout::try_from(LONGEST_WAIT).unwrap_or(PollTimeout::ZERO),
                );
            } else {
                std::thread::sleep(left);
                break;
            }
        }
        self.requested()
    }

    /// Whether to stop.
    pub fn requested(&self) -> bool {
        self.signal().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_its_time_or_ends_with_the_request() {
        let interrupt = Interrupt::default();
        let begin = Instant::now();
        assert!(!interrupt.pause(Duration::from_millis(120)));
        assert!(begin.elapsed() >= Duration::from_millis(120));
        interrupt.signal.store(SIGTERM as usize, Ordering::Relaxed);
        // Without the request this would outlast any test.
        assert!(interrupt.pause(Duration::from_secs(1 << 40)));
    }
}
