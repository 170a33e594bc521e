//! The first process of the testbed: what a computer needs between its kernel and a command.
//!
//! An init in one page. It mounts the kernel's own file systems, loads modules, brings up the loopback interface, runs one
//! command, and tells the lab outside how it went. It is `lab` itself, started by the kernel with [`SUBCOMMAND`].

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::VmFd;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot};
use protocol::status;
use serde::{Deserialize, Serialize};

use super::frames::{Frame, PORT, Sender};

/// The lab's own file, and the kernel's `rdinit=`.
pub const PATH: &str = "/bin/lab";
/// The word that makes the lab an init.
pub const SUBCOMMAND: &str = "testbed-init";
/// Home of the command.
pub const HOME: &str = "/root";
/// What is to be done.
pub const JOB: &str = "/.testbed/job.json";
/// What the command reads, if it is to read anything.
pub const STDIN: &str = "/.testbed/stdin";

/// Files that programs take for granted.
pub const FILES: [(&str, &str); 3] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
];

/// File systems of the kernel: type, where, options.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "ptmxmode=666"),
    ("tmpfs", "/dev/shm", ""),
    // Version 2 alone, as on every current distribution.
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// The port appears when the driver has talked to the device; longer than this means never.
const PORT_APPEARS: Duration = Duration::from_secs(20);
/// How often the machine gives a sign of life.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// What the command left running may still write for this long.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What the lab outside wants done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables beside the usual ones.
    pub environment: Vec<(String, String)>,
    /// The command's folder.
    pub directory: PathBuf,
    /// Whether [`STDIN`] is its standard input; otherwise that is empty.
    pub stdin: bool,
    /// The folder to send back.
    pub results: PathBuf,
    /// Modules, in the order to load them.
    pub modules: Vec<String>,
}

/// Where a module lies inside.
pub fn module_path(name: &str) -> PathBuf {
    Path::new("/.testbed/modules").join(format!("{name}.ko"))
}

/// Does the job. The kernel panics when its first process ends, and that is how a failure before the port is there comes
/// to light: on the console, which the lab outside shows.
pub fn init() -> String {
    if std::process::id() != 1 {
        return format!("`lab {SUBCOMMAND}` is the first process of a testbed; run `lab testbed COMMAND`");
    }
    let port = match prepare() {
        Ok((job, port)) => {
            // Until the computer is switched off.
            let _bystander = bystander();
            let sender = Arc::new(Sender::new(port));
            stay_alive(Arc::clone(&sender));
            let told = perform(&job, &sender).unwrap_or_else(Frame::Failure);
            sender.send(&told)
        }
        Err(why) => return why,
    };
    if let Err(error) = port {
        return format!("cannot tell the lab how it ended: {error}");
    }
    // The lab switches the computer off as soon as it has read that.
    loop {
        thread::park();
    }
}

/// From a bare kernel to a system a command can run in.
fn prepare() -> Result<(Job, File), String> {
    root()?;
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place).map_err(|error| format!("cannot make {place}: {error}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), Some(options))
            .map_err(|error| format!("cannot mount {kind} on {place}: {error}"))?;
    }
    // The whole root is in memory; /tmp needs no file system of its own, only its permissions.
    fs::set_permissions("/tmp", Permissions::from_mode(0o1777))
        .map_err(|error| format!("cannot open /tmp: {error}"))?;
    let job = fs::read(JOB).map_err(|error| format!("cannot read {JOB}: {error}"))?;
    let job: Job = serde_json::from_slice(&job).map_err(|error| format!("cannot read {JOB}: {error}"))?;
    for name in &job.modules {
        load(name).map_err(|error| format!("cannot load the module {name}: {error}"))?;
    }
    controllers().map_err(|error| format!("cannot switch cgroup controllers on: {error}"))?;
    loopback().map_err(|error| format!("cannot bring up the loopback interface: {error}"))?;
    Ok((job, open_port()?))
}

/// A root that can be left. The kernel's first file system is not mounted on anything, so pivot_root(2), which every
/// container does, refuses to put it away; the same files, mounted once more on top of themselves, can be.
fn root() -> Result<(), String> {
    let failed = |error: Errno| format!("cannot mount the root on itself: {error}");
    const NONE: Option<&str> = None;
    fs::create_dir_all("/mnt").map_err(|error| format!("cannot make /mnt: {error}"))?;
    mount(Some("/"), "/mnt", NONE, MsFlags::MS_BIND, NONE).map_err(failed)?;
    chdir("/mnt").map_err(failed)?;
    mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE).map_err(failed)?;
    chroot(".").map_err(failed)?;
    chdir("/").map_err(failed)
}

fn load(name: &str) -> io::Result<()> {
    let file = File::open(module_path(name))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        // Built in, or loaded by somebody else.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An empty VM that stands by, so that the command's is never the first one nor the last.
///
/// With the first VM the kernel switches KVM's hook in the scheduler on, and with the last one off, by writing over the hook's
/// instruction while other processors may run it (a static key: a breakpoint is put there for the time between). Under QEMU
/// 7.2, with a thread for each processor, a processor may go on executing the breakpoint after it is gone: the emulator had
/// translated it just then, and did not hear that it was replaced. Both processors then trap, return and trap again, for ever.
/// A row of starts ended so at the 72nd. Here the hook stays; what that changes in figures is what any other VM on a host changes: KVM
/// need not switch virtualization on in each processor first.
fn bystander() -> Option<VmFd> {
    // A kernel without KVM has no such hook.
    vmm::vm::create(&vmm::vm::open_kvm().ok()?).ok()
}

/// Gives the cgroups beneath the root every controller there is, as a service manager would.
fn controllers() -> io::Result<()> {
    let offered = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
    let wanted: Vec<String> = offered.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", wanted.join(" "))
}

/// netdevice(7): an interface is up when the flag IFF_UP is set.
fn loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: a structure of integers and arrays of them, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open, and the request a valid ifreq that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    Errno::result(result)?;
    Ok(())
}

/// Ports have numbers; the name is in sysfs. udev(7) would make links of it.
fn open_port() -> Result<File, String> {
    let began = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == PORT {
                let device = Path::new("/dev").join(entry.file_name());
                return OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&device)
                    .map_err(|error| format!("cannot open {}: {error}", device.display()));
            }
        }
        if began.elapsed() > PORT_APPEARS {
            return Err(format!(
                "there is no port {PORT}: this kernel lacks virtio_pci or virtio_console, built in or among its modules"
            ));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs the command to its end; returns the last frame.
fn perform(job: &Job, port: &Arc<Sender<File>>) -> Result<Frame, String> {
    let status = run(job, port)?;
    // Whatever the command left running ends here: the results must hold still.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    if job.results.is_dir() {
        send_folder(&job.results, port)
            .map_err(|error| format!("cannot send back {}: {error}", job.results.display()))?;
    }
    Ok(Frame::End(status))
}

fn run(job: &Job, port: &Arc<Sender<File>>) -> Result<u8, String> {
    let Some((program, arguments)) = job.command.split_first() else {
        return Err("there is no command".into());
    };
    let pipes = io::pipe().and_then(|output| Ok((output, io::pipe()?)));
    let ((output, output_end), (complaints, complaints_end)) =
        pipes.map_err(|error| format!("cannot make pipes for the command: {error}"))?;
    let input = match job.stdin {
        true => File::open(STDIN)
            .map_err(|error| format!("cannot open {STDIN}: {error}"))?
            .into(),
        false => Stdio::null(),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&job.directory)
        .env_clear()
        .envs([
            // A program taken along comes before busybox's of that name, which is in /bin.
            ("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", HOME),
            ("USER", "root"),
        ])
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .stdin(input)
        .stdout(output_end)
        .stderr(complaints_end)
        .process_group(0);
    let spawned = command.spawn();
    // Our own copies of the writing ends: with them open the pipes would never end.
    drop(command);
    let child = match spawned {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(error) => return Ok(refused(program, &error, port)),
    };
    let readers = [
        relay(output, Arc::clone(port), Frame::Output),
        relay(complaints, Arc::clone(port), Frame::Complaint),
    ];
    let status = reap_until(child)?;
    let began = Instant::now();
    while !readers.iter().all(thread::JoinHandle::is_finished) {
        if began.elapsed() > LAST_WORDS {
            // Somebody it left behind holds its output open.
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    for reader in readers {
        let _ = reader.join();
    }
    Ok(status)
}

/// A command that did not start: the status a shell gives, and what a shell would say.
fn refused(program: &str, error: &io::Error, port: &Sender<File>) -> u8 {
    let (why, status) = match error.kind() {
        ErrorKind::NotFound => (
            "there is no such program in the testbed (--with and --include take programs inside)".to_owned(),
            status::NOT_FOUND,
        ),
        _ => (error.to_string(), status::NOT_EXECUTABLE),
    };
    let text = format!("lab testbed: cannot run {program}: {why}\n");
    // The status tells it, too.
    let _ = port.send(&Frame::Complaint(text.into_bytes()));
    status
}

/// Gives a sign of life as long as there is somebody to give it to.
fn stay_alive(port: Arc<Sender<File>>) {
    thread::spawn(move || {
        while port.send(&Frame::Alive).is_ok() {
            thread::sleep(SIGN_OF_LIFE);
        }
    });
}

/// Passes on what comes out of a pipe, as it comes.
fn relay(mut pipe: io::PipeReader, port: Arc<Sender<File>>, frame: fn(Vec<u8>) -> Frame) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = vec![0; 32 * 1024];
        loop {
            match pipe.read(&mut bytes) {
                Ok(n @ 1..) => {
                    if port.send(&frame(bytes[..n].to_vec())).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    })
}

/// Waits for the command, and on the way buries every orphan: they all become children of the first process.
fn reap_until(child: Pid) -> Result<u8, String> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return Ok(status::SIGNAL_BASE + signal as u8),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("cannot wait for the command: {error}")),
        }
    }
}

/// The folder as a tar archive, in frames.
fn send_folder(folder: &Path, port: &Sender<File>) -> io::Result<()> {
    struct Pieces<'a>(&'a Sender<File>);
    impl Write for Pieces<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(&Frame::Results(bytes.to_vec()))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    // A tar archive is made of blocks of 512 bytes; a frame of many of them costs no more than one of one.
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(64 * 1024, Pieces(port)));
    archive.follow_symlinks(false);
    archive.append_dir_all("", folder)?;
    archive.into_inner()?.flush()
}
