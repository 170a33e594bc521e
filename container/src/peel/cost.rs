//! What each namespace costs: clone3(2) with its flag, against clone3 without, taking turns.

use nix::errno::Errno;
use nix::unistd::{Pid, geteuid};
use protocol::marks::monotonic_ns;
use serde_json::{Value, json};

use super::Error;
use crate::clone::{Side, clone3};
use crate::namespaces::Namespace;

/// Rounds, each of which makes every clone once: odd, so that the median is one of them.
const ROUNDS: usize = 31;

/// Median times from clone3 to the child's end, in nanoseconds.
pub struct Costs {
    /// Without any namespace.
    none: u64,
    /// How far two series without any differ: what is smaller than this is noise.
    noise: u64,
    /// With each, above the one it is compared with.
    each: Vec<(Namespace, i64)>,
    /// Whether those of an ordinary user are in a user namespace, as they must be.
    in_user_namespace: bool,
}

impl Costs {
    /// Measures them, some 100 milliseconds.
    pub fn measure() -> Result<Costs, Error> {
        let in_user_namespace = !geteuid().is_root();
        let needed = if in_user_namespace {
            Namespace::User.clone_flag()
        } else {
            0
        };
        let flags = |namespace: Namespace| namespace.clone_flag() | needed;
        let mut sets = vec![0];
        sets.extend(Namespace::ALL.map(flags));
        // The same as the first once more: the null test.
        sets.push(0);
        let mut times = vec![Vec::new(); sets.len()];
        for round in 0..ROUNDS {
            let mut order: Vec<usize> = (0..sets.len()).collect();
            // Forwards and backwards in turn: a machine that grows slower does so for all alike.
            if round % 2 == 1 {
                order.reverse();
            }
            for i in order {
                times[i].push(clone_and_reap(sets[i])?);
            }
        }
        let medians: Vec<u64> = times.iter_mut().map(|times| median(times)).collect();
        let at = |flags: u64| sets.iter().position(|&set| set == flags).map_or(0, |i| medians[i]);
        let cost = |namespace: Namespace| {
            let base = if namespace == Namespace::User { 0 } else { needed };
            (namespace, at(flags(namespace)) as i64 - at(base) as i64)
        };
        Ok(Costs {
            none: at(0),
            noise: at(0).abs_diff(medians.last().copied().unwrap_or(0)),
            each: Namespace::ALL.into_iter().map(cost).collect(),
            in_user_namespace,
        })
    }

    /// A paragraph.
    pub fn text(&self) -> String {
        let mut text = format!(
            "\nWhat each costs: median of {ROUNDS} clones, taking turns, until the child is gone\n  no namespace  {:>6.0} µs\n",
            self.none as f64 / 1000.0
        );
        for (namespace, cost) in &self.each {
            text.push_str(&format!(
                "  {:<12}  {:>+6.0} µs\n",
                namespace.name(),
                *cost as f64 / 1000.0
            ));
        }
        text.push_str(&format!(
            "  (a second series without any differed by {:.0} µs: what is smaller is noise)\n",
            self.noise as f64 / 1000.0
        ));
        if self.in_user_namespace {
            text.push_str("  (all but user: in a user namespace, compared with that alone)\n");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let each: serde_json::Map<String, Value> = self
            .each
            .iter()
            .map(|(namespace, cost)| (namespace.name().to_owned(), Value::from(*cost)))
            .collect();
        json!({ "n": ROUNDS, "none_ns": self.none, "noise_ns": self.noise, "above_ns": each, "in_user_namespace": self.in_user_namespace })
    }
}

/// Nanoseconds from the call to the reaped child.
fn clone_and_reap(flags: u64) -> Result<u64, Error> {
    let began = monotonic_ns();
    match clone3(flags, None)? {
        // SAFETY: ends the child at once.
        Side::Container => unsafe { libc::_exit(0) },
        Side::Launcher { pid, .. } => {
            reap(pid).map_err(Error::Wait)?;
            Ok(monotonic_ns() - began)
        }
    }
}

fn reap(pid: Pid) -> Result<(), Errno> {
    loop {
        match nix::sys::wait::waitpid(pid, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}
