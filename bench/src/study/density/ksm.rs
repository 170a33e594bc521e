//! Kernel same-page merging (Linux: Documentation/admin-guide/mm/ksm.rst): equal anonymous pages of those who allow it
//! become one. The switch is the whole machine's, so it is put back as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::Error;
use crate::interrupt::Interrupt;

const FOLDER: &str = "/sys/kernel/mm/ksm";
/// Pages looked at before the scanner rests. The default, 100 every 20 ms, needs minutes for a few gigabytes.
const PAGES_TO_SCAN: &str = "20000";
/// A page is merged in the scan after the one that first saw it unchanged.
const SCANS: u64 = 3;
/// Longest wait for them.
const LONGEST: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why there is no merging here.
pub fn missing() -> Option<String> {
    let run = Path::new(FOLDER).join("run");
    if !run.exists() {
        return Some(format!("this kernel has no same-page merging ({FOLDER} is missing)"));
    }
    let writable = fs::OpenOptions::new().write(true).open(&run);
    writable
        .err()
        .map(|error| format!("{} cannot be written: {error}", run.display()))
}

/// Memory that merging saves now, host-wide, in bytes.
pub fn saved_bytes() -> u64 {
    number("pages_sharing") * vmm::layout::PAGE
}

/// Merging, for as long as the value lives.
#[derive(Debug)]
pub struct On {
    before: Vec<(PathBuf, String)>,
}

impl On {
    /// Switches it on.
    ///
    /// # Errors
    /// When a file refuses; then all is as it was.
    pub fn switch() -> Result<On, Error> {
        let mut on = On { before: Vec::new() };
        for (name, value) in [("pages_to_scan", PAGES_TO_SCAN), ("run", "1")] {
            let path = Path::new(FOLDER).join(name);
            let old = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            fs::write(&path, value).map_err(Error::file("write", &path))?;
            on.before.push((path, old));
        }
        Ok(on)
    }

    /// Waits until the scanner has been everywhere often enough to have merged what is equal.
    pub fn wait_for_scans(&self, interrupt: &Interrupt) {
        let (begin, from) = (Instant::now(), number("full_scans"));
        while number("full_scans") < from + SCANS && begin.elapsed() < LONGEST {
            if interrupt.pause(LOOK_EVERY) {
                return;
            }
        }
    }
}

impl Drop for On {
    fn drop(&mut self) {
        for (path, old) in self.before.iter().rev() {
            // What can be written once can be written again.
            let _ = fs::write(path, old.trim());
        }
    }
}

fn number(name: &str) -> u64 {
    let text = fs::read_to_string(Path::new(FOLDER).join(name)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
