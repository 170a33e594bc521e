//! The host's books: /proc/meminfo, and what processes hold that smaps does not tell.

use std::fs;
use std::path::Path;

use super::Error;

const KIBIBYTE: u64 = 1024;
/// Kernel stack of a thread on x86-64 (Linux: arch/x86/include/asm/page_64_types.h, THREAD_SIZE_ORDER 2).
pub const KERNEL_STACK: u64 = 16 << 10;

/// Host-wide counters, in bytes: proc_meminfo(5).
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Meminfo {
    /// What could be given to new programs without swapping.
    pub available: u64,
    /// All there is.
    pub total: u64,
    /// Page tables that hypervisors make for their guests. Counted since Linux 6.1.
    pub second_level: Option<u64>,
}

/// Reads /proc/meminfo.
///
/// # Errors
/// When it cannot be read, or has no MemAvailable.
pub fn meminfo() -> Result<Meminfo, Error> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let value = |name| kibibytes(&text, name);
    Ok(Meminfo {
        available: value("MemAvailable:").ok_or(Error::NoMemAvailable)?,
        total: value("MemTotal:").ok_or(Error::NoMemAvailable)?,
        second_level: value("SecPageTables:"),
    })
}

/// Page tables and threads of a process: proc_pid_status(5).
pub fn tables_and_threads(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let threads = text.lines().find_map(|line| line.strip_prefix("Threads:"))?;
    Some((kibibytes(&text, "VmPTE:")?, threads.trim().parse().ok()?))
}

/// A process's name: proc_pid_comm(5).
pub fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * KIBIBYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_are_read() {
        let books = meminfo().unwrap();
        assert!(books.available > 0 && books.available <= books.total);
        let (tables, threads) = tables_and_threads(std::process::id()).unwrap();
        assert!(tables > 0 && threads > 0);
        assert_eq!(
            kibibytes("VmPTE:\t      44 kB\nThreads:\t1\n", "VmPTE:"),
            Some(44 * 1024)
        );
    }
}
