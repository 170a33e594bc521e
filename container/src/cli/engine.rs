//! The way to the other program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use container::command_line::ENGINE;
use protocol::status;

/// Becomes the program for named containers, images and volumes (execve), with the same words. Returns only if that
/// fails: a status, after an error message.
pub fn become_it(words: &[OsString]) -> u8 {
    let (name, arguments) = match words.split_first() {
        Some((name, arguments)) => (name.clone(), arguments),
        None => ("container".into(), words),
    };
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => {
            eprintln!(
                "container: cannot tell where this program is, beside which {ENGINE} is looked for: {error}. Is /proc mounted?"
            );
            return status::LAUNCHER_FAILED;
        }
    };
    let program = own.with_file_name(ENGINE);
    let error = Command::new(&program).arg0(name).args(arguments).exec();
    eprintln!(
        "container: cannot run {}, which does all but `container run --rootfs DIR`, `container run workload` and `container peel`: {error}. It belongs beside {} (cargo build -p container builds both)",
        program.display(),
        own.display()
    );
    status::LAUNCHER_FAILED
}
