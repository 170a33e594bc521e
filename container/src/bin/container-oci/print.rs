//! Lists, for people and for programs.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};
use container::oci::{self, StateRoot};
use container::say;
use serde_json::json;

use crate::arguments::{ListArguments, ListFormat, PsArguments};

/// `list`: the columns and members are runc's.
pub fn list(root: &StateRoot, arguments: &ListArguments) -> anyhow::Result<()> {
    let containers = root.list()?;
    if arguments.quiet {
        containers.iter().for_each(|container| say!("{}", container.state.id));
        return Ok(());
    }
    if arguments.format == ListFormat::Json {
        let member = |container: &oci::Container| {
            json!({
                "ociVersion": container.state.oci_version,
                "id": container.state.id,
                "pid": container.pid(),
                "status": container.status(),
                "bundle": container.state.bundle,
                "rootfs": container.state.rootfs,
                "created": container.state.created,
                "annotations": container.state.annotations,
                "owner": owner(container.state.owner),
            })
        };
        say!("{}", serde_json::Value::Array(containers.iter().map(member).collect()));
        return Ok(());
    }
    let row = |container: &oci::Container| {
        [
            container.state.id.clone(),
            container.pid().to_string(),
            container.status().to_string(),
            container.state.bundle.display().to_string(),
            container.state.created.clone(),
            owner(container.state.owner),
        ]
    };
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    rows.extend(containers.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say!("{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
    Ok(())
}

fn owner(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into());
    user.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// `ps`: the table is ps(1)'s own, without the lines of others.
pub fn processes(root: &StateRoot, arguments: &PsArguments) -> anyhow::Result<()> {
    let container = oci::state(root, &arguments.id)?;
    let mut pids: Vec<i32> = container
        .state
        .cgroups
        .processes()?
        .iter()
        .map(|pid| pid.as_raw())
        .collect();
    if container.state.cgroups.0.is_empty() && container.pid() != 0 {
        pids = members_of_pid_namespace(container.pid());
    }
    pids.sort_unstable();
    if arguments.format == ListFormat::Json {
        say!("{}", json!(pids));
        return Ok(());
    }
    let default = ["-ef".to_owned()];
    let options = if arguments.options.is_empty() {
        &default[..]
    } else {
        &arguments.options
    };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context("cannot run ps(1), which makes the table")?;
    if !output.status.success() {
        bail!(
            "ps {}: {}",
            options.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.context("the ps options must have a column PID")?;
    say!("{header}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            say!("{line}");
        }
    }
    Ok(())
}

/// For a container without cgroups: whoever shares its first process's pid namespace.
fn members_of_pid_namespace(first: i32) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let theirs = namespace(first);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| theirs.is_some() && namespace(pid) == theirs)
        .collect()
}
