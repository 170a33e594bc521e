//! Several vCPUs: one thread each, and a way to call them out of the guest.
//!
//! KVM_RUN returns when the guest needs us, or when a signal arrives; so a signal is how one thread stops the others. The
//! usual trap is the moment between "shall I stop?" and KVM_RUN, in which a signal would be lost. We keep ours blocked
//! except inside KVM_RUN (KVM_SET_SIGNAL_MASK): sent early, it waits there and ends the next KVM_RUN at once.

use std::io;
use std::mem::MaybeUninit;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Scope};

use kvm_bindings::{KVMIO, kvm_signal_mask};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use crate::input::{self, Waker};
use crate::machine::Machine;
use crate::sandbox::{self, Sandbox};
use crate::vcpu::{self, End};
use crate::watch::Watch;

// Of the ioctl(2) numbers kvm-ioctls has no method for (linux/kvm.h).
#[allow(missing_docs, reason = "the macro makes a function without room for a comment")]
mod numbers {
    use super::*;
    ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);
}
use numbers::KVM_SET_SIGNAL_MASK;

/// The machine could not be run on several threads.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A vCPU's run ended badly.
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
    /// The sandbox did not close.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The host refused.
    #[error("cannot {what}: {source}")]
    Host {
        /// The step.
        what: &'static str,
        /// Its errno.
        source: io::Error,
    },
}

/// A vCPU and who watches it.
pub struct Processor {
    /// The vCPU.
    pub vcpu: VcpuFd,
    /// Its watchers.
    pub watch: Watch,
}

impl Processor {
    fn run(&mut self, machine: &Machine) -> Result<Option<End>, Error> {
        let ended = vcpu::run(&mut self.vcpu, machine, &mut self.watch);
        if !matches!(ended, Ok(None)) {
            self.watch.ended(&self.vcpu);
        }
        Ok(ended?)
    }
}

/// Runs one vCPU on this thread until the guest ends: all the lab kernel needs.
pub fn run_one(processor: &mut Processor, machine: &Machine, sandbox: Sandbox) -> Result<End, Error> {
    sandbox.enter_as_vcpu()?;
    loop {
        // Nobody else can have ended the machine; a signal that was not for us is no reason to stop.
        if let Some(end) = processor.run(machine)? {
            return Ok(end);
        }
    }
}

/// Runs every vCPU and the input thread until one vCPU says that the guest has ended. The first runs on this thread.
pub fn run_all(processors: &mut [Processor], machine: &Machine, waker: &Waker, sandbox: Sandbox) -> Result<End, Error> {
    let call = Call::prepare()?;
    let result = OnceLock::new();
    let running = Mutex::new(Vec::new());
    let stop = |ended| {
        // Two vCPUs may end it at once: the first counts.
        let _ = result.set(ended);
        machine.end();
        waker.wake();
        lock(&running).iter().for_each(|&thread| call.out(thread));
    };
    // One vCPU's whole life: say who we are, run, and if it was we who ended the machine, call out the others.
    let live = |processor: &mut Processor| {
        let ended = call.answer_in(&processor.vcpu).and_then(|()| {
            lock(&running).push(this_thread());
            sandbox.enter_as_vcpu()?;
            while !machine.ending() {
                if let Some(end) = processor.run(machine)? {
                    return Ok(Some(end));
                }
            }
            processor.watch.ended(&processor.vcpu);
            Ok(None)
        });
        ended.transpose().into_iter().for_each(stop);
    };
    thread::scope(|scope| {
        let mut processors = processors.iter_mut();
        let first = processors.next();
        let mut started = start(scope, "input".into(), || {
            if let Err(error) = sandbox.enter_as_input() {
                return stop(Err(error.into()));
            }
            // Without input the guest still runs; what waits for it will show.
            input::serve(machine, waker).unwrap_or_else(|error| eprintln!("vmm: cannot wait for input: {error}"));
        });
        for (processor, number) in processors.zip(1..) {
            started = started.and_then(|()| start(scope, format!("vcpu {number}"), || live(processor)));
        }
        match started {
            Ok(()) => first.into_iter().for_each(live),
            Err(error) => stop(Err(error)),
        }
    });
    // Every way out of the scope above has set it; a machine without vCPUs ends at once.
    result.into_inner().unwrap_or(Ok(End::Exit(0)))
}

/// Stack of a thread, in bytes. The default is 2 MiB: where it happens to lie at a multiple of that, which right below guest memory
/// it does, the host's kernel takes its first touch for a wish to have a huge page, and clears and keeps all of it.
const STACK: usize = 256 << 10;

fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    work: impl FnOnce() + Send + 'scope,
) -> Result<(), Error> {
    let thread = thread::Builder::new().name(name).stack_size(STACK);
    thread
        .spawn_scoped(scope, work)
        .map(drop)
        .map_err(|source| Error::Host {
            what: "start a thread (the limit on processes may be reached: ulimit -u)",
            source,
        })
}

/// A thread's id, as tgkill(2) takes it.
fn this_thread() -> libc::pid_t {
    // Not libc's gettid(): the standard library names that one as a weak symbol, and in a static program optimized as a
    // whole (profile `launcher`) the linker then finds no reason to bring it along; the call went to address 0.
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t }
}

/// The signal that calls a vCPU out of the guest.
#[derive(Clone, Copy)]
struct Call {
    signal: libc::c_int,
}

impl Call {
    /// Gives the signal a handler that does nothing: its default action would end the process.
    fn prepare() -> Result<Call, Error> {
        extern "C" fn nothing(_: libc::c_int) {}
        let signal = libc::SIGRTMIN();
        // SAFETY: all zeros is a valid sigaction; the handler touches nothing, and without SA_RESTART KVM_RUN returns.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        host("prepare the signal that stops vCPUs", done)?;
        Ok(Call { signal })
    }

    /// Makes this thread hear the signal inside this vCPU's KVM_RUN, and nowhere else.
    fn answer_in(self, vcpu: &VcpuFd) -> Result<(), Error> {
        /// `struct kvm_signal_mask` with the kernel's eight bytes of signals behind it.
        #[repr(C, packed)]
        struct Mask {
            length: u32,
            signals: u64,
        }
        // SAFETY: the sets are initialized by sigemptyset and pthread_sigmask before they are read; a kernel's set is the
        // first eight bytes of libc's.
        let (blocked, signals) = unsafe {
            let mut ours = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(ours.as_mut_ptr());
            libc::sigaddset(ours.as_mut_ptr(), self.signal);
            let mut before = MaybeUninit::<libc::sigset_t>::uninit();
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, ours.as_ptr(), before.as_mut_ptr());
            (error, before.as_ptr().cast::<u64>().read())
        };
        if blocked != 0 {
            return Err(Error::Host {
                what: "block the signal that stops vCPUs",
                source: io::Error::from_raw_os_error(blocked),
            });
        }
        let mask = Mask {
            length: size_of::<u64>() as u32,
            signals,
        };
        // SAFETY: KVM reads the length and as many bytes behind it, which `mask` has.
        let set = unsafe { ioctl_with_ref(vcpu, KVM_SET_SIGNAL_MASK(), &mask) };
        host("set the vCPU's signal mask", set)
    }

    /// Calls a thread out of KVM_RUN. One that has ended meanwhile needs no call.
    fn out(self, thread: libc::pid_t) {
        // SAFETY: numbers only; the signal has a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, self.signal) };
    }
}

fn host(what: &'static str, result: libc::c_int) -> Result<(), Error> {
    if result < 0 {
        let source = io::Error::last_os_error();
        return Err(Error::Host { what, source });
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
