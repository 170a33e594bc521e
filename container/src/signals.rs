//! Signals: from whoever sends them to the launcher, through the container's first process, to the program.
//!
//! A program must never share a process group with its launcher. `kill(0, ...)` reaches every member of the caller's
//! group, in whatever pid namespace it is; wherever inside and outside are the same user, a container could end the
//! shell that started it. So the program leads a session of its own ([`leave_the_callers_session`]). The price is that
//! the keys of the terminal, which the kernel turns into signals for the group in the foreground, stop at launcher and
//! first process: the latter passes them on to the program's group, as the kernel would have done ([`Arrival::pass_on`]).
//!
//! Both forwarders keep every signal blocked and take them one by one. Blocked, none is lost between two steps and
//! none can end a forwarder; and a blocked signal is kept even for the first process of a pid namespace, to which the
//! kernel otherwise delivers only what it has a handler for (pid_namespaces(7)).

use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

/// Signals that stop a whole terminal job. They stay as they are for the launcher, so that Ctrl-Z works.
const JOB_CONTROL: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// Blocks every signal but those of job control, and returns what was blocked before.
///
/// A caller may have left SIGCHLD ignored, and that outlives execve: the kernel would then throw away the status of
/// every child, and send no signal for it.
pub fn block_all() -> Result<SigSet, Errno> {
    expect_children()?;
    let mut all = SigSet::all();
    JOB_CONTROL.into_iter().for_each(|signal| all.remove(signal));
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before))?;
    Ok(before)
}

/// Has the kernel keep the status of children, whatever the caller left.
pub fn expect_children() -> Result<(), Errno> {
    // SAFETY: setting a signal to its default action installs no handler.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its number; real-time signals have no name.
    pub number: i32,
    /// Whether the kernel itself sent it, as it does for a key on the terminal. Such a signal went to every process of
    /// the foreground job: to the launcher and to the first process, which needs no second one from the launcher.
    pub from_kernel: bool,
}

impl Arrival {
    /// Sends the signal on from the first process to `program`: what somebody sent to it alone, what came from the
    /// terminal to its whole group.
    pub fn pass_on(self, program: Pid) {
        let group = Pid::from_raw(-program.as_raw());
        match self.number {
            libc::SIGCHLD => {}
            // The default action of SIGTSTP is void in a session nobody outside of it can continue; SIGSTOP's is not.
            libc::SIGTSTP => send(group, libc::SIGSTOP),
            libc::SIGCONT => send(group, libc::SIGCONT),
            number if self.from_kernel => send(group, number),
            number => send(program, number),
        }
    }
}

/// Blocks Ctrl-Z's signal too, for the first process: it has to pass it on. The launcher just stops, as its shell
/// expects.
pub fn block_terminal_stop() {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTSTP);
    // Fails for an unknown `how` only.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None);
}

/// Makes this process the leader of a session and a process group of its own, without a controlling terminal.
pub fn leave_the_callers_session() -> Result<(), Errno> {
    nix::unistd::setsid().map(drop)
}

/// Waits for the next blocked signal.
pub fn wait() -> Result<Arrival, Errno> {
    let all = SigSet::all();
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    loop {
        // SAFETY: the set is initialized, and the kernel fills the structure when it returns a signal.
        let number = unsafe { libc::sigwaitinfo(all.as_ref(), info.as_mut_ptr()) };
        match Errno::result(number) {
            Ok(number) => {
                // SAFETY: sigwaitinfo succeeded.
                let info = unsafe { info.assume_init() };
                return Ok(Arrival {
                    number,
                    from_kernel: info.si_code == libc::SI_KERNEL,
                });
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends signal `number` to `process`. It may just have ended; then there is nobody to tell.
pub fn send(process: Pid, number: i32) {
    // SAFETY: kill takes numbers only.
    unsafe { libc::kill(process.as_raw(), number) };
}

/// Gives a program the dispositions and the mask a fresh process has: Rust's start-up code ignores SIGPIPE, which
/// would outlive execve.
pub fn restore_for_program(mask: &SigSet) -> Result<(), Errno> {
    // SAFETY: setting a signal to its default action installs no handler.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)
}
