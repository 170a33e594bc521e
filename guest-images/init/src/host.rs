//! Calls to the hypervisor: the ports of [`protocol::ports`], from a program.
//!
//! Port instructions belong to the kernel. `/dev/port` (CONFIG_DEVPORT) executes them for a process that may, one byte at
//! its file offset being one byte at that port; a kernel without it may lend single ports to a process (ioperm(2)).

use std::arch::asm;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use protocol::phase::Phase;
use protocol::ports;

/// The machine's I/O ports.
pub enum Host {
    /// By way of the kernel.
    Device(File),
    /// Lent to this process and its children.
    Lent,
}

impl Host {
    /// Opens them.
    ///
    /// # Errors
    /// When the guest's kernel offers neither.
    pub fn open() -> io::Result<Host> {
        if let Ok(device) = OpenOptions::new().read(true).write(true).open("/dev/port") {
            return Ok(Host::Device(device));
        }
        let count = libc::c_ulong::from(ports::RANDOM - ports::MARK + 1);
        // SAFETY: changes which ports this process may use, nothing else.
        match unsafe { libc::ioperm(ports::MARK.into(), count, 1) } {
            0 => Ok(Host::Lent),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The same ports for another owner.
    pub fn try_clone(&self) -> io::Result<Host> {
        match self {
            Host::Device(device) => device.try_clone().map(Host::Device),
            Host::Lent => Ok(Host::Lent),
        }
    }

    fn write(&self, port: u16, value: u8) {
        match self {
            // A host that does not listen is none of our business.
            Host::Device(device) => drop(device.write_at(&[value], port.into())),
            // SAFETY: the port was lent, and a write to it changes nothing in this program.
            Host::Lent => unsafe {
                asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags));
            },
        }
    }

    /// Writes to a port that is none of ours: another hypervisor's.
    pub fn write_elsewhere(&self, port: u16, value: u8) {
        // SAFETY: changes which ports this process may use, nothing else.
        if matches!(self, Host::Device(_)) || unsafe { libc::ioperm(port.into(), 1, 1) } == 0 {
            self.write(port, value);
        }
    }

    fn read(&self, port: u16) -> io::Result<u8> {
        let mut value = [0];
        match self {
            Host::Device(device) => device.read_exact_at(&mut value, port.into())?,
            // SAFETY: the port was lent, and reading it changes nothing in this program.
            Host::Lent => unsafe {
                asm!("in al, dx", in("dx") port, out("al") value[0], options(nomem, nostack, preserves_flags));
            },
        }
        Ok(value[0])
    }

    /// Reports a phase. Safe between fork and exec: one system call at most.
    pub fn mark(&self, phase: Phase) {
        self.write(ports::MARK, phase.code());
    }

    /// How often this machine has been restored from a snapshot.
    pub fn generation(&self) -> io::Result<u8> {
        self.read(ports::GENERATION)
    }

    /// Random bytes from the host.
    pub fn random<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.read(ports::RANDOM)?;
        }
        Ok(bytes)
    }

    /// Ends the guest with this status; comes back only if there is no hypervisor of ours.
    pub fn end(&self, status: u8) {
        self.write(ports::EXIT, status);
    }
}

/// Ends the machine as on any PC.
pub fn restart() -> ! {
    // SAFETY: takes a number; when it fails (no permission) the loop below is all that is left.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}
