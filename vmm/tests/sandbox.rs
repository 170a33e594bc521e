//! What the VMM can still do while a guest runs in it: what the host's kernel says of the running process, and what
//! happens when it tries something else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use support::machine_code::Code;
use support::{Files, Ran, collect, kvm, skipped, vmm};

/// A VMM that is killed when the test is done with it, or fails.
struct Idle(Option<Child>);

impl Idle {
    fn process(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn collect(mut self) -> Ran {
        collect(self.0.take().unwrap())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Starts a guest that prints one byte and then does nothing, and waits for the byte.
fn idle(files: &Files, options: &[&str]) -> Idle {
    let kernel = files.write("kernel", &Code::new().say(b'!').halt().kernel());
    let child = vmm()
        .arg("run")
        .args(options)
        .args(["--kernel", &kernel, "x"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    printed(child)
}

fn printed(child: Child) -> Idle {
    let mut idle = Idle(Some(child));
    let stdout = idle.0.as_mut().unwrap().stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    idle
}

/// Of every thread, by its name, the lines of `/proc/PID/task/TID/status` that tell of rights.
fn rights(process: u32) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let mut fields: BTreeMap<_, _> = status
                .lines()
                .filter_map(|line| line.split_once(":\t"))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            let name = fields.remove("Name").unwrap();
            fields.retain(|name, _| name.starts_with("Cap") || name == "NoNewPrivs" || name == "Seccomp");
            (name, fields)
        })
        .collect()
}

/// Fails unless each of `threads` threads has given up everything; `seccomp` is what the kernel says of its filter (2: there
/// is one). A thread that was only just started is given time to.
#[track_caller]
fn confined(process: u32, threads: usize, seccomp: &str) {
    let given_up = |fields: &BTreeMap<String, String>| {
        ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| fields[set].as_str()) == ["0000000000000000"; 4]
            && fields["NoNewPrivs"] == "1"
            && fields["Seccomp"] == seccomp
    };
    let mut seen = Vec::new();
    for _ in 0..1000 {
        seen = rights(process);
        // A worker of KVM's own, which no program of ours runs in, may be listed beside them.
        let ours = seen.iter().filter(|(name, _)| !name.starts_with("kvm-")).count();
        if ours == threads && seen.iter().all(|(_, fields)| given_up(fields)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("expected {threads} confined threads: {seen:#?}");
}

#[test]
fn every_thread_of_a_running_machine_has_given_up_everything() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let bare = idle(&files, &["--machine", "bare"]);
    confined(bare.process(), 1, "2");
    drop(bare);
    // Three vCPUs and the input thread.
    let pc = idle(&files, &["--machine", "pc", "--cpus", "3"]);
    confined(pc.process(), 4, "2");
    drop(pc);
    // With a ledger too.
    let trace = files.path().join("trace");
    let traced = idle(&files, &["--machine", "pc", "--trace", trace.to_str().unwrap()]);
    confined(traced.process(), 2, "2");
}

#[test]
fn without_the_filter_capabilities_are_gone_all_the_same() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    for (options, threads) in [(&["--machine", "bare"][..], 1), (&["--machine", "pc"], 2)] {
        let child = idle(&files, &[options, &["--no-seccomp"]].concat());
        confined(child.process(), threads, "0");
    }
}

#[test]
fn a_restored_machine_is_confined_as_well() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let snapshot = files.path().join("snapshot");
    let taken = vmm()
        .args([
            "snapshot",
            "--at",
            "user mode entry",
            "--out",
            snapshot.to_str().unwrap(),
        ])
        .args(["workload", "idle"])
        .status()
        .unwrap();
    assert!(taken.success());
    let child = vmm()
        .args(["restore", snapshot.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let child = printed(child);
    confined(child.process(), 1, "2");
}

/// Makes a thread that sits in pause(2) call something else, as code that broke into it would.
fn make_it_call(process: libc::pid_t, number: libc::c_long) -> io::Result<()> {
    let check = |result: libc::c_long| {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: ptrace of our own child; `registers` is what GETREGS fills and SETREGS reads.
    unsafe {
        check(libc::ptrace(libc::PTRACE_SEIZE, process, nothing, nothing))?;
        check(libc::ptrace(libc::PTRACE_INTERRUPT, process, nothing, nothing))?;
        let mut status = 0;
        check(libc::waitpid(process, &mut status, libc::__WALL).into())?;
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        check(libc::ptrace(libc::PTRACE_GETREGS, process, nothing, &mut registers))?;
        // Back onto the two bytes of `syscall`; and not a call that the kernel would restart itself.
        registers.rip -= 2;
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX;
        check(libc::ptrace(libc::PTRACE_SETREGS, process, nothing, &registers))?;
        check(libc::ptrace(libc::PTRACE_DETACH, process, nothing, nothing))
    }
}

#[test]
fn a_forbidden_call_ends_the_vmm_with_a_message() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    for number in [
        libc::SYS_openat,
        libc::SYS_execve,
        libc::SYS_socket,
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_ioctl,
    ] {
        let child = idle(&files, &["--machine", "bare"]);
        let process = child.process() as libc::pid_t;
        let pausing = || {
            let call = fs::read_to_string(format!("/proc/{process}/syscall"));
            call.is_ok_and(|call| call.starts_with(&format!("{} ", libc::SYS_pause)))
        };
        for _ in 0..1000 {
            if pausing() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if let Err(error) = make_it_call(process, number) {
            skipped(&format!("ptrace of a child is not permitted: {error}"));
            return;
        }
        let ran = child.collect();
        assert_eq!(ran.status, 128 + libc::SIGSYS, "call {number}: {ran:?}");
        let message = format!("vmm: system call {number} is not among those a running VMM may use");
        assert!(ran.stderr.starts_with(&message), "{ran:?}");
    }
}
