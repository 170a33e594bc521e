//! Every block of commands in the book is run, and has to print what the page shows.
//!
//! A chapter's blocks run in the order of the page, in one fresh directory, with containers, images and home of their own. A block
//! whose needs the machine does not meet is skipped aloud. The programs are those in `target/debug`.

// All of this file is test, its helpers too.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use book::blocks::{self, Block, Step};
use book::{compare, folder};

/// Longest a command may take. The longest here boots an emulated computer, on machines that do much else.
const LIMIT: Duration = Duration::from_secs(600);

macro_rules! chapters {
    ($($test:ident: $file:literal,)*) => {
        $(#[test] fn $test() { run_page($file); })*

        /// What is tested is what is in the book.
        #[test]
        fn no_chapter_is_left_out() {
            let tested = [$($file),*];
            for page in book::pages::all(&folder().join("src")).unwrap() {
                assert!(tested.contains(&page.name.as_str()), "{} is not in tests/blocks.rs", page.name);
            }
        }
    };
}

chapters! {
    before: "before.md",
    c01: "01-first-race.md",
    c02: "02-measuring-honestly.md",
    c03: "03-process.md",
    c04: "04-hypervisors.md",
    c05: "05-hello-kvm.md",
    c06: "06-guest-memory.md",
    c07: "07-booting-a-kernel.md",
    c08: "08-devices.md",
    c09: "09-snapshots.md",
    c10: "10-namespaces.md",
    c11: "11-control-groups.md",
    c12: "12-images.md",
    c13: "13-dockerfile.md",
    c14: "14-volumes-and-networks.md",
    c15: "15-engine.md",
    c16: "16-density.md",
    c17: "17-isolation.md",
    c18: "18-together.md",
    glossary: "a-glossary.md",
    ecdf: "b-reading-an-ecdf.md",
    failures: "c-failure-guide.md",
    machines: "d-recorded-machines.md",
}

fn run_page(name: &str) {
    let Some(page) = book::pages::all(&folder().join("src"))
        .unwrap()
        .into_iter()
        .find(|page| page.name == name)
    else {
        return;
    };
    let text = page.text;
    let blocks = blocks::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    if blocks.is_empty() {
        return;
    }
    let place = Place::new();
    for block in &blocks {
        match lacking(&block.needs) {
            Some(reason) => println!("skipped: {name}:{}: {reason}", block.line),
            None => run_block(name, block, &place),
        }
    }
}

fn run_block(name: &str, block: &Block, place: &Place) {
    for (index, step) in block.steps.iter().enumerate() {
        let wanted = if index + 1 == block.steps.len() {
            block.status
        } else {
            0
        };
        let began = Instant::now();
        let (printed, status) = place.run(step);
        println!(
            "{name}:{}: {} ms: {}",
            step.line,
            began.elapsed().as_millis(),
            step.command
        );
        let what = match compare::mismatch(&step.expected, &printed) {
            Some(mismatch) => mismatch,
            None if status == wanted => continue,
            None => format!("it ended with status {status}, not {wanted}; it printed\n{printed}"),
        };
        panic!("\n{name}:{}: $ {}\n{what}\n", step.line, step.command);
    }
}

/// Where a chapter's commands run.
struct Place {
    directory: tempfile::TempDir,
    /// Process groups of commands that left something running, for the chapter's later commands.
    running: RefCell<Vec<i32>>,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            directory: tempfile::Builder::new().prefix("book-").tempdir().unwrap(),
            running: RefCell::default(),
        };
        for folder in ["home", "work", "tmp", "state", "store", "run"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        // Whoever is root inside a user namespace must be able to walk through.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(place.directory.path(), mode).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let programs = programs();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        // Kernels fetched and built for guests are found where the machine's owner has them.
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        let mut command = Command::new("bash");
        command
            .args(["-c", line])
            .current_dir(self.path("work"))
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("CONTAINER_STATE", self.path("state"))
            .env("CONTAINER_STORE", self.path("store"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_CACHE_HOME", cache.unwrap_or_else(|| self.path("home")))
            .env("REPO", folder().join(".."))
            .env("LC_ALL", "C.UTF-8")
            .env("NO_COLOR", "1")
            .env_remove("XDG_DATA_HOME")
            // The build of the book's tests is no business of a cargo that a chapter starts.
            .env_remove("CARGO_MANIFEST_DIR")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end: what it printed, and its status (128 + signal, as a shell has it).
    fn run(&self, step: &Step) -> (String, i32) {
        let mut output = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.path("output"))
            .unwrap();
        // A file, not a pipe: what the command leaves running in the background must not keep us waiting.
        let append = File::options().append(true).open(self.path("output")).unwrap();
        let mut child = self
            .command(&step.command)
            .stdout(append.try_clone().unwrap())
            .stderr(append)
            .process_group(0)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() < LIMIT => thread::sleep(Duration::from_millis(5)),
                None => {
                    // SAFETY: the child is ours and not reaped yet, so the group with its number is the one made for it.
                    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                    child.wait().unwrap();
                    panic!("`{}` took longer than {LIMIT:?}", step.command);
                }
            }
        };
        let group = child.id() as i32;
        // SAFETY: signal 0 asks only. Whoever is in the group keeps its number from being given to others.
        if unsafe { libc::kill(-group, 0) } == 0 {
            self.running.borrow_mut().push(group);
        }
        let mut printed = Vec::new();
        output.rewind().unwrap();
        output.read_to_end(&mut printed).unwrap();
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        (String::from_utf8_lossy(&printed).into_owned(), code.unwrap_or(-1))
    }
}

impl Drop for Place {
    /// Programs in the background, containers and mounts that a chapter, or a failure in its middle, left behind.
    fn drop(&mut self) {
        for group in self.running.take() {
            // SAFETY: the group was made for a command of this chapter. The worst answer is that nobody is in it any more.
            unsafe { libc::kill(-group, libc::SIGTERM) };
        }
        let containers = "container ps -a -q | xargs -r container rm -f";
        // What was mounted in the chapter's directory would keep it from going.
        let mounts =
            "findmnt --noheadings --list --output TARGET | grep \"^$(dirname \"$PWD\")/\" | tac | xargs -r umount";
        for clean_up in [containers, mounts] {
            let _ = self
                .command(clean_up)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// The folder with `lab`, `vmm` and `container`: the one this test was built into.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap().to_owned();
    for program in ["lab", "vmm", "container", "container-engine", "container-oci"] {
        assert!(
            folder.join(program).exists(),
            "{} is missing: cargo build -p vmm -p container -p bench",
            folder.join(program).display()
        );
    }
    folder
}

/// Why a block cannot run here.
fn lacking(needs: &[String]) -> Option<String> {
    needs.iter().find_map(|need| match need.as_str() {
        "kvm" => {
            let opened = File::options().read(true).write(true).open("/dev/kvm");
            opened.err().map(|error| format!("needs-kvm: /dev/kvm: {error}"))
        }
        // SAFETY: geteuid takes nothing and cannot fail.
        "root" => (unsafe { libc::geteuid() } != 0).then(|| "needs-root: not root".to_owned()),
        // The lab's part of it is a program of its own.
        "docker-registry" => lacking_program("docker-registry").or_else(|| {
            let client = programs().join("container-registry");
            (!client.exists())
                .then(|| "needs-docker-registry: no container-registry: cargo build -p container-registry".to_owned())
        }),
        "qemu" => lacking_program("qemu-system-x86_64").or_else(|| {
            let kernel = cache()?.join("isolation-lab/testbed/boot");
            (!kernel.exists())
                .then(|| "needs-qemu: no kernel for the testbed: bash guest-images/testbed/fetch-kernel".to_owned())
        }),
        "linux" => {
            let kernel = cache()?.join("isolation-lab/linux/vmlinux");
            (!kernel.exists())
                .then(|| "needs-linux: no Linux kernel for guests: bash guest-images/linux/build".to_owned())
        }
        "network-ns" => {
            let tried = Command::new("unshare").args(["--user", "--net", "true"]).output();
            let made = tried.is_ok_and(|output| output.status.success());
            (!made).then(|| "needs-network-ns: `unshare --user --net true` fails".to_owned())
        }
        program => lacking_program(program),
    })
}

fn lacking_program(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    let found = folders.any(|folder| Path::new(&folder).join(program).exists());
    (!found).then(|| format!("needs-{program}: {program} is not installed"))
}

fn cache() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
}
