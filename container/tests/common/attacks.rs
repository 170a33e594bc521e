//! What attacks from several sides have in common.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;

/// The number under which the tests leave a directory of the host's open.
pub const LEAKED: i32 = 7;

/// Leaves `directory` open as [`LEAKED`] in what `command` starts.
pub fn leak(command: &mut Command, directory: &Path) {
    let open = fs::File::open(directory).unwrap();
    // SAFETY: dup2 between fork and exec; the file is open until the command was started, since the closure owns it.
    unsafe {
        command.pre_exec(move || match libc::dup2(open.as_raw_fd(), LEAKED) {
            LEAKED => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
}

/// Puts a key into the session keyring of what `command` starts, which is inherited across fork and exec.
pub fn lend_a_key(command: &mut Command) {
    // SAFETY: system calls only, between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // KEYCTL_JOIN_SESSION_KEYRING (1), KEY_SPEC_SESSION_KEYRING (-3), possessor and user may read it.
            let joined = libc::syscall(libc::SYS_keyctl, 1, 0);
            let (kind, name, secret) = (c"user".as_ptr(), c"lab-secret".as_ptr(), c"hush".as_ptr());
            let key = libc::syscall(libc::SYS_add_key, kind, name, secret, 4, -3);
            let shared = libc::syscall(libc::SYS_keyctl, 5, key, 0x3f3f_3f3f_u32);
            if joined < 0 || key < 0 || shared < 0 {
                Err(std::io::Error::last_os_error())
            } else {
                Ok(())
            }
        })
    };
}

/// Says what the key is, or why it cannot be read: as an ignored test of its own, run by a probe.
pub fn tell_of_the_key() {
    let mut secret = [0u8; 4];
    // SAFETY: strings are NUL-terminated; the kernel writes at most the four bytes there are.
    let read = unsafe {
        // KEYCTL_SEARCH (10), KEYCTL_READ (11).
        let key = libc::syscall(libc::SYS_keyctl, 10, -3, c"user".as_ptr(), c"lab-secret".as_ptr(), 0);
        Errno::result(key)
            .and_then(|key| Errno::result(libc::syscall(libc::SYS_keyctl, 11, key, secret.as_mut_ptr(), 4)))
    };
    match read {
        Ok(_) => println!("\nprobe: key {}", String::from_utf8_lossy(&secret)),
        Err(errno) => println!("\nprobe: key {errno:?}"),
    }
}

/// Two programs in `directory` that are the process that executes them: `script` and `link` (CVE-2019-5736). What the
/// kernel starts for `#!/proc/self/exe` is what the process is now.
pub fn lead_to_the_launcher(directory: &Path) {
    let script = directory.join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/proc/self/exe", directory.join("link")).unwrap();
}

/// What changes with a file.
pub fn facts(file: &Path) -> (u32, u32, u64, i64, i64) {
    let data = fs::metadata(file).unwrap();
    (
        data.mode(),
        data.uid(),
        data.len(),
        data.mtime_nsec(),
        data.ctime_nsec(),
    )
}
