//! The input thread: waits for what comes from outside while the vCPUs run.
//!
//! Output needs no thread: the guest leaves with the bytes in hand, and the vCPU that left carries them out. Input has no
//! such moment. One thread polls every device's descriptor and hands over what arrives; the device then interrupts the guest.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::machine::Machine;

/// Makes the input thread look again: a device has room, or the machine has ended.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker for one input thread.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn new() -> io::Result<Waker> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(|event| Waker(Arc::new(event)))
    }

    /// Wakes the thread. A counter that is full means that it is awake already.
    pub fn wake(&self) {
        let _ = self.0.write(1);
    }

    fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn clear(&self) {
        let _ = self.0.read();
    }
}

/// Holds standard input back until the guest's program starts. Earlier, whoever set up the guest's terminal would echo it or throw it away.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<AtomicBool>,
    waker: Waker,
}

impl Gate {
    /// A gate, and whether it is open already.
    pub fn new(waker: Waker, open: bool) -> Gate {
        let open = Arc::new(AtomicBool::new(open));
        Gate { open, waker }
    }

    /// From now on input comes through.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether input comes through.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

/// Serves every source of input until the machine has ended.
pub fn serve(machine: &Machine, waker: &Waker) -> io::Result<()> {
    /// Who is waiting for a descriptor.
    enum Source {
        Waker,
        Serial,
        Device(usize),
    }
    while !machine.ending() {
        let mut sources = vec![(Source::Waker, waker.descriptor())];
        sources.extend(
            machine
                .ports()
                .serial
                .input()
                .map(|fd| (Source::Serial, fd.as_raw_fd())),
        );
        for (index, mut device) in machine.bus.devices().enumerate() {
            sources.extend(device.input().map(|fd| (Source::Device(index), fd.as_raw_fd())));
        }
        let mut waiting: Vec<_> = sources
            .iter()
            .map(|&(_, fd)| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // SAFETY: the pointer and count are those of `waiting`.
        if unsafe { libc::poll(waiting.as_mut_ptr(), waiting.len() as libc::nfds_t, -1) } < 0 {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            }
        }
        for ((source, _), _) in sources.iter().zip(&waiting).filter(|(_, polled)| polled.revents != 0) {
            match source {
                Source::Waker => waker.clear(),
                Source::Serial => machine.ports().serial.receive(),
                Source::Device(index) => machine
                    .bus
                    .device(*index)
                    .into_iter()
                    .for_each(|mut device| device.receive()),
            }
        }
    }
    Ok(())
}
