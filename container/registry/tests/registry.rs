//! Pull and push against Debian's docker-registry on a port of the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use container::image::layer::archive::{Kind, Member};
use container::image::layer::stream::Compression;
use container::image::layers::Error;
use container::image::{Access, Store};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_container-registry");

/// Ends a wait that would never end.
const LONG: Duration = Duration::from_secs(60);

/// A registry that goes with the test.
struct Registry {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Registry {
    fn start(auth: &str) -> Option<Registry> {
        let program = ["/usr/bin/docker-registry", "/usr/bin/registry"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let Some(program) = program else {
            eprintln!("skipped: needs docker-registry (Debian: apt install docker-registry)");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        // Free at this moment; the registry takes it the next.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{auth}",
            directory.path().display()
        );
        let config = config.replace("HTPASSWD", directory.path().join("htpasswd").to_str().unwrap());
        fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        fs::write(directory.path().join("config.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(directory.path().join("config.yml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: prctl(2) is a plain system call, and allowed between fork and exec: no registry outlives the test.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            )
        };
        let child = command.spawn().unwrap();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < LONG, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Registry { child, port, directory })
    }

    fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User `learner`, password `lesson`, as crypt(5) writes it.
const HTPASSWD: &str = "learner:$2b$05$abcdefghijklmnopqrstuubGF9WWbmiTIMjzNpjJavT9pPxj0Q9Iu\n";

fn program(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("--store")
        .arg(store)
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("DOCKER_CONFIG");
    command
        .env("HOME", "/nonexistent")
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("XDG_RUNTIME_DIR");
    command
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A store with one image of two layers, of `size` bytes together.
fn store_with_image(root: &Path, name: &str, size: u64) {
    let store = Store::open(root, Access::Shared).unwrap();
    let layer = |path: &str, size: u64, compression| {
        let member = Member {
            path: path.into(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            size,
            parts: None,
        };
        store
            .write_layer::<Error>(compression, |archive| {
                archive
                    .append(&member, std::io::repeat(b'x').take(size))
                    .map_err(|error| Error::Write { error })
            })
            .unwrap()
    };
    let layers = [
        layer("small", 10, Compression::Gzip),
        layer("large", size, Compression::None),
    ];
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/small"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>() },
    });
    store
        .add_image(config.to_string().as_bytes(), &layers, Some(&name.parse().unwrap()))
        .unwrap();
}

fn blobs(root: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(root.join("blobs/sha256"))
        .unwrap()
        .map(|entry| PathBuf::from(entry.unwrap().file_name()))
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_pushed_comes_back_the_same() {
    let Some(registry) = Registry::start("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    store_with_image(&here, "app:1", 3 << 20);
    let name = registry.name("team/app:1");
    succeeds(&program(&here, &["push", "app:1", &name]).output().unwrap());
    let pulled = succeeds(&program(&there, &["pull", &name]).output().unwrap());
    assert_eq!(blobs(&here), blobs(&there));
    let store = Store::open(&there, Access::Shared).unwrap();
    let image = store.image(&name).unwrap();
    assert!(pulled.contains(&image.digest.to_string()));
    let top = store.layer_path(image.chain_ids().last().unwrap()).join("diff/large");
    assert_eq!(fs::metadata(top).unwrap().len(), 3 << 20);
    // By its digest, and again: nothing comes twice.
    let by_digest = registry.name(&format!("team/app@{}", image.digest));
    let again = program(&there, &["pull", &by_digest]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&again.stderr).matches("there already").count() == 3,
        "{again:?}"
    );
    let again = program(&here, &["push", "app:1", &name]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&again.stderr).matches("there already").count() == 3,
        "{again:?}"
    );
}

#[test]
fn a_registry_that_asks_who_we_are_gets_the_login_docker_left() {
    let Some(registry) = Registry::start("auth: {htpasswd: {realm: lab, path: HTPASSWD}}\n") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().join("here");
    store_with_image(&here, "app:1", 100);
    let name = registry.name("app:1");
    let output = program(&here, &["push", "app:1", &name]).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    // base64 of learner:lesson
    let login = format!(
        r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "bGVhcm5lcjpsZXNzb24="}}}}}}"#,
        registry.port
    );
    fs::write(directory.path().join("config.json"), login).unwrap();
    for arguments in [&["push", "app:1", &name][..], &["pull", &name]] {
        let mut command = program(&here, arguments);
        succeeds(&command.env("DOCKER_CONFIG", directory.path()).output().unwrap());
    }
}

#[test]
fn container_image_pull_becomes_this_program() {
    let Some(registry) = Registry::start("") else { return };
    let container = Path::new(PROGRAM).with_file_name("container");
    if !container.exists() {
        eprintln!("skipped: needs the program container beside this one (cargo build -p container)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().join("here");
    let name = registry.name("app:2");
    store_with_image(&here, &name, 100);
    let image = |arguments: &[&str]| {
        let mut command = Command::new(&container);
        succeeds(
            &command
                .arg("image")
                .args(arguments)
                .env("CONTAINER_STORE", &here)
                .output()
                .unwrap(),
        )
    };
    image(&["push", &name]);
    image(&["rm", &name]);
    image(&["pull", &name]);
    assert!(image(&["ls"]).contains(&name));
}

#[test]
fn what_a_registry_lies_about_is_refused() {
    let Some(registry) = Registry::start("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    store_with_image(&here, "app:1", 3 << 20);
    let name = registry.name("app:1");
    succeeds(&program(&here, &["push", "app:1", &name]).output().unwrap());
    // Other bytes of the same size under the layer's name.
    let large = blobs(&here)
        .into_iter()
        .map(|blob| here.join("blobs/sha256").join(blob))
        .find(|blob| fs::metadata(blob).unwrap().len() > 1 << 20);
    let hex = large.unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let data = registry
        .directory
        .path()
        .join("data/docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(&hex)
        .join("data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[1 << 20] ^= 1;
    fs::write(&data, bytes).unwrap();
    let output = program(&there, &["pull", &name]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&hex), "{output:?}");
    assert!(
        Store::open(&there, Access::Shared)
            .unwrap()
            .entries()
            .unwrap()
            .is_empty()
    );
    // Nothing by that name, and nobody there.
    let output = program(&there, &["pull", &registry.name("nothing")]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot get the manifest"),
        "{output:?}"
    );
    let output = program(&there, &["push", "nothing"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no image"),
        "{output:?}"
    );
}

#[test]
fn killed_at_any_moment_a_pull_leaves_the_store_whole() {
    let Some(registry) = Registry::start("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    store_with_image(&here, "app:1", 20 << 20);
    let name = registry.name("app:1");
    succeeds(&program(&here, &["push", "app:1", &name]).output().unwrap());
    let start = Instant::now();
    succeeds(
        &program(&directory.path().join("timed"), &["pull", &name])
            .output()
            .unwrap(),
    );
    let whole = start.elapsed();
    const POINTS: u32 = 16;
    for point in 0..POINTS {
        let mut command = program(&there, &["pull", &name]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * point / POINTS);
        let _ = child.kill();
        child.wait().unwrap();
        let store = Store::open(&there, Access::Exclusive).unwrap();
        assert_eq!(fs::read_dir(there.join("tmp")).unwrap().count(), 0);
        // What has a name is whole, and what has none goes.
        for entry in store.entries().unwrap() {
            for blob in store.load(&entry).unwrap().blobs() {
                std::io::copy(&mut store.verified_blob(&blob).unwrap(), &mut std::io::sink()).unwrap();
            }
        }
        store.prune(true).unwrap();
        assert!(blobs(&there).is_empty());
    }
    succeeds(&program(&there, &["pull", &name]).output().unwrap());
}

#[test]
fn a_layer_is_never_in_memory_as_a_whole() {
    let Some(registry) = Registry::start("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    const SIZE: u64 = 200 << 20;
    store_with_image(&here, "large:1", SIZE);
    let name = registry.name("large:1");
    let peak = |mut command: Command| {
        #[allow(clippy::zombie_processes, reason = "wait4 waits, and says how much memory it was")]
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut status = 0;
        // SAFETY: all zero is a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes to the two variables whose addresses it is given.
        unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
        assert_eq!(status, 0);
        usage.ru_maxrss as u64 * 1024
    };
    for command in [
        program(&here, &["push", "large:1", &name]),
        program(&there, &["pull", &name]),
    ] {
        let peak = peak(command);
        assert!(peak < SIZE / 2, "{peak} bytes");
    }
}
