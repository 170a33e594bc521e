//! What `workload whoami` saw, compared between two rungs.

use nix::errno::Errno;
use serde_json::Value;

/// What a program can see of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its own process id.
    pub pid: u64,
    /// Which table of processes that is from: the link of its pid namespace.
    pub pid_namespace: Option<String>,
    /// The host name.
    pub hostname: String,
    /// Processes in /proc.
    pub processes: Option<usize>,
    /// Network interfaces.
    pub interfaces: Option<Vec<String>>,
    /// How many mounts.
    pub mounts: Option<usize>,
    /// Its user map: first id inside, first outside, count.
    pub uid_map: Option<Vec<String>>,
    /// Its cgroups.
    pub cgroups: Option<Vec<String>>,
    /// Objects of interprocess communication.
    pub ipc_objects: Option<usize>,
}

impl Facts {
    /// From the lesson's JSON.
    pub fn read(output: &str) -> Option<Facts> {
        let told: Value = serde_json::from_str(output).ok()?;
        let texts = |name: &str| -> Option<Vec<String>> {
            told[name]
                .as_array()?
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        };
        let number = |name: &str| told[name].as_u64().map(|number| number as usize);
        Some(Facts {
            pid: told["pid"].as_u64()?,
            pid_namespace: texts("namespaces")
                .and_then(|links| links.into_iter().find(|link| link.starts_with("pid:"))),
            hostname: told["hostname"].as_str()?.to_owned(),
            processes: number("visible_processes"),
            interfaces: texts("network_interfaces"),
            mounts: told["mounts"].as_array().map(Vec::len),
            uid_map: texts("uid_map"),
            cgroups: texts("cgroups"),
            ipc_objects: number("ipc_objects"),
        })
    }

    /// Which id outside root inside is.
    pub fn root_outside(&self) -> Option<&str> {
        self.uid_map.as_ref()?.first()?.split(' ').nth(1)
    }

    /// The cgroup's path, where it is deepest.
    fn cgroup(&self) -> Option<&str> {
        let path = |line: &'_ str| line.splitn(3, ':').nth(2).map(str::len);
        let deepest = self.cgroups.as_ref()?.iter().max_by_key(|line| path(line))?;
        deepest.splitn(3, ':').nth(2)
    }

    /// All of them as sentences.
    pub fn sentences(&self) -> Vec<String> {
        let nothing = Facts {
            pid: 0,
            pid_namespace: None,
            hostname: String::new(),
            processes: None,
            interfaces: None,
            mounts: None,
            uid_map: None,
            cgroups: None,
            ipc_objects: None,
        };
        self.differences(&nothing)
    }

    /// What is seen other than in `above`.
    pub fn differences(&self, above: &Facts) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |what: &str, now: Option<String>, before: Option<String>| {
            if now != before
                && let Some(now) = now
            {
                let instead = before.filter(|before| !before.is_empty());
                lines.push(match instead {
                    Some(before) => format!("{what} {now} instead of {before}"),
                    None => format!("{what} {now}"),
                });
            }
        };
        let count = |count: Option<usize>, of: &str| count.map(|count| format!("{count} {of}"));
        let joined = |list: &Option<Vec<String>>| list.as_ref().map(|list| list.join(", "));
        // In one table of processes the numbers differ from moment to moment; another table is a difference of kind.
        if self.pid_namespace != above.pid_namespace {
            let pid = |facts: &Facts| (facts.pid > 0).then(|| facts.pid.to_string());
            say(
                "sees",
                count(self.processes, "processes"),
                count(above.processes, "processes"),
            );
            say("is pid", pid(self), pid(above));
        }
        say(
            "has the host name",
            Some(self.hostname.clone()),
            Some(above.hostname.clone()),
        );
        say(
            "has the interfaces",
            joined(&self.interfaces),
            joined(&above.interfaces),
        );
        say("sees", count(self.mounts, "mounts"), count(above.mounts, "mounts"));
        say(
            "sees",
            count(self.ipc_objects, "IPC objects"),
            count(above.ipc_objects, "IPC objects"),
        );
        if self.maps_alike() != above.maps_alike() || above.uid_map.is_none() {
            let root = |facts: &Facts| facts.root_outside().map(|uid| format!("uid {uid} of the host"));
            say("as root is", root(self), root(above));
        }
        let cgroup = |facts: &Facts| facts.cgroup().map(str::to_owned);
        say("is in the cgroup", cgroup(self), cgroup(above));
        lines
    }

    /// Whether ids inside are the host's own. Which range another container gets changes with every run.
    fn maps_alike(&self) -> bool {
        self.root_outside() == Some("0")
    }
}

/// A segment of shared memory on the host for as long as this lives: marked for removal already, it ends with the last
/// process that has it attached, whatever ends that.
pub struct SharedMemory(*mut libc::c_void);

impl SharedMemory {
    /// Makes one of one page.
    pub fn make() -> Result<SharedMemory, Errno> {
        // SAFETY: the calls take numbers, and a null pointer that leaves the choice of the address to the kernel.
        unsafe {
            let id = Errno::result(libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600))?;
            let address = libc::shmat(id, std::ptr::null(), 0);
            let attached = if address.addr() == usize::MAX {
                Err(Errno::last())
            } else {
                Ok(SharedMemory(address))
            };
            Errno::result(libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()))?;
            attached
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the address is the one shmat returned, and nothing refers to that memory.
        unsafe { libc::shmdt(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"pid":2,"namespaces":["pid:[1]"],"hostname":"lab","visible_processes":2,"network_interfaces":["lo"],
        "mounts":[{},{}],"uid_map":["0 600000 65536"],"cgroups":["4:pids:/","0::/"],"ipc_objects":0}"#;

    #[test]
    fn only_what_differs_is_said() {
        let whole = Facts::read(WHOLE).unwrap();
        let mut other = whole.clone();
        assert!(other.differences(&whole).is_empty());
        other.uid_map = Some(vec!["0 700000 65536".into()]);
        assert!(
            other.differences(&whole).is_empty(),
            "another range is no difference of kind"
        );
        other.processes = Some(74);
        assert!(other.differences(&whole).is_empty(), "the same table, a moment later");
        other.pid_namespace = Some("pid:[2]".into());
        other.pid = 2101;
        other.cgroups = Some(vec!["4:pids:/user/session".into(), "0::/".into()]);
        assert_eq!(
            other.differences(&whole),
            [
                "sees 74 processes instead of 2 processes",
                "is pid 2101 instead of 2",
                "is in the cgroup /user/session instead of /"
            ]
        );
        other.uid_map = Some(vec!["0 0 4294967295".into()]);
        assert!(
            other
                .differences(&whole)
                .contains(&"as root is uid 0 of the host instead of uid 600000 of the host".into())
        );
    }
}
