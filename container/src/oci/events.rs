//! `events`: what a container uses, and when it runs out of memory, as JSON lines of runc's shape.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;

use super::state::{self, StateRoot, Status};
use crate::cgroup::stats;

/// How often it is looked whether the container still runs, and whether memory ran out.
const LOOK: Duration = Duration::from_millis(100);

/// One report on container `id`.
pub fn stats(root: &StateRoot, id: &str) -> Result<Value, Error> {
    let container = root.open(id)?;
    if container.status() == Status::Stopped {
        return Err(Error::Stopped(id.to_owned()));
    }
    Ok(json!({ "type": "stats", "id": id, "data": stats::read(&container.state.cgroups) }))
}

/// Reports every `interval`, and at once when memory runs out, to `out`, until the container has stopped or nobody reads
/// any more.
pub fn follow(root: &StateRoot, id: &str, interval: Duration, out: &mut impl Write) -> Result<(), Error> {
    let mut say = |event: &Value| writeln!(out, "{event}").and_then(|()| out.flush());
    let cgroups = root.open(id)?.state.cgroups;
    let mut kills = stats::out_of_memory_kills(&cgroups);
    loop {
        let report = match stats(root, id) {
            Err(Error::Stopped(_) | Error::State(state::Error::Missing { .. })) => return Ok(()),
            other => other?,
        };
        if say(&report).is_err() {
            return Ok(());
        }
        let begin = Instant::now();
        while begin.elapsed() < interval {
            std::thread::sleep(LOOK.min(interval));
            let now = stats::out_of_memory_kills(&cgroups);
            if now > kills && say(&json!({ "type": "oom", "id": id })).is_err() {
                return Ok(());
            }
            kills = now;
            if !root
                .open(id)
                .is_ok_and(|container| container.status() != Status::Stopped)
            {
                return Ok(());
            }
        }
    }
}

/// Why there is nothing to report.
#[derive(Debug, Error)]
pub enum Error {
    /// It has ended.
    #[error("container {0} is stopped: it uses nothing")]
    Stopped(String),
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
}
