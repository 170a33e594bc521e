//! Hooks: programs an engine has run at six moments of a container's life (config.md, "POSIX-platform Hooks").
//!
//! | Hook | When | Where |
//! |---|---|---|
//! | `prestart`, `createRuntime` | the namespaces are there, the root is built, not yet entered | on the host |
//! | `createContainer` | right after | in the container's namespaces, still with the host's files |
//! | `startContainer` | `start` came, just before the program | in the container |
//! | `poststart` | the program runs | on the host |
//! | `poststop` | the container is deleted | on the host |
//!
//! Each gets the container's state on its standard input.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use oci_spec::runtime::Hook;
use thiserror::Error;

use crate::errno::{of, why};

/// Pause between two looks at a hook that has a time limit.
const PAUSE: Duration = Duration::from_millis(2);

/// How much of what a hook says on standard error goes into the message when it fails.
const LONGEST_WORDS: u64 = 4096;

/// Runs `hooks` in order, with `state` on standard input. The first one that fails ends it.
pub fn run(moment: &'static str, hooks: &[Hook], state: &serde_json::Value) -> Result<(), Error> {
    let state = state.to_string();
    hooks.iter().try_for_each(|hook| run_one(moment, hook, &state))
}

fn run_one(moment: &'static str, hook: &Hook, state: &str) -> Result<(), Error> {
    let failed = |why: Why| Error {
        moment,
        path: hook.path().clone(),
        why,
    };
    let io = |error: std::io::Error| failed(Why::Io(of(&error)));
    let mut command = Command::new(hook.path());
    // The first argument is the program's own name, as in execv(3).
    if let Some((name, arguments)) = hook.args().as_deref().unwrap_or_default().split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: setsid(2) and sigprocmask(2) are plain system calls, allowed between fork and exec. A group of its own
    // is what a hook that takes too long is ended by, with all it has started; and it is to find no signal blocked.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            crate::signals::restore_for_program(&nix::sys::signal::SigSet::empty())?;
            Ok(())
        })
    };
    let mut child = command.spawn().map_err(io)?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(state.as_bytes()) {
            // It need not read.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(io(error)),
            _ => {}
        }
    }
    let limit = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|&seconds| seconds > 0);
    let status = match limit {
        None => child.wait().map_err(io)?,
        Some(seconds) => match wait_at_most(&mut child, Duration::from_secs(seconds)).map_err(io)? {
            Some(status) => status,
            None => return Err(failed(Why::TooLong(seconds))),
        },
    };
    if status.success() {
        return Ok(());
    }
    Err(failed(Why::Status(status, words_of(&mut child))))
}

/// `None`: it took longer, and is killed.
fn wait_at_most(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > limit {
            let group = nix::unistd::Pid::from_raw(-(child.id() as i32));
            crate::signals::send(group, libc::SIGKILL);
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What it said. Not waited for: something it started may hold the pipe open for long.
fn words_of(child: &mut Child) -> String {
    let Some(stderr) = child.stderr.take() else {
        return String::new();
    };
    // Fails for a descriptor that is none.
    let _ = nix::fcntl::fcntl(&stderr, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK));
    let mut words = Vec::new();
    let _ = stderr.take(LONGEST_WORDS).read_to_end(&mut words);
    String::from_utf8_lossy(&words).trim().to_owned()
}

/// A hook that failed.
#[derive(Debug, Error)]
#[error("the {moment} hook {} failed: {why}", path.display())]
pub struct Error {
    moment: &'static str,
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Io(Errno),
    TooLong(u64),
    Status(ExitStatus, String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Io(errno) => write!(f, "{}. Its path must be absolute, and an executable's", why(errno)),
            Why::TooLong(seconds) => write!(f, "it took longer than its timeout of {seconds} s and was killed"),
            Why::Status(status, words) => {
                match status.signal() {
                    Some(signal) => write!(f, "it was ended by signal {signal}")?,
                    None => write!(f, "it exited with status {}", status.code().unwrap_or(-1))?,
                }
                if words.is_empty() {
                    Ok(())
                } else {
                    write!(f, ", saying: {words}")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hook(script: &str) -> Hook {
        serde_json::from_value(json!({
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["GREETING=hello"], "timeout": 1,
        }))
        .unwrap()
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_environment_only() {
        let script = r#"read -r state; [ "$state" = '{"id":"a"}' ] && [ "$GREETING" = hello ] && [ -z "$HOME" ]"#;
        run("poststop", &[hook(script)], &json!({"id": "a"})).unwrap();
    }

    #[test]
    fn a_failure_says_which_hook_and_what_it_said() {
        let error = run(
            "prestart",
            &[hook("exit 0"), hook("echo no luck >&2; exit 7")],
            &json!({}),
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("prestart") && text.contains("status 7") && text.contains("no luck"),
            "{text}"
        );
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        let error = run("prestart", &[hook("sleep 1000")], &json!({})).unwrap_err();
        assert!(error.to_string().contains("timeout of 1 s"), "{error}");
    }
}
