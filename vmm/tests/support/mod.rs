//! What the whole-program tests share: running the real `vmm`, making file systems and programs for the guest.
//!
//! Every test file includes this one and uses a part of it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub mod machine_code;

/// After this long a run counts as hung and is killed. No claim about speed: the slowest test takes seconds, and a
/// machine under load is slower still.
const HUNG: Duration = Duration::from_secs(120);

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit status; 128 + n if signal n ended the process itself.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless the run ended with this status and said all of `parts` on standard error.
    #[track_caller]
    pub fn refused(&self, status: u8, parts: &[&str]) {
        assert_eq!(self.status, i32::from(status), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {:?}", self.stderr);
        }
        self.no_panic();
    }

    /// Fails if the VMM itself panicked.
    #[track_caller]
    pub fn no_panic(&self) {
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// Says on the real standard error that a test did not run. `eprintln!` would be swallowed by the test harness.
pub fn skipped(reason: &str) {
    let _ = writeln!(io::stderr(), "skipped: {reason}");
}

/// Whether guests can run here; says so if not.
pub fn kvm() -> bool {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            skipped(&format!("cannot open /dev/kvm: {error}"));
            false
        }
    }
}

/// Whether we are root; says so if not.
pub fn root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skipped("needs root");
    }
    root
}

/// Whether a program of this name is installed; says so if not.
pub fn installed(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).exists()));
    if !found {
        skipped(&format!("{name} is not installed"));
    }
    found
}

/// The `vmm` under test.
pub fn vmm() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vmm"))
}

/// `vmm run` with these arguments and nothing on standard input.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    run_with(arguments, b"")
}

/// `vmm run` with these arguments and these bytes on standard input.
pub fn run_with<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, stdin: &[u8]) -> Ran {
    let mut command = vmm();
    command.arg("run").args(arguments);
    finish(command, stdin)
}

/// Runs a command to its end with these bytes on standard input.
pub fn finish(mut command: Command, stdin: &[u8]) -> Ran {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (mut input, bytes) = (child.stdin.take().unwrap(), stdin.to_vec());
    // A program need not read what it is given; the broken pipe is then no failure of the test.
    let writer = thread::spawn(move || drop(input.write_all(&bytes)));
    let ran = collect(child);
    writer.join().unwrap();
    ran
}

/// Waits for a process and takes what its pipes hold. Kills it, and fails, when it hangs.
pub fn collect(child: Child) -> Ran {
    collect_within(child, HUNG)
}

/// The same for a run that may take longer.
pub fn collect_within(mut child: Child, patience: Duration) -> Ran {
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let status = wait_within(&mut child, patience);
    let stdout = stdout.map(|reader| reader.join().unwrap()).unwrap_or_default();
    let stderr = stderr.map(|reader| reader.join().unwrap()).unwrap_or_default();
    Ran {
        status,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Waits for a process: its status. Kills it, and fails, when it hangs.
pub fn wait(child: &mut Child) -> i32 {
    wait_within(child, HUNG)
}

/// The same where a hang is what the test looks for and the work takes no time.
pub fn wait_within(child: &mut Child, patience: Duration) -> i32 {
    let process = child.id();
    let (done, watched) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let hung = matches!(watched.recv_timeout(patience), Err(mpsc::RecvTimeoutError::Timeout));
        if hung {
            // SAFETY: our own child, which nobody has waited for yet: its id is still its own.
            unsafe { libc::kill(process as i32, libc::SIGKILL) };
        }
        hung
    });
    let status = child.wait().unwrap();
    drop(done);
    assert!(!watchdog.join().unwrap(), "process {process} hung and was killed");
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// A directory for input files, and a way to name one in it.
pub struct Files(tempfile::TempDir);

impl Files {
    /// An empty one.
    pub fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file; its path.
    pub fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A directory to become the guest's file system; gone when dropped.
pub struct Rootfs {
    directory: tempfile::TempDir,
}

impl Rootfs {
    /// An empty one.
    pub fn new() -> Rootfs {
        Rootfs {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Where it lies on the host.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Adds a file, with the directories above it.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Rootfs {
        self.write(name, content.as_ref(), 0o644)
    }

    /// Adds a program, given its bytes.
    pub fn program(self, name: &str, content: &[u8]) -> Rootfs {
        self.write(name, content, 0o755)
    }

    /// Adds a copy of a program of the host.
    pub fn copy(self, name: &str, from: impl AsRef<Path>) -> Rootfs {
        let content = fs::read(from).unwrap();
        self.program(name, &content)
    }

    /// Adds a directory.
    pub fn directory(self, name: &str) -> Rootfs {
        fs::create_dir_all(self.path().join(name)).unwrap();
        self
    }

    /// Adds a symbolic link.
    pub fn link(self, name: &str, target: &str) -> Rootfs {
        symlink(target, self.path().join(name)).unwrap();
        self
    }

    fn write(self, name: &str, content: &[u8], mode: u32) -> Rootfs {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Runs a program of this file system in a guest.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.run_with(&[], words, b"")
    }

    /// The same with options for `vmm run` and bytes on standard input.
    pub fn run_with(&self, options: &[&str], words: &[&str], stdin: &[u8]) -> Ran {
        let mut command = vmm();
        command.arg("run").args(options).arg("--rootfs").arg(self.path());
        command.arg("--").args(words);
        finish(command, stdin)
    }

    /// The same program on the host, standing in this directory as the guest stands in its root.
    pub fn run_on_host(&self, words: &[&str], stdin: &[u8]) -> Ran {
        let program = self.path().join(words[0].trim_start_matches('/'));
        let mut command = Command::new(program);
        command.args(&words[1..]).current_dir(self.path()).env_clear().envs([
            ("HOME", "/"),
            ("TERM", "linux"),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ]);
        finish(command, stdin)
    }

    /// Runs a program in a guest and on the host and fails unless status and output are equal.
    #[track_caller]
    pub fn same(&self, words: &[&str], stdin: &[u8]) {
        let (guest, host) = (self.run_with(&[], words, stdin), self.run_on_host(words, stdin));
        assert_eq!(
            (guest.status, guest.text(), &guest.stderr),
            (host.status, host.text(), &host.stderr),
            "{words:?}: guest on the left, host on the right"
        );
        // Bytes that are no text look alike in the comparison above.
        assert!(guest.stdout == host.stdout, "{words:?}: output differs");
    }
}

/// Compiles `programs/NAME.c` with these flags, or says why that is not possible here.
pub fn compile(name: &str, flags: &[&str]) -> Option<Vec<u8>> {
    if !installed("gcc") {
        return None;
    }
    let source: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/programs", &format!("{name}.c")]
        .iter()
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(name);
    let output = Command::new("gcc")
        // Wrong on purpose is what these programs are: no warnings.
        .args(["-O1", "-w", "-o"])
        .arg(&program)
        .arg(&source)
        .args(flags)
        .arg("-lm")
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    // The one failure that is the machine's fault and not the program's.
    if problem.contains("cannot find -lc") {
        skipped("there is no static C library for gcc (libc6-dev has it)");
        return None;
    }
    assert!(output.status.success(), "{name}.c: {problem}");
    Some(fs::read(program).unwrap())
}

/// A static program from `programs/NAME.c` as `/bin/NAME` of an otherwise empty file system.
pub fn rootfs_with(name: &str) -> Option<Rootfs> {
    let program = compile(name, &["-static"])?;
    Some(Rootfs::new().program(&format!("bin/{name}"), &program))
}
