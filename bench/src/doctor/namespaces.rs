//! Kernel views: may this user make namespaces, and mount an overlay in one?

use std::process::{Command, Stdio};

use super::trial::Trial;
use super::{Finding, Standing};
use crate::host;

/// Settings that keep ordinary users from user namespaces: the file, the value that forbids, who has it.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("kernel.unprivileged_userns_clone", "0", "Debian and Arch kernels"),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "Ubuntu since 23.10",
    ),
    ("user.max_user_namespaces", "0", "RHEL and hardened hosts"),
];

/// Everything about namespaces.
pub fn examine() -> Vec<Finding> {
    vec![switches(), user_namespace(), overlay()]
}

fn switches() -> Finding {
    let found: Vec<String> = SWITCHES
        .iter()
        .map(|(name, ..)| format!("{name}={}", setting(name).unwrap_or_else(|| "(absent)".into())))
        .collect();
    let (name, found) = ("namespace switches", found.join(", "));
    match forbidding() {
        Some((switch, value, whose)) => Finding::new(
            name,
            Standing::Limited,
            found,
            format!("{switch}={value} ({whose}) keeps ordinary users from user namespaces; root is not affected."),
        )
        .fix(format!("sudo sysctl {switch}={}", permitting(switch))),
        None => Finding::new(name, Standing::Good, found, "No setting here forbids user namespaces."),
    }
}

fn user_namespace() -> Finding {
    let name = "namespaces";
    match attempt(Trial::Namespaces) {
        Ok(()) => Finding::new(
            name,
            Standing::Good,
            "user, mount, pid, uts, ipc, net and cgroup namespaces made in a child",
            "`container` needs no root here.",
        ),
        Err(problem) => {
            let finding = Finding::new(name, Standing::Missing, problem, "`container` cannot run as this user.");
            finding.fix(match forbidding() {
                Some((switch, ..)) => format!("sudo sysctl {switch}={}", permitting(switch)),
                None => {
                    "look for a container engine, seccomp filter or security module around this shell that forbids \
                         it (docker: --security-opt seccomp=unconfined), or run as root"
                        .into()
                }
            })
        }
    }
}

fn overlay() -> Finding {
    let name = "overlay in a user namespace";
    match attempt(Trial::Overlay) {
        Ok(()) => Finding::new(
            name,
            Standing::Good,
            "mounted in a child, written through, gone with it",
            "A container's root can be a throw-away layer over a directory nobody changes.",
        ),
        Err(problem) => Finding::new(
            name,
            Standing::Missing,
            problem,
            "`container` cannot give its program a writable view of the image.",
        )
        .fix("use Linux 5.11 or newer with the overlay module (sudo modprobe overlay)"),
    }
}

/// Has a child process make the attempt, so that its namespaces and mounts go when it goes.
fn attempt(trial: Trial) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program again: {error}"))?;
    let output = Command::new(program)
        .args([super::trial::SUBCOMMAND, trial.name()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start a child: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn forbidding() -> Option<(&'static str, &'static str, &'static str)> {
    SWITCHES
        .into_iter()
        .find(|(name, value, _)| setting(name).as_deref() == Some(*value))
}

fn permitting(switch: &str) -> &'static str {
    match switch {
        "kernel.unprivileged_userns_clone" => "1",
        "user.max_user_namespaces" => "15000",
        _ => "0",
    }
}

/// The value of a sysctl: `a.b` is the file /proc/sys/a/b.
fn setting(name: &str) -> Option<String> {
    host::word(&format!("/proc/sys/{}", name.replace('.', "/")))
}
