//! `whoami`: what the program can see of the machine it runs on.

use std::ffi::{CStr, c_int};
use std::fs;
use std::mem::MaybeUninit;

use serde::Serialize;

use crate::lessons::say;

/// Everything `whoami` reports. A field is null where this kernel offers no way to ask.
#[derive(Serialize)]
struct Identity {
    /// Kernel name, as uname(2) has it.
    system: String,
    /// Kernel release: shared with the host in a container, the guest's own in a VM.
    kernel_release: String,
    /// Kernel version: build number and date.
    kernel_version: String,
    /// Host name: the UTS namespace's.
    hostname: String,
    /// A random id of the running kernel's boot, from /proc.
    boot_id: Option<String>,
    /// Process id, as this process sees itself.
    pid: u32,
    /// Parent process id: 0 when the parent is outside the PID namespace, or when there is none.
    ppid: u32,
    /// User id.
    uid: u32,
    /// Group id.
    gid: u32,
    /// Processors this process may run on.
    cpus: Option<usize>,
    /// All memory this kernel reports, in bytes. A cgroup's limit does not change it.
    total_memory_bytes: Option<u64>,
    /// Processes visible in /proc.
    visible_processes: Option<usize>,
    /// Network interfaces visible in /sys.
    network_interfaces: Option<Vec<String>>,
    /// What each namespace is, by inode, from /proc/self/ns.
    namespaces: Option<Vec<String>>,
    /// Mounts it sees: mount point and file system type.
    mounts: Option<Vec<Mount>>,
    /// Which ids its own stand for outside of the user namespace: lines of first id inside, first outside, count.
    uid_map: Option<Vec<String>>,
    /// The cgroup it is in, in each hierarchy, as far as the cgroup namespace shows it.
    cgroups: Option<Vec<String>>,
    /// System V queues, semaphores and shared memory, and POSIX message queues, of anybody.
    ipc_objects: Option<usize>,
}

#[derive(Serialize)]
struct Mount {
    point: String,
    kind: String,
}

/// Prints the identity as one JSON object.
pub fn print() -> c_int {
    let Some(uts) = uname() else { return 1 };
    let identity = Identity {
        system: text(&uts.sysname),
        kernel_release: text(&uts.release),
        kernel_version: text(&uts.version),
        hostname: text(&uts.nodename),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        pid: std::process::id(),
        ppid: std::os::unix::process::parent_id(),
        // SAFETY: these two take nothing and cannot fail.
        uid: unsafe { libc::getuid() },
        // SAFETY: as above.
        gid: unsafe { libc::getgid() },
        cpus: cpus(),
        total_memory_bytes: total_memory(),
        // A list that lacks even this process is none: the lab kernel's /proc has no processes in it.
        visible_processes: entries("/proc")
            .map(|names| names.iter().filter(|n| n.parse::<u32>().is_ok()).count())
            .filter(|&count| count > 0),
        network_interfaces: entries("/sys/class/net"),
        namespaces: namespaces(),
        mounts: mounts(),
        uid_map: read("/proc/self/uid_map").map(|map| map.lines().map(words).collect()),
        cgroups: read("/proc/self/cgroup").map(|list| list.lines().map(str::to_owned).collect()),
        ipc_objects: ipc_objects(),
    };
    match serde_json::to_string(&identity) {
        Ok(json) => say(&(json + "\n")),
        Err(_) => 1,
    }
}

fn uname() -> Option<libc::utsname> {
    let mut uts = MaybeUninit::uninit();
    // SAFETY: uname fills the structure when it returns 0.
    (unsafe { libc::uname(uts.as_mut_ptr()) } == 0).then(|| unsafe { uts.assume_init() })
}

fn text(field: &[libc::c_char]) -> String {
    // SAFETY: uname(2) ends each field with NUL.
    unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned()
}

fn cpus() -> Option<usize> {
    std::thread::available_parallelism().ok().map(Into::into)
}

fn total_memory() -> Option<u64> {
    let mut info = MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: sysinfo fills the structure when it returns 0.
    let info = (unsafe { libc::sysinfo(info.as_mut_ptr()) } == 0).then(|| unsafe { info.assume_init() })?;
    Some(info.totalram as u64 * u64::from(info.mem_unit))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The line with single spaces.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ipc_objects() -> Option<usize> {
    let mut count = entries("/dev/mqueue").map_or(0, |queues| queues.len());
    for kind in ["msg", "sem", "shm"] {
        // The first line is the heading.
        count += read(&format!("/proc/sysvipc/{kind}"))?.lines().skip(1).count();
    }
    Some(count)
}

fn entries(path: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(path)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Some(names)
}

fn namespaces() -> Option<Vec<String>> {
    entries("/proc/self/ns").map(|names| {
        names
            .iter()
            // Where its children would be started, which is the same until it says otherwise.
            .filter(|name| !name.ends_with("_for_children"))
            .filter_map(|name| fs::read_link(format!("/proc/self/ns/{name}")).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect()
    })
}

fn mounts() -> Option<Vec<Mount>> {
    let table = read("/proc/self/mounts")?;
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?.to_owned();
        Some(Mount {
            point,
            kind: fields.next()?.to_owned(),
        })
    };
    Some(table.lines().filter_map(mount).collect())
}
