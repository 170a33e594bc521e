//! The emulated computer: QEMU's command line, and its process.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::frames::PORT;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// A processor with AMD-V that QEMU can emulate: AMD's third EPYC, plus SVM with nested paging, which the emulator has and
/// its model leaves to the user. Without xsaves, which the model claims and the emulator lacks; and without erms and fsrm, the
/// promise that `rep movsb` is the fastest way to move memory: the emulator moves a byte at a time, and kernels that do not
/// read that promise move eight.
const PROCESSOR: &str = "EPYC-Milan,+svm,+npt,-xsaves,-erms,-fsrm";

/// For every kernel that runs there: messages to the serial port; a panic reboots at once, by a triple fault, which ends
/// QEMU; no defences against the processor's guesses, for an emulator makes none; a timer whose first ticks come late, because
/// the machine outside is busy, is no broken timer; and memory is cleared when it is freed. The emulator keeps its translation of
/// the code in a page until somebody writes there, and then the writing is slow. So who was given the pages of a VM that had
/// ended paid for throwing away its guest's kernel: half of the starts of a Linux guest took half as long again when they were
/// raced beside a VM that copies its kernel. Now it is paid where it was made, at that VM's end.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t mitigations=off no_timer_check init_on_free=1";

/// What is kept of the console and of QEMU's own complaints, in bytes: the end, where the reason stands.
const KEPT: usize = 16 * 1024;

/// The computer to emulate.
#[derive(Debug)]
pub struct Machine {
    /// QEMU.
    pub program: PathBuf,
    /// The kernel it boots.
    pub kernel: PathBuf,
    /// The archive it starts with; a file without a name will do.
    pub initramfs: File,
    /// Further words of the kernel's command line.
    pub command_line: String,
    /// Memory in MiB.
    pub memory: u64,
    /// Processors.
    pub cpus: u32,
}

/// A computer that runs. It goes with the value, and with the lab, whatever ends that.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The lab's end of the port.
    pub port: UnixStream,
    console: Tail,
    complaints: Tail,
}

impl Machine {
    /// Switches it on.
    ///
    /// # Errors
    /// When QEMU cannot be started, or a descriptor is lacking.
    pub fn start(self) -> io::Result<Running> {
        let (port, guests_end) = UnixStream::pair()?;
        for descriptor in [guests_end.as_raw_fd(), self.initramfs.as_raw_fd()] {
            // SAFETY: both are open, and owned by values that live until the end of this function.
            let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let mut command = Command::new(&self.program);
        command
            // q35: a PC of today, with PCI Express. Nothing on it that is not named here.
            .args(["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none"])
            // Tiny Code Generator: every instruction translated, none executed by hardware. One thread per processor.
            .args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR])
            .args(["-smp", &self.cpus.to_string(), "-m", &self.memory.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(format!("/proc/self/fd/{}", self.initramfs.as_raw_fd()))
            .arg("-append")
            .arg(format!("{COMMAND_LINE} {}", self.command_line))
            .args(["-no-reboot", "-serial", "stdio"])
            .args(["-device", "virtio-serial-pci", "-chardev"])
            .arg(format!("socket,id=lab,fd={}", guests_end.as_raw_fd()))
            .args(["-device", &format!("virtserialport,chardev=lab,name={PORT}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the lab, which then ends QEMU.
            .process_group(0);
        // SAFETY: prctl(2) is one system call and allocates nothing: allowed between fork and exec.
        unsafe {
            // The lab may be killed without a chance to clean up; QEMU must not outlive it.
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let mut child = command.spawn()?;
        Ok(Running {
            console: Tail::of(child.stdout.take()),
            complaints: Tail::of(child.stderr.take()),
            child,
            port,
        })
    }
}

impl Running {
    /// Waits for its end; returns how it ended and the last that the kernel and QEMU had to say.
    ///
    /// # Errors
    /// What wait(2) said.
    pub fn wait(mut self) -> io::Result<(ExitStatus, String)> {
        let status = self.child.wait()?;
        let complaints = self.complaints.finish();
        // The emulator tells, for every feature of the processor it leaves out, that it does.
        let complaints: Vec<&str> = complaints
            .lines()
            .filter(|line| !line.contains("TCG doesn't support requested feature"))
            .collect();
        Ok((
            status,
            format!("{}\n{}", self.console.finish(), complaints.join("\n"))
                .trim()
                .to_owned(),
        ))
    }

    /// What the kernel said last.
    pub fn console(&self) -> String {
        self.console.text()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of what somebody writes into a pipe, read by a thread so that he never waits.
#[derive(Debug)]
struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tail {
    fn of<R: Read + Send + 'static>(pipe: Option<R>) -> Tail {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let thread = pipe.map(|mut pipe| {
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend_from_slice(&chunk[..n]);
                    let surplus = kept.len().saturating_sub(KEPT);
                    kept.drain(..surplus);
                }
            })
        });
        Tail { kept, thread }
    }

    fn finish(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            // A reader that panicked has kept what it read before.
            let _ = thread.join();
        }
        self.text()
    }

    /// What is kept, without the firmware's escape sequences and carriage returns.
    fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let printable = text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control());
        printable.collect::<String>().trim().to_owned()
    }
}
