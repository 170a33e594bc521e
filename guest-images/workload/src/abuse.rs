//! The lessons that do harm, so that a learner sees where it ends: at the program, at its kernel, or at the machine.
//!
//! [`doors`] touches nothing and may run anywhere. [`panic()`] is meant, and so refuses to run on any kernel but a guest's of
//! the lab: the kernel beneath a container is somebody's machine.

use std::ffi::{CStr, c_int, c_long};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use crate::lessons::{complain, say};

/// Writing `c` here crashes a Linux kernel at once: Documentation/admin-guide/sysrq.rst.
const TRIGGER: &str = "/proc/sysrq-trigger";
/// With 1 in here the next shortage of memory is a panic: Documentation/admin-guide/sysctl/vm.rst.
const PANIC_ON_OOM: &str = "/proc/sys/vm/panic_on_oom";
/// All of physical memory, the kernel's own included: mem(4).
const MEMORY: &str = "/dev/mem";
/// Where a guest's first process finds its command. No other machine has such a file.
const GUEST_MARK: &str = "/.lab/command";
/// What the lab kernel calls itself in uname(2), for it has no first process.
const LAB_KERNEL: &[u8] = b"Isolation Lab kernel";

// ANCHOR: forks
/// Starts copies of itself, up to `most`, until the kernel refuses one. Every copy only sleeps.
pub fn forks(most: u64) -> c_int {
    let mut children: Vec<libc::pid_t> = Vec::new();
    if children.try_reserve_exact(most as usize).is_err() {
        return complain(&format!("workload: no memory to remember {most} processes\n"));
    }
    let mut stopped_by = None;
    while (children.len() as u64) < most {
        // SAFETY: this program has one thread, so its copy may do whatever it may.
        match unsafe { libc::fork() } {
            0 => sleep_until_the_parent_ends(),
            -1 => {
                stopped_by = Some(name(&io::Error::last_os_error()));
                break;
            }
            child => children.push(child),
        }
    }
    let made = children.len();
    for child in children {
        // SAFETY: our own child, not waited for yet, so that the number is still its own; nobody wants its status.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    let stopped_by = stopped_by.map_or("null".into(), |name| format!("\"{name}\""));
    say(&format!(
        "{{\"lesson\":\"forks\",\"most\":{most},\"made\":{made},\"stopped_by\":{stopped_by}}}\n"
    ))
}
// ANCHOR_END: forks

fn sleep_until_the_parent_ends() -> ! {
    // SAFETY: plain numbers. Without this a killed parent would leave its copies behind.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        // SAFETY: pause takes nothing.
        unsafe { libc::pause() };
    }
}

/// Tries every door through which root brings a Linux kernel down, without going through: files are opened for writing and
/// not written to, calls get arguments no kernel obeys. A door that answers with an error other than that is shut.
pub fn doors() -> c_int {
    let mut all = Vec::new();
    for path in [TRIGGER, PANIC_ON_OOM, MEMORY] {
        let answer = match OpenOptions::new().write(true).open(path) {
            Ok(_) => "open".to_owned(),
            Err(error) => name(&error),
        };
        all.push(format!("{{\"door\":\"{path}\",\"answer\":\"{answer}\"}}"));
    }
    // Each asks for the privilege first and looks at the arguments then: reboot(2), init_module(2), kexec_load(2).
    let calls: [(&str, &[c_int], c_long); 3] = [
        // The magic numbers are wrong.
        ("reboot", &[libc::EINVAL], libc::SYS_reboot),
        // A module of no bytes; memory that is not there.
        ("init_module", &[libc::ENOEXEC, libc::EFAULT], libc::SYS_init_module),
        // No kernel has these flags.
        ("kexec_load", &[libc::EINVAL], libc::SYS_kexec_load),
    ];
    for (what, obeyed, number) in calls {
        // SAFETY: with these arguments none of the three does anything; the pointers among them are null.
        let answer = unsafe { libc::syscall(number, 0_u64, 0_u64, 0_u64, 0x7fff_u64) };
        let error = io::Error::last_os_error();
        let answer = match error.raw_os_error().filter(|_| answer < 0) {
            Some(errno) if !obeyed.contains(&errno) => name(&error),
            _ => "open".to_owned(),
        };
        all.push(format!("{{\"door\":\"{what}\",\"answer\":\"{answer}\"}}"));
    }
    say(&format!("{{\"lesson\":\"doors\",\"doors\":[{}]}}\n", all.join(",")))
}

// ANCHOR: panic
/// Brings down the kernel this program runs on, which must be a guest's. Returns when the kernel would not fall.
pub fn panic() -> c_int {
    if !is_guest() {
        return complain(
            "workload: this kernel is no guest's of the lab: others live on it, so nothing was tried. `workload doors` tells what would be let through\n",
        );
    }
    let mut said = String::from("workload: the kernel did not fall:");
    match write(TRIGGER, b"c") {
        Ok(()) => said += &format!(" {TRIGGER} took it and did nothing;"),
        Err(error) => said += &format!(" {TRIGGER}: {};", name(&error)),
    }
    match write(PANIC_ON_OOM, b"1") {
        Ok(()) => take_all_memory(),
        Err(error) => said += &format!(" {PANIC_ON_OOM}: {}", name(&error)),
    }
    complain(&(said + "\n"))
}
// ANCHOR_END: panic

fn write(path: &str, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(bytes)
}

/// Takes a page after another until somebody puts an end to it.
fn take_all_memory() -> ! {
    const STEP: usize = 1 << 20;
    const PAGE: usize = 4096;
    loop {
        let mut block: Vec<u8> = Vec::with_capacity(STEP);
        for page in block.spare_capacity_mut().chunks_mut(PAGE) {
            // SAFETY: inside the block's spare memory. Volatile, because nobody will ever read it.
            unsafe { page.as_mut_ptr().cast::<u8>().write_volatile(1) };
        }
        std::mem::forget(block);
    }
}

fn is_guest() -> bool {
    let mut uts = std::mem::MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: uname fills the structure when it returns 0, and ends each field with NUL.
    let lab_kernel = unsafe {
        libc::uname(uts.as_mut_ptr()) == 0
            && CStr::from_ptr(uts.assume_init_ref().version.as_ptr()).to_bytes() == LAB_KERNEL
    };
    lab_kernel || Path::new(GUEST_MARK).exists()
}

/// The error as programs know it.
fn name(error: &io::Error) -> String {
    let errno = error.raw_os_error().unwrap_or(0);
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EINVAL => "EINVAL",
        libc::EROFS => "EROFS",
        libc::ENOSYS => "ENOSYS",
        _ => return format!("errno {errno}"),
    };
    name.to_owned()
}
