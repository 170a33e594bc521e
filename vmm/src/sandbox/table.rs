//! The policy: every system call a thread may use while the guest runs, and why. What is not here is forbidden.

/// A thread that runs a vCPU.
pub const VCPU: u8 = 1 << 0;
/// The thread that waits for input.
pub const INPUT: u8 = 1 << 1;
/// Beside the thread's own: on a machine with devices, and with several threads.
pub const DEVICES: u8 = 1 << 2;
/// Beside the thread's own: when somebody watches (a ledger is kept, or steps are counted).
pub const WATCHED: u8 = 1 << 3;

/// Everywhere, in a build with debug assertions.
const DEBUG_BUILD: u8 = if cfg!(debug_assertions) { VCPU | INPUT } else { 0 };

/// One line of the policy.
pub struct Rule {
    /// The call.
    pub number: u32,
    /// Where it is allowed: in every filter that has one of these classes.
    pub classes: u8,
}

const fn rule(number: libc::c_long, classes: u8, _why: &str) -> Rule {
    Rule {
        number: number as u32,
        classes,
    }
}

/// ioctl(2) requests that are allowed. The call itself is allowed with these only.
// ANCHOR: requests
pub const REQUESTS: &[(u32, u8)] = &[
    (KVM_RUN, VCPU),
    // What the message about a triple fault, or an instruction nobody can emulate, tells.
    (KVM_GET_REGS, VCPU),
    (KVM_GET_SREGS, VCPU),
    // Single-stepping, and finding the instruction.
    (KVM_SET_GUEST_DEBUG, WATCHED),
    (KVM_TRANSLATE, WATCHED),
    // A network driver says which of its host's offloads it can live with.
    (TUNSETOFFLOAD, DEVICES),
];
// ANCHOR_END: requests

/// The policy. Sorted by number, as the search tree wants it.
pub const RULES: &[Rule] = &[
    rule(libc::SYS_read, VCPU | INPUT, "standard input, a tap, a disk, the waker"),
    rule(
        libc::SYS_write,
        VCPU | INPUT,
        "output, marks, interrupts, and this table's own message",
    ),
    rule(
        libc::SYS_close,
        VCPU,
        "the machine is taken apart before the process ends",
    ),
    rule(
        libc::SYS_poll,
        VCPU | INPUT,
        "waiting for input; for output that is not ready",
    ),
    rule(libc::SYS_mmap, VCPU | INPUT, "memory for the VMM itself"),
    rule(
        libc::SYS_mprotect,
        DEVICES | WATCHED,
        "glibc grows a thread's heap this way",
    ),
    rule(
        libc::SYS_munmap,
        VCPU | INPUT,
        "memory given back; a thread that ends, its stack",
    ),
    rule(libc::SYS_brk, VCPU, "memory for the VMM itself"),
    rule(
        libc::SYS_rt_sigprocmask,
        VCPU | INPUT,
        "a thread that ends, or that panics",
    ),
    rule(
        libc::SYS_rt_sigreturn,
        VCPU | INPUT,
        "back from the signal that calls vCPUs out of the guest",
    ),
    rule(libc::SYS_pread64, DEVICES | WATCHED, "a disk; KVM's counts"),
    rule(libc::SYS_pwrite64, DEVICES, "a disk"),
    rule(libc::SYS_readv, DEVICES, "a tap"),
    rule(libc::SYS_writev, VCPU | INPUT, "output in several pieces"),
    rule(libc::SYS_mremap, VCPU | INPUT, "a list that grows"),
    rule(
        libc::SYS_madvise,
        VCPU | INPUT,
        "pages the guest gives back; a thread that ends",
    ),
    rule(libc::SYS_pause, VCPU, "hlt that nothing will end"),
    rule(libc::SYS_getpid, DEVICES, "calling vCPUs out of the guest"),
    rule(libc::SYS_exit, DEVICES, "a thread ends"),
    rule(
        libc::SYS_fcntl,
        DEBUG_BUILD,
        "std checks a descriptor before it closes it",
    ),
    rule(libc::SYS_fdatasync, DEVICES, "a disk's flush"),
    rule(libc::SYS_getrusage, WATCHED, "how many page faults there were"),
    rule(
        libc::SYS_sigaltstack,
        VCPU | INPUT,
        "a thread that ends gives back the stack for its overflow",
    ),
    rule(libc::SYS_gettid, DEVICES, "the id by which a vCPU is called out"),
    rule(
        libc::SYS_futex,
        VCPU | INPUT,
        "locks between threads, and waiting for them to end",
    ),
    rule(
        libc::SYS_clock_gettime,
        VCPU | INPUT,
        "the time, where it cannot be read without the kernel",
    ),
    rule(libc::SYS_clock_nanosleep, VCPU, "a guest that sleeps"),
    rule(libc::SYS_exit_group, VCPU | INPUT, "the end"),
    rule(libc::SYS_tgkill, DEVICES, "calling vCPUs out of the guest"),
    rule(libc::SYS_fallocate, DEVICES, "a disk's discard"),
    rule(libc::SYS_preadv, DEVICES, "a disk"),
    rule(libc::SYS_pwritev, DEVICES, "a disk"),
    rule(libc::SYS_getrandom, VCPU | INPUT, "random bytes for the guest"),
];

// Requests as linux/kvm.h composes them: direction and size of the argument, the letter 0xae, the number.
const KVM_RUN: u32 = 0xae80;
const KVM_GET_REGS: u32 = 0x8090_ae81;
const KVM_GET_SREGS: u32 = 0x8138_ae83;
const KVM_TRANSLATE: u32 = 0xc018_ae85;
const KVM_SET_GUEST_DEBUG: u32 = 0x4048_ae9b;
// linux/if_tun.h.
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
