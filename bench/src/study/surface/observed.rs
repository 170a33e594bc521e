//! The system calls the host's kernel sees over a run: every one of them, caught by ptrace(2).
//!
//! The launcher is started under the tracer and everything it starts is followed, but only those count who stand between the
//! workload and the host: in a container the workload itself, from its execve on; of a VM the VMM, all of its threads, from
//! the first time one of them lets the guest run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use syscalls::Sysno;

use super::filter::ptrace;
use crate::study::books;
use crate::study::results::Observed;

/// The workload's name, as the kernel keeps it (proc_pid_comm(5)).
const WORKLOAD: &str = "workload";
/// `ioctl(vcpu, KVM_RUN)`: the request that lets a guest run (linux/kvm.h: `_IO(0xAE, 0x80)`).
const KVM_RUN: u64 = 0xae80;
/// Between two looks while nobody stops. Being watched slows a run down anyway; nothing here is timed.
const PAUSE: Duration = Duration::from_micros(200);
/// PTRACE_GET_SYSCALL_INFO (ptrace(2), linux/ptrace.h), and how its answer begins for a call that is being entered.
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const ENTRY: u64 = 1;
/// What PTRACE_O_TRACESYSGOOD adds to SIGTRAP for a stop at a system call.
const AT_SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;
/// Report children and execve, and let nobody outlive the tracer.
const OPTIONS: usize = (libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL) as usize;

/// Runs `command`, which runs `lesson`, to its end and counts. None: nobody was seen who stands between workload and host.
///
/// # Errors
/// When it cannot be started or watched, or does not end within `limit`.
pub fn over(mut command: Command, lesson: &str, limit: Duration) -> io::Result<Option<Observed>> {
    // A thread of its own: it waits for its own children only, so that nobody else's end is lost to whoever waits for it.
    let watching = thread::spawn(move || watch(&mut command, limit));
    let seen = watching
        .join()
        .map_err(|_| io::Error::other("the thread that watched panicked"))??;
    Ok(seen.map(|calls| Observed {
        lesson: lesson.into(),
        calls: calls.into_iter().map(|(number, count)| (name(number), count)).collect(),
    }))
}

/// A call's name; its number where this lab knows none.
fn name(number: u64) -> String {
    let known = usize::try_from(number).ok().and_then(Sysno::new);
    known.map_or_else(|| number.to_string(), |call| call.name().to_owned())
}

/// A thread that is traced.
#[derive(Default)]
struct Tracee {
    /// Its calls are counted.
    counts: bool,
    /// Its first stop, a SIGSTOP of the tracer's making, is still to come.
    new: bool,
}

#[derive(Default)]
struct Watch {
    tracees: HashMap<i32, Tracee>,
    /// Stopped before their parents' stops told of them.
    early: HashSet<i32>,
    calls: BTreeMap<u64, u64>,
    anybody: bool,
}

fn watch(command: &mut Command, limit: Duration) -> io::Result<Option<BTreeMap<u64, u64>>> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0);
    let ask = || {
        ptrace(libc::PTRACE_TRACEME, 0, 0, std::ptr::null_mut())
            .map(drop)
            .map_err(Into::into)
    };
    // SAFETY: between fork and exec one system call is made and nothing allocated.
    unsafe { command.pre_exec(ask) };
    // Reaped below, where the ends of all tracees are waited for.
    let root = command.spawn()?.id() as i32;
    let mut watch = Watch::default();
    let deadline = Instant::now() + limit;
    let mut killed = false;
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        let waited = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
        match Errno::result(waited) {
            Ok(0) if !killed && Instant::now() > deadline => {
                killed = true;
                let _ = killpg(Pid::from_raw(root), Signal::SIGKILL);
                for &thread in watch.tracees.keys() {
                    let _ = kill(Pid::from_raw(thread), Signal::SIGKILL);
                }
            }
            Ok(0) => thread::sleep(PAUSE),
            Ok(thread) if libc::WIFSTOPPED(status) => match watch.stopped(thread, root, status) {
                // Killed between its stop and what was asked of it: its end is the next thing to hear of.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            },
            Ok(thread) => drop(watch.tracees.remove(&thread)),
            Err(Errno::EINTR) => {}
            // Everybody has ended.
            Err(Errno::ECHILD) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match killed {
        true => Err(io::Error::from(io::ErrorKind::TimedOut)),
        false => Ok(watch.anybody.then_some(watch.calls)),
    }
}

impl Watch {
    /// Deals with a stop and lets the thread go on.
    fn stopped(&mut self, thread: i32, root: i32, status: i32) -> Result<(), Errno> {
        let signal = libc::WSTOPSIG(status);
        let mut deliver = 0;
        match (signal, status >> 16) {
            // The launcher's own execve, the first thing there is to see.
            (libc::SIGTRAP, 0) if thread == root && !self.tracees.contains_key(&root) => {
                ptrace(libc::PTRACE_SETOPTIONS, root, 0, OPTIONS as *mut libc::c_void)?;
                self.tracees.insert(root, Tracee::default());
                self.becomes(root);
            }
            _ if !self.tracees.contains_key(&thread) => {
                self.early.insert(thread);
                return Ok(());
            }
            (AT_SYSTEM_CALL, _) => self.at_system_call(thread)?,
            (_, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => self.adopt(thread)?,
            (_, libc::PTRACE_EVENT_EXEC) => self.becomes(thread),
            (libc::SIGSTOP, 0) if self.tracees.get(&thread).is_some_and(|tracee| tracee.new) => {
                self.tracees.entry(thread).or_default().new = false;
            }
            (signal, _) => deliver = signal,
        }
        go_on(thread, deliver)
    }

    /// A child belongs to whom its parent belongs to.
    fn adopt(&mut self, parent: i32) -> Result<(), Errno> {
        let mut child: libc::c_ulong = 0;
        ptrace(libc::PTRACE_GETEVENTMSG, parent, 0, (&raw mut child).cast())?;
        let child = child as i32;
        let counts = self.tracees.get(&parent).is_some_and(|parent| parent.counts);
        let new = !self.early.remove(&child);
        self.tracees.insert(child, Tracee { counts, new });
        match new {
            true => Ok(()),
            false => go_on(child, 0),
        }
    }

    /// `process` has become another program: perhaps the workload.
    fn becomes(&mut self, process: i32) {
        if books::name(process as u32) == WORKLOAD {
            self.anybody = true;
            self.tracees.entry(process).or_default().counts = true;
        }
    }

    fn at_system_call(&mut self, thread: i32) -> Result<(), Errno> {
        // struct ptrace_syscall_info: kind and architecture, instruction pointer, stack pointer, number, six arguments.
        let mut info = [0_u64; 11];
        let size = size_of_val(&info);
        ptrace(GET_SYSCALL_INFO, thread, size, info.as_mut_ptr().cast())?;
        if info[0] & 0xff != ENTRY {
            return Ok(());
        }
        let [_, _, _, number, _, request, ..] = info;
        if number == libc::SYS_ioctl as u64 && request == KVM_RUN && !self.counts(thread) {
            self.anybody = true;
            let vmm = group(thread);
            for (other, tracee) in &mut self.tracees {
                tracee.counts |= group(*other) == vmm;
            }
        }
        if self.counts(thread) {
            *self.calls.entry(number).or_default() += 1;
        }
        Ok(())
    }

    fn counts(&self, thread: i32) -> bool {
        self.tracees.get(&thread).is_some_and(|tracee| tracee.counts)
    }
}

fn go_on(thread: i32, signal: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_SYSCALL, thread, 0, signal as usize as *mut libc::c_void).map(drop)
}

/// The process a thread is of: proc_pid_status(5).
fn group(thread: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

impl Observed {
    /// How many different calls there were.
    pub fn distinct(&self) -> u64 {
        self.calls.len() as u64
    }

    /// How many there were together.
    pub fn made(&self) -> u64 {
        self.calls.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_program_of_that_name_are_counted_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let workload = folder.path().join(WORKLOAD);
        fs::write(&workload, guest_images::WORKLOAD).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&workload, mode).unwrap();
        let limit = Duration::from_secs(60);
        // A shell in front of it, whose calls are not the workload's.
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("\"$0\" syscalls 100; :").arg(&workload);
        let seen = over(command, "syscalls 100", limit).unwrap().unwrap();
        assert_eq!(seen.calls.get("getpid"), Some(&100), "{seen:?}");
        assert!(
            seen.calls.contains_key("write") && !seen.calls.contains_key("wait4"),
            "{seen:?}"
        );
        assert!(seen.made() > 100 && seen.distinct() < 30, "{seen:?}");
        assert_eq!(over(Command::new("/bin/true"), "none", limit).unwrap(), None);
        let mut endless = Command::new("/bin/sleep");
        endless.arg("1000");
        let error = over(endless, "none", Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
